//! `lab`: the page that teaches.

use crate::context::Context;
use crate::failure::Result;

/// `docs/lab.html`: style, scripts, and the library as WebAssembly, in one file.
pub(super) const PAGE: &str = include_str!("../../../docs/lab.html");

/// Print a page for a browser that shows all this happening
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  e2dax lab > lab.html

The page needs no server and no network: open the file. In it the library itself runs, as WebAssembly, on scripts and on
images of yours; nothing leaves the browser. With `replay --html` the page shows a recording of yours first.")]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, context: &mut Context) -> Result<()> {
    context.out.text(PAGE)
}
