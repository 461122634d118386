//! `man`: the manual pages.

use std::path::PathBuf;

use crate::context::Context;
use crate::failure::{Failure, Result};

/// Write the manual pages, one for each verb, into a directory
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  e2dax man /usr/local/share/man/man1")]
pub(crate) struct Args {
    /// The directory; created if it does not exist
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(crate) fn run(args: &Args, _: &mut Context) -> Result<()> {
    let failed = |error| Failure::host(&args.directory, error);
    std::fs::create_dir_all(&args.directory).map_err(failed)?;
    let command = crate::help::definition().disable_help_subcommand(true);
    clap_mangen::generate_to(command, &args.directory).map_err(failed)
}
