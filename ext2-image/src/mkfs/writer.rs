//! Who writes a plan: what it has handed out so far, and what is gathered.

use alloc::vec::Vec;

use super::Plan;
use super::job::Window;
use super::jobs::Jobs;
use super::space::Space;

/// A plan that is being written.
pub(super) struct Writer<'w> {
    pub(super) plan: &'w Plan,
    pub(super) jobs: Jobs<'w>,
    /// What follows each other of files and directories.
    pub(super) data: Window,
    /// What follows each other of inode tables.
    pub(super) table: Window,
    pub(super) space: Space,
    /// Directories of each group.
    pub(super) directories: Vec<u16>,
}
