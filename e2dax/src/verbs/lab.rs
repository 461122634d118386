//! `lab`: the page that teaches.

use crate::context::Context;
use crate::failure::Result;

/// `docs/lab.html`: style, scripts, and the library as WebAssembly, in one file.
pub(super) const PAGE: &str = include_str!("../../shipped/lab.html");

/// Print an HTML page that shows images, faults and crashes at work
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  e2dax lab > lab.html

The page needs no server and no network: open the file. The library itself runs in it, as WebAssembly, on scripts
and images of your own; nothing leaves the browser. `replay --html` writes the same page with your script shown
first.")]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, context: &mut Context) -> Result<()> {
    context.out.text(PAGE)
}
