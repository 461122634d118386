//! Where an export is: the URIs of the NBD project.
//!
//! `nbd://HOST[:PORT]/EXPORT` and `nbd+unix:///EXPORT?socket=PATH`; `nbds` and `nbds+unix` with TLS. Parts are percent-encoded
//! where a character has a meaning of its own. What a query says besides is passed over, but for keys that would change who is
//! trusted: those are refused.
//!
//! The rules: <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md>.

use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode, utf8_percent_encode};

/// The port where none is named.
pub const PORT: u16 = 10809;

/// What stands as it is, in exports and paths.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// How the server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// By a socket of this machine.
    Unix(PathBuf),
    /// By a name or an address, and a port.
    Tcp(String, u16),
}

/// An export of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdUri {
    /// Encrypted.
    pub tls: bool,
    /// The server.
    pub place: Place,
    /// The name of the export; empty for the one that the server gives who names none.
    pub export: String,
    /// The folder with `ca-cert.pem`, and `client-cert.pem` and `client-key.pem` where the server asks who the client is
    /// (`tls-certificates`).
    pub certificates: Option<PathBuf>,
    /// The name that the server's certificate has to have, where it is not the host's (`tls-hostname`). Over a socket of this
    /// machine that is `localhost`.
    pub hostname: Option<String>,
}

impl NbdUri {
    /// An export at a socket of this machine.
    pub fn unix(socket: &Path, export: impl Into<String>) -> Self {
        let place = Place::Unix(socket.to_path_buf());
        Self { tls: false, place, export: export.into(), certificates: None, hostname: None }
    }

    /// An export at an address.
    pub fn tcp(host: impl Into<String>, port: u16, export: impl Into<String>) -> Self {
        let place = Place::Tcp(host.into(), port);
        Self { tls: false, place, export: export.into(), certificates: None, hostname: None }
    }

    /// Whether a text is meant as one: it begins with one of the schemes.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        scheme(text).is_some()
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence that begins with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (tls, unix, rest) = scheme(text).ok_or("is no NBD URI")?;
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, export) = rest.split_once('/').unwrap_or((rest, ""));
        let mut socket = None;
        let (mut certificates, mut hostname) = (None, None);
        for (key, value) in query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
            match key {
                "socket" => socket = Some(path(value)),
                "tls-certificates" => certificates = Some(path(value)),
                "tls-hostname" => hostname = Some(decode(value)?),
                "tls-psk-file" if tls => {
                    return Err("asks for TLS by a shared key, which is not supported".into());
                }
                "tls-verify-peer" if tls && matches!(value, "false" | "0") => {
                    return Err("asks for TLS with whoever answers, which is not supported".into());
                }
                _ => {}
            }
        }
        let place = match (unix, socket) {
            (true, Some(socket)) if !socket.as_os_str().is_empty() => Place::Unix(socket),
            (true, _) => return Err("names no socket: nbd+unix:///EXPORT?socket=PATH".into()),
            (false, Some(_)) => return Err("has a socket, and is not of the kind nbd+unix".into()),
            (false, None) => tcp_place(authority)?,
        };
        if unix && !authority.is_empty() {
            return Err("has a host and a socket: nbd+unix:/// has three slashes".into());
        }
        Ok(Self { tls, place, export: decode(export)?, certificates, hostname })
    }
}

fn scheme(text: &str) -> Option<(bool, bool, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    match scheme {
        "nbd" => Some((false, false, rest)),
        "nbds" => Some((true, false, rest)),
        "nbd+unix" => Some((false, true, rest)),
        "nbds+unix" => Some((true, true, rest)),
        _ => None,
    }
}

fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "has a name that is no UTF-8")?;
    if decoded.len() > crate::proto::MAX_NAME {
        return Err("has a name of more than 4096 bytes".into());
    }
    Ok(decoded.into_owned())
}

fn path(text: &str) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(percent_decode_str(text).collect()))
}

fn tcp_place(authority: &str) -> Result<Place, String> {
    // A user's name says nothing to NBD.
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or("has an address without its ]")?;
            (host, after.strip_prefix(':').unwrap_or(after))
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let port = match port {
        "" => PORT,
        port => port.parse().map_err(|_| format!("has the port {port:?}"))?,
    };
    let host = if host.is_empty() { "localhost".to_owned() } else { decode(host)? };
    Ok(Place::Tcp(host, port))
}

impl fmt::Display for NbdUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.tls { "s" } else { "" };
        let export = utf8_percent_encode(&self.export, ENCODED);
        let mut mark = '?';
        match &self.place {
            Place::Unix(socket) => {
                let socket = percent_encode(socket.as_os_str().as_bytes(), ENCODED);
                write!(f, "nbd{tls}+unix:///{export}?socket={socket}")?;
                mark = '&';
            }
            Place::Tcp(host, port) if host.contains(':') => write!(f, "nbd{tls}://[{host}]:{port}/{export}")?,
            Place::Tcp(host, port) => write!(f, "nbd{tls}://{host}:{port}/{export}")?,
        }
        if let Some(folder) = &self.certificates {
            let folder = percent_encode(folder.as_os_str().as_bytes(), ENCODED);
            write!(f, "{mark}tls-certificates={folder}")?;
            mark = '&';
        }
        if let Some(hostname) = &self.hostname {
            write!(f, "{mark}tls-hostname={}", utf8_percent_encode(hostname, ENCODED))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_of_all_kinds_are_read_and_written() {
        for (text, written) in [
            ("nbd://host/disk", "nbd://host:10809/disk"),
            ("nbd://host:99/", "nbd://host:99/"),
            ("nbd://", "nbd://localhost:10809/"),
            ("nbds://[::1]:5/a%20b", "nbds://[::1]:5/a%20b"),
            ("nbd+unix:///x?socket=/tmp/s&more=1", "nbd+unix:///x?socket=/tmp/s"),
            ("nbd+unix://?socket=relative", "nbd+unix:///?socket=relative"),
            (
                "nbds+unix:///?socket=/a%3Fb&tls-certificates=/pki",
                "nbds+unix:///?socket=/a%3Fb&tls-certificates=/pki",
            ),
            ("nbds://h/?tls-hostname=storage.example", "nbds://h:10809/?tls-hostname=storage.example"),
        ] {
            let uri = NbdUri::parse(text).unwrap();
            assert_eq!(uri.to_string(), written);
            assert_eq!(NbdUri::parse(written).unwrap(), uri);
        }
    }

    #[test]
    fn what_is_wrong_with_a_uri_is_said() {
        for (text, what) in [
            ("http://host/", "is no NBD URI"),
            ("nbd+unix:///x", "names no socket"),
            ("nbd+unix://host/x?socket=/s", "a host and a socket"),
            ("nbd://host/x?socket=/s", "not of the kind nbd+unix"),
            ("nbd://host:70000/", "the port \"70000\""),
            ("nbd://[::1/", "without its ]"),
            ("nbd://host/%ff", "no UTF-8"),
            ("nbds://host/?tls-verify-peer=false", "whoever answers"),
            ("nbds://host/?tls-psk-file=/keys", "a shared key"),
        ] {
            assert!(NbdUri::parse(text).unwrap_err().contains(what), "{text}");
        }
    }
}
