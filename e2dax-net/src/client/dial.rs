//! How a connection is made: reached, encrypted, settled.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::connection::Connection;
use super::device::Connect;
use super::negotiate::{Settled, choose, greet};
use crate::stream::Stream;
use crate::uri::{NbdUri, Place};

/// A connection on which the export is chosen.
///
/// A host may have several addresses: `at` is the one to go to, where others are not wanted. To reach the server, and to settle with
/// it, may take `step` each; what an answer may take later is the options' affair.
pub(super) fn dial(
    uri: &NbdUri,
    at: Option<SocketAddr>,
    options: &Connect,
    step: Duration,
) -> io::Result<(Connection, Settled)> {
    let mut reached = None;
    let stream = match &uri.place {
        Place::Unix(path) => UnixStream::connect(path)?.into(),
        Place::Tcp(host, port) => {
            let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
            let mut found = None;
            let addresses = match at {
                Some(at) => vec![at],
                None => (host.as_str(), *port).to_socket_addrs()?.collect(),
            };
            for address in addresses {
                match TcpStream::connect_timeout(&address, step.min(Duration::from_secs(10))) {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        found = Some(Stream::from(stream));
                        reached = Some(address);
                        break;
                    }
                    Err(error) => failed = error,
                }
            }
            found.ok_or(failed)?
        }
    };
    stream.set_timeout(Some(step))?;
    stream.set_deadline(Some(step));
    let flags = greet(&stream)?;
    if uri.tls {
        encrypt(&stream, uri)?;
    }
    let settled = choose(&stream, flags, &uri.export)?;
    stream.set_deadline(None);
    stream.set_timeout(Some(options.timeout))?;
    Ok((Connection::new(stream, reached, settled.structured, options.timeout), settled))
}

/// Encrypts a connection, with the server that the URI names.
#[cfg(feature = "tls")]
fn encrypt(stream: &Stream, uri: &NbdUri) -> io::Result<()> {
    use crate::tls::ClientTls;
    // Read anew for each connection: certificates are replaced while programs run.
    let tls = match &uri.certificates {
        Some(folder) => ClientTls::from_folder(folder)?,
        None => ClientTls::from_folder(&ClientTls::default_folder()?)?,
    };
    let host = match (&uri.hostname, &uri.place) {
        (Some(hostname), _) => hostname.as_str(),
        (None, Place::Tcp(host, _)) => host.as_str(),
        (None, Place::Unix(_)) => "localhost",
    };
    let session = tls.session(host)?;
    super::negotiate::ask_for_tls(stream)?;
    stream.encrypt(session)
}

#[cfg(not(feature = "tls"))]
fn encrypt(_: &Stream, _: &NbdUri) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "TLS is not in this build: the feature tls has it"))
}
