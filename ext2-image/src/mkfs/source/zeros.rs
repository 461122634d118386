//! Runs of zeros in files that have blocks for them: what `--sparse` turns into holes.

use crate::manifest::ByteSpan;
use crate::mkfs::{Body, Contents, Result, SourceFile, Tree};

/// Bytes that are looked at together.
const CHUNK: usize = 1 << 20;

/// Reads every file of `tree` and lets its blocks of `block` bytes that are all zero be holes. `progress` hears how
/// many bytes were read so far.
///
/// # Errors
/// `Source`.
pub fn find_holes(
    tree: &mut Tree,
    contents: &mut dyn Contents,
    block: usize,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    for node in tree.ids() {
        let Body::File { size, data, handle } = tree.body(node).clone() else { continue };
        let whole = [ByteSpan { offset: 0, length: size }];
        let spans = data.as_deref().unwrap_or(&whole);
        if size == 0 || spans.is_empty() {
            continue;
        }
        contents.open(&SourceFile { tree, node, size, handle })?;
        let mut found: Vec<ByteSpan> = Vec::new();
        for span in spans {
            // From whole blocks on, so that a hole is one wherever data begins.
            let mut at = span.offset - span.offset % block as u64;
            let end = span.offset.saturating_add(span.length).min(size);
            while at < end {
                let len = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
                contents.read_at(at, &mut buffer[..len])?;
                for (nr, bytes) in buffer[..len].chunks(block).enumerate() {
                    if crate::zeros::is_zero(bytes) {
                        continue;
                    }
                    let (offset, length) = (at + (nr * block) as u64, bytes.len() as u64);
                    match found.last_mut() {
                        Some(last) if last.offset + last.length >= offset => {
                            last.length = offset + length - last.offset;
                        }
                        _ => found.push(ByteSpan { offset, length }),
                    }
                }
                at += len as u64;
                done += len as u64;
                progress(done);
            }
        }
        // The sums of contents that are checked cover the whole file: they are checked when it is copied.
        contents.abandon();
        let dense = matches!(found.as_slice(), [span] if span.offset == 0 && span.length == size);
        let data = (!dense).then(|| found.into());
        let attrs = tree.attrs(node).clone();
        tree.replace(node, attrs, Body::File { size, data, handle })?;
    }
    Ok(())
}
