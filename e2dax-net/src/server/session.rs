//! A connection after the negotiation: requests and replies.
//!
//! Threads take turns at reading requests. While the device answers at once, one of them reads and handles them all, which
//! saves waking another for each; when it turns out slow, the turn is passed on before a request is handled, and threads
//! are added as requests are under way.

use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::Instant;

use blockdev::{BlockDevice, Error, Extent};
use zerocopy::{FromZeros, IntoBytes};

use super::Export;
use super::fate::Fate;
use super::handshake::ALLOCATION_ID;
use super::reply::{Replies, errno_of};
use super::status::extents;
use crate::proto::{MAX_DATA, REQUEST_MAGIC, Request, cmd, errno, flag};
use crate::stream::Stream;

/// Threads of one connection: as many requests are under way.
const THREADS: usize = 16;
/// Bytes of data that a thread holds at a time.
const PIECE: usize = 1 << 20;
/// Nanoseconds from which on a device is slow.
const SLOW: u64 = 60_000;
/// Bytes of which the device is asked at most how many are data.
const LOOK_AHEAD: u64 = 1 << 30;
/// Bytes from which on it is worth asking for holes before reading.
const ASK_FOR_HOLES: u32 = 64 << 10;

/// A connection.
#[derive(Debug)]
pub(super) struct Session<'s> {
    device: &'s dyn BlockDevice,
    fate: &'s Fate,
    read_only: bool,
    status: bool,
    stream: &'s Stream,
    input: Mutex<Input<'s>>,
    replies: Replies<'s>,
    /// Held by whoever reads more than a piece at once.
    large: Mutex<()>,
    threads: AtomicUsize,
    waiting: AtomicUsize,
    /// Nanoseconds that a request took lately.
    pace: AtomicU64,
    /// Bytes that are known to be data: to ask where they end may take as long as to read all of them (tmpfs). They may have become
    /// a hole since, and then are sent as the zeros that they are.
    data: Mutex<Range<u64>>,
}

#[derive(Debug)]
struct Input<'s> {
    reader: BufReader<&'s Stream>,
    /// No more requests come: the client left, or broke the protocol.
    ended: Option<io::Result<()>>,
}

/// A request that is sound as far as it says itself.
#[derive(Clone, Copy, Debug)]
struct Asked {
    command: u16,
    flags: u16,
    cookie: u64,
    offset: u64,
    len: u32,
}

type Turn<'t, 's> = MutexGuard<'t, Input<'s>>;

impl<'s> Session<'s> {
    pub(super) fn new(
        export: &'s Export,
        fate: &'s Fate,
        stream: &'s Stream,
        structured: bool,
        status: bool,
    ) -> Self {
        Self {
            device: export.device(),
            fate,
            read_only: export.is_read_only(),
            status,
            stream,
            input: Mutex::new(Input { reader: BufReader::with_capacity(64 << 10, stream), ended: None }),
            replies: Replies::new(stream, structured),
            large: Mutex::new(()),
            threads: AtomicUsize::new(1),
            waiting: AtomicUsize::new(0),
            pace: AtomicU64::new(0),
            data: Mutex::new(0..0),
        }
    }

    /// Serves to the end.
    pub(super) fn run(self) -> io::Result<()> {
        thread::scope(|scope| self.work(scope));
        let input = self.input.into_inner().unwrap_or_else(PoisonError::into_inner);
        input.ended.unwrap_or(Ok(()))
    }

    fn work<'scope, 'env>(&'env self, scope: &'scope Scope<'scope, 'env>) {
        let mut buf = Vec::new();
        loop {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            let turn = self.input.lock().unwrap_or_else(PoisonError::into_inner);
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            if let Err(error) = self.requests(turn, &mut buf, scope) {
                self.end(Err(error));
                return;
            }
            if self.has_ended() {
                return;
            }
        }
    }

    fn has_ended(&self) -> bool {
        // Whoever holds the lock finds out himself.
        self.input.try_lock().is_ok_and(|input| input.ended.is_some())
    }

