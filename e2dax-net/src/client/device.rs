//! The device.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};

use blockdev::{BlockDevice, Durability, Error, Extent, Result};

use super::connection::{Ask, Connection, describe};
use super::dial::dial;
use super::negotiate::Settled;
use super::reply::{Refused, Reply, Want};
use super::unflushed::{Store, Unflushed};
use crate::proto::{STATE_HOLE, STATE_ZERO, can, cmd, errno};
use crate::uri::NbdUri;

/// Most bytes of a request without data.
const MAX_RANGE: u64 = 1 << 30;
/// Requests on each connection from which on another is opened.
const BUSY: usize = 4;
/// Bytes from which on it is worth a request to have the server read them ahead.
const AHEAD_MIN: u64 = 1 << 20;
/// Between two tries to connect, or to send a request again, lies a pause that grows from the first to the second of these. A
/// server that is started again and again lives for a moment only, which must not be slept through.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// How to connect.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Refuses all stores on this side.
    pub read_only: bool,
    /// What a fence is: FLUSH, or nothing where the server and its machine are trusted to live on.
    pub durability: Durability,
    /// Connections at most, where the server says that several are safe.
    pub connections: usize,
    /// How long the server may take over one step: a part of an answer.
    pub timeout: Duration,
    /// How long a lost connection is sought anew, and how long a request is sent again on connections that are lost under it. Zero:
    /// not at all.
    pub reconnect: Duration,
}

impl Default for Connect {
    /// Strict; up to 4 connections; a minute for an answer, 15 seconds for a new connection.
    fn default() -> Self {
        Self {
            read_only: false,
            durability: Durability::Strict,
            connections: 4,
            timeout: Duration::from_secs(60),
            reconnect: Duration::from_secs(15),
        }
    }
}

/// What the server said of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// Bytes of the least request: what is not aligned to it is read first.
    pub min_block: u32,
    /// It can be told to make writes durable.
    pub flush: bool,
    /// It tells holes from data.
    pub holes: bool,
    /// Ranges can be discarded.
    pub trim: bool,
    /// Ranges can be zeroed without sending zeros.
    pub write_zeroes: bool,
    /// Several connections are safe.
    pub multi_conn: bool,
}

/// An export as a device: see the module's invariants.
#[derive(Debug)]
pub struct NbdDevice {
    uri: NbdUri,
    options: Connect,
    settled: Settled,
    links: RwLock<Links>,
    /// Who makes connections anew.
    mending: Mutex<()>,
    unflushed: Mutex<Unflushed>,
    /// Why a flush failed that nobody asked for; held while there is one.
    untold: Mutex<Option<Error>>,
    /// Alone for a block that is read, changed and written.
    parts: RwLock<()>,
}

#[derive(Debug)]
struct Links {
    /// Counts how often connections were made anew.
    epoch: u64,
    all: Vec<Arc<Connection>>,
    /// Why it is over.
    over: Option<String>,
}

/// A connection, and what keeps it from being made anew. They go in this order: who makes connections anew has the last of each.
#[derive(Debug)]
struct Link<'d> {
    connection: Arc<Connection>,
    links: RwLockReadGuard<'d, Links>,
}

impl NbdDevice {
    /// Connects.
    ///
    /// # Errors
    /// `Io` with `op` `connect`, which says what the server or the system says.
    pub fn open(uri: &NbdUri, options: &Connect) -> Result<Self> {
        let (first, settled) = dial(uri, None, options, options.timeout).map_err(|error| {
            let errno = error.raw_os_error();
            Error::Io { op: "connect", offset: 0, errno, message: describe(&error) }
        })?;
        if settled.flags & (can::FLUSH | can::READ_ONLY) == 0 && !options.read_only {
            log::warn!("{uri}: the server cannot flush: what is written may not survive its machine");
        }
        Ok(Self {
            uri: uri.clone(),
            options: options.clone(),
            settled,
            links: RwLock::new(Links { epoch: 0, all: vec![Arc::new(first)], over: None }),
            mending: Mutex::new(()),
            unflushed: Mutex::new(Unflushed::default()),
            untold: Mutex::new(None),
            parts: RwLock::new(()),
        })
    }

