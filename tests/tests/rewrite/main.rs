//! What rewrites an image as a whole: resize, tune, align. Beside e2fsprogs, and cut off at every moment.

mod common;
mod resize;
