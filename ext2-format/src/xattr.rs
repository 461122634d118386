//! Extended attributes as they lie in a block of their own and in the room that an inode has left.

mod layout;
mod name;

pub use layout::{STRUCK, Xattr, build_block, find_entry, parse_block, parse_inode, without_entry};
pub use name::XattrName;
