//! Sparse members of an archive: in GNU's own header, and in the form 1.0 of extended headers.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use ext2_image::manifest::ByteSpan;

/// Where the pieces of a sparse member lie in the archive: one after the other.
#[derive(Debug)]
pub(super) struct Map {
    size: u64,
    /// Pieces of the file, ascending, with their places in the archive.
    pieces: Vec<(ByteSpan, u64)>,
}

/// Bytes of a block of an archive.
const BLOCK: u64 = 512;
/// Pieces that a member may have: more than any archive needs, and no reason to run out of memory.
const MOST: usize = 1 << 20;

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("its map of a sparse member is broken: {what}"))
}

impl Map {
    fn new(size: u64, spans: Vec<ByteSpan>, mut at: u64) -> io::Result<Self> {
        let mut pieces: Vec<(ByteSpan, u64)> = Vec::with_capacity(spans.len());
        let mut end = 0_u64;
        for span in spans.into_iter().filter(|span| span.length > 0) {
            let next = span.offset.checked_add(span.length).filter(|&next| next <= size);
            if span.offset < end {
                return Err(broken("its pieces are in disorder"));
            }
            end = next.ok_or_else(|| broken("a piece lies past the end"))?;
            pieces.push((span, at));
            at = at.checked_add(span.length).ok_or_else(|| broken("a piece is too long"))?;
        }
        Ok(Self { size, pieces })
    }

    /// Of a member of GNU's type `S` whose data, further blocks of the map before it, begins at `at`.
    pub(super) fn of_gnu(header: &tar::Header, file: &File, mut at: u64) -> io::Result<Self> {
        let gnu = header.as_gnu().ok_or_else(|| broken("it has no header of GNU's"))?;
        let mut spans = Vec::new();
        let mut take = |sparse: &tar::GnuSparseHeader| -> io::Result<()> {
            if !sparse.is_empty() {
                spans.push(ByteSpan { offset: sparse.offset()?, length: sparse.length()? });
            }
            if spans.len() > MOST { Err(broken("it has too many pieces")) } else { Ok(()) }
        };
        gnu.sparse.iter().try_for_each(&mut take)?;
        let mut more = gnu.is_extended();
        while more {
            let mut further = tar::GnuExtSparseHeader::new();
            file.read_exact_at(further.as_mut_bytes(), at)?;
            further.sparse().iter().try_for_each(&mut take)?;
            more = further.is_extended();
            at += BLOCK;
        }
        Self::new(gnu.real_size()?, spans, at)
    }

    /// Of a member in the form 1.0, whose data begins at `at` with the map as decimal numbers, one a line.
    pub(super) fn of_pax(file: &File, at: u64, size: u64) -> io::Result<Self> {
        let (mut numbers, mut block, mut read) = (Vec::new(), [0; BLOCK as usize], 0);
        let (mut number, mut wanted) = (0_u64, 1);
        while numbers.len() < wanted {
            file.read_exact_at(&mut block, at + read)?;
            read += BLOCK;
            for &byte in &block {
                match byte {
                    _ if numbers.len() == wanted => break,
                    b'0'..=b'9' => {
                        let tens = number.checked_mul(10);
                        let next = tens.and_then(|tens| tens.checked_add(u64::from(byte - b'0')));
                        number = next.ok_or_else(|| broken("a number is too large"))?;
                    }
                    b'\n' => {
                        if numbers.is_empty() {
                            let count = usize::try_from(number).ok().filter(|&count| count <= MOST);
                            wanted = 1 + 2 * count.ok_or_else(|| broken("it has too many pieces"))?;
                        }
                        numbers.push(std::mem::take(&mut number));
                    }
                    _ => return Err(broken("it is not made of numbers")),
                }
            }
        }
        let spans = numbers.get(1..).unwrap_or_default().chunks_exact(2);
        let spans = spans.map(|pair| ByteSpan { offset: pair[0], length: pair[1] }).collect();
        Self::new(size, spans, at + read)
    }

    /// Bytes of the file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Where its data is.
    pub(super) fn data(&self) -> Vec<ByteSpan> {
        self.pieces.iter().map(|piece| piece.0).collect()
    }

    /// Fills `buf` from byte `offset` of the file, zeros where it has a hole.
    pub(super) fn read_at(&self, file: &File, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        let end = offset.saturating_add(buf.len() as u64);
        let first = self.pieces.partition_point(|(span, _)| span.offset + span.length <= offset);
        for (span, at) in self.pieces.iter().skip(first).take_while(|(span, _)| span.offset < end) {
            let (from, to) = (offset.max(span.offset), end.min(span.offset + span.length));
            // Both lie within `buf`: fits.
            let part = &mut buf[(from - offset) as usize..(to - offset) as usize];
            file.read_exact_at(part, at + (from - span.offset))?;
        }
        Ok(())
    }
}
