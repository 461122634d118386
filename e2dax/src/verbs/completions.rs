//! `completions`: for shells.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::context::Context;
use crate::failure::Result;

/// Print the completions of a shell
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax completions bash > /etc/bash_completion.d/e2dax
  e2dax completions zsh > ~/.zfunc/_e2dax
  e2dax completions fish > ~/.config/fish/completions/e2dax.fish")]
pub(crate) struct Args {
    /// Which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "e2dax", &mut text);
    context.out.bytes(&text)
}
