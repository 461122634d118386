//! The negotiation: which export, and how.

use std::io::{self, Read, Write};

use zerocopy::{FromZeros, IntoBytes};

use super::Export;
use crate::proto::{
    ALLOCATION, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, INIT_MAGIC, MAX_DATA, MAX_NAME, OPTION_MAGIC,
    OPTION_REPLY_MAGIC, OptionHeader, OptionReply, info, opt, rep,
};
use crate::stream::Stream;

/// The number by which `base:allocation` is known afterwards.
pub(super) const ALLOCATION_ID: u32 = 1;
/// Most bytes of an option that is looked at, and of one that is read over.
const MAX_OPTION: u32 = 64 << 10;
const MAX_SKIPPED: u32 = 1 << 20;
/// Options that one client may send.
const MAX_OPTIONS: u32 = 1000;

/// What a client settled on.
#[derive(Debug)]
pub(super) struct Chosen<'e> {
    pub(super) export: &'e Export,
    /// Replies are in chunks.
    pub(super) structured: bool,
    /// It may ask for BLOCK_STATUS.
    pub(super) status: bool,
}

/// What is so of a connection while options come.
struct Negotiation<'e, 's> {
    stream: &'s Stream,
    exports: &'e [Export],
    no_zeroes: bool,
    structured: bool,
    /// The export for which `base:allocation` was chosen.
    status_of: Option<Vec<u8>>,
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Settles with a client; none where it leaves in good order. Where there is something to `encrypt` with, nothing else is
/// answered before the client has asked for that.
pub(super) fn negotiate<'e>(
    stream: &Stream,
    exports: &'e [Export],
    encrypt: Option<impl FnOnce(&Stream) -> io::Result<()>>,
) -> io::Result<Option<Chosen<'e>>> {
    let has_tls = encrypt.is_some();
    let mut encrypt = encrypt;
    let mut hello = [0; 18];
    hello[..8].copy_from_slice(&INIT_MAGIC.to_be_bytes());
    hello[8..16].copy_from_slice(&OPTION_MAGIC.to_be_bytes());
    hello[16..].copy_from_slice(&(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes());
    let mut io = stream;
    io.write_all(&hello)?;
    let mut flags = [0; 4];
    io.read_exact(&mut flags)?;
    let flags = u32::from_be_bytes(flags);
    if flags & !u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES) != 0 {
        return Err(broken("the client sets flags that are not known"));
    }
    let no_zeroes = flags & u32::from(FLAG_NO_ZEROES) != 0;
    let mut state = Negotiation { stream, exports, no_zeroes, structured: false, status_of: None };
    for _ in 0..MAX_OPTIONS {
        let mut header = OptionHeader::new_zeroed();
        match io.read_exact(header.as_mut_bytes()) {
            // Gone without a word.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        if header.magic.get() != OPTION_MAGIC {
            return Err(broken("what came is no option"));
        }
        let (option, len) = (header.option.get(), header.len.get());
        if len > MAX_OPTION {
            if len > MAX_SKIPPED || option == opt::EXPORT_NAME {
                return Err(broken("an option is too long"));
            }
            io::copy(&mut io.take(len.into()), &mut io::sink())?;
            state.reply(option, rep::ERR_TOO_BIG, b"too long")?;
            continue;
        }
        let mut data = vec![0; len as usize];
        io.read_exact(&mut data)?;
        match option {
            opt::ABORT => {
                // It may not wait for the answer.
                let _ = state.reply(option, rep::ACK, b"");
                return Ok(None);
            }
            opt::STARTTLS if !has_tls => state.reply(option, rep::ERR_UNSUP, b"there are no certificates")?,
            opt::STARTTLS if !data.is_empty() => state.reply(option, rep::ERR_INVALID, b"it has no data")?,
            opt::STARTTLS => match encrypt.take() {
                Some(encrypt) => {
                    state.reply(option, rep::ACK, b"")?;
                    encrypt(stream)?;
                }
                None => state.reply(option, rep::ERR_INVALID, b"it is encrypted already")?,
            },
            // It knows no answer.
            opt::EXPORT_NAME if encrypt.is_some() => return Err(broken("the client does not encrypt")),
            _ if encrypt.is_some() => state.reply(option, rep::ERR_TLS_REQD, b"TLS comes first")?,
            opt::EXPORT_NAME => return state.export_name(&data).map(Some),
            opt::LIST => state.list(&data)?,
            opt::INFO | opt::GO => {
                if let Some(chosen) = state.info(option, &data)?
                    && option == opt::GO
                {
                    return Ok(Some(chosen));
                }
            }
            opt::STRUCTURED_REPLY if data.is_empty() => {
                state.structured = true;
                state.reply(option, rep::ACK, b"")?;
            }
            opt::STRUCTURED_REPLY => state.reply(option, rep::ERR_INVALID, b"it has no data")?,
            opt::LIST_META_CONTEXT | opt::SET_META_CONTEXT => state.meta_context(option, &data)?,
            _ => state.reply(option, rep::ERR_UNSUP, b"not supported")?,
        }
    }
    Err(broken("the client sends options without end"))
}

/// Takes integers and strings off the front of an option's data.
struct Fields<'d>(&'d [u8]);

impl<'d> Fields<'d> {
    fn take(&mut self, len: usize) -> Option<&'d [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn string(&mut self) -> Option<&'d [u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        self.take(len)
    }
}

