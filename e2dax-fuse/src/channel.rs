//! The connection to the kernel.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::awake::{Awake, CLOSE};
use crate::pipe::Pipe;
use crate::reply::Reply;
use crate::turns::{LOOK, Looks};
use crate::wire::{Out, REPLY_HEADER};

/// Has the kernel write back and drop what it has of an inode. Linux: `FUSE_NOTIFY_INVAL_INODE`.
const INVALIDATE: u32 = 2;

/// Hands the kernel bytes of a file for its page cache. Linux: `FUSE_NOTIFY_STORE`.
const STORE: u32 = 4;

/// The connection. Each call sends or receives one message, whole.
#[derive(Debug)]
pub(crate) struct Channel {
    device: OwnedFd,
    /// Whether looking for requests takes nobody else's processor away.
    can_look: bool,
    /// Told of each request, and of each rest.
    awake: Awake,
}

impl Channel {
    /// Over a device that is connected.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn new(device: OwnedFd, awake: Awake) -> io::Result<Self> {
        rustix::fs::fcntl_setfl(&device, rustix::fs::fcntl_getfl(&device)? | OFlags::NONBLOCK)?;
        let can_look = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
        Ok(Self { device, can_look, awake })
    }

    /// Waits for a request; gives its length, or `None` when the file system is unmounted.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn receive(&self, looks: &mut Looks, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let mut begin = None;
        loop {
            match rustix::io::read(&self.device, &mut *buffer) {
                Ok(len) => {
                    self.awake.came();
                    if begin.is_some() {
                        looks.found();
                    }
                    return Ok(Some(len));
                }
                // NOENT: the request was taken back before it was read.
                Err(Errno::NOENT | Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if begin.is_none() && self.can_look && looks.now() {
                        begin = Some(Instant::now());
                    }
                    match begin {
                        Some(time) if time.elapsed() < LOOK => std::thread::yield_now(),
                        looked => {
                            if looked.is_some() {
                                looks.in_vain();
                                begin = None;
                            }
                            self.sleep()?;
                        }
                    }
                }
                Err(Errno::NODEV) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Until there may be a request, or the end.
    fn sleep(&self) -> io::Result<()> {
        let moment = Timespec { tv_sec: 0, tv_nsec: CLOSE.subsec_nanos().into() };
        let until = self.awake.is_made().then_some(&moment);
        match rustix::event::poll(&mut [PollFd::new(&self.device, PollFlags::IN)], until) {
            Ok(0) => {
                self.awake.rest();
                Ok(())
            }
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Answers a read with `len` bytes that `fill` puts into the pipe. True says that the pipe is empty again; otherwise,
    /// and after an error, it is good for nothing.
    ///
    /// # Errors
    /// What `fill` or the connection says. The read has to be answered in another way then: the kernel may not have
    /// got to it, and if it has, the second answer comes to nothing.
    pub(crate) fn answer_from(
        &self,
        unique: u64,
        len: u32,
        pipe: &Pipe,
        fill: impl FnOnce(&Pipe) -> io::Result<()>,
    ) -> io::Result<bool> {
        // OK to cast and to add: a header is short, and a reply is a few MiB at most.
        let whole = REPLY_HEADER + len as usize;
        pipe.put(&Out::default().u32(len.saturating_add(REPLY_HEADER as u32)).u32(0).u64(unique).0)?;
        fill(pipe)?;
        match pipe.send(self.device.as_fd(), whole) {
            Ok(()) => Ok(true),
            // Nobody waits for it any more.
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn send(&self, code: i32, unique: u64, body: &[u8]) -> rustix::io::Result<()> {
        let len = u32::try_from(REPLY_HEADER + body.len()).map_err(|_| Errno::INVAL)?;
        let header = Out::default().u32(len).u32(code.cast_unsigned()).u64(unique).0;
        let parts = [IoSlice::new(&header), IoSlice::new(body)];
        rustix::io::writev(&self.device, &parts).map(|_| ())
    }

    /// Answers a request.
    pub(crate) fn answer(&self, unique: u64, reply: Reply<&[u8]>) {
        let sent = match reply {
            Ok(body) => self.send(0, unique, body),
            Err(error) => self.send(-error.raw_os_error(), unique, &[]),
        };
        match sent {
            // Nobody waits for it any more.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => log::error!("an answer was not taken: {error}"),
        }
    }

    /// Has the kernel forget the attributes that it keeps of an inode, and nothing else: it waits for nobody.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn forget_attributes(&self, node: u64) -> io::Result<()> {
        // A negative offset leaves the pages alone (Linux: `fuse_reverse_inval_inode`).
        let body = Out::default().u64(node).u64((-1_i64).cast_unsigned()).u64(0).0;
        match self.send(INVALIDATE.cast_signed(), 0, &body) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts `len` zeros from byte `offset` of a file into the page that the kernel may have of it. Waits for who holds
    /// that page.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn store_zeros(&self, node: u64, offset: u64, len: u32) -> io::Result<()> {
        // OK to cast: less than a page.
        let body = Out::default().u64(node).u64(offset).u32(len).u32(0).zeros(len as usize).0;
        match self.send(STORE.cast_signed(), 0, &body) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Has the kernel write back all that it has of an inode. Nobody whom the kernel waits for may call this.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn write_back(&self, node: u64) -> io::Result<()> {
        let body = Out::default().u64(node).zeros(16).0;
        // What the kernel has forgotten, it has written back.
        match self.send(INVALIDATE.cast_signed(), 0, &body) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
