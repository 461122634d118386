//! Certificates, from a folder.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use super::Session;

/// Where libnbd looks when nobody names a folder: below the user's home, and for the whole system.
const HOMES: [&str; 2] = [".pki/libnbd", ".config/pki/libnbd"];
const SYSTEM: &str = "/etc/pki/libnbd";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What is wrong with a file.
fn about(path: &Path, what: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {what}", path.display()))
}

/// The parts of a file of PEM, at least one.
fn parts<T: PemObject>(path: &Path) -> io::Result<Vec<T>> {
    let read = T::pem_file_iter(path).map_err(|error| about(path, in_words(error)))?;
    let all = read.collect::<Result<Vec<T>, _>>().map_err(|error| about(path, in_words(error)))?;
    if all.is_empty() { Err(about(path, "has no certificate")) } else { Ok(all) }
}

fn in_words(error: rustls::pki_types::pem::Error) -> String {
    let text = match error {
        rustls::pki_types::pem::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    };
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

fn roots(folder: &Path) -> io::Result<Arc<RootCertStore>> {
    let path = folder.join("ca-cert.pem");
    let mut roots = RootCertStore::empty();
    for certificate in parts(&path)? {
        roots.add(certificate).map_err(|error| about(&path, error))?;
    }
    Ok(Arc::new(roots))
}

fn revoked(folder: &Path) -> io::Result<Vec<CertificateRevocationListDer<'static>>> {
    let path = folder.join("ca-crl.pem");
    if path.try_exists()? { parts(&path) } else { Ok(Vec::new()) }
}

type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn own(folder: &Path, who: &str) -> io::Result<Own> {
    let key = folder.join(format!("{who}-key.pem"));
    let chain = parts(&folder.join(format!("{who}-cert.pem")))?;
    Ok((chain, PrivateKeyDer::from_pem_file(&key).map_err(|error| about(&key, in_words(error)))?))
}

/// A server's side: who it is, and who may connect.
#[derive(Clone)]
pub struct ServerTls(Arc<ServerConfig>);

impl ServerTls {
    /// Reads `ca-cert.pem`, `server-cert.pem` and `server-key.pem`, and `ca-crl.pem` where there is one. Clients have to show a
    /// certificate of that CA.
    ///
    /// # Errors
    /// The file, and what is wrong with it.
    pub fn from_folder(folder: &Path) -> io::Result<Self> {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(folder)?, provider())
            .with_crls(revoked(folder)?)
            .build()
            .map_err(|error| about(folder, error))?;
        let (chain, key) = own(folder, "server")?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_client_cert_verifier(verifier).with_single_cert(chain, key));
        Ok(Self(Arc::new(config.map_err(|error| about(folder, error))?)))
    }

    pub(crate) fn session(&self) -> io::Result<Session> {
        let connection = ServerConnection::new(Arc::clone(&self.0)).map_err(io::Error::other)?;
        Ok(Session::new(connection.into()))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

/// A client's side: who may serve, and who it is.
#[derive(Clone)]
pub struct ClientTls(Arc<ClientConfig>);

impl ClientTls {
    /// Reads `ca-cert.pem`, and `client-cert.pem`, `client-key.pem` and `ca-crl.pem` where there are any.
    ///
    /// # Errors
    /// The file, and what is wrong with it.
    pub fn from_folder(folder: &Path) -> io::Result<Self> {
        let verifier = WebPkiServerVerifier::builder_with_provider(roots(folder)?, provider())
            .with_crls(revoked(folder)?)
            .build()
            .map_err(|error| about(folder, error))?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| about(folder, error))?
            .with_webpki_verifier(verifier);
        let config = if folder.join("client-cert.pem").try_exists()? {
            let (chain, key) = own(folder, "client")?;
            builder.with_client_auth_cert(chain, key).map_err(|error| about(folder, error))?
        } else {
            builder.with_no_client_auth()
        };
        Ok(Self(Arc::new(config)))
    }

    /// The folder that is meant where none is named: the first of libnbd's that is there.
    ///
    /// # Errors
    /// `NotFound`, which names them.
    pub fn default_folder() -> io::Result<PathBuf> {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let homes = home.iter().flat_map(|home| HOMES.map(|below| home.join(below)));
        let found = homes.chain([PathBuf::from(SYSTEM)]).find(|folder| folder.is_dir());
        found.ok_or_else(|| {
            let what = format!(
                "TLS needs certificates: name their folder by ?tls-certificates=DIR, or have it as ~/{}, ~/{} or {SYSTEM}",
                HOMES[0], HOMES[1]
            );
            io::Error::new(io::ErrorKind::NotFound, what)
        })
    }

    pub(crate) fn session(&self, host: &str) -> io::Result<Session> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{host:?} is no name of a host"))
        })?;
        let connection = ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        Ok(Session::new(connection.into()))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}
