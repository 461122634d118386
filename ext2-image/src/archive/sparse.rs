//! Sparse members of an archive: where their pieces lie, in each of the four forms in which that is told.
//!
//! | form | the map is |
//! |---|---|
//! | GNU's own | in the header and in blocks that follow it |
//! | pax 0.0 | records `GNU.sparse.offset` and `GNU.sparse.numbytes`, again and again |
//! | pax 0.1 | one record `GNU.sparse.map` |
//! | pax 1.0 | decimal numbers, one a line, at the beginning of the data |

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::header::BLOCK;
use super::number;
use crate::manifest::ByteSpan;

/// Pieces that a member may have: more than any archive needs, and no reason to run out of memory.
const MOST: usize = 1 << 20;

/// Where the pieces of a sparse member lie in the archive: one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseMap {
    size: u64,
    /// Pieces of the file, ascending, with their places in the archive.
    pieces: Vec<(ByteSpan, u64)>,
}

/// What extended headers say of a sparse member.
#[derive(Clone, Debug, Default)]
pub(super) struct Described {
    /// The name; the header has a made-up one.
    pub(super) name: Option<Vec<u8>>,
    /// Bytes of the whole file.
    size: Option<u64>,
    major: u64,
    minor: u64,
    /// Offsets and lengths by turns.
    numbers: Option<Vec<u64>>,
    is_there: bool,
}

impl Described {
    /// A record, its key without `GNU.sparse.`; `None` where the value makes no sense.
    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let number = || number::of_decimal(value).and_then(|number| u64::try_from(number).ok());
        self.is_there = true;
        match key {
            b"major" => self.major = number()?,
            b"minor" => self.minor = number()?,
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(number()?),
            b"map" => {
                let all = value.split(|&byte| byte == b',').filter(|word| !word.is_empty());
                let all = all.map(|word| number::of_decimal(word).and_then(|nr| u64::try_from(nr).ok()));
                self.numbers = Some(all.take(2 * MOST + 1).collect::<Option<Vec<_>>>()?);
            }
            b"offset" | b"numbytes" => {
                let numbers = self.numbers.get_or_insert_default();
                if numbers.len() >= 2 * MOST || numbers.len() % 2 != usize::from(key == b"numbytes") {
                    return None;
                }
                numbers.push(number()?);
            }
            // How many there are shows.
            _ => {}
        }
        Some(())
    }

    /// Bytes that the map takes as it is told.
    pub(super) fn len(&self) -> usize {
        self.numbers.as_ref().map_or(0, |numbers| numbers.len() * size_of::<u64>())
    }

    /// Whether the member is sparse.
    pub(super) fn is_sparse(&self) -> bool {
        self.is_there
    }

    /// The map of the member whose `stored` bytes begin at `at`.
    pub(super) fn map(&self, file: &File, at: u64, stored: u64) -> Result<SparseMap, String> {
        let size = self.size.ok_or_else(|| broken("its size is missing"))?;
        match (self.major, &self.numbers) {
            (0, Some(numbers)) if numbers.len().is_multiple_of(2) => {
                SparseMap::new(size, pairs(numbers), at, stored)
            }
            (0, None) => SparseMap::new(size, Vec::new(), at, stored),
            (1, _) => SparseMap::of_lines(file, at, size, stored),
            (0, Some(_)) => Err(broken("an offset has no length")),
            (major, _) => Err(format!(
                "is a sparse file of the form {major}.{}: 0.0, 0.1, 1.0 and GNU's are known",
                self.minor
            )),
        }
    }
}

fn broken(what: &str) -> String {
    format!("its map of a sparse file is broken: {what}")
}

fn pairs(numbers: &[u64]) -> Vec<(u64, u64)> {
    numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

impl SparseMap {
    /// A file of `size` bytes with these pieces (offset, length), which lie in the archive one after the other from
    /// `at` on and have `stored` bytes in all.
    pub(super) fn new(size: u64, pairs: Vec<(u64, u64)>, at: u64, stored: u64) -> Result<Self, String> {
        let mut pieces: Vec<(ByteSpan, u64)> = Vec::with_capacity(pairs.len());
        if pairs.len() > MOST {
            return Err(broken("it has too many pieces"));
        }
        let (mut end, mut place) = (0_u64, at);
        for (offset, length) in pairs.into_iter().filter(|&(_, length)| length > 0) {
            let next = offset.checked_add(length).filter(|&next| next <= size);
            if offset < end {
                return Err(broken("its pieces are in disorder"));
            }
            end = next.ok_or_else(|| broken("a piece lies past the end of the file"))?;
            pieces.push((ByteSpan { offset, length }, place));
            place = place.checked_add(length).ok_or_else(|| broken("a piece is too long"))?;
        }
        if place - at > stored {
            return Err(broken("it tells of more bytes than are stored"));
        }
        Ok(Self { size, pieces })
    }

    /// The map of the form 1.0, at the beginning of the data.
    fn of_lines(file: &File, at: u64, size: u64, stored: u64) -> Result<Self, String> {
        let (mut numbers, mut block, mut read) = (Vec::new(), [0; BLOCK], 0);
        let (mut number, mut wanted) = (0_u64, 1);
        while numbers.len() < wanted {
            if read >= stored {
                return Err(broken("it does not end"));
            }
            file.read_exact_at(&mut block, at + read).map_err(|error| error.to_string())?;
            read += BLOCK as u64;
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
                        numbers.push(core::mem::take(&mut number));
                    }
                    _ => return Err(broken("it is not made of numbers")),
                }
            }
        }
        let left = stored.checked_sub(read).ok_or_else(|| broken("it does not end"))?;
        Self::new(size, pairs(numbers.get(1..).unwrap_or_default()), at + read, left)
    }

    /// Bytes of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where its data is, ascending and apart.
    #[must_use]
    pub fn data(&self) -> Vec<ByteSpan> {
        self.pieces.iter().map(|piece| piece.0).collect()
    }

    /// Fills `buf` from byte `offset` of the file, with zeros where it has a hole.
    ///
    /// # Errors
    /// Those of reading the archive.
    pub fn read_at(&self, archive: &File, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        let end = offset.saturating_add(buf.len() as u64);
        let first = self.pieces.partition_point(|(span, _)| span.offset + span.length <= offset);
        for (span, at) in self.pieces.iter().skip(first).take_while(|(span, _)| span.offset < end) {
            let (from, to) = (offset.max(span.offset), end.min(span.offset + span.length));
            // Both lie within `buf`: fits.
            let part = &mut buf[(from - offset) as usize..(to - offset) as usize];
            archive.read_exact_at(part, at + (from - span.offset))?;
        }
        Ok(())
    }
}
