//! Sockets: of this machine and of the network, connected and listening, and how a server is stopped.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

/// A connection. Reading and writing take a shared reference, so that one thread can read while another writes.
#[derive(Debug)]
pub struct Stream {
    socket: Connected,
    /// What both sides settled on, once they did.
    #[cfg(feature = "tls")]
    tls: std::sync::OnceLock<crate::tls::Session>,
}

/// A connected socket.
#[derive(Debug)]
struct Connected {
    kind: Kind,
    /// Milliseconds of [`now`] at which the connection ends, whatever is under way; [`u64::MAX`] for never.
    deadline: AtomicU64,
}

#[derive(Debug)]
enum Kind {
    /// Of this machine.
    Unix(UnixStream),
    /// Of the network.
    Tcp(TcpStream),
}

/// Milliseconds since some moment.
fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Connected {
    fn shut_down(&self) {
        // Fails only where it has ended already.
        let _ = match &self.kind {
            Kind::Unix(stream) => stream.shutdown(Shutdown::Both),
            Kind::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.kind {
            Kind::Unix(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
            Kind::Tcp(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
        }
    }

    fn check_deadline(&self) -> io::Result<()> {
        let deadline = self.deadline.load(Ordering::Relaxed);
        if deadline != u64::MAX && now() >= deadline { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl Read for &Connected {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.check_deadline()?;
        match &self.kind {
            Kind::Unix(stream) => (&*stream).read(buf),
            Kind::Tcp(stream) => (&*stream).read(buf),
        }
    }
}

impl Write for &Connected {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.check_deadline()?;
        match &self.kind {
            Kind::Unix(stream) => (&*stream).write(buf),
            Kind::Tcp(stream) => (&*stream).write(buf),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.check_deadline()?;
        match &self.kind {
            Kind::Unix(stream) => (&*stream).write_vectored(bufs),
            Kind::Tcp(stream) => (&*stream).write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream {
    fn new(kind: Kind) -> Self {
        Self {
            socket: Connected { kind, deadline: AtomicU64::new(u64::MAX) },
            #[cfg(feature = "tls")]
            tls: std::sync::OnceLock::new(),
        }
    }

    /// Ends both directions: who reads or writes meanwhile gets an error or an end.
    pub fn shut_down(&self) {
        #[cfg(feature = "tls")]
        if let Some(tls) = self.tls.get() {
            // Said if it can be at once.
            let _ = rustix::net::send(
                &self.socket.kind,
                &tls.goodbye(),
                rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL,
            );
        }
        self.socket.shut_down();
    }

    /// What was written and not sent yet is thrown away when the connection is closed, and the other side is told so.
    pub(crate) fn forget_unsent(&self) {
        // Fails only where it has ended already. A socket of this machine gives its bytes on at once.
        if let Kind::Tcp(stream) = &self.socket.kind {
            let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        }
    }

    /// How long one call may wait for bytes to come or go; `None` for ever.
    ///
    /// # Errors
    /// The system's.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_timeout(timeout)
    }

    /// How long all calls together may take from now on; `None` for ever. Afterwards each is an error of the kind `TimedOut`. One
    /// that waits already goes on until [its own](Self::set_timeout) time is over.
    pub fn set_deadline(&self, within: Option<Duration>) {
        let millis = |within: Duration| u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let deadline = within.map_or(u64::MAX, |within| now().saturating_add(millis(within)));
        self.socket.deadline.store(deadline, Ordering::Relaxed);
    }

    /// Writes two pieces, one behind the other, by as few calls as they take.
    pub(crate) fn write_both(&self, first: &[u8], second: &[u8]) -> io::Result<()> {
        #[cfg(feature = "tls")]
        if let Some(tls) = self.tls.get() {
            return tls.write_all(&self.socket, [first, second]);
        }
        let (mut first, mut second) = (first, second);
        let mut out = &self.socket;
        while !first.is_empty() && !second.is_empty() {
            let written = match out.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let of_first = written.min(first.len());
            first = first.get(of_first..).unwrap_or_default();
            second = second.get(written - of_first..).unwrap_or_default();
        }
        out.write_all(first)?;
        out.write_all(second)
    }

    /// Encrypts all that follows.
    #[cfg(feature = "tls")]
    pub(crate) fn encrypt(&self, session: crate::tls::Session) -> io::Result<()> {
        session.handshake(&self.socket)?;
        self.tls.set(session).map_err(|_| io::Error::other("the connection is encrypted already"))
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self::new(Kind::Unix(stream))
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::new(Kind::Tcp(stream))
    }
}

impl AsFd for Kind {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.kind.as_fd()
    }
}

impl Read for &Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(tls) = self.tls.get() {
            return tls.read(&self.socket, buf);
        }
        (&self.socket).read(buf)
    }
}

impl Write for &Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(tls) = self.tls.get() {
            return tls.write_all(&self.socket, [buf, b""]).map(|()| buf.len());
        }
        (&self.socket).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket that waits for connections.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    /// With its name, which goes when it does.
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener, SocketAddr),
}

impl Listener {
    /// A socket of this machine, with a name that nobody has. Who may connect is said by the folder's permissions.
    ///
    /// A socket of that name to which nobody listens any more is replaced.
    ///
    /// # Errors
    /// The system's: `AddrInUse` where somebody listens there, or something else has the name.
    pub fn unix(path: &Path) -> io::Result<Self> {
        let bound = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_over(path) => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)
            }
            bound => bound,
        }?;
        bound.set_nonblocking(true)?;
        Ok(Self { socket: Socket::Unix(bound, path.to_path_buf()) })
    }

    /// A socket of the network; port 0 is any that is free.
    ///
    /// # Errors
    /// The system's.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        let bound = TcpListener::bind(address)?;
        bound.set_nonblocking(true)?;
        let address = bound.local_addr()?;
        Ok(Self { socket: Socket::Tcp(bound, address) })
    }

    /// The name of a socket of this machine.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.socket {
            Socket::Unix(_, path) => Some(path),
            Socket::Tcp(..) => None,
        }
    }

    /// The address of a socket of the network.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self.socket {
            Socket::Tcp(_, address) => Some(address),
            Socket::Unix(..) => None,
        }
    }

    /// The next connection, or none when the server is to stop.
    pub(crate) fn accept(&self, stop: &Stop) -> io::Result<Option<Stream>> {
        loop {
            let ready = {
                let mut waiting = [PollFd::new(&stop.heard, PollFlags::IN), PollFd::new(self, PollFlags::IN)];
                rustix::io::retry_on_intr(|| poll(&mut waiting, None))?;
                waiting.map(|waiting| !waiting.revents().is_empty())
            };
            if ready[0] {
                return Ok(None);
            }
            let accepted = match &self.socket {
                Socket::Unix(listener, _) => listener.accept().and_then(|(stream, _)| {
                    stream.set_nonblocking(false)?;
                    Ok(Stream::from(stream))
                }),
                Socket::Tcp(listener, _) => listener.accept().and_then(|(stream, _)| {
                    stream.set_nonblocking(false)?;
                    // Fails only where the client is gone again, which is found out soon.
                    let _ = stream.set_nodelay(true);
                    Ok(Stream::from(stream))
                }),
            };
            match accepted {
                Ok(stream) => return Ok(Some(stream)),
                // Gone again before it was taken.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::Interrupted
                            | io::ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether the name is that of a socket to which nobody listens.
fn is_left_over(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Unix(listener, _) => listener.as_fd(),
            Socket::Tcp(listener, _) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = &self.socket {
            // It may be gone already.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Stops a server, from another thread or a handler of signals.
pub struct Stop {
    heard: UnixStream,
    told: UnixStream,
}

impl Stop {
    /// A server that is given this runs until it is stopped.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Self> {
        let (heard, told) = UnixStream::pair()?;
        told.set_nonblocking(true)?;
        Ok(Self { heard, told })
    }

    /// Stops it. What is under way is ended first.
    pub fn stop(&self) {
        // Full only when it was told often enough.
        let _ = (&self.told).write(&[0]);
    }

    /// A socket to which a byte is written to stop it: for `signal_hook::low_level::pipe`.
    ///
    /// # Errors
    /// The system's.
    pub fn socket(&self) -> io::Result<UnixStream> {
        self.told.try_clone()
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").finish_non_exhaustive()
    }
}
