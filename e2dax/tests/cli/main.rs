//! The command as a user runs it: what it prints, what it says when something is wrong, and its exit codes.

mod check;
mod common;
mod compare;
mod container;
mod copy;
mod dax;
mod disk;
mod docs;
mod everything;
mod host;
mod layers;
mod look;
mod mkfs;
mod people;
mod read;
mod repair;
mod schema;
mod seal;
mod shell;
mod sources;
mod tar;
mod target_images;
mod targets;
mod terminal;
mod write;
