//! The whole file system against the whole model.

use ext2_core::{Ext2, Inode};

use super::model::{Content, Id, Model, Verdict};

/// Files up to this size are read as a whole; of larger ones what is data.
const WHOLE: u64 = 300_000;

/// Compares names, attributes and bytes of everything that has a name.
///
/// # Errors
/// The first difference.
pub(super) fn compare(fs: &Ext2, model: &Model) -> Verdict {
    for (path, id) in model.paths() {
        let named = |words: String| format!("{}: {words}", path.escape_ascii());
        let broken = |error: ext2_core::Error| format!("{}: {error}", path.escape_ascii());
        let inode = walk(fs, &path).map_err(broken)?;
        model.compare_attr(id, &inode.attr()).map_err(named)?;
        let mut xattrs = inode.xattrs().map_err(broken)?;
        xattrs.sort();
        if !xattrs.iter().map(|(name, value)| (name, value)).eq(&model.node(id).xattrs) {
            return Err(named(format!(
                "attributes {xattrs:?}, and the model says {:?}",
                model.node(id).xattrs
            )));
        }
        content(&inode, model, id).map_err(named)?;
    }
    Ok(())
}

/// The inode of a path, none of whose links is followed.
pub(super) fn walk(fs: &Ext2, path: &[u8]) -> ext2_core::Result<Inode> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    let mut at = fs.root()?;
    for name in names {
        at = at.lookup(name)?;
    }
    Ok(at)
}

fn content(inode: &Inode, model: &Model, id: Id) -> Verdict {
    let words = |error: ext2_core::Error| error.to_string();
    match &model.node(id).content {
        Content::File(size, _) => {
            let ranges = model.ranges(id);
            let block = inode.fs().geometry().block_size.bytes();
            let mut ours: Vec<std::ops::Range<u64>> = Vec::new();
            for run in inode.extents() {
                let run = run.map_err(words)?;
                let (start, end) = (run.start.get() * block, run.end().get() * block);
                match ours.last_mut() {
                    Some(last) if last.end == start => last.end = end,
                    _ => ours.push(start..end),
                }
            }
            if ours != ranges {
                return Err(format!("data at {ours:?}, and the model says {ranges:?}"));
            }
            let whole = std::iter::once(0..*size).filter(|_| *size <= WHOLE);
            for range in whole.chain(ranges) {
                let len = (range.end.min(*size) - range.start) as usize;
                let mut bytes = vec![0xee; len];
                let got = inode.read_at(range.start, &mut bytes).map_err(words)?;
                let wanted = model.read(id, range.start, len as u32);
                if bytes[..got] != wanted[..] {
                    let at = bytes.iter().zip(&wanted).position(|(ours, models)| ours != models);
                    return Err(format!(
                        "{got} bytes of {}, which differ at {at:?} from {}",
                        wanted.len(),
                        range.start
                    ));
                }
            }
            Ok(())
        }
        Content::Directory(names) => {
            let mut ours = Vec::new();
            for entry in inode.entries(0).map_err(words)? {
                let entry = entry.map_err(words)?;
                if !matches!(&entry.name[..], b"." | b"..") {
                    ours.push((entry.name.into_bytes(), entry.nr.get()));
                }
            }
            ours.sort();
            let models: Vec<_> = names.iter().map(|(name, id)| (name.clone(), model.node(*id).nr)).collect();
            if ours == models {
                Ok(())
            } else {
                Err(format!("names {ours:?}, and the model says {models:?}"))
            }
        }
        Content::Symlink(target) => match inode.read_link().map_err(words)? {
            ours if ours == *target => Ok(()),
            ours => Err(format!("leads to {}", ours.escape_ascii())),
        },
        Content::Special => Ok(()),
    }
}