    /// Ends the connection, for all of its threads.
    fn end(&self, how: io::Result<()>) {
        self.stream.shut_down();
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        input.ended.get_or_insert(how);
    }

    /// Handles requests: as many as it is this thread's turn for.
    fn requests<'scope, 'env>(
        &'env self,
        mut turn: Turn<'_, 's>,
        buf: &mut Vec<u8>,
        scope: &'scope Scope<'scope, 'env>,
    ) -> io::Result<()> {
        loop {
            if turn.ended.is_some() {
                return Ok(());
            }
            let Some(asked) = next(&mut turn.reader)? else {
                // What others are handling is still answered.
                turn.ended = Some(Ok(()));
                return Ok(());
            };
            let refused = self.refuse(&asked);
            if asked.command == cmd::WRITE {
                let len = asked.len as usize;
                if refused.is_some() || len > PIECE {
                    self.write_from(&asked, refused, &mut turn.reader, buf)?;
                    continue;
                }
                grow(buf, len);
                turn.reader.read_exact(buf.get_mut(..len).unwrap_or_default())?;
            }
            if let Some((code, what)) = refused {
                self.replies.failed(asked.cookie, code, what, None)?;
                continue;
            }
            let quick = self.pace.load(Ordering::Relaxed) < SLOW && asked.command != cmd::FLUSH;
            let kept = if quick {
                Some(turn)
            } else {
                drop(turn);
                self.add_thread(scope);
                None
            };
            let begin = Instant::now();
            self.handle(&asked, buf)?;
            let took = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX).min(1 << 40);
            // How long it takes for 64 KiB, or fewer: a long request is not a slow device.
            let took = took / u64::from((asked.len >> 16).max(1));
            let pace = self.pace.load(Ordering::Relaxed);
            self.pace.store(pace - pace / 8 + took / 8, Ordering::Relaxed);
            match kept {
                Some(kept) => turn = kept,
                None => return Ok(()),
            }
        }
    }

    /// Sees to it that somebody reads while this thread handles a request.
    fn add_thread<'scope, 'env>(&'env self, scope: &'scope Scope<'scope, 'env>) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            return;
        }
        if self.threads.fetch_add(1, Ordering::SeqCst) >= THREADS
            || thread::Builder::new().name("nbd".into()).spawn_scoped(scope, || self.work(scope)).is_err()
        {
            self.threads.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Why a request is refused before anything is done.
    fn refuse(&self, asked: &Asked) -> Option<(u32, &'static str)> {
        let writes = matches!(asked.command, cmd::WRITE | cmd::TRIM | cmd::WRITE_ZEROES);
        let known = match asked.command {
            cmd::READ if self.replies.is_structured() => flag::DF | flag::FUA,
            cmd::READ => flag::FUA,
            cmd::WRITE | cmd::TRIM => flag::FUA,
            cmd::WRITE_ZEROES => flag::FUA | flag::NO_HOLE,
            cmd::FLUSH | cmd::CACHE => flag::FUA,
            cmd::BLOCK_STATUS => flag::REQ_ONE | flag::FUA,
            _ => return Some((errno::INVAL, "the command is not known")),
        };
        if asked.flags & !known != 0 {
            return Some((errno::INVAL, "the command has flags that it cannot have"));
        }
        if writes && self.read_only {
            return Some((errno::PERM, "the export is read-only"));
        }
        let size = self.device.size();
        let inside = asked.offset <= size && u64::from(asked.len) <= size - asked.offset;
        if asked.command != cmd::FLUSH && !inside {
            // As the protocol asks: what needs no room is never short of it.
            let needs_room = matches!(asked.command, cmd::WRITE | cmd::WRITE_ZEROES);
            let code = if needs_room { errno::NOSPC } else { errno::INVAL };
            return Some((code, "the range lies outside of the export"));
        }
        match asked.command {
            cmd::READ if asked.len > MAX_DATA => Some((errno::INVAL, "more data than one reply can have")),
            cmd::READ if asked.flags & flag::DF != 0 && asked.len as usize > PIECE => {
                Some((errno::OVERFLOW, "more data than is given in one piece"))
            }
            cmd::WRITE if asked.len > MAX_DATA => Some((errno::INVAL, "more data than one request can have")),
            cmd::BLOCK_STATUS if !self.status => Some((errno::INVAL, "no context was chosen")),
            cmd::BLOCK_STATUS if asked.len == 0 => Some((errno::INVAL, "the status of nothing")),
            _ => None,
        }
    }

    fn fail(&self, asked: &Asked, error: &Error) -> io::Result<()> {
        self.replies.failed(asked.cookie, errno_of(error), &error.to_string(), None)
    }

    /// Answers a request that only was to be done.
    fn answer(&self, asked: &Asked, done: blockdev::Result<()>) -> io::Result<()> {
        let fua = asked.flags & flag::FUA != 0 && !self.read_only;
        let flushes = matches!(asked.command, cmd::WRITE | cmd::TRIM | cmd::WRITE_ZEROES);
        let done = done.and_then(|()| if fua && flushes { self.device.flush() } else { Ok(()) });
        match done {
            Ok(()) => self.replies.done(asked.cookie),
            Err(error) => self.fail(asked, &error),
        }
    }

    fn handle(&self, asked: &Asked, buf: &mut Vec<u8>) -> io::Result<()> {
        let (offset, len) = (asked.offset, u64::from(asked.len));
        match asked.command {
            cmd::READ => self.read(asked, buf),
            cmd::WRITE => {
                let data = buf.get(..asked.len as usize).unwrap_or_default();
                self.answer(asked, self.fate.change(offset, || self.device.write_at(offset, data)))
            }
            cmd::FLUSH if self.read_only => self.answer(asked, Ok(())),
            cmd::FLUSH => self.answer(asked, self.device.flush()),
            cmd::TRIM => self.answer(asked, self.fate.change(offset, || self.device.discard(offset, len))),
            cmd::CACHE => self.answer(asked, self.device.populate(offset, len)),
            cmd::WRITE_ZEROES if asked.flags & flag::NO_HOLE != 0 => {
                self.answer(asked, self.write_zeros(offset, len, buf))
            }
            cmd::WRITE_ZEROES => {
                self.answer(asked, self.fate.change(offset, || self.device.zero(offset, len)))
            }
            _ => {
                let only_one = asked.flags & flag::REQ_ONE != 0;
                match extents(self.device, offset, asked.len, only_one) {
                    Ok(extents) => self.replies.status(asked.cookie, ALLOCATION_ID, &extents),
                    Err(error) => self.fail(asked, &error),
                }
            }
        }
    }

    /// Zeros that take room.
    fn write_zeros(&self, offset: u64, len: u64, buf: &mut Vec<u8>) -> blockdev::Result<()> {
        // OK to cast: at most a piece.
        let piece = len.min(PIECE as u64) as usize;
        grow(buf, piece);
        buf.iter_mut().take(piece).for_each(|byte| *byte = 0);
        let mut done = 0;
        while done < len {
            // OK to cast: at most a piece.
            let zeros = buf.get(..(len - done).min(piece as u64) as usize).unwrap_or_default();
            self.fate.change(offset, || self.device.write_at(offset + done, zeros))?;
            done += zeros.len() as u64;
        }
        Ok(())
    }

    /// Takes the data of a request piece by piece as it comes; of one that is refused it is only taken.
    fn write_from(
        &self,
        asked: &Asked,
        refused: Option<(u32, &'static str)>,
        reader: &mut impl Read,
        buf: &mut Vec<u8>,
    ) -> io::Result<()> {
        grow(buf, PIECE);
        let mut done = Ok(());
        let (mut at, mut left) = (asked.offset, asked.len as usize);
        while left > 0 {
            let piece = buf.get_mut(..left.min(PIECE)).unwrap_or_default();
            reader.read_exact(piece)?;
            if refused.is_none() && done.is_ok() {
                done = self.fate.change(at, || self.device.write_at(at, piece));
            }
            (at, left) = (at.saturating_add(piece.len() as u64), left - piece.len());
        }
        match refused {
            Some((code, what)) => self.replies.failed(asked.cookie, code, what, None),
            None => self.answer(asked, done),
        }
    }

    fn read(&self, asked: &Asked, buf: &mut Vec<u8>) -> io::Result<()> {
        let (cookie, len) = (asked.cookie, asked.len as usize);
        if self.replies.is_structured() && asked.len >= ASK_FOR_HOLES && asked.flags & flag::DF == 0 {
            return self.read_in_chunks(asked, buf);
        }
        let _large = (len > PIECE).then(|| self.large.lock().unwrap_or_else(PoisonError::into_inner));
        grow(buf, len);
        let data = buf.get_mut(..len).unwrap_or_default();
        match self.device.read_at(asked.offset, data) {
            Err(error) => self.fail(asked, &error),
            Ok(()) if !self.replies.is_structured() => self.replies.simple(cookie, 0, data),
            Ok(()) if len == 0 => self.replies.done(cookie),
            Ok(()) => self.replies.data(cookie, asked.offset, data, true),
        }?;
        if len > PIECE {
            // Not kept.
            buf.truncate(PIECE);
            buf.shrink_to_fit();
        }
        Ok(())
    }

    /// What lies from `at` on, and how much of it within `len` bytes.
    fn extent(&self, at: u64, len: u64) -> blockdev::Result<(Extent, u64)> {
        let known = || self.data.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, end) = {
            let known = known();
            (known.start, known.end)
        };
        if start <= at && at < end {
            return Ok((Extent::Data, (end - at).min(len)));
        }
        let found = self.device.extent(at, len).map(|(extent, run)| (extent, run.clamp(1, len)))?;
        // Of holes no more is asked than is needed: they cannot be remembered.
        if found == (Extent::Data, len)
            && let Ok((Extent::Data, run)) = self.device.extent(at, (self.device.size() - at).min(LOOK_AHEAD))
        {
            *known() = at..at + run;
        }
        Ok(found)
    }

    fn read_in_chunks(&self, asked: &Asked, buf: &mut Vec<u8>) -> io::Result<()> {
        let end = asked.offset + u64::from(asked.len);
        let mut at = asked.offset;
        grow(buf, PIECE);
        while at < end {
            let failed = |error: Error| {
                self.replies.failed(asked.cookie, errno_of(&error), &error.to_string(), Some(at))
            };
            let (extent, run) = match self.extent(at, end - at) {
                Ok(found) => found,
                Err(error) => return failed(error),
            };
            let run = if extent == Extent::Data { run.min(PIECE as u64) } else { run };
            let done = at + run == end;
            if extent == Extent::Data {
                // OK to cast: at most a piece.
                let data = buf.get_mut(..run as usize).unwrap_or_default();
                if let Err(error) = self.device.read_at(at, data) {
                    return failed(error);
                }
                self.replies.data(asked.cookie, at, data, done)?;
            } else {
                // OK to cast: at most what was asked for.
                self.replies.hole(asked.cookie, at, run as u32, done)?;
            }
            at += run;
        }
        Ok(())
    }
}

/// Gives a buffer at least that many bytes.
fn grow(buf: &mut Vec<u8>, len: usize) {
    if buf.len() < len {
        buf.resize(len, 0);
    }
}

/// The next request; none when the client leaves.
fn next(reader: &mut BufReader<&Stream>) -> io::Result<Option<Asked>> {
    let mut request = Request::new_zeroed();
    match reader.read_exact(request.as_mut_bytes()) {
        // Gone without a word, which loses nothing.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    if request.magic.get() != REQUEST_MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "what came is no request"));
    }
    let command = request.command.get();
    if command == cmd::DISC {
        return Ok(None);
    }
    Ok(Some(Asked {
        command,
        flags: request.flags.get(),
        cookie: request.cookie.get(),
        offset: request.offset.get(),
        len: request.len.get(),
    }))
}
