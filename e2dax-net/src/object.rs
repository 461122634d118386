//! An image behind HTTP or in an object store as a device, to be read.
//!
//! | address | is |
//! |---|---|
//! | `http://…`, `https://…` | a file of any server that answers requests for ranges |
//! | `s3://BUCKET/KEY` | an object of S3 and of what speaks like it |
//! | `gs://BUCKET/KEY` | an object of Google Cloud Storage |
//! | `az://CONTAINER/KEY` | an object of Azure Blob Storage |
//!
//! Who asks, and where, is said by the variables of the environment that `object_store` reads: `AWS_ACCESS_KEY_ID`,
//! `AWS_ENDPOINT` and their kind.
//!
//! # Invariants
//! 1. All bytes are of one object: each answer has to have the size, the ETag and (where there is no ETag) the time that the
//!    object had when it was opened. After the first that has not, every call is an error.
//! 2. A block is fetched whole or not at all, and by one thread; others that want it wait for it. What is kept is bounded.
//! 3. Every call ends: an answer has a bounded time, and so has all that is tried again.
//!
//! # Locking
//! `blocks` is never held while something is fetched.

mod cache;
mod device;
mod folder;
mod lru;
mod store;
mod uri;

pub use device::{Cost, ObjectDevice};
pub use uri::{Keep, ObjectUri};
