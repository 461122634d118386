//! The same steps on a mount of the kernel's, where its ext4 driver serves ext2, and on the library.
//!
//! An image made by mke2fs is copied. One copy is mounted by the kernel, the other is opened by the library, and each step that
//! the simulator's chooser chooses is done on both: by system calls there, by a [`World`](super::World) here. Both answers have
//! to be equal, and so has what is told of all that is held, which of its times the step moved, and now and then the whole tree.
//! In the end e2fsck finds nothing on both images, and each is read by both.
//!
//! Where the two differ and neither is wrong, [`Difference`] says so; what the kernel cannot be asked for is [`LeftOut`].
//!
//! | module | is |
//! |---|---|
//! | `geometry` | the images |
//! | `hands`, `names`, `attributes`, `contents`, `maps` | the vocabulary in system calls |
//! | `both` | one list of steps on both |
//! | `fields`, `trees` | what is compared |
//! | `difference`, `settle`, `left_out` | what is not equal, what brings both together again, and what is not asked |
//! | `tally` | counts |

mod attributes;
mod both;
mod contents;
mod difference;
mod fields;
mod geometry;
mod hands;
mod left_out;
mod maps;
mod names;
mod settle;
mod tally;
mod trees;

pub use both::list;
pub use difference::Difference;
pub use geometry::Geometry;
pub use left_out::LeftOut;
pub use tally::Tally;
