//! `e2dax mount` as programs see it. Needs /dev/fuse; skips aloud without.

mod adversity;
mod common;
mod crash;
mod direct;
mod life;
mod operations;
mod power;
mod programs;
mod suites;
mod trust;
mod users;
mod whole;
