//! The verbs: one file each, with `Args` (what clap parses) and `run`.

mod info;
mod ls;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Result;

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Verb {
    Info(info::Args),
    Ls(ls::Args),
}

impl Verb {
    /// Does it.
    pub(crate) fn run(&self, context: &mut Context) -> Result<()> {
        match self {
            Self::Info(args) => info::run(args, context),
            Self::Ls(args) => ls::run(args, context),
        }
    }
}
