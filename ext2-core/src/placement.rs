//! Where blocks go, and how to decide it oneself: [`Placement`] is the policy, [`FreeSpace`] what it takes blocks from.
//!
//! A policy sees free blocks and takes some of them. It cannot break an image: what it takes is free and marked as taken before it
//! has it, and what it does not answer with goes back.
//!
//! ```
//! use ext2_core::placement::Policy;
//! use ext2_core::{Ext2, FileBlock, Follow, OpenOptions};
//!
//! // Blocks from the middle of a unit of 2 MiB on, where Linux puts them; by default large files have units of their own.
//! let first_block = |policy: Policy| -> Result<u32, Box<dyn std::error::Error>> {
//!     let options = OpenOptions { placement: Some(policy.placement()), ..OpenOptions::default() };
//!     let fs = Ext2::open(ext2_image::mkfs::in_memory(64 << 20)?, &options)?;
//!     fs.write("file", vec![1; 4 << 20])?;
//!     let target = fs.resolve("file", Follow::Yes)?.map(FileBlock::new(0), 1)?.target;
//!     Ok(target.ok_or("the file has a block")?.get())
//! };
//! assert_eq!(first_block(Policy::Aligned)? % 512, 0); assert_ne!(first_block(Policy::Goal)? % 512, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub use crate::balloc::group::Window;
pub use crate::balloc::place::{
    Aligned, FreeSpace, Goal, Placed, Placement, Policy, Request, Role, Taken, Which,
};
