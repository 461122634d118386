//! The DAX path over a file system that is nothing but an extent map, and over ext2.

mod cuts;
mod entries;
mod fake;
mod faults;
mod iter;
mod trace;
