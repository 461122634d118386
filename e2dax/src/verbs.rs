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

/// The verbs by their names: what clap parses, and what does it.
macro_rules! verbs {
    ($($(#[$when:meta])* $name:literal: $variant:ident($args:ty) => $run:path,)*) => {
        /// What to do.
        #[derive(Subcommand)]
        pub(crate) enum Verb {
            $($(#[$when])* #[command(name = $name)] $variant($args),)*
        }

        impl Verb {
            /// The names of all.
            pub(crate) const NAMES: &[&str] = &[$($(#[$when])* $name,)*];

            /// What one verb takes, without the work of making up the others.
            pub(crate) fn definition(name: &str) -> Option<clap::Command> {
                Some(match name {
                    $($(#[$when])* $name => {
                        <$args as clap::Args>::augment_args(clap::Command::new($name))
                    })*
                    _ => return None,
                })
            }

            /// A verb by what clap found behind its name.
            pub(crate) fn of_matches(name: &str, matches: &mut clap::ArgMatches) -> Option<Self> {
                match name {
                    $($(#[$when])* $name => {
                        <$args as clap::FromArgMatches>::from_arg_matches_mut(matches).ok().map(Self::$variant)
                    })*
                    _ => None,
                }
            }

            /// Does it.
            pub(crate) fn run(&self, context: &mut Context) -> Result<()> {
                match self {
                    $($(#[$when])* Self::$variant(args) => $run(args, context),)*
                }
            }
        }
    };
}

verbs! {
    "demo": Demo(demo::Args) => demo::run,
    "bench": Bench(bench::Args) => bench::run,
    "info": Info(info::Args) => info::run,
    "ls": Ls(ls::Args) => ls::run,
    "tree": Tree(tree::Args) => tree::run,
    "stat": Stat(stat::Args) => stat::run,
    "cat": Cat(cat::Args) => cat::run,
    "check": Check(check::Args) => check::run,
    "find": Find(find::Args) => find::run,
    "du": Du(du::Args) => du::run,
    "df": Df(df::Args) => df::run,
    "xattr": Xattr(xattr::Args) => xattr::run,
    "cp": Cp(cp::Args) => cp::run,
    "map": Map(map::Args) => map::run,
    "whose": Whose(whose::Args) => whose::run,
    "groups": Groups(groups::Args) => groups::run,
    "hex": Hex(hex::Args) => hex::run,
    "poke": Poke(poke::Args) => poke::run,
    "journal": Journal(journal::Args) => journal::run,
    "deleted": Deleted(deleted::Args) => deleted::run,
    "undelete": Undelete(undelete::Args) => undelete::run,
    "manifest": Manifest(manifest::Args) => manifest::run,
    "fault": Fault(fault::Args) => fault::run,
    "replay": Replay(replay::Args) => replay::run,
    "lab": Lab(lab::Args) => lab::run,
    "quiz": Quiz(quiz::Args) => quiz::run,
    #[cfg(feature = "mount")]
    "mount": Mount(mount::Args) => mount::run,
    "mkfs": Mkfs(Box<mkfs::Args>) => mkfs::run,
    "seal": Seal(seal::Args) => seal::run,
    "serve": Serve(serve::Args) => serve::run,
    "tar": Tar(tar::Args) => tar::run,
    "dax-report": DaxReport(dax_report::Args) => dax_report::run,
    "diff": Diff(diff::Args) => diff::run,
    "mkdir": Mkdir(mkdir::Args) => mkdir::run,
    "rm": Rm(rm::Args) => rm::run,
    "mv": Mv(mv::Args) => mv::run,
    "ln": Ln(ln::Args) => ln::run,
    "chmod": Chmod(chmod::Args) => chmod::run,
    "chown": Chown(chown::Args) => chown::run,
    "touch": Touch(touch::Args) => touch::run,
    "truncate": Truncate(truncate::Args) => truncate::run,
    "undo": Undo(undo::Args) => undo::run,
    "write": Write(write::Args) => write::run,
    "punch": Punch(punch::Args) => punch::run,
    "setfattr": Setfattr(setfattr::Args) => setfattr::run,
    "chattr": Chattr(chattr::Args) => chattr::run,
    "lsattr": Lsattr(lsattr::Args) => lsattr::run,
    "mknod": Mknod(mknod::Args) => mknod::run,
    "mkfifo": Mkfifo(mknod::FifoArgs) => mknod::run_fifo,
    "resize": Resize(resize::Args) => resize::run,
    "tune": Tune(Box<tune::Args>) => tune::run,
    "align": Align(align::Args) => align::run,
    "sparsify": Sparsify(sparsify::Args) => sparsify::run,
    "shell": Shell(shell::Args) => shell::run,
    "man": Man(man::Args) => man::run,
    "completions": Completions(completions::Args) => completions::run,
}
