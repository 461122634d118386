//! NBD: our server with clients of others, our client with servers of others, and both with each other.

mod client;
mod common;
mod hostile;
mod killed;
mod reconnect;
mod server;
