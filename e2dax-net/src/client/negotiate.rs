//! The negotiation, from the client's side.

use std::io::{self, Read, Write};

use zerocopy::{FromZeros, IntoBytes};

use crate::proto::{
    ALLOCATION, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, INIT_MAGIC, MAX_DATA, OPTION_MAGIC, OPTION_REPLY_MAGIC,
    OptionHeader, OptionReply, can, info, opt, rep,
};
use crate::stream::Stream;

/// Most bytes of an answer: names and descriptions.
const MAX_ANSWER: u32 = 64 << 10;

/// What the server said of the export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) size: u64,
    pub(super) flags: u16,
    /// Bytes of the least request, and of the largest.
    pub(super) min_block: u32,
    pub(super) max_block: u32,
    pub(super) structured: bool,
    /// The number of `base:allocation`.
    pub(super) status: Option<u32>,
}

pub(super) fn broken(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn be16(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?))
}

fn be32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?))
}

fn be64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?))
}

struct Answer {
    kind: u32,
    data: Vec<u8>,
}

impl Answer {
    /// An error of the server in words.
    fn refusal(&self) -> Option<io::Error> {
        if self.kind & rep::ERR == 0 {
            return None;
        }
        let own = String::from_utf8_lossy(self.data.get(..self.data.len().min(1024)).unwrap_or_default());
        let own: String = own.chars().filter(|sign| !sign.is_control()).collect();
        let what = match self.kind {
            rep::ERR_UNKNOWN => "there is no such export",
            rep::ERR_TLS_REQD => "the server wants TLS: nbds",
            rep::ERR_UNSUP => "the server does not know what was asked",
            _ => "the server refuses",
        };
        let text = if own.is_empty() { what.to_owned() } else { format!("{what} ({own})") };
        Some(io::Error::new(io::ErrorKind::ConnectionRefused, text))
    }
}

fn ask(stream: &Stream, option: u32, data: &[u8]) -> io::Result<()> {
    let header = OptionHeader {
        magic: OPTION_MAGIC.into(),
        option: option.into(),
        // OK to cast: a name and a few numbers.
        len: (data.len() as u32).into(),
    };
    stream.write_both(header.as_bytes(), data)
}

fn answer(mut stream: &Stream, option: u32) -> io::Result<Answer> {
    let mut header = OptionReply::new_zeroed();
    stream.read_exact(header.as_mut_bytes())?;
    if header.magic.get() != OPTION_REPLY_MAGIC || header.option.get() != option {
        return Err(broken("what the server sends is no answer to what was asked"));
    }
    if header.len.get() > MAX_ANSWER {
        return Err(broken("the server's answer is too long"));
    }
    let mut data = vec![0; header.len.get() as usize];
    stream.read_exact(&mut data)?;
    Ok(Answer { kind: header.kind.get(), data })
}

/// Greets the server, which has to speak fixed newstyle.
pub(super) fn greet(stream: &Stream) -> io::Result<u16> {
    let mut io = stream;
    let mut hello = [0; 18];
    io.read_exact(&mut hello)?;
    let (magic, style) = (be64(&hello), hello.get(8..).and_then(be64));
    if magic != Some(INIT_MAGIC) {
        return Err(broken("is no NBD server"));
    }
    let theirs = hello.get(16..).and_then(be16).unwrap_or_default();
    if style != Some(OPTION_MAGIC) || theirs & FLAG_FIXED_NEWSTYLE == 0 {
        return Err(broken("the server speaks an older protocol than fixed newstyle"));
    }
    let ours = theirs & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
    io.write_all(&u32::from(ours).to_be_bytes())?;
    Ok(ours)
}

/// Asks for TLS, before anything else; what follows the answer is the handshake.
#[cfg(feature = "tls")]
pub(super) fn ask_for_tls(stream: &Stream) -> io::Result<()> {
    ask(stream, opt::STARTTLS, b"")?;
    match answer(stream, opt::STARTTLS)? {
        Answer { kind: rep::ACK, data } if data.is_empty() => Ok(()),
        // What it says in the clear is nobody's word.
        _ => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the server has no TLS")),
    }
}

