//! Where blocks go, and how to decide it oneself: [`Placement`] is the policy, [`FreeSpace`] what it takes blocks from.
//!
//! A policy sees free blocks and takes some of them. It cannot break an image: what it takes is free and marked as taken before it
//! has it, and what it does not answer with goes back.

pub use crate::balloc::group::Window;
pub use crate::balloc::place::{
    Aligned, FreeSpace, Goal, Placed, Placement, Policy, Request, Role, Taken, Which,
};
