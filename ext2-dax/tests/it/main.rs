//! The DAX path over a file system that is nothing but an extent map, and over ext2.

mod cuts;
mod ends;
mod entries;
mod fake;
mod faults;
mod iter;
mod noted;
mod over_ext2;
mod told;
mod trace;
