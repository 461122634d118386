//! Which blocks and inodes are free, and who gets which.
//!
//! # Invariants
//! 1. A bit is taken in memory before anything is written to its block, and given back unless the
//!    allocation is kept: [`Blocks`] gives back what it holds when it is dropped.
//! 2. Nothing is freed before the last pointer to it is durably gone (see [`crate::order`]).
//! 3. Bitmaps, descriptors and counts are written by a sync, in no order. An image that was not
//!    unmounted cleanly has them rebuilt from the inodes before the first allocation.
//! 4. Where a block goes is a [`Placement`]'s matter; the map never knows.
//!
//! # Locking
//! One lock a group, never two at once. The sums over all groups are atomics.

mod blocks;
pub(crate) mod group;
mod inodes;
pub(crate) mod place;
mod rebuild;
mod reserve;
mod trim;

pub(crate) use blocks::{Blocks, Run};
use ext2_format::bitmap;
pub(crate) use group::{Groups, Window};
pub use place::Policy;
pub(crate) use place::{Place, Request, Role};
#[cfg(feature = "std")]
pub use reserve::without_reserve;
