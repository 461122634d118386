//! The command `e2dax`: ext2 images from the outside, without mounting them.
//!
//! It is thin over the libraries: a verb parses its arguments, calls a library, and prints. Each verb is a file of
//! [`verbs`]; what they share is here.
//!
//! | module | is |
//! |---|---|
//! | [`target`] | `IMG`, `IMG:/path`, `IMG@OFFSET:/path`, `IMG@pN:/path`, and how they are opened |
//! | [`remote`] | images of other machines |
//! | [`failure`] | errors that name their object, and exit codes |
//! | [`interrupt`] | Ctrl-C |
//! | [`side`] | what `diff` and `manifest` compare |
//! | [`kept`] | the image of a shell, open across commands |
//! | [`images`] | images that are open for changes, and closed whatever happens |
//! | [`context`] | what a verb gets: the options, its output, and where it complains |
//! | [`out`], [`text`], [`json`], [`describe`] | printing |
//! | [`glob`] | patterns of names |
//! | [`help`] | the texts of the help |
//! | [`dax`] | mapping files in a software MMU, for `fault` and `demo` |
//! | `host` | mapping files into this process, for `fault --host` |
//! | [`progress`] | bars, on a terminal only |
//! | [`stop`] | Ctrl-C between the steps of a long change |

mod beside;
mod clock;
mod context;
mod dax;
mod describe;
mod failure;
mod glob;
mod help;
#[cfg(target_os = "linux")]
mod host;
mod images;
mod interrupt;
mod json;
mod kept;
mod out;
mod progress;
mod remote;
mod settle;
mod side;
mod stop;
mod target;
mod text;
mod verbs;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

use context::Context;
use target::ImageOptions;
use verbs::Verb;

/// Reads, changes, builds and checks ext2 images with DAX semantics, without mounting them and without root.
///
/// A place in an image is written IMG:/path. IMG alone is its root. IMG@OFFSET:/path and IMG@pN:/path look for the
/// file system at a byte offset of IMG or in its N-th partition (MBR or GPT), IMG@dax:/path behind an nd_pfn header.
#[derive(Parser)]
#[command(version = env!("E2DAX_VERSION"), name = "e2dax", max_term_width = 100, after_help = AFTER)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,

    #[command(flatten)]
    pub(crate) image: ImageOptions,
}

const AFTER: &str = "\
Exit codes: 0 done, 1 the operation failed, 2 usage, 8 the image is broken or not supported,
130 stopped by Ctrl-C.
Messages of the libraries: set E2DAX_LOG=debug (or error, warn, info, trace).

Begin with: e2dax demo";

fn main() -> ExitCode {
    let log = env_logger::Env::new().filter_or("E2DAX_LOG", "warn");
    // As the command's own messages: what the module is called tells a person nothing.
    let message = |out: &mut env_logger::fmt::Formatter, record: &log::Record<'_>| {
        let level = record.level().as_str().to_ascii_lowercase();
        writeln!(out, "e2dax: {level}: {}", record.args())
    };
    env_logger::Builder::from_env(log).format(message).init();
    let arguments: Vec<_> = std::env::args_os().collect();
    #[cfg(feature = "mount")]
    let arguments = verbs::mount::as_helper(arguments);
    let arguments = verbs::find::with_double_dashes(arguments);
    let usage = verbs::check::usage_code(&arguments).unwrap_or(failure::USAGE);
    let cli = match help::parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to the standard output, which may be closed.
            let _ = error.print();
            return ExitCode::from(if error.exit_code() == 0 { 0 } else { usage });
        }
    };
    let mut context = Context::new(cli.image);
    let result = cli.verb.run(&mut context);
    let result = result.and_then(|()| context.out.flush());
    match result {
        Ok(()) => {}
        Err(failure) if failure.is_closed_output() => {}
        Err(failure) => {
            // What was printed so far comes before the message; a closed output is no news here.
            let _ = context.out.flush();
            context.complain(&failure);
        }
    }
    let _ = std::io::stderr().flush();
    ExitCode::from(context.exit_code())
}
