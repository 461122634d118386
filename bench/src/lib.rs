//! What the benchmarks share.
//!
//! `cargo bench -p bench` prints one table: what was done, how fast ours did it, how fast each peer did on
//! the same bytes in the same run, and what the memory itself would allow. Rounds are interleaved and the
//! median counts, so that a busy machine slows all alike. No test asserts a time.
//!
//! What guards the hot paths is the number of instructions, which is repeatable: the program `instructions`
//! runs them under callgrind, and `instructions.sh` compares with `instructions.txt`.
//!
//! | module | is |
//! |---|---|
//! | [`fixture`] | images and files to measure on |
//! | [`measure`] | interleaved rounds and their medians |
//! | [`table`] | the table that is printed |

pub mod fixture;
pub mod measure;
pub mod table;
