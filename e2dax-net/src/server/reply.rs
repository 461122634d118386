//! What goes out on a connection.

use std::io;
use std::sync::{Mutex, PoisonError};

use blockdev::Error;
use zerocopy::IntoBytes;

use crate::proto::{ChunkHeader, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, SimpleReply, chunk, errno};
use crate::stream::Stream;

/// The side of a connection on which replies are written, each whole.
#[derive(Debug)]
pub(super) struct Replies<'s> {
    stream: &'s Stream,
    structured: bool,
    turn: Mutex<()>,
}

/// The error of a device as the protocol has it.
pub(super) fn errno_of(error: &Error) -> u32 {
    match error {
        Error::OutOfRange { .. } => errno::INVAL,
        Error::ReadOnly => errno::PERM,
        Error::NoSpace { .. } => errno::NOSPC,
        Error::Unsupported(_) => errno::NOTSUP,
        _ => errno::IO,
    }
}

impl<'s> Replies<'s> {
    pub(super) fn new(stream: &'s Stream, structured: bool) -> Self {
        Self { stream, structured, turn: Mutex::new(()) }
    }

    pub(super) fn is_structured(&self) -> bool {
        self.structured
    }

    fn send(&self, header: &[u8], data: &[u8]) -> io::Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.stream.write_both(header, data)
    }

    /// A chunk whose payload is `head` and `data`.
    fn chunk(&self, cookie: u64, kind: u16, done: bool, head: &[u8], data: &[u8]) -> io::Result<()> {
        let header = ChunkHeader {
            magic: STRUCTURED_REPLY_MAGIC.into(),
            flags: if done { chunk::DONE } else { 0 }.into(),
            kind: kind.into(),
            cookie: cookie.into(),
            // OK to cast: pieces of data, and a thousand extents at most.
            len: ((head.len() + data.len()) as u32).into(),
        };
        self.send(&[header.as_bytes(), head].concat(), data)
    }

    /// That a request was done, which has no data.
    pub(super) fn done(&self, cookie: u64) -> io::Result<()> {
        if self.structured {
            self.chunk(cookie, chunk::NONE, true, b"", b"")
        } else {
            self.simple(cookie, 0, b"")
        }
    }

    /// That a request failed, and where in the device if that is known.
    pub(super) fn failed(&self, cookie: u64, code: u32, what: &str, offset: Option<u64>) -> io::Result<()> {
        if !self.structured {
            return self.simple(cookie, code, b"");
        }
        let what = what.as_bytes().get(..what.len().min(1024)).unwrap_or_default();
        // OK to cast: at most 1024.
        let mut head = [&code.to_be_bytes()[..], &(what.len() as u16).to_be_bytes(), what].concat();
        let kind = match offset {
            Some(offset) => {
                head.extend_from_slice(&offset.to_be_bytes());
                chunk::ERROR_OFFSET
            }
            None => chunk::ERROR,
        };
        self.chunk(cookie, kind, true, &head, b"")
    }

    /// All the data of a request, or an error, without chunks.
    pub(super) fn simple(&self, cookie: u64, error: u32, data: &[u8]) -> io::Result<()> {
        let header =
            SimpleReply { magic: SIMPLE_REPLY_MAGIC.into(), error: error.into(), cookie: cookie.into() };
        self.send(header.as_bytes(), data)
    }

    pub(super) fn data(&self, cookie: u64, offset: u64, data: &[u8], done: bool) -> io::Result<()> {
        self.chunk(cookie, chunk::OFFSET_DATA, done, &offset.to_be_bytes(), data)
    }

    pub(super) fn hole(&self, cookie: u64, offset: u64, len: u32, done: bool) -> io::Result<()> {
        let head = [&offset.to_be_bytes()[..], &len.to_be_bytes()].concat();
        self.chunk(cookie, chunk::OFFSET_HOLE, done, &head, b"")
    }

    pub(super) fn status(&self, cookie: u64, context: u32, extents: &[(u32, u32)]) -> io::Result<()> {
        let words = extents.iter().flat_map(|&(len, flags)| [len, flags]);
        let bytes: Vec<u8> = words.flat_map(u32::to_be_bytes).collect();
        self.chunk(cookie, chunk::BLOCK_STATUS, true, &context.to_be_bytes(), &bytes)
    }
}
