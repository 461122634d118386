//! An export of an NBD server as a device.
//!
//! # Invariants
//! 1. A fence is FLUSH (with [`Durability::Strict`](blockdev::Durability)): the server answers it when all that it had answered
//!    before is durable. Writes are answered before the next call begins, so that order is kept between calls in any case.
//! 2. What was answered but not yet flushed is remembered, 64 MiB of it at most. When the connection is lost, a new one gets it
//!    again before anything else; then what was under way is done once more. Both are safe: the caller of what is under way
//!    waits for it, and between two flushes any order is legal.
//! 3. An export that is another one after a new connection (by its size or by what it can do) is an error of every call from
//!    then on.
//! 4. Every call ends where the server falls silent: each step of a connection, and the time in which a new one is sought, is
//!    bounded. A request that it does not answer waits as long as it answers others on the same connection.
//! 5. All connections that are used at one time lead to one life of the server, so that FLUSH on one of them is for what was
//!    answered on each: one is added when an older one has answered what was asked after it was made, and where one is lost all
//!    are.
//! 6. A connection that was given up is closed before another is made, and what it had not sent is thrown away.
//!
//! # Locking
//! `mending` is held by who makes connections, before `links`. `links` is held shared by every request to its end, and alone
//! while connections are made anew or one is added. Under it a connection's own locks, and `unflushed`.

mod connection;
mod device;
mod dial;
mod negotiate;
mod reply;
mod unflushed;

pub use device::{Connect, Facts, NbdDevice};