fn named(export: &str) -> Vec<u8> {
    // OK to cast: at most 4096.
    let mut bytes = (export.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(export.as_bytes());
    bytes
}

/// Chooses the export, after [`greet`].
pub(super) fn choose(stream: &Stream, flags: u16, export: &str) -> io::Result<Settled> {
    ask(stream, opt::STRUCTURED_REPLY, b"")?;
    let answered = answer(stream, opt::STRUCTURED_REPLY)?;
    let structured = answered.kind == rep::ACK;
    if answered.kind == rep::ERR_TLS_REQD {
        // Nothing else would be answered.
        return Err(answered.refusal().unwrap_or_else(|| broken("the server wants TLS")));
    }
    let status = if structured { choose_status(stream, export)? } else { None };
    let mut data = named(export);
    data.extend_from_slice(&1_u16.to_be_bytes());
    data.extend_from_slice(&info::BLOCK_SIZE.to_be_bytes());
    ask(stream, opt::GO, &data)?;
    let mut settled = Settled { size: 0, flags: 0, min_block: 1, max_block: MAX_DATA, structured, status };
    let mut told = false;
    // As many answers as any server has, and an end.
    for _ in 0..100 {
        let answer = answer(stream, opt::GO)?;
        match answer.kind {
            rep::INFO => match be16(&answer.data) {
                Some(info::EXPORT) => {
                    let size = answer.data.get(2..).and_then(be64);
                    let flags = answer.data.get(10..).and_then(be16);
                    let (Some(size), Some(flags)) = (size, flags) else {
                        return Err(broken("the server does not say how large the export is"));
                    };
                    (settled.size, settled.flags, told) = (size, flags, true);
                }
                Some(info::BLOCK_SIZE) => {
                    let least = answer.data.get(2..).and_then(be32).unwrap_or(1);
                    let most = answer.data.get(10..).and_then(be32).unwrap_or(MAX_DATA);
                    if !least.is_power_of_two() || least > 64 << 10 || most < least {
                        return Err(broken("the server's block sizes make no sense"));
                    }
                    settled.min_block = least;
                    settled.max_block = (most.min(MAX_DATA) / least * least).max(least);
                }
                _ => {}
            },
            rep::ACK if told => return checked(settled),
            rep::ACK => return Err(broken("the server does not say how large the export is")),
            rep::ERR_UNSUP => return by_name(stream, flags, export, settled),
            _ => {
                return Err(answer.refusal().unwrap_or_else(|| broken("the server's answer is not known")));
            }
        }
    }
    Err(broken("the server answers without end"))
}

fn checked(settled: Settled) -> io::Result<Settled> {
    if settled.flags & can::HAS_FLAGS == 0 {
        return Err(broken("the server does not say what the export can do"));
    }
    if i64::try_from(settled.size).is_err() {
        // So that the end of a block around its last byte is a number, too.
        return Err(broken("the export is larger than any file"));
    }
    Ok(settled)
}

fn choose_status(stream: &Stream, export: &str) -> io::Result<Option<u32>> {
    let mut data = named(export);
    data.extend_from_slice(&1_u32.to_be_bytes());
    data.extend_from_slice(&named(ALLOCATION));
    ask(stream, opt::SET_META_CONTEXT, &data)?;
    let mut status = None;
    for _ in 0..100 {
        let answer = answer(stream, opt::SET_META_CONTEXT)?;
        match answer.kind {
            rep::META_CONTEXT if answer.data.get(4..) == Some(ALLOCATION.as_bytes()) => {
                status = be32(&answer.data);
            }
            rep::META_CONTEXT => {}
            // Refused: then there is none. What is wrong with the export is said by the next option.
            _ => return Ok(status.filter(|_| answer.kind == rep::ACK)),
        }
    }
    Err(broken("the server answers without end"))
}

/// The older way, for servers that do not know the newer.
fn by_name(stream: &Stream, flags: u16, export: &str, settled: Settled) -> io::Result<Settled> {
    ask(stream, opt::EXPORT_NAME, export.as_bytes())?;
    let mut answer = [0; 134];
    let len = if flags & FLAG_NO_ZEROES != 0 { 10 } else { answer.len() };
    let mut io = stream;
    io.read_exact(answer.get_mut(..len).unwrap_or_default()).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return io::Error::new(io::ErrorKind::ConnectionRefused, "there is no such export");
        }
        error
    })?;
    let size = be64(&answer).unwrap_or_default();
    let flags = answer.get(8..).and_then(be16).unwrap_or_default();
    checked(Settled { size, flags, ..settled })
}
