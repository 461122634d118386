//! Repair beside e2fsck: what one `-y` leaves, and what is still there afterwards.
//!
//! `E2DAX_REPAIR_VARIANTS=N` makes N damaged images of each golden one (those of `structures` from `E2DAX_REPAIR_FIRST` on),
//! `E2DAX_REPAIR=NAME:NUMBER` runs one alone, and
//! `E2DAX_CORPUS=DIR` runs all images of a folder (plain, `.gz`).

mod bench;
mod corpus;
mod crashes;
mod descriptors;
mod extents;
mod features;
mod fields;
mod journals;
mod kinds;
mod marks;
mod names;
mod orphans;
mod quota;
mod rounds;
mod structures;
mod times;
