//! The simulator: one vocabulary, one model, one run from one seed.
//!
//! A seed chooses [`Options`]: geometry, device, policy, who takes part and how often each operation comes up. Then it
//! chooses [`Step`]s, one after another, each an [`Operation`] of one actor. A [`World`] performs them on the library, and
//! the [`Model`] says of each [`Answer`] whether it is one that a sound file system gives. At the end names, bytes and
//! attributes are compared as a whole, and `check` and `e2fsck` look at the image.
//!
//! | module | is |
//! |---|---|
//! | `operation` | the vocabulary: every function that changes or reads a file system |
//! | `options`, `choose` | what a seed chooses |
//! | `world`, `perform` | the library, with what each actor holds of it |
//! | `model` | what every answer has to be |
//! | `run` | one seed, from `mkfs` to `e2fsck` |

mod answer;
mod base;
mod choose;
mod clock;
mod compare;
mod model;
mod operation;
mod options;
mod perform;
mod run;
mod world;

pub use answer::Answer;
pub use model::Model;
pub use operation::{Actor, Data, HANDS, Operation, Step, Word, name, user, xattr_name};
pub use options::{Backend, Options};
pub use run::{Failure, Outcome, run, run_steps};
pub use world::World;
