//! What rewrites an image as a whole: resize, tune, align, sparsify. Beside e2fsprogs, and cut off at every moment.

mod align;
mod big;
mod common;
mod crash;
mod resize;
mod tune;
