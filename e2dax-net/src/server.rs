//! An NBD server.
//!
//! # Invariants
//! 1. Nothing that a client sends makes the server panic, hang another client, or take memory that is not bounded: options and
//!    names have a greatest length, data is taken and given in pieces of 1 MiB.
//! 2. A reply to FLUSH, or to a request with FUA, is sent after the device's flush has returned. A flush covers what was written
//!    over any connection, which is why several are offered.
//! 3. What was answered is never unsaid: an error after the first bytes of data is a chunk of its own.
//! 4. A client that left a connection and is served on another finds nothing changed from then on by what it asked for on the
//!    first: see `fate`.
//!
//! # Locking
//! Each connection has a lock for what comes in and one for what goes out. A thread that handles a request takes the second
//! with or without holding the first; nobody takes the first while he holds the second.

mod export;
mod fate;
mod handshake;
mod reply;
mod session;
mod status;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

pub use export::Export;

use crate::stream::{Listener, Stop, Stream};
use fate::Fates;
use handshake::{Chosen, negotiate};
use session::Session;

/// Connections at a time; more are closed as they come.
const MAX_CONNECTIONS: usize = 256;
/// How long a client may take over each step of the negotiation, and over all of it.
const PATIENCE: Duration = Duration::from_secs(20);
const PATIENCE_AT_ALL: Duration = Duration::from_secs(60);

/// Devices, each with the name under which it is served.
#[derive(Debug)]
pub struct Server {
    exports: Vec<Export>,
    patience: (Duration, Duration),
    fates: Fates,
    #[cfg(feature = "tls")]
    tls: Option<crate::tls::ServerTls>,
}

impl Server {
    /// A server of these. The export without a name is the one that clients get who ask for none; where none has
    /// an empty name, the first one is that, too.
    #[must_use]
    pub fn new(exports: Vec<Export>) -> Self {
        Self {
            exports,
            patience: (PATIENCE, PATIENCE_AT_ALL),
            fates: Fates::default(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// The same for clients with certificates only: whoever does not encrypt is told so, and nothing else.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn encrypted(self, tls: crate::tls::ServerTls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// The same, where a client may take `step` over each step of the negotiation, and `all` over the whole of it. By default
    /// that is 20 seconds and a minute.
    #[must_use]
    pub fn patience(self, step: Duration, all: Duration) -> Self {
        Self { patience: (step, all), ..self }
    }

    /// What is served.
    #[must_use]
    pub fn exports(&self) -> &[Export] {
        &self.exports
    }

    /// Serves all who connect, until it is stopped; then connections are ended, and devices flushed.
    ///
    /// # Errors
    /// When the socket fails; the first error of a flush at the end.
    pub fn run(&self, listener: &Listener, stop: &Stop) -> io::Result<()> {
        let open: Mutex<BTreeMap<u64, Arc<Stream>>> = Mutex::new(BTreeMap::new());
        let lock = || open.lock().unwrap_or_else(PoisonError::into_inner);
        let accepted = thread::scope(|scope| {
            let mut next = 0;
            let ended = loop {
                let stream = match listener.accept(stop) {
                    Ok(Some(stream)) => Arc::new(stream),
                    Ok(None) => break Ok(()),
                    Err(error) => {
                        // Files may be short for a moment; anything else is the end.
                        let short =
                            [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE, rustix::io::Errno::NOBUFS];
                        if short.iter().any(|short| error.raw_os_error() == Some(short.raw_os_error())) {
                            log::warn!("a connection is not taken: {error}");
                            thread::sleep(Duration::from_millis(100));
                            continue;
                        }
                        break Err(error);
                    }
                };
                if lock().len() >= MAX_CONNECTIONS {
                    log::warn!("a connection is refused: there are {MAX_CONNECTIONS}");
                    continue;
                }
                let nr = next;
                next += 1;
                lock().insert(nr, Arc::clone(&stream));
                let serve = move || {
                    if let Err(error) = self.serve(&stream) {
                        log::info!("a connection ended: {error}");
                    }
                    stream.shut_down();
                    lock().remove(&nr);
                };
                if let Err(error) = thread::Builder::new().name("nbd".into()).spawn_scoped(scope, serve) {
                    log::warn!("a connection is refused: {error}");
                    lock().remove(&nr);
                }
            };
            lock().values().for_each(|stream| stream.shut_down());
            ended
        });
        let mut flushed = Ok(());
        for export in self.exports.iter().filter(|export| !export.is_read_only()) {
            if let Err(error) = export.device().flush() {
                log::error!("{}: {error}", export.name());
                flushed = flushed.and(Err(io::Error::other(error.to_string())));
            }
        }
        accepted.and(flushed)
    }

    /// Serves one connection to its end.
    ///
    /// # Errors
    /// When the client breaks the protocol, or the connection fails.
    pub fn serve(&self, stream: &Stream) -> io::Result<()> {
        stream.set_timeout(Some(self.patience.0))?;
        stream.set_deadline(Some(self.patience.1));
        #[cfg(feature = "tls")]
        let encrypt = self.tls.as_ref().map(|tls| move |stream: &Stream| stream.encrypt(tls.session()?));
        #[cfg(not(feature = "tls"))]
        let encrypt: Option<fn(&Stream) -> io::Result<()>> = None;
        let Some(chosen) = negotiate(stream, &self.exports, encrypt)? else { return Ok(()) };
        stream.set_deadline(None);
        stream.set_timeout(None)?;
        let Chosen { export, structured, status } = chosen;
        let served = self.fates.begin(stream, export.device())?;
        Session::new(export, &served.fate, stream, structured, status).run()
    }
}
