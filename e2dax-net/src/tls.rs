//! TLS, by `rustls`: certificates as files of the names that QEMU, nbdkit and libnbd give them, and encrypted sessions.
//!
//! | file | of | holds |
//! |---|---|---|
//! | `ca-cert.pem` | both | who signs certificates |
//! | `ca-crl.pem` | both, may be missing | which of them are revoked |
//! | `server-cert.pem`, `server-key.pem` | servers | who the server is |
//! | `client-cert.pem`, `client-key.pem` | clients, may be missing | who the client is |
//!
//! # Invariants
//! 1. A server of ours takes no client without a certificate that `ca-cert.pem` signed; a client of ours no server without one,
//!    made out for its host.
//! 2. Nothing that came before encryption counts behind it: what either side said in the clear is forgotten, and what it sent
//!    in advance is taken for TLS, which it is not.
//!
//! # Locking
//! Whoever reads holds `receiving`, whoever writes `sending`; both take `state` for the time of a computation, and never while
//! they wait for the socket. So one thread can wait for bytes while another sends some.

mod certificates;
mod session;

pub use certificates::{ClientTls, ServerTls};
pub(crate) use session::Session;
