//! One connection: many requests under way, and whoever waits reads.
//!
//! There is no thread of its own. Of those that wait for replies one reads; a reply that is another's is kept for him, and when
//! the reader has his own, he wakes the next. So a single request costs no switch of threads.

use std::collections::HashMap;
use std::io::{self, BufReader, Read};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use zerocopy::{FromZeros, IntoBytes};

use super::negotiate::broken;
use super::reply::{Reply, Want};
use crate::proto::{
    ChunkHeader, REQUEST_MAGIC, Request, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk, cmd,
};
use crate::stream::Stream;

/// Bytes in a millisecond below which a server is as good as gone.
const LEAST_RATE: u64 = 16;

#[derive(Debug)]
struct Shared(Arc<Stream>);

impl Read for Shared {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buf)
    }
}

/// A connection on which an export was chosen.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Arc<Stream>,
    /// The address of the network that was reached.
    reached: Option<SocketAddr>,
    structured: bool,
    patience: Duration,
    writing: Mutex<()>,
    input: Mutex<BufReader<Shared>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Somebody reads.
    reading: bool,
    /// Why nothing works any more.
    lost: Option<String>,
    waiting: HashMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    thread: Thread,
    want: Want,
    reply: Reply,
    /// It has sent its request and waits for its turn to read: who still sends cannot take over.
    sent: bool,
    done: bool,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    pub(super) command: u16,
    pub(super) flags: u16,
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) want: Want,
    pub(super) data: &'a [u8],
}

