//! An ext2 image as a directory, for programs that know nothing of this library: served through FUSE.
//!
//! [`serve`] mounts an open [`Ext2`](ext2_core::Ext2) and answers the kernel until it is unmounted or a signal
//! ends it; then everything is durable and the image is marked as clean.
//!
//! | module | is |
//! |---|---|
//! | `options` | what stands behind `-o` |
//! | `nodes` | the inodes that the kernel knows, and how often it looked each up |
//! | `capabilities` | what is known of the capabilities of a file, which a write takes away |
//! | `volume` | the operations, in families: attributes, names, files, directories, extended attributes, ioctls |
//! | `filesystem` | the requests of the kernel, each handed to its operation |
//! | `wire` | requests and replies as bytes |
//! | `channel`, `turns` | the connection to the kernel, and who listens to it |
//! | `clock` | where the present comes from |
//! | `awake` | processors that stay awake while requests come |
//! | `splice`, `pipe` | reads that are answered with pages of the image's file, without a copy |
//! | `populate` | pages of the image that are mapped before they are asked for |
//! | `remount` | `mount -o remount` |
//! | `session` | the mount's life: threads, signals, the end |
//! | `convert`, `reply` | names of inodes as FUSE has them; errors |
//!
//! `fuser` mounts, unmounts and greets the kernel. The requests are read and answered here, because fuser 0.18 does
//! not know all of them (`O_TMPFILE`, the time of birth), turns some of the kernel's own away, and reads times before
//! 1970 wrongly.
//!
//! # What the kernel does for us
//! It caches names, attributes and pages for as long as it likes, since nobody else changes the image; it checks
//! permissions and access control lists (`default_permissions`) and keeps locks. Writes come to us as they are made, and
//! stay in its cache of pages as well, so that a full device is reported by `write`. With `writeback_cache` it
//! gathers them, and nothing asks for room before it is too late: then `fsync` and `close` alone tell. With `direct_io` it
//! keeps no pages: large calls are faster by that, and each small one comes to us.
//!
//! What it keeps and does not see change it is told to forget: attributes, when set-id bits or capabilities were taken
//! away, or flags set. Otherwise a program would run with the rights that its file had before somebody else wrote to it.
//!
//! # What programs see that the kernel's ext2 shows otherwise
//! - With `writeback_cache` a full image, or a file too large: see above. Also, times of regular files are the kernel's
//!   then, and a change of attribute flags does not show in them before the file is forgotten.
//! - Stores through a shared map that meet a full image are lost, and `msync`, `fsync` and `close` say so.
//! - `pathconf(_PC_LINK_MAX)` is not 32,000: the C library goes by the type of the file system.
//! - Nothing is refused to who may not change a file and calls `chown` with neither owner nor group: nothing changes. Root's such
//!   call leaves the set-id bits of a file that has capabilities, or had them until root removed them: it comes here as the
//!   start of root's write does, which leaves them. With `writeback_cache` it is told apart, and takes them.
//! - A file that becomes immutable refuses writes through descriptors from before, and one that becomes append-only those that are
//!   not at its end. What is stored through a map, or gathered with `writeback_cache`, is kept, as in the kernel's ext2.
//! - `umount` returns when the kernel is done, a moment before the image is closed and unlocked here: who needs the
//!   closed image waits for its lock (`flock IMG true`), or for [`serve`] to return.
//! - Punched holes and zeroed ranges, which the kernel's ext2 refuses, work.
//! - A shutdown (`FS_IOC_SHUTDOWN`) always makes durable what was done: FUSE does not pass on which kind was asked for. All
//!   changes fail with `EIO` from then on.
//! - The generation of an inode cannot be set (`FS_IOC_SETVERSION`): the kernel takes an inode with another for a dead one.
//! - Bytes that a program stores through a map behind the end of a file, in its last page, are gone when somebody makes the file
//!   longer with ftruncate, and may show when a write does so.
//!
//! # Invariants
//! 1. An inode that the kernel knows is held, so that a file without a name lives as long as it is open.
//! 2. Requests run on several threads and take no lock of this crate while they call the library, but for the table
//!    of nodes, under whose locks nothing is called.
//! 3. A read-only mount opens the image for reading: there is no path to a store.
#![forbid(unsafe_code)]

mod awake;
mod capabilities;
mod channel;
mod clock;
mod convert;
mod filesystem;
mod nodes;
mod options;
mod pipe;
mod populate;
mod remount;
mod reply;
mod session;
mod splice;
mod turns;
mod volume;
mod wire;

pub use clock::CoarseClock;
pub use options::{Access, Atime, Durability, MountOptions, OptionError};
pub use remount::remount;
pub use session::{MountError, serve};
