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
//! 4. Every call ends: each step of a connection, and the time in which a new one is sought, is bounded.
//!
//! # Locking
//! `links` is held shared by every request to its end, and alone while connections are made anew. Under it a connection's own
//! locks, and `unflushed`.

mod connection;
mod device;
mod dial;
mod negotiate;
mod reply;
mod unflushed;

pub use device::{Connect, Facts, NbdDevice};
