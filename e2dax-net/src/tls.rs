//! TLS, as the NBD project has it: certificates in a folder, by the names that GnuTLS and QEMU give them.
//!
//! | file | of the server | of the client |
//! |---|---|---|
//! | `ca-cert.pem` | who signs certificates of clients; where it is, they have to have one | who signs the server's |
//! | `server-cert.pem`, `server-key.pem` | its own | |
//! | `client-cert.pem`, `client-key.pem` | | its own, where the server asks for one |
//!
//! A thread of each connection carries bytes between the network and a pair of sockets, so that all above it are plain sockets, of
//! which one thread reads while another writes.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};

use crate::stream::Stream;

/// Bytes that are carried at a time.
const PIECE: usize = 64 << 10;

fn wrong(what: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let bytes = std::fs::read(path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    all.map_err(|error| wrong(format!("{}: {error}", path.display())))
}

fn key(path: &Path) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| wrong(format!("{}: {error}", path.display())))
}

fn roots(path: &Path) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(wrong)?;
    }
    Ok(roots)
}

/// What a server shows, and whom it lets in.
#[derive(Clone, Debug)]
pub struct TlsServer(Arc<ServerConfig>);

impl TlsServer {
    /// From the certificates of a folder.
    ///
    /// # Errors
    /// `InvalidData`, naming the file that is missing or no certificate.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(wrong)?;
        let authority = folder.join("ca-cert.pem");
        let builder = if authority.exists() {
            let roots = Arc::new(roots(&authority)?);
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots, provider).build().map_err(wrong)?;
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let own = certificates(&folder.join("server-cert.pem"))?;
        let config = builder.with_single_cert(own, key(&folder.join("server-key.pem"))?).map_err(wrong)?;
        Ok(Self(Arc::new(config)))
    }

    /// The encrypted connection over one on which the client has asked for it.
    pub(crate) fn accept(&self, stream: Stream) -> io::Result<Stream> {
        let connection = ServerConnection::new(Arc::clone(&self.0)).map_err(wrong)?;
        carry(Connection::Server(connection), stream)
    }
}

/// The encrypted connection to a server of that name, which has agreed to it.
pub(crate) fn connect(folder: &Path, host: &str, stream: Stream) -> io::Result<Stream> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(wrong)?;
    let builder = builder.with_root_certificates(roots(&folder.join("ca-cert.pem"))?);
    let own = folder.join("client-cert.pem");
    let config = if own.exists() {
        let own = certificates(&own)?;
        builder.with_client_auth_cert(own, key(&folder.join("client-key.pem"))?).map_err(wrong)?
    } else {
        builder.with_no_client_auth()
    };
    let name = ServerName::try_from(host.to_owned()).map_err(wrong)?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(wrong)?;
    carry(Connection::Client(connection), stream)
}

/// Shakes hands, and gives a plain socket behind which a thread carries bytes.
fn carry(mut connection: Connection, stream: Stream) -> io::Result<Stream> {
    let mut io = &stream;
    while connection.is_handshaking() {
        connection.complete_io(&mut io)?;
    }
    let (ours, theirs) = UnixStream::pair()?;
    stream.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    thread::Builder::new().name("tls".into()).spawn(move || {
        let mut carrier = Carrier { connection, stream, plain: theirs, out: Vec::new(), sent: 0 };
        if let Err(error) = carrier.run() {
            log::debug!("TLS: {error}");
        }
        carrier.stream.shut_down();
        let _ = carrier.plain.shutdown(std::net::Shutdown::Both);
    })?;
    Ok(Stream::Unix(ours))
}

struct Carrier {
    connection: Connection,
    stream: Stream,
    plain: UnixStream,
    /// What came and was decrypted, and how much of it was given on.
    out: Vec<u8>,
    sent: usize,
}

/// What an operation that must not wait has done; none where it would have to.
fn ready<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Carrier {
    /// Carries until either side ends.
    fn run(&mut self) -> io::Result<()> {
        let mut buf = vec![0; PIECE];
        // What came with the last of the handshake.
        self.connection.set_buffer_limit(None);
        self.decrypt()?;
        loop {
            // Nothing is taken from one side that the other has no room for.
            let takes_plain = !self.connection.wants_write();
            let takes_tls = self.sent == self.out.len();
            let flags = |wants_in: bool, wants_out: bool| {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, wants_in);
                flags.set(PollFlags::OUT, wants_out);
                flags
            };
            let mut waiting = [
                PollFd::new(&self.plain, flags(takes_plain, !takes_tls)),
                PollFd::new(&self.stream, flags(takes_tls, !takes_plain)),
            ];
            rustix::io::retry_on_intr(|| poll(&mut waiting, None))?;
            let happened = waiting.map(|waiting| waiting.revents());
            let is_over = |flags: PollFlags| flags.intersects(PollFlags::HUP | PollFlags::ERR);
            if takes_plain && (happened[0].contains(PollFlags::IN) || is_over(happened[0])) {
                match ready((&self.plain).read(&mut buf))? {
                    Some(0) => return self.farewell(),
                    Some(len) => self.connection.writer().write_all(buf.get(..len).unwrap_or_default())?,
                    None => {}
                }
            }
            let mut io = &self.stream;
            while self.connection.wants_write() && ready(self.connection.write_tls(&mut io))?.is_some() {}
            if takes_tls && (happened[1].contains(PollFlags::IN) || is_over(happened[1])) {
                let came = ready(self.connection.read_tls(&mut io))?;
                let has_closed = self.decrypt()?;
                if came == Some(0) || has_closed {
                    self.plain.set_nonblocking(false)?;
                    return (&self.plain).write_all(&self.out);
                }
            }
            while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
                match ready((&self.plain).write(rest))? {
                    Some(len) => self.sent += len,
                    None => break,
                }
            }
        }
    }

    /// Takes what was decrypted, and tells whether no more comes.
    fn decrypt(&mut self) -> io::Result<bool> {
        let state = self.connection.process_new_packets().map_err(wrong)?;
        (self.out, self.sent) = (vec![0; state.plaintext_bytes_to_read()], 0);
        self.connection.reader().read_exact(&mut self.out)?;
        Ok(state.peer_has_closed())
    }

    /// Says that no more comes.
    fn farewell(&mut self) -> io::Result<()> {
        self.connection.send_close_notify();
        let mut io = &self.stream;
        while self.connection.wants_write() && ready(self.connection.write_tls(&mut io))?.is_some() {}
        Ok(())
    }
}