    /// What the server said.
    #[must_use]
    pub fn facts(&self) -> Facts {
        Facts {
            min_block: self.settled.min_block,
            flush: self.can(can::FLUSH),
            holes: self.settled.status.is_some(),
            trim: self.can(can::TRIM),
            write_zeroes: self.can(can::WRITE_ZEROES),
            multi_conn: self.can(can::MULTI_CONN),
        }
    }

    /// Connections that are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.links().all.len()
    }

    fn can(&self, what: u16) -> bool {
        self.settled.flags & what != 0
    }

    fn links(&self) -> RwLockReadGuard<'_, Links> {
        self.links.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn unflushed(&self) -> MutexGuard<'_, Unflushed> {
        self.unflushed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection with the least to do; another one where all are busy.
    fn link(&self) -> std::result::Result<Link<'_>, String> {
        let link = self.least()?;
        let more = self.can(can::MULTI_CONN) && link.links.all.len() < self.options.connections;
        if !more || link.connection.load() < BUSY {
            return Ok(link);
        }
        // One at a time; whoever finds that somebody does it goes on with what is there.
        let epoch = link.links.epoch;
        drop(link);
        if let Ok(_mending) = self.mending.try_lock() {
            self.add(epoch);
        }
        self.least()
    }

    fn least(&self) -> std::result::Result<Link<'_>, String> {
        let links = self.links();
        if let Some(why) = &links.over {
            return Err(why.clone());
        }
        let least = links.all.iter().min_by_key(|link| link.load()).cloned();
        let connection = least.ok_or("there is no connection")?;
        Ok(Link { connection, links })
    }

    /// Makes a further connection, for who holds `mending`. It may lead to a server that came back since the others were made: it is
    /// one of theirs where one of them answers what is asked after it was made. Where none does, there is none.
    fn add(&self, epoch: u64) {
        // A host with several addresses may be several machines.
        let at = self.links().all.first().and_then(|old| old.reached());
        let Ok((another, settled)) = dial(&self.uri, at, &self.options, self.options.timeout) else { return };
        if settled != self.settled {
            return;
        }
        {
            let links = self.links();
            // OK to cast: the lesser of both is no larger than a block.
            let len = u64::from(self.settled.min_block).min(self.settled.size) as u32;
            let is_one_of_them =
                links.epoch == epoch && len > 0 && links.all.first().is_some_and(|old| old.answers(len));
            if !is_one_of_them {
                return;
            }
        }
        // Nobody else makes connections meanwhile.
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        links.all.push(Arc::new(another));
    }

    /// Does a request, on a new connection where one is lost. `store` is remembered until it is flushed.
    fn call(
        &self,
        op: &'static str,
        ask: &Ask<'_>,
        mut buf: Option<&mut [u8]>,
        store: impl Fn() -> Option<Store>,
    ) -> Result<Reply> {
        let failed = |message: String, errno| Error::Io { op, offset: ask.offset, errno, message };
        let mut first_loss = None;
        let mut pause = PAUSES.0;
        loop {
            let link = self.link().map_err(|why| failed(why, None))?;
            let epoch = link.links.epoch;
            match link.connection.call(ask, buf.as_deref_mut()) {
                Ok(reply) => {
                    let full = match store().filter(|_| reply.refused.is_none() && self.can(can::FLUSH)) {
                        Some(store) => self.unflushed().push(store),
                        None => false,
                    };
                    drop(link);
                    if full {
                        self.flush_for_room()?;
                    }
                    return match &reply.refused {
                        None => Ok(reply),
                        Some(refused) => Err(self.refusal(op, ask.offset, refused)),
                    };
                }
                Err(error) => {
                    drop(link);
                    match first_loss {
                        None => first_loss = Some(Instant::now()),
                        // It may be this very request that ends them.
                        Some(first) if first.elapsed() >= self.options.reconnect => {
                            return Err(failed(describe(&error), None));
                        }
                        Some(_) => {
                            thread::sleep(pause);
                            pause = (pause * 2).min(PAUSES.1);
                        }
                    }
                    self.mend(epoch, &describe(&error)).map_err(|why| failed(why, None))?;
                }
            }
        }
    }

    fn untold(&self) -> MutexGuard<'_, Option<Error>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has all that is remembered flushed, for the room. The server says but once that it has lost something, and here that is not
    /// said to who wrote it: whoever flushes next is told, too. What such a flush gives up is not remembered any longer.
    fn flush_for_room(&self) -> Result<()> {
        let mut untold = self.untold();
        let mark = self.unflushed().mark();
        let flushed = self.flush_now(mark);
        if let Err(error) = &flushed {
            *untold = Some(error.clone());
            self.unflushed().forget(mark);
        }
        flushed
    }

    /// Has all that lies before a mark flushed.
    fn flush_now(&self, mark: u64) -> Result<()> {
        let ask = Ask { command: cmd::FLUSH, flags: 0, offset: 0, len: 0, want: Want::Done, data: b"" };
        self.call("flush", &ask, None, || None)?;
        self.unflushed().forget(mark);
        Ok(())
    }

    fn refusal(&self, op: &'static str, offset: u64, refused: &Refused) -> Error {
        match refused.errno {
            errno::NOSPC => Error::NoSpace { offset },
            errno::PERM if self.can(can::READ_ONLY) => Error::ReadOnly,
            // OK to cast: what does not fit is no number of an error.
            number => Error::Io {
                op,
                offset,
                errno: i32::try_from(number).ok(),
                message: format!("the server: {}", refused.what),
            },
        }
    }

    /// Makes connections anew, if that has not been done since `epoch`.
    fn mend(&self, epoch: u64, why: &str) -> std::result::Result<(), String> {
        let end = || {
            let links = self.links();
            // Whoever waits on one of them gets an error, and waits for this to be done.
            let is_last = links.epoch == epoch;
            links.all.iter().filter(|_| is_last).for_each(|link| link.close(why));
            is_last
        };
        // Also for who adds one at the moment, and waits for an answer; and one that he has added meanwhile.
        end();
        let _mending = self.mending.lock().unwrap_or_else(PoisonError::into_inner);
        if !end() {
            return Ok(());
        }
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(over) = &links.over {
            return Err(over.clone());
        }
        log::warn!("{}: {why}; connecting again", self.uri);
        // Nobody has them any more, so that this closes them: what they still had to send reaches the server no more.
        links.all.clear();
        let begin = Instant::now();
        let mut pause = PAUSES.0;
        loop {
            let left = self.options.reconnect.saturating_sub(begin.elapsed());
            if left.is_zero() {
                let over = format!("{why}, and cannot be reached again");
                links.over = Some(over.clone());
                return Err(over);
            }
            match dial(&self.uri, None, &self.options, self.options.timeout.min(left)) {
                Ok((_, settled)) if settled != self.settled => {
                    let over = "the server offers another export than before under this name".to_owned();
                    links.over = Some(over.clone());
                    return Err(over);
                }
                Ok((link, _)) => {
                    if self.replay(&link) {
                        links.epoch += 1;
                        links.all = vec![Arc::new(link)];
                        return Ok(());
                    }
                }
                Err(error) => log::debug!("{}: {}", self.uri, describe(&error)),
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Stores again what may have been lost. False where that fails.
    fn replay(&self, link: &Connection) -> bool {
        let done = |reply: io::Result<Reply>| reply.is_ok_and(|reply| reply.refused.is_none());
        self.unflushed().iter().all(|store| match store {
            Store::Data(offset, data) => {
                // OK to cast: a request of before.
                let len = data.len() as u32;
                let ask = Ask { command: cmd::WRITE, flags: 0, offset: *offset, len, want: Want::Done, data };
                done(link.call(&ask, None))
            }
            Store::Zeros(offset, len) => {
                // OK to cast: a request of before.
                let len = *len as u32;
                let ask = Ask {
                    command: cmd::WRITE_ZEROES,
                    flags: 0,
                    offset: *offset,
                    len,
                    want: Want::Done,
                    data: b"",
                };
                done(link.call(&ask, None))
            }
        })
    }

    fn check(&self, offset: u64, len: u64) -> Result<()> {
        let size = self.settled.size;
        if len <= size && offset <= size - len {
            Ok(())
        } else {
            Err(Error::OutOfRange { offset, len, size })
        }
    }

    fn writable(&self, offset: u64, len: u64) -> Result<()> {
        self.check(offset, len)?;
        if self.is_read_only() { Err(Error::ReadOnly) } else { Ok(()) }
    }

    /// Whether a range begins and ends where blocks of the server do.
    fn is_aligned(&self, offset: u64, len: u64) -> bool {
        let block = u64::from(self.settled.min_block);
        offset.is_multiple_of(block) && (len.is_multiple_of(block) || offset + len == self.settled.size)
    }

    fn read_blocks(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let most = self.settled.max_block as usize;
        for (piece, at) in buf.chunks_mut(most).zip((offset..).step_by(most)) {
            // OK to cast: at most 32 MiB.
            let len = piece.len() as u32;
            let want = Want::Data { offset: at, len };
            let ask = Ask { command: cmd::READ, flags: 0, offset: at, len, want, data: b"" };
            self.call("read", &ask, Some(piece), || None)?;
        }
        Ok(())
    }

    fn write_blocks(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let most = self.settled.max_block as usize;
        for (piece, at) in buf.chunks(most).zip((offset..).step_by(most)) {
            // OK to cast: at most 32 MiB.
            let len = piece.len() as u32;
            let ask = Ask { command: cmd::WRITE, flags: 0, offset: at, len, want: Want::Done, data: piece };
            self.call("write", &ask, None, || Some(Store::Data(at, piece.into())))?;
        }
        Ok(())
    }

    /// The blocks around a range: where they begin, and their bytes.
    fn around(&self, offset: u64, len: u64) -> (u64, Vec<u8>) {
        let block = u64::from(self.settled.min_block);
        let start = offset / block * block;
        let end = (offset + len).next_multiple_of(block).min(self.settled.size);
        // OK to cast: a range that lies in memory, and less than two blocks.
        (start, vec![0; (end - start) as usize])
    }

    /// A range of zeros or nothing, in requests of 1 GiB at most.
    fn ranges(&self, op: &'static str, command: u16, offset: u64, len: u64) -> Result<()> {
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(MAX_RANGE);
            let at = offset + done;
            // OK to cast: at most 1 GiB.
            let ask = Ask { command, flags: 0, offset: at, len: piece as u32, want: Want::Done, data: b"" };
            let zeros = command == cmd::WRITE_ZEROES;
            self.call(op, &ask, None, || zeros.then_some(Store::Zeros(at, piece)))?;
            done += piece;
        }
        Ok(())
    }

    /// The whole blocks of a range.
    fn inner(&self, offset: u64, len: u64) -> (u64, u64) {
        let block = u64::from(self.settled.min_block);
        let (start, end) = (offset.next_multiple_of(block), offset + len);
        let end = if end == self.settled.size { end } else { end / block * block };
        (start, end.max(start))
    }
}

impl BlockDevice for NbdDevice {
    fn size(&self) -> u64 {
        self.settled.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let len = buf.len() as u64;
        self.check(offset, len)?;
        if self.is_aligned(offset, len) {
            return self.read_blocks(offset, buf);
        }
        let (start, mut blocks) = self.around(offset, len);
        self.read_blocks(start, &mut blocks)?;
        // OK to cast: within a block.
        let from = (offset - start) as usize;
        buf.copy_from_slice(blocks.get(from..from + buf.len()).unwrap_or_default());
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let len = buf.len() as u64;
        self.writable(offset, len)?;
        if self.is_aligned(offset, len) {
            let _shared = self.parts.read().unwrap_or_else(PoisonError::into_inner);
            return self.write_blocks(offset, buf);
        }
        let _alone = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        let (start, mut blocks) = self.around(offset, len);
        self.read_blocks(start, &mut blocks)?;
        // OK to cast: within a block.
        let from = (offset - start) as usize;
        if let Some(place) = blocks.get_mut(from..from + buf.len()) {
            place.copy_from_slice(buf);
        }
        self.write_blocks(start, &blocks)
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        self.writable(offset, len)?;
        let write = |mut at: u64, end: u64| {
            while at < end {
                // OK to cast: at most the length of `ZEROS`.
                let piece = ZEROS.get(..(end - at).min(ZEROS.len() as u64) as usize).unwrap_or_default();
                self.write_at(at, piece)?;
                at += piece.len() as u64;
            }
            Ok(())
        };
        let (start, end) = self.inner(offset, len);
        if !self.can(can::WRITE_ZEROES) || start == end {
            return write(offset, offset + len);
        }
        write(offset, start)?;
        {
            let _shared = self.parts.read().unwrap_or_else(PoisonError::into_inner);
            self.ranges("zero", cmd::WRITE_ZEROES, start, end - start)?;
        }
        write(end, offset + len)
    }

    fn fence(&self) -> Result<()> {
        match self.options.durability {
            Durability::Relaxed => Ok(()),
            Durability::Strict => self.flush(),
        }
    }

    fn flush(&self) -> Result<()> {
        if !self.can(can::FLUSH) || self.is_read_only() {
            return Ok(());
        }
        let mark = self.unflushed().mark();
        let flushed = self.flush_now(mark);
        // One that is under way for the room of others may be told what this one is not.
        let untold = self.untold().take();
        flushed.and(untold.map_or(Ok(()), Err))
    }

    fn is_read_only(&self) -> bool {
        self.options.read_only || self.can(can::READ_ONLY)
    }

    fn extent(&self, offset: u64, len: u64) -> Result<(Extent, u64)> {
        self.check(offset, len)?;
        let Some(context) = self.settled.status.filter(|_| len > 0) else {
            return Ok((Extent::Data, len));
        };
        let block = u64::from(self.settled.min_block);
        let start = offset / block * block;
        let end = (offset + len).next_multiple_of(block).min(self.settled.size);
        // OK to cast: at most 1 GiB.
        let asked = (end - start).min(MAX_RANGE) as u32;
        let want = Want::Status { context };
        let ask = Ask { command: cmd::BLOCK_STATUS, flags: 0, offset: start, len: asked, want, data: b"" };
        let reply = self.call("look for holes", &ask, None, || None)?;
        let kind = |flags: u32| match (flags & STATE_ZERO != 0, flags & STATE_HOLE != 0) {
            (true, true) => Extent::Hole,
            (true, false) => Extent::Zero,
            (false, _) => Extent::Data,
        };
        let first = reply.extents.first().map_or(Extent::Data, |first| kind(first.1));
        let same = reply.extents.iter().take_while(|(_, flags)| kind(*flags) == first);
        let run: u64 = same.map(|(len, _)| u64::from(*len)).sum();
        // Servers may tell more than they were asked for.
        Ok((first, (start + run).saturating_sub(offset).clamp(1, len)))
    }

    fn populate(&self, offset: u64, len: u64) -> Result<()> {
        self.check(offset, len)?;
        let (start, end) = self.inner(offset, len);
        if !self.can(can::CACHE) || end - start < AHEAD_MIN {
            return Ok(());
        }
        // A hint: what comes of it is told by who reads.
        if let Err(error) = self.ranges("read ahead", cmd::CACHE, start, end - start) {
            log::debug!("{}: {error}", self.uri);
        }
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.writable(offset, len)?;
        let (start, end) = self.inner(offset, len);
        if !self.can(can::TRIM) || start == end {
            return Ok(());
        }
        let _shared = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        self.ranges("discard", cmd::TRIM, start, end - start)
    }
}
