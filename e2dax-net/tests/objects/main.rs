//! Images behind HTTP and in object stores, with servers that fail, stall and lie.

mod device;
mod http;
mod stores;