impl<'e> Negotiation<'e, '_> {
    fn reply(&self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        let header = OptionReply {
            magic: OPTION_REPLY_MAGIC.into(),
            option: option.into(),
            kind: kind.into(),
            // OK to cast: names, and a few numbers.
            len: (data.len() as u32).into(),
        };
        self.stream.write_both(header.as_bytes(), data)
    }

    fn find(&self, name: &[u8]) -> Option<&'e Export> {
        let named = self.exports.iter().find(|export| export.name().as_bytes() == name);
        named.or_else(|| self.exports.first().filter(|_| name.is_empty()))
    }

    /// The old way to choose, which knows no answer but a closed connection.
    fn export_name(&self, name: &[u8]) -> io::Result<Chosen<'e>> {
        let Some(export) = self.find(name) else { return Err(broken("there is no such export")) };
        let mut answer = [0; 134];
        answer[..8].copy_from_slice(&export.device().size().to_be_bytes());
        answer[8..10].copy_from_slice(&export.flags(self.structured).to_be_bytes());
        let len = if self.no_zeroes { 10 } else { answer.len() };
        let mut io = self.stream;
        io.write_all(answer.get(..len).unwrap_or_default())?;
        Ok(self.chosen(export, name))
    }

    fn chosen(&self, export: &'e Export, name: &[u8]) -> Chosen<'e> {
        let status = self.structured && self.status_of.as_deref() == Some(name);
        Chosen { export, structured: self.structured, status }
    }

    fn list(&self, data: &[u8]) -> io::Result<()> {
        if !data.is_empty() {
            return self.reply(opt::LIST, rep::ERR_INVALID, b"it has no data");
        }
        for export in self.exports {
            let name = export.name().as_bytes();
            // OK to cast: at most 4096.
            let mut answer = (name.len() as u32).to_be_bytes().to_vec();
            answer.extend_from_slice(name);
            answer.extend_from_slice(export.description().as_bytes());
            self.reply(opt::LIST, rep::SERVER, &answer)?;
        }
        self.reply(opt::LIST, rep::ACK, b"")
    }

    fn info(&self, option: u32, data: &[u8]) -> io::Result<Option<Chosen<'e>>> {
        let mut fields = Fields(data);
        let parsed = fields.string().zip(fields.u16()).and_then(|(name, count)| {
            let wanted: Option<Vec<u16>> = (0..count).map(|_| fields.u16()).collect();
            wanted.filter(|_| fields.0.is_empty()).map(|wanted| (name, wanted))
        });
        let Some((name, wanted)) = parsed else {
            self.reply(option, rep::ERR_INVALID, b"its lengths contradict each other")?;
            return Ok(None);
        };
        if name.len() > MAX_NAME {
            self.reply(option, rep::ERR_TOO_BIG, b"no name is as long")?;
            return Ok(None);
        }
        let Some(export) = self.find(name) else {
            self.reply(option, rep::ERR_UNKNOWN, b"there is no such export")?;
            return Ok(None);
        };
        let tell =
            |kind: u16, bytes: &[u8]| self.reply(option, rep::INFO, &[&kind.to_be_bytes(), bytes].concat());
        let size = export.device().size().to_be_bytes();
        tell(info::EXPORT, &[&size[..], &export.flags(self.structured).to_be_bytes()].concat())?;
        if wanted.contains(&info::NAME) {
            tell(info::NAME, export.name().as_bytes())?;
        }
        if wanted.contains(&info::DESCRIPTION) && !export.description().is_empty() {
            tell(info::DESCRIPTION, export.description().as_bytes())?;
        }
        let sizes = [1, 4096, MAX_DATA].map(u32::to_be_bytes);
        tell(info::BLOCK_SIZE, sizes.as_flattened())?;
        self.reply(option, rep::ACK, b"")?;
        Ok(Some(self.chosen(export, name)))
    }

    fn meta_context(&mut self, option: u32, data: &[u8]) -> io::Result<()> {
        let is_list = option == opt::LIST_META_CONTEXT;
        if !is_list {
            // What was chosen before is not, whatever comes of this.
            self.status_of = None;
        }
        if !self.structured {
            return self.reply(option, rep::ERR_INVALID, b"structured replies come first");
        }
        let mut fields = Fields(data);
        let parsed = fields.string().zip(fields.u32()).and_then(|(name, count)| {
            // Each takes four bytes, so that there are not many of them.
            let queries: Option<Vec<&[u8]>> = (0..count).map(|_| fields.string()).collect();
            queries.filter(|_| fields.0.is_empty()).map(|queries| (name, queries))
        });
        let Some((name, queries)) = parsed else {
            return self.reply(option, rep::ERR_INVALID, b"its lengths contradict each other");
        };
        if self.find(name).is_none() {
            return self.reply(option, rep::ERR_UNKNOWN, b"there is no such export");
        }
        let namespace = ALLOCATION.split_inclusive(':').next().unwrap_or_default();
        let matches = (is_list && queries.is_empty())
            || queries
                .iter()
                .any(|query| *query == ALLOCATION.as_bytes() || (is_list && *query == namespace.as_bytes()));
        if !is_list {
            self.status_of = matches.then(|| name.to_vec());
        }
        if matches {
            let id = if is_list { 0 } else { ALLOCATION_ID };
            self.reply(option, rep::META_CONTEXT, &[&id.to_be_bytes(), ALLOCATION.as_bytes()].concat())?;
        }
        self.reply(option, rep::ACK, b"")
    }
}
