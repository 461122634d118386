//! The command as a user runs it: what it prints, what it says when something is wrong, and its exit codes.

mod check;
mod common;
mod copy;
mod dax;
mod docs;
mod everything;
mod host;
mod lab;
mod mkfs;
mod read;
mod seal;
mod sources;
mod tar;
mod target_images;
mod targets;
mod write;
