//! Trees from the host: a directory, or a manifest and a directory with the contents.

mod directory;
mod entries;
mod folder;
mod format;
mod image;
mod kept;
mod look;
mod manifest;
mod summed;
mod which;
mod zeros;

pub use directory::{read_directory, read_folder};
pub use entries::DirectoryEntries;
pub use folder::Folder;
pub use format::format_of_manifest;
pub use image::image_of_directory;
pub use manifest::{Built, CheckedFolder, tree_of_manifest};
pub use which::{Times, Xattrs};
pub use zeros::find_holes;
