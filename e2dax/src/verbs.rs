//! The verbs: one file each, with `Args` (what clap parses) and `run`.

mod cat;
mod cp;
mod df;
mod du;
pub(crate) mod find;
mod info;
mod ls;
mod manifest;
mod map;
mod stat;
mod tree;
mod xattr;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Result;

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Verb {
    Info(info::Args),
    Ls(ls::Args),
    Tree(tree::Args),
    Stat(stat::Args),
    Cat(cat::Args),
    Find(find::Args),
    Du(du::Args),
    Df(df::Args),
    Xattr(xattr::Args),
    Cp(cp::Args),
    Map(map::Args),
    Manifest(manifest::Args),
}

impl Verb {
    /// Does it.
    pub(crate) fn run(&self, context: &mut Context) -> Result<()> {
        match self {
            Self::Info(args) => info::run(args, context),
            Self::Ls(args) => ls::run(args, context),
            Self::Tree(args) => tree::run(args, context),
            Self::Stat(args) => stat::run(args, context),
            Self::Cat(args) => cat::run(args, context),
            Self::Find(args) => find::run(args, context),
            Self::Du(args) => du::run(args, context),
            Self::Df(args) => df::run(args, context),
            Self::Xattr(args) => xattr::run(args, context),
            Self::Cp(args) => cp::run(args, context),
            Self::Map(args) => map::run(args, context),
            Self::Manifest(args) => manifest::run(args, context),
        }
    }
}
