//! Block devices beyond one machine, over the traits of `blockdev`.
//!
//! | module | is |
//! |---|---|
//! | [`server`] | an NBD server: devices, served under names |
//! | [`client`] | an NBD client: a served device as a device |
//! | [`uri`] | `nbd://HOST:PORT/EXPORT` and its kind |
//! | [`stream`] | the sockets under both |
//! | `object` | an image behind HTTP or in an object store as a device, with the feature `object-store` |
//! | `tls` | what is encrypted, with the feature `tls` |
//!
//! The protocol is that of <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>: fixed newstyle negotiation,
//! structured replies, `base:allocation`.
//!
//! ```
//! use std::sync::Arc;
//!
//! use blockdev::{BlockDevice, RamDevice};
//! use e2dax_net::client::{Connect, NbdDevice};
//! use e2dax_net::server::{Export, Server};
//! use e2dax_net::stream::{Listener, Stop};
//! use e2dax_net::uri::NbdUri;
//!
//! let folder = tempfile::tempdir()?;
//! let socket = folder.path().join("nbd.sock");
//! let server = Server::new(vec![Export::new("", Arc::new(RamDevice::new(1 << 20)?))]);
//! let listener = Listener::unix(&socket)?;
//! let stop = Stop::new()?;
//! std::thread::scope(|scope| {
//!     scope.spawn(|| server.run(&listener, &stop));
//!     let device = NbdDevice::open(&NbdUri::unix(&socket, ""), &Connect::default())?;
//!     device.write_at(4096, b"over there")?;
//!     device.flush()?;
//!     stop.stop();
//!     Ok::<(), blockdev::Error>(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod client;
#[cfg(feature = "object-store")]
pub mod object;
mod proto;
pub mod server;
pub mod stream;
#[cfg(feature = "tls")]
pub mod tls;
pub mod uri;
