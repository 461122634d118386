//! `align`: files into whole units of 2 MiB.

use std::ffi::OsString;

use ext2_image::UnitCounts;
use ext2_image::align::{Aligned, align};
use ext2_image::rewrite;

use crate::context::Context;
use crate::failure::Result;
use crate::json::{Json, object};
use crate::settle::open_settled;
use crate::stop::{Stop, explained};
use crate::text::percent;

/// Move files into whole units of 2 MiB, in place, so that pages of that size can map them
#[derive(clap::Args)]
#[command(
    visible_alias = "defrag",
    after_help = "\
Example:
  e2dax align rootfs.img && e2dax dax-report rootfs.img

Units of files that are all data move to free aligned units; where none is free, small files make room. Units with
holes stay where they are. The work is done in rounds, each of which is done as a whole or not at all; Ctrl-C keeps
the finished ones. If the machine dies in the last step of a round, nothing will open the image until this command,
or any e2dax command that changes it, is run again."
)]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMG")]
    image: OsString,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let (target, device, _) = open_settled(&args.image, context)?;
    let name = target.image_name();
    let now = crate::clock::now()?.encode(false).0;
    let bias = target.bias(&*device);
    let stop = Stop::new();
    let done =
        stop.watched(|watch| align(&device, &rewrite::Options { bias, spill: None, now: Some(now), watch }));
    let done = explained(done, &name, "what was aligned before stays so; run it again to go on")?;
    tell(args, context, &name, &done)
}

fn counts(counts: &UnitCounts) -> Json {
    object! {
        "units": counts.with_data(),
        "mappable": counts.mappable,
        "hole": counts.hole,
        "fragmented": counts.fragmented,
        "unaligned": counts.unaligned,
    }
}

fn tell(args: &Args, context: &mut Context, name: &str, done: &Aligned) -> Result<()> {
    if args.json {
        return context.out.json(&object! {
            "image": Json::bytes(name.as_bytes()),
            "before": counts(&done.before),
            "after": counts(&done.after),
            "moved_blocks": done.moved_blocks,
            "rounds": done.rounds,
        });
    }
    let (before, after) = (&done.before, &done.after);
    context.out.line(format_args!(
        "{name}: {} of {} whole units with data can be mapped ({}); before, {} ({})",
        after.mappable,
        after.with_data(),
        percent(after.mappable, after.with_data()),
        before.mappable,
        percent(before.mappable, before.with_data()),
    ))?;
    if after.fragmented + after.unaligned > 0 {
        context.note(&format!(
            "{name}: there was no room for {} more units: make it larger, and align it again",
            after.fragmented + after.unaligned
        ));
    }
    Ok(())
}
