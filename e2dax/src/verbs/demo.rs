//! `demo`: what this is about, in a minute and without preparing anything.

mod job;

use std::io::Read as _;
use std::sync::Arc;

use blockdev::{BlockDevice, RamDevice};
use ext2_core::{Ext2, Follow, OpenOptions};
use ext2_image::Walk;
use flate2::read::GzDecoder;

use crate::context::Context;
use crate::dax::{Behaviour, Touched, open, touch};
use crate::describe::{allocated, kind_name};
use crate::failure::{Failure, Of, Result};
use crate::text::{Align, show, table};

/// Show what e2dax is about, on built-in images: needs no preparation and writes nothing
#[derive(clap::Args)]
pub(crate) struct Args {}

/// An image that mke2fs made and Linux filled: `testdata/README.md` tells of it.
const FILLED: &[u8] = include_bytes!("../../shipped/two-mib.img.gz");

/// What messages call the images.
const NAME: &str = "the built-in image";

pub(crate) fn run(_: &Args, context: &mut Context) -> Result<()> {
    let device = unpack(FILLED)?;
    say(context, "An ext2 image that mke2fs made and Linux filled, held in RAM:\n")?;
    files(context, &mount(&device)?)?;
    say(
        context,
        "\nA program maps /hole, 2 MiB without a block, and reads a byte of each of its 512 pages.\n\
         Linux's ext2 tells DAX of a hole one block at a time, so each page takes a fault. Told of the\n\
         whole hole, DAX maps the huge zero page, and one fault is enough:\n",
    )?;
    compare(context, &device, "/hole")?;
    job::run(context)?;
    say(
        context,
        "\nNext:\n  \
           e2dax fault IMG:/file --at 0 --len 2M     the events behind these numbers, on an image of yours\n  \
           e2dax map --all IMG                       what of its files a page of 2 MiB can map, and why not\n  \
           e2dax replay --events IMG SCRIPT.ops      any other job, event by event, by the new path or the old\n  \
           e2dax help                                everything else",
    )
}

/// An image in memory.
fn unpack(packed: &[u8]) -> Result<Arc<RamDevice>> {
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).of(|| NAME.into())?;
    RamDevice::from_bytes(&bytes).of(|| NAME.into()).map(Arc::new)
}

fn mount(device: &Arc<RamDevice>) -> Result<Ext2> {
    let device: Arc<dyn BlockDevice> = device.clone();
    Ext2::open(device, &OpenOptions::default()).of(|| NAME.into())
}

fn say(context: &mut Context, text: &str) -> Result<()> {
    context.out.line(text)
}

/// A table, set in.
fn show_table(context: &mut Context, columns: &[Align], rows: &[Vec<String>]) -> Result<()> {
    table(columns, rows).iter().try_for_each(|line| context.out.line(format_args!("  {line}")))
}

/// What is in an image.
fn files(context: &mut Context, fs: &Ext2) -> Result<()> {
    let titles = ["path", "type", "size", "allocated"].map(String::from).to_vec();
    let mut rows = vec![titles];
    for found in Walk::new(&fs.root().of(|| NAME.into())?, b"/") {
        let found = found.map_err(|error| Failure::new(NAME, error.error))?;
        let attr = found.inode.attr();
        let numbers = [attr.size, allocated(&attr)].map(|number| number.to_string());
        rows.push([vec![show(&found.path), kind_name(attr.kind).into()], numbers.to_vec()].concat());
    }
    show_table(context, &[Align::Left, Align::Left, Align::Right, Align::Right], &rows)
}

/// A file mapped and touched, as Linux's ext2 has it and as it is here.
fn compare(context: &mut Context, device: &Arc<RamDevice>, path: &str) -> Result<()> {
    let by = |behaviour| -> Result<Touched> {
        let name = || format!("{NAME}:{path}");
        // Each has the file for itself: the pages of one that is open belong to one behaviour.
        let fs = mount(device)?;
        let inode = fs.resolve(path.as_bytes(), Follow::No).of(name)?;
        let size = inode.size();
        touch(&open(fs, behaviour, name)?, inode, 0, size, name)
    };
    let mut rows = vec![["", "faults", "iomap_begin", "PMDs", "PTEs"].map(String::from).to_vec()];
    for (who, behaviour) in [("Linux 6.1's ext2", Behaviour::Linux61), ("here", Behaviour::Full)] {
        let touched = by(behaviour)?;
        let count = &touched.counters;
        let numbers = [touched.faults(), touched.asked(), count.pmds, count.ptes];
        rows.push([vec![who.into()], numbers.map(|number| number.to_string()).to_vec()].concat());
    }
    show_table(context, &[Align::Left, Align::Right, Align::Right, Align::Right, Align::Right], &rows)
}
