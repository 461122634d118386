//! NBD: our server with clients of others, our client with servers of others, and both with each other.

#[cfg(feature = "tls")]
mod certificates;
mod client;
mod common;
mod hostile;
mod killed;
mod liars;
mod lives;
mod one_at_a_time;
mod reconnect;
mod server;
#[cfg(feature = "tls")]
mod tls;
