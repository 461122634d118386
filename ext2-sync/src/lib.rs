//! Locks, without poisoning, and the order in which they may be taken.
//!
//! # Lock order
//! A thread takes locks in rising [`Rank`]; two of the same rank only where the rank says so. Debug
//! builds with `std` assert it at every acquisition. The order, outermost first, with its Linux name:
//!
//! | rank | lock | Linux |
//! |---|---|---|
//! | `Close` | the end of a file system: shared by who makes all of it durable | `s_umount` |
//! | `Rename` | one rename between directories at a time in a file system | `s_vfs_rename_mutex` |
//! | `Io` | an inode's contents: directories parent first, then by number | `i_rwsem` |
//! | `Journal` | the one transaction in the journal | – |
//! | `Index` | the index of a directory | – |
//! | `Orphan` | the superblock's list of truncations | – |
//! | `Map` | an inode's block map, while it changes | `truncate_mutex` |
//! | `Xattr` | attribute blocks that inodes share | `xattr_sem`, the mbcache |
//! | `Group` | one group's bitmaps and counts | `bgl_lock` |
//! | `Super` | the superblock's counts and state | `s_lock` |
//! | `Attr` | an inode's attributes | `i_lock` |
//! | `Table` | the table of inodes in memory | `inode_hash_lock` |
//! | `Stores` | stores into blocks that a transaction may hold | – |
//! | `Leaf` | a lock under which no other is taken | spin locks |
//! | `Log` | the commit that is under way: a device's | `j_state_lock` |
//! | `LogState` | the blocks that the next one holds | `j_list_lock` |
//!
//! A device's own locks are below all of these.
//!
//! With the feature `turns` a test can decide at each lock which thread goes on: see [`turn`].

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

mod guard;
#[cfg(not(feature = "std"))]
#[path = "spinning.rs"]
mod imp;
#[cfg(feature = "std")]
#[path = "system.rs"]
mod imp;
mod io;
mod mended;
mod mutex;
mod once;
mod pause;
mod rank;
mod rwlock;
#[cfg(feature = "turns")]
pub mod turn;
mod under_way;
mod whole;

pub use guard::Guard;
pub use io::{Glance, IoGuard, IoLock, IoReadGuard};
#[doc(hidden)] // for tests
pub use mended::Mended;
pub use mutex::{Mutex, MutexGuard};
pub use once::Once;
pub use pause::pause;
pub use rank::Rank;
pub use rwlock::RwLock;
pub use under_way::{Begun, UnderWay};
pub use whole::{begin_or_end_patient, begin_or_end_whole, is_patient, may_wait};
