//! Replies, put together as their chunks come.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::negotiate::broken;
use crate::proto::{MAX_DATA, chunk, errno};

/// Most bytes of a chunk that has no data.
const MAX_CHUNK: u32 = 1 << 20;

/// Most chunks of a reply that bring nothing new.
const MAX_IDLE: u32 = 100;

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// That it is done.
    Done,
    /// Bytes from an offset.
    Data { offset: u64, len: u32 },
    /// Extents, by the number of their context.
    Status { context: u32 },
}

/// A request that the server did not carry out.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) errno: u32,
    pub(super) what: String,
}

/// What came of a request so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    /// Where nobody gave a buffer.
    pub(super) data: Vec<u8>,
    /// Bytes of data that came: by where each run of them begins, where it ends. Runs that touch are one.
    got: BTreeMap<u64, u64>,
    pub(super) extents: Vec<(u32, u32)>,
    pub(super) refused: Option<Refused>,
    /// Chunks that had no data.
    idle: u32,
}

impl Reply {
    /// Puts data from the stream where it belongs: into `buf`, if there is one.
    fn fill(
        &mut self,
        want: Want,
        at: u64,
        len: u32,
        buf: Option<&mut [u8]>,
        input: Option<&mut dyn Read>,
    ) -> io::Result<()> {
        let outside = || broken("the server sends data that was not asked for");
        let Want::Data { offset, len: wanted } = want else { return Err(outside()) };
        let start = at.checked_sub(offset).ok_or_else(outside)?;
        let end = start.checked_add(len.into()).filter(|&end| end <= wanted.into()).ok_or_else(outside)?;
        self.arrived(start, end)?;
        let whole = match buf {
            Some(buf) => buf,
            None => {
                self.data.resize(wanted as usize, 0);
                &mut self.data
            }
        };
        // OK to cast: at most what was wanted.
        let place = whole.get_mut(start as usize..end as usize).ok_or_else(outside)?;
        match input {
            Some(input) => input.read_exact(place)?,
            None => place.fill(0),
        }
        Ok(())
    }

    /// Notes that a range came, which comes once.
    fn arrived(&mut self, start: u64, end: u64) -> io::Result<()> {
        if start == end {
            return Err(broken("a chunk of the server's reply has no data"));
        }
        let before = self.got.range(..end).next_back().map(|(&from, &to)| (from, to));
        let from = match before {
            Some((_, to)) if to > start => return Err(broken("the server sends data twice")),
            Some((from, to)) if to == start => from,
            _ => start,
        };
        let end = self.got.remove(&end).unwrap_or(end);
        self.got.insert(from, end);
        Ok(())
    }

    /// A reply that is not in chunks; it is the whole one.
    pub(super) fn simple(
        &mut self,
        want: Want,
        error: u32,
        buf: Option<&mut [u8]>,
        input: &mut dyn Read,
    ) -> io::Result<()> {
        if error != 0 {
            self.refuse(error, "");
            return Ok(());
        }
        match want {
            Want::Data { len: 0, .. } => Ok(()),
            Want::Data { offset, len } => self.fill(want, offset, len, buf, Some(input)),
            Want::Done => Ok(()),
            Want::Status { .. } => Err(broken("the server answers a question for extents without any")),
        }
    }

    /// A chunk of `len` bytes behind its header.
    pub(super) fn chunk(
        &mut self,
        want: Want,
        kind: u16,
        len: u32,
        buf: Option<&mut [u8]>,
        input: &mut dyn Read,
    ) -> io::Result<()> {
        let short = || broken("a chunk of the server's reply is too short");
        if kind == chunk::OFFSET_DATA {
            let data = len.checked_sub(8).filter(|&data| data <= MAX_DATA).ok_or_else(short)?;
            let mut at = [0; 8];
            input.read_exact(&mut at)?;
            return self.fill(want, u64::from_be_bytes(at), data, buf, Some(input));
        }
        if len > MAX_CHUNK {
            return Err(broken("a chunk of the server's reply is too long"));
        }
        if kind != chunk::OFFSET_HOLE {
            self.idle += 1;
        }
        if self.idle > MAX_IDLE {
            return Err(broken("the server's reply is without end"));
        }
        let mut bytes = vec![0; len as usize];
        input.read_exact(&mut bytes)?;
        let word = |at: usize| {
            let word = bytes.get(at..).and_then(|bytes| bytes.first_chunk::<4>()).ok_or_else(short);
            word.map(|word| u32::from_be_bytes(*word))
        };
        match kind {
            chunk::NONE => {}
            chunk::OFFSET_HOLE => {
                let at = u64::from(word(0)?) << 32 | u64::from(word(4)?);
                self.fill(want, at, word(8)?, buf, None)?;
            }
            chunk::BLOCK_STATUS => {
                if want == (Want::Status { context: word(0)? }) {
                    if !self.extents.is_empty() {
                        return Err(broken("the server tells extents twice"));
                    }
                    let (pairs, _) = bytes.get(4..).unwrap_or_default().as_chunks::<8>();
                    let pair = |pair: &[u8; 8]| {
                        let both = u64::from_be_bytes(*pair);
                        // The halves of it.
                        ((both >> 32) as u32, both as u32)
                    };
                    self.extents.extend(pairs.iter().map(pair));
                }
            }
            // All errors begin with the number and a text; kinds that are not known, too.
            kind if kind >> 15 == 1 => {
                let number = word(0)?;
                let text = bytes.get(4..6).and_then(|len| {
                    let len = u16::from_be_bytes(len.try_into().ok()?);
                    bytes.get(6..6 + usize::from(len))
                });
                self.refuse(number, &String::from_utf8_lossy(text.unwrap_or_default()));
            }
            _ => return Err(broken("a chunk of the server's reply is of no kind that is known")),
        }
        Ok(())
    }

    fn refuse(&mut self, number: u32, text: &str) {
        let number = if number == 0 { errno::IO } else { number };
        let text: String = text.chars().filter(|sign| !sign.is_control()).take(200).collect();
        let what = if text.is_empty() {
            // OK to cast: numbers of errors are small; others are no error that is known.
            let known = io::Error::from_raw_os_error(number as i32).to_string();
            known.split(" (os error").next().unwrap_or("error").to_owned()
        } else {
            text
        };
        self.refused.get_or_insert(Refused { errno: number, what });
    }

    /// Says when it is complete: all bytes came, or an error did.
    pub(super) fn finish(&self, want: Want) -> io::Result<()> {
        match want {
            _ if self.refused.is_some() => Ok(()),
            Want::Data { len, .. } if len > 0 && self.got.get(&0) != Some(&u64::from(len)) => {
                Err(broken("the server leaves bytes out that were asked for"))
            }
            Want::Status { .. } if self.extents.is_empty() => Err(broken("the server gives no extents")),
            _ => Ok(()),
        }
    }
}
