//! The engine of the page that teaches (`docs/lab.html`): it computes, the page draws.
//!
//! A [`Lab`] answers requests in JSON ([`api`] has the list), natively and as WebAssembly. Nothing here computes what the
//! other crates compute; it runs them, writes down what they did, and finds words for it.
//!
//! | module | is |
//! |---|---|
//! | [`api`] | requests and answers, with a version |
//! | `machines` | Linux 4.8, Linux 6.1 and this library as options of one replayer |
//! | `flight`, `step`, `snapshot` | a script on several machines, step by step |
//! | `scenario` | the scripts that come with the page |
//! | `lesson`, `toy`, `source` | the mail of 2016 as seven lessons with their mutants |
//! | `image`, `blocks` | an image as blocks, tree and fields; what check says, and where |
//! | `crash` | every crash state of a few operations |
//! | `quiz` | hidden faults, the same for the same seed |
//! | `export` | flights in other formats; the page with a recording in it |
//! | `border` | the functions that the page calls, on WebAssembly only |
//!
//! # Invariants
//! 1. Every request is answered, if only by an error; no input makes a request panic.
//! 2. The same request gives the same answer: nothing asks a clock or a random source.
#![deny(unsafe_code)]

pub mod api;
mod blocks;
#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod border;
mod crash;
mod export;
mod flight;
mod image;
mod lesson;
mod machines;
mod quiz;
mod scenario;
mod snapshot;
mod source;
mod step;
mod toy;

pub use api::Lab;
pub use export::{Recording, page_with};
pub use flight::{Flight, fly};
pub use machines::{Machine, standard};
pub use quiz::{Question, TOPICS, ask};
pub use scenario::{SCENARIOS, Scenario};
