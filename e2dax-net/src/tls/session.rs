//! What is encrypted: a session over a socket.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::Connection;

/// Bytes that are taken from the socket at a time.
const RECEIVED: usize = 64 << 10;
/// Bytes that are encrypted before they are sent.
const SENT: usize = 256 << 10;

/// A session; sockets are given to each call.
pub(crate) struct Session {
    state: Mutex<Connection>,
    /// Records that are not sent yet. Held until they are: they go out in the order in which they are numbered.
    sending: Mutex<Vec<u8>>,
    receiving: Mutex<Received>,
}

/// Bytes of the socket that were not looked at yet.
struct Received {
    bytes: Box<[u8]>,
    from: usize,
    to: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    pub(super) fn new(mut state: Connection) -> Self {
        // What is written is encrypted and sent at once.
        state.set_buffer_limit(None);
        let receiving = Received { bytes: vec![0; RECEIVED].into(), from: 0, to: 0 };
        Self { state: Mutex::new(state), sending: Mutex::default(), receiving: Mutex::new(receiving) }
    }

    /// Settles keys, and who is who.
    pub(crate) fn handshake(&self, mut socket: impl Read + Write) -> io::Result<()> {
        let mut received = lock(&self.receiving);
        loop {
            self.send_pending(&mut socket)?;
            if !lock(&self.state).is_handshaking() {
                return Ok(());
            }
            if let Err(error) = self.receive(&mut socket, &mut received) {
                // The other side is told why, if it still listens.
                let _ = self.send_pending(&mut socket);
                return Err(error);
            }
            if received.to == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Takes some bytes, and waits for the first of them.
    pub(crate) fn read(&self, mut socket: impl Read + Write, buf: &mut [u8]) -> io::Result<usize> {
        let mut received = lock(&self.receiving);
        loop {
            match lock(&self.state).reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            self.receive(&mut socket, &mut received)?;
            // New keys are answered by new keys. Whoever sends now sends the answer, too.
            let has_more = lock(&self.state).wants_write();
            if has_more && let Ok(mut out) = self.sending.try_lock() {
                self.send(&mut socket, &mut out)?;
            }
        }
    }

    /// Decrypts some of what has come, and waits where nothing has.
    fn receive(&self, socket: &mut impl Read, received: &mut Received) -> io::Result<()> {
        if received.from == received.to {
            let got = socket.read(&mut received.bytes)?;
            (received.from, received.to) = (0, got);
        }
        let mut state = lock(&self.state);
        let mut rest = received.bytes.get(received.from..received.to).unwrap_or_default();
        // Nothing at all tells it of the end.
        state.read_tls(&mut rest)?;
        received.from = received.to - rest.len();
        let done = state.process_new_packets();
        done.map(|_| ()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {error}")))
    }

    /// Encrypts and sends all of them, one behind the other.
    pub(crate) fn write_all(&self, mut socket: impl Write, pieces: [&[u8]; 2]) -> io::Result<()> {
        let mut out = lock(&self.sending);
        for piece in pieces.iter().flat_map(|piece| piece.chunks(SENT)) {
            lock(&self.state).writer().write_all(piece)?;
            if piece.len() == SENT {
                self.send(&mut socket, &mut out)?;
            }
        }
        self.send(&mut socket, &mut out)
    }

    fn send_pending(&self, socket: &mut impl Write) -> io::Result<()> {
        self.send(socket, &mut lock(&self.sending))
    }

    fn send(&self, socket: &mut impl Write, out: &mut Vec<u8>) -> io::Result<()> {
        out.clear();
        {
            let mut state = lock(&self.state);
            while state.wants_write() {
                state.write_tls(out)?;
            }
        }
        socket.write_all(out)
    }

    /// What says that no more comes, unless somebody is sending: then it is said by the end of the connection.
    pub(crate) fn goodbye(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Ok(_sending) = self.sending.try_lock() {
            let mut state = lock(&self.state);
            state.send_close_notify();
            while state.wants_write() && state.write_tls(&mut bytes).is_ok() {}
        }
        bytes
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}
