//! What of the host's files is taken over.

/// Which of the host's times are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// The time of the last change stands for all four: the others change when a tree is copied or read.
    Modified,
    /// All as the host has them.
    All,
}

/// Which extended attributes are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Xattrs {
    /// All.
    Keep,
    /// None.
    Drop,
}
