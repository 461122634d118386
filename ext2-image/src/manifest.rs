//! The manifest: a file system as text, one line per file.
//!
//! A manifest says everything about a tree that a program can see through the system calls (names, types, modes,
//! owners, times, links, extended attributes, attribute flags, holes) and stands for the bytes of each file with
//! their CRC-32. Two images with equal manifests are the same to every program that mounts them. `docs/formats.md`
//! defines the text; this module is its model, its writer, its parser, its comparison, and the walk of an image that gives one.
//!
//! # Invariants
//! - [`Manifest::entries`] is sorted by the path as it is printed ([`quote`]), has each path once, starts with `/`
//!   and lists every parent before its children. [`Manifest::new`] and [`parse`] are the only ways to make one.
//! - A [`Node::HardLink`] names an entry of the same manifest that sorts before it, is not itself a hard link and
//!   is not a directory.
//! - `parse(m.to_string())` gives back `m`.
//!
//! Only [`from_image`] reads a device, and takes no lock for longer than the calls that it makes: the manifest of an
//! image that others write is one of no single moment.
//!
//! ```
//! use ext2_core::{Ext2, OpenOptions};
//! use ext2_image::manifest;
//!
//! let fs = Ext2::open(ext2_image::mkfs::in_memory(8 << 20)?, &OpenOptions::default())?;
//! fs.write("greeting", "hello")?;
//! let golden = manifest::from_image(&fs)?;
//! assert_eq!(manifest::parse(&golden.to_string())?, golden);
//!
//! fs.write("greeting", "hullo")?;
//! let differences = manifest::diff(&golden, &manifest::from_image(&fs)?);
//! assert!(differences.iter().any(|difference| difference.to_string().starts_with("/greeting: crc")), "{differences:?}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod content;
mod diff;
mod flags;
mod image;
mod model;
pub(crate) mod ordered;
mod parse;
mod quote;
mod text;
mod tree;
mod without;

#[cfg(test)]
mod tests;

pub use content::{ContentCrc, crc_of_zeros};
pub use diff::{Difference, diff, diff_entries};
pub use flags::AttributeFlags;
pub use image::{ImageEntries, describe_image, from_image};
pub use model::{ByteSpan, Entry, Inode, Kind, Manifest, Node, Time, Xattr};
pub use parse::{ParseError, parse};
pub use quote::{quote, unquote};
pub use tree::TreeEntries;
#[cfg(feature = "std")]
pub(crate) use tree::{inode_of_attrs, sum_of_spans};
pub use without::Without;

/// The version of the text that this module writes, and the only one that it reads.
pub const VERSION: u32 = 1;
