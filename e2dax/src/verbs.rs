//! The verbs: one file each, with `Args` (what clap parses) and `run`.

mod align;
mod bench;
mod cat;
mod chattr;
pub(crate) mod check;
mod chmod;
mod chown;
mod completions;
mod cp;
mod dax_report;
mod deleted;
mod demo;
mod df;
mod diff;
mod du;
mod fault;
pub(crate) mod find;
mod groups;
mod hex;
mod info;
mod journal;
mod lab;
mod ln;
mod ls;
mod lsattr;
mod man;
mod manifest;
mod map;
mod mkdir;
mod mkfs;
mod mknod;
#[cfg(feature = "mount")]
pub(crate) mod mount;
mod mv;
mod poke;
mod punch;
mod quiz;
mod replay;
mod resize;
mod rm;
mod seal;
mod serve;
mod setfattr;
mod shell;
mod sparsify;
mod stat;
mod tar;
mod touch;
mod tree;
mod truncate;
mod tune;
mod undelete;
mod undo;
mod whose;
mod write;
mod xattr;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Result;

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Verb {
    Demo(demo::Args),
    Bench(bench::Args),
    Info(info::Args),
    Ls(ls::Args),
    Tree(tree::Args),
    Stat(stat::Args),
    Cat(cat::Args),
    Check(check::Args),
    Find(find::Args),
    Du(du::Args),
    Df(df::Args),
    Xattr(xattr::Args),
    Cp(cp::Args),
    Map(map::Args),
    Whose(whose::Args),
    Groups(groups::Args),
    Hex(hex::Args),
    Poke(poke::Args),
    Journal(journal::Args),
    Deleted(deleted::Args),
    Undelete(undelete::Args),
    Manifest(manifest::Args),
    Fault(fault::Args),
    Replay(replay::Args),
    Lab(lab::Args),
    Quiz(quiz::Args),
    #[cfg(feature = "mount")]
    Mount(mount::Args),
    Mkfs(Box<mkfs::Args>),
    Seal(seal::Args),
    Serve(serve::Args),
    Tar(tar::Args),
    DaxReport(dax_report::Args),
    Diff(diff::Args),
    Mkdir(mkdir::Args),
    Rm(rm::Args),
    Mv(mv::Args),
    Ln(ln::Args),
    Chmod(chmod::Args),
    Chown(chown::Args),
    Touch(touch::Args),
    Truncate(truncate::Args),
    Undo(undo::Args),
    Write(write::Args),
    Punch(punch::Args),
    Setfattr(setfattr::Args),
    Chattr(chattr::Args),
    Lsattr(lsattr::Args),
    Mknod(mknod::Args),
    Mkfifo(mknod::FifoArgs),
    Resize(resize::Args),
    Tune(Box<tune::Args>),
    Align(align::Args),
    Sparsify(sparsify::Args),
    Shell(shell::Args),
    Man(man::Args),
    Completions(completions::Args),
}

impl Verb {
    /// Does it.
    pub(crate) fn run(&self, context: &mut Context) -> Result<()> {
        match self {
            Self::Demo(args) => demo::run(args, context),
            Self::Bench(args) => bench::run(args, context),
            Self::Info(args) => info::run(args, context),
            Self::Ls(args) => ls::run(args, context),
            Self::Tree(args) => tree::run(args, context),
            Self::Stat(args) => stat::run(args, context),
            Self::Cat(args) => cat::run(args, context),
            Self::Check(args) => check::run(args, context),
            Self::Find(args) => find::run(args, context),
            Self::Du(args) => du::run(args, context),
            Self::Df(args) => df::run(args, context),
            Self::Xattr(args) => xattr::run(args, context),
            Self::Cp(args) => cp::run(args, context),
            Self::Map(args) => map::run(args, context),
            Self::Whose(args) => whose::run(args, context),
            Self::Groups(args) => groups::run(args, context),
            Self::Hex(args) => hex::run(args, context),
            Self::Poke(args) => poke::run(args, context),
            Self::Journal(args) => journal::run(args, context),
            Self::Deleted(args) => deleted::run(args, context),
            Self::Undelete(args) => undelete::run(args, context),
            Self::Manifest(args) => manifest::run(args, context),
            Self::Fault(args) => fault::run(args, context),
            Self::Replay(args) => replay::run(args, context),
            Self::Lab(args) => lab::run(args, context),
            Self::Quiz(args) => quiz::run(args, context),
            #[cfg(feature = "mount")]
            Self::Mount(args) => mount::run(args, context),
            Self::Mkfs(args) => mkfs::run(args, context),
            Self::Seal(args) => seal::run(args, context),
            Self::Serve(args) => serve::run(args, context),
            Self::Tar(args) => tar::run(args, context),
            Self::DaxReport(args) => dax_report::run(args, context),
            Self::Diff(args) => diff::run(args, context),
            Self::Mkdir(args) => mkdir::run(args, context),
            Self::Rm(args) => rm::run(args, context),
            Self::Mv(args) => mv::run(args, context),
            Self::Ln(args) => ln::run(args, context),
            Self::Chmod(args) => chmod::run(args, context),
            Self::Chown(args) => chown::run(args, context),
            Self::Touch(args) => touch::run(args, context),
            Self::Truncate(args) => truncate::run(args, context),
            Self::Undo(args) => undo::run(args, context),
            Self::Write(args) => write::run(args, context),
            Self::Punch(args) => punch::run(args, context),
            Self::Setfattr(args) => setfattr::run(args, context),
            Self::Chattr(args) => chattr::run(args, context),
            Self::Lsattr(args) => lsattr::run(args, context),
            Self::Mknod(args) => mknod::run(args, context),
            Self::Mkfifo(args) => mknod::run_fifo(args, context),
            Self::Resize(args) => resize::run(args, context),
            Self::Tune(args) => tune::run(args, context),
            Self::Align(args) => align::run(args, context),
            Self::Sparsify(args) => sparsify::run(args, context),
            Self::Shell(args) => shell::run(args, context),
            Self::Man(args) => man::run(args, context),
            Self::Completions(args) => completions::run(args, context),
        }
    }
}
