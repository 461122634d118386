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
//! | `options`, `scenes`, `choose` | what a seed chooses |
//! | `world`, `perform` | the library, with what each actor holds of it |
//! | `model` | what every answer has to be |
//! | `run` | one seed, from `mkfs` to `e2fsck` |
//! | `schedule`, `threads` | actors that are threads, and the turns that a seed gives them |
//! | `unwritten` | memory that knows what was not written back when a sync returned |
//! | `crashes`, `second`, `failing` | power that fails at every moment, once and again, and a device that fails |
//! | `base`, `mend` | the images that runs begin with, and what `e2fsck -p` makes of those they leave |
//! | `fsck` | what e2fsck says of an image |
//! | `ends` | closing under all that is held, and kills |
//! | `put_back` | faults that were mended, and how long it takes to find each again |
//! | `campaign` | many seeds |
//! | `scope` | all short sequences of an alphabet, instead of a seed |
//! | `shrink` | fewer steps that fail alike |
//! | `kernel` | the same steps on a mount of the kernel's |
//! | `api` | the vocabulary against what the crates offer |

mod answer;
pub mod api;
mod base;
mod campaign;
mod choose;
mod clock;
mod compare;
mod crashes;
mod ends;
mod failing;
mod fenced;
mod fsck;
pub mod kernel;
mod mend;
mod model;
mod operation;
mod options;
mod passed_by;
mod perform;
mod put_back;
mod run;
mod scenes;
mod schedule;
mod scope;
mod second;
mod shrink;
mod threads;
mod unwritten;
mod world;

pub use answer::{Answer, Refusal};
pub use campaign::{Campaign, Tally, commit, new_seed};
pub use model::{Content, Id, Model, Node, Room, Verdict};
pub use operation::{Actor, Data, HANDS, Operation, Step, Word, name, user, xattr_name};
pub use options::{Backend, Mode, Options};
pub use put_back::{Fault, Search, Sought};
pub use run::{Failure, Outcome, run, run_steps};
pub use scenes::Scene;
pub use scope::{Letter, Scope, Walked};
pub use shrink::shrink;
pub use world::World;