impl Connection {
    /// `patience` is what a server may take over a part of an answer.
    pub(super) fn new(
        stream: Stream,
        reached: Option<SocketAddr>,
        structured: bool,
        patience: Duration,
    ) -> Self {
        let stream = Arc::new(stream);
        let input = BufReader::with_capacity(64 << 10, Shared(Arc::clone(&stream)));
        Self {
            stream,
            reached,
            structured,
            patience,
            writing: Mutex::new(()),
            input: Mutex::new(input),
            state: Mutex::new(State::default()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of the network that was reached; none of this machine's.
    pub(super) fn reached(&self) -> Option<SocketAddr> {
        self.reached
    }

    /// Requests that are under way.
    pub(super) fn load(&self) -> usize {
        self.state().waiting.len()
    }

    /// Ends it: all who wait get an error. When nobody has it any more, what the system still had to send is thrown away, and the
    /// server is told at once.
    pub(super) fn close(&self, why: &str) {
        self.stream.forget_unsent();
        self.stream.shut_down();
        self.lose(why);
    }

    /// Whether the server answers: it is asked for a few bytes.
    pub(super) fn answers(&self, len: u32) -> bool {
        let want = Want::Data { offset: 0, len };
        let ask = Ask { command: cmd::READ, flags: 0, offset: 0, len, want, data: b"" };
        self.call(&ask, None).is_ok()
    }

    /// Says goodbye, when nothing is under way.
    fn leave(&self) {
        let request =
            Request { command: cmd::DISC.into(), magic: REQUEST_MAGIC.into(), ..Request::new_zeroed() };
        // It may be gone already.
        let _ = self.stream.write_both(request.as_bytes(), b"");
    }

    fn lose(&self, why: &str) -> io::Error {
        let mut state = self.state();
        let why = state.lost.get_or_insert_with(|| why.to_owned()).clone();
        state.waiting.values().for_each(|waiting| waiting.thread.unpark());
        io::Error::new(io::ErrorKind::ConnectionAborted, why)
    }

    /// Sends a request and waits for what comes of it; bytes go to `buf`. An error is that of the connection, which is lost then.
    pub(super) fn call(&self, ask: &Ask<'_>, mut buf: Option<&mut [u8]>) -> io::Result<Reply> {
        let cookie = {
            let mut state = self.state();
            if let Some(why) = &state.lost {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, why.clone()));
            }
            state.next += 1;
            let cookie = state.next;
            let waiting = Waiting {
                thread: thread::current(),
                want: ask.want,
                reply: Reply::default(),
                sent: false,
                done: false,
            };
            state.waiting.insert(cookie, waiting);
            cookie
        };
        let request = Request {
            magic: REQUEST_MAGIC.into(),
            flags: ask.flags.into(),
            command: ask.command.into(),
            cookie: cookie.into(),
            offset: ask.offset.into(),
            len: ask.len.into(),
        };
        let sent = {
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            self.stream.write_both(request.as_bytes(), ask.data)
        };
        let reply = match sent {
            Ok(()) => self.wait(cookie, &mut buf),
            Err(error) => Err(error),
        };
        let mut state = self.state();
        let mine = state.waiting.remove(&cookie);
        if !state.reading
            && let Some(next) = state.waiting.values().find(|waiting| waiting.sent && !waiting.done)
        {
            // Somebody has to read, and not one who sends: the server may take nothing more before its replies are taken. Who
            // has sent by then finds that nobody reads.
            next.thread.unpark();
        }
        drop(state);
        match (reply, mine) {
            (Ok(()), Some(Waiting { reply, .. })) => {
                if let Some(buf) = buf
                    && !reply.data.is_empty()
                {
                    let len = buf.len().min(reply.data.len());
                    buf.iter_mut().zip(&reply.data).take(len).for_each(|(to, from)| *to = *from);
                }
                Ok(reply)
            }
            (Err(error), _) => {
                self.stream.shut_down();
                Err(self.lose(&describe(&error)))
            }
            (Ok(()), None) => Err(self.lose("a request is not known any more")),
        }
    }

    /// Waits until the request is done, and reads while nobody else does.
    fn wait(&self, cookie: u64, buf: &mut Option<&mut [u8]>) -> io::Result<()> {
        loop {
            {
                let mut state = self.state();
                match state.waiting.get_mut(&cookie) {
                    Some(waiting) if !waiting.done => waiting.sent = true,
                    _ => return Ok(()),
                }
                if let Some(why) = &state.lost {
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, why.clone()));
                }
                if state.reading {
                    drop(state);
                    thread::park();
                    continue;
                }
                state.reading = true;
            }
            let read = self.read_until(cookie, buf);
            self.state().reading = false;
            read?;
        }
    }

    /// Reads replies until that of `mine` is complete.
    fn read_until(&self, mine: u64, buf: &mut Option<&mut [u8]>) -> io::Result<()> {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let done = self.read_one(&mut input, mine, buf)?;
            if done == Some(mine) {
                return Ok(());
            }
        }
    }

    /// Reads a reply, or a part of one. Gives the number of the request that it completes.
    fn read_one(
        &self,
        input: &mut BufReader<Shared>,
        mine: u64,
        buf: &mut Option<&mut [u8]>,
    ) -> io::Result<Option<u64>> {
        let mut header = ChunkHeader::new_zeroed();
        let (first, rest) = header.as_mut_bytes().split_at_mut(16);
        input.read_exact(first)?;
        let magic = u32::from_be_bytes(*first.first_chunk().unwrap_or(&[0; 4]));
        let structured = magic == STRUCTURED_REPLY_MAGIC && self.structured;
        if structured {
            input.read_exact(rest)?;
        } else if magic != SIMPLE_REPLY_MAGIC {
            return Err(broken("what the server sends is no reply"));
        }
        // A simple reply has its error where a chunk has flags and kind.
        let cookie = header.cookie.get();
        let error = u32::from(header.flags.get()) << 16 | u32::from(header.kind.get());
        let (want, mut reply) = {
            let mut state = self.state();
            match state.waiting.get_mut(&cookie) {
                Some(waiting) if !waiting.done => (waiting.want, std::mem::take(&mut waiting.reply)),
                _ => return Err(broken("the server answers what was not asked")),
            }
        };
        // What others read for this thread before stays together.
        let buf = buf.as_deref_mut().filter(|_| cookie == mine && reply.data.is_empty());
        // A server that sends a byte now and then is no server: each reply has its time, and long ones more of it.
        let expected = match (structured, want) {
            (true, _) => header.len.get(),
            (false, Want::Data { len, .. }) => len,
            (false, _) => 0,
        };
        if expected > 0 {
            let more = Duration::from_millis(u64::from(expected) / LEAST_RATE);
            self.stream.set_deadline(Some(self.patience + more));
        }
        let done = if structured {
            reply.chunk(want, header.kind.get(), header.len.get(), buf, input)?;
            header.flags.get() & chunk::DONE != 0
        } else {
            reply.simple(want, error, buf, input)?;
            true
        };
        self.stream.set_deadline(None);
        if done {
            reply.finish(want)?;
        }
        let mut state = self.state();
        if let Some(waiting) = state.waiting.get_mut(&cookie) {
            waiting.reply = reply;
            waiting.done = done;
            if done && cookie != mine {
                waiting.thread.unpark();
            }
        }
        Ok(done.then_some(cookie))
    }
}

/// What went wrong with a connection.
pub(super) fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "the server closed the connection".into()
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "the server does not answer".into(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or(&text).to_owned()
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.state().lost.is_none() {
            self.leave();
        }
    }
}
