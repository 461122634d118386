//! `mkfs`: make a file system, empty or from a directory, an archive, a container image or a manifest.

mod disk;
mod format;
mod image;
mod remote;
mod seal;
mod size;
mod source;

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use clap::{Parser as _, ValueEnum};
use ext2_core::{BlockSize, Timestamp};
use ext2_image::UNIT;
use ext2_image::disk::Disk;
use ext2_image::input::Source;
use ext2_image::mkfs::{
    AlignChoice, Contents, Error, FileOutput, Format, Fresh, Inodes, LostAndFound, NodeAttrs, Options,
    Output as _, Plan, Report, Size, Synthetic, Tree, pfn,
};

use crate::beside::NewFile;
use crate::clock;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::json::{Json, object};
use crate::progress::bytes_bar;
use crate::target::is_same_file;
use crate::text::{count, parse_bytes, percent, show_os, uuid};
use crate::verbs::seal::options::{self, SealOptions};
use disk::DiskPlan;
use image::{Image, Where};
use seal::Seal;
use source::Taken;

/// Make a file system, empty or with the files of a directory, an archive, a container image or a manifest
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax mkfs disk.img --size 64M                       an empty file system, as mke2fs -t ext2 makes it
  e2dax mkfs disk.img --from rootfs/ --owner 0:0       of exactly the size that it needs
  docker export NAME | e2dax mkfs disk.img --from -    from a tar archive, with 64 MiB left free:
                     --size auto+64M
  e2dax mkfs disk.img --from oci:layout:latest         from a container image, its layers applied
  e2dax mkfs disk.img --from base.tar --from extra/    from several sources, one over the other
  e2dax mkfs disk.img --from disk.manifest --contents files/
  e2dax mkfs disk.img --from rootfs/ --seal            with the root hash of a dm-verity tree, for a read-only root
  e2dax mkfs disk.img --from rootfs/ --disk gpt --partition EFI=esp.img

The same input, options and SOURCE_DATE_EPOCH give the same bytes, for every user and on every machine. Times later
than SOURCE_DATE_EPOCH become SOURCE_DATE_EPOCH. An archive that `e2dax tar` made of a whole image becomes that
image again, with its size, label and UUID, unless options say otherwise. UUID and hash seed derive from names, sizes, owners and times of
what goes in and from --seed. Of a directory only the time of the last change is taken (--times all takes the others).

Files are laid out so that every whole 2 MiB of them can be mapped by one page of 2 MiB: from 64 MiB up, and below
where that takes no room. An existing image is replaced only when the new one is complete.")]
pub(crate) struct Args {
    /// The image: a new file; or a block device or a part of an image (IMG@pN, IMG@OFFSET), which is
    /// overwritten
    #[arg(value_name = "IMG")]
    image: PathBuf,

    /// What goes in: a directory, a tar archive (plain or packed by gzip, zstd, xz, bzip2, lz4, lzip; - is the standard
    /// input), a manifest, or a container image as `oci:PATH[:TAG]` (an OCI layout, or an archive of one as `docker save`
    /// writes it). Several are layers, each over those before it, with whiteouts as container images have them
    #[arg(long, value_name = "SOURCE")]
    from: Vec<OsString>,

    /// The directory with the contents of a manifest's files [default: where the manifest is]
    #[arg(long, value_name = "DIR", requires = "from")]
    contents: Option<PathBuf>,

    /// Bytes (K, M, G and T are known, fractions too), or auto: as small as what goes in allows. auto+64M leaves 64 MiB
    /// free for everybody, auto+10% a tenth of what goes in, auto+1000inodes that many more files; each may be added to
    /// the others [default: auto, with --from]
    #[arg(long, value_name = "SIZE", value_parser = size::parse, allow_hyphen_values = true)]
    size: Option<size::Wanted>,

    /// Replace an existing image
    #[arg(long, short)]
    force: bool,

    /// Lay files out for 2 MiB pages
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    dax_align: AlignArg,

    /// Where the file system begins on the device that will be mapped: the offset of a partition
    #[arg(long, value_name = "BYTES", default_value = "0", value_parser = parse_bytes)]
    device_offset: u64,

    /// Begin the image with the 2 MiB header that makes it a namespace of an emulated nvdimm, as Kata Containers has
    /// it; address the file system as IMG@dax:
    #[arg(long, visible_alias = "kata")]
    pfn_header: bool,

    #[command(flatten)]
    format: format::FormatArgs,

    #[command(flatten)]
    source: source::SourceArgs,

    /// Create no lost+found unless the source has one
    #[arg(long)]
    no_lost_and_found: bool,

    /// Seal it: add a dm-verity hash tree, and print the root hash
    #[arg(long)]
    seal: bool,

    #[command(flatten)]
    seal_options: SealOptions,

    #[command(flatten)]
    disk: disk::DiskArgs,

    /// Print what was made as JSON
    #[arg(long)]
    json: bool,

    /// Print nothing but warnings
    #[arg(long, short)]
    quiet: bool,
}

impl Args {
    fn sources(&self) -> Vec<Source> {
        self.from.iter().map(|name| Source::parse(name)).collect()
    }
}

/// When to lay files out for 2 MiB pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AlignArg {
    /// From 64 MiB up, and wherever it is free
    Auto,
    /// Always
    On,
    /// Never: files follow each other without gaps
    Off,
}

/// An error of making, with the image's name where it is not about a file of the source.
fn failed(image: &Path) -> impl Fn(ext2_image::mkfs::Error) -> Failure + use<> {
    let name = show_os(image.as_os_str());
    move |error| match error {
        ext2_image::mkfs::Error::Source { .. } | ext2_image::mkfs::Error::Entry { .. } => {
            Failure::text("", error.to_string())
        }
        ext2_image::mkfs::Error::Fs(error) => Failure::new(name.clone(), error),
        other => Failure::text(name.clone(), other.to_string()),
    }
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    if crate::remote::is_remote(args.image.as_os_str()) {
        return remote::run(args, context);
    }
    let failed = failed(&args.image);
    let place = Where::find(&args.image)?;
    refuse_the_same(args, &place)?;
    let epoch = clock::epoch()?;
    let seal = Seal::new(args, context.image.wait)?;
    let disk = DiskPlan::new(&args.disk, &place)?;
    let mut taken = Taken::read(args, epoch, true)?;
    let header = match &disk {
        Some(disk) => disk.start(),
        None if args.pfn_header => pfn::DATA_OFFSET,
        None => 0,
    };
    let (start, there) = place.bounds()?.unwrap_or_default();
    let base = start + header;
    let room = match &disk {
        Some(_) => Disk::room_from(header, there),
        None => there.saturating_sub(header),
    };
    let is_in_place = place.is_in_place();
    let wanted = Wanted { base, room, is_in_place };
    let (plan, format) = plan(args, &mut taken, epoch, &wanted, seal.as_ref(), context)?;
    if is_in_place && plan.bytes() > room {
        return Err(failed(ext2_image::mkfs::Error::TooSmall { needed: plan.bytes(), given: room }));
    }
    plan.tree().warnings().iter().for_each(|warning| context.warn(&warning.to_string()));
    let laid_out = match &disk {
        Some(disk) => {
            let bytes = seal.as_ref().map_or(plan.bytes(), |seal| seal.end_for(plan.bytes()));
            Some((disk, disk.lay_out(bytes, &format.uuid, is_in_place.then_some(there))?))
        }
        None => None,
    };
    if !is_in_place && disk.is_none() && !(header + plan.bytes()).is_multiple_of(UNIT) && !args.quiet {
        context.note(&format!(
            "{}: {} bytes are no multiple of 2 MiB: Linux's virtio-pmem does not map such an image at all \
             (\"misaligned, unable to map\")",
            show_os(args.image.as_os_str()),
            header + plan.bytes()
        ));
    }
    let image = Image::create(&place, start, base, args.force, context.image.wait)?;
    let pfn_id = args.pfn_header.then_some(format.uuid);
    let report = write(&image, &plan, &mut *taken.input.contents, header, pfn_id).map_err(&failed)?;
    let sealed = match &seal {
        Some(seal) => {
            let room = is_in_place.then_some(room);
            Some(seal.add(image.file(), base, &plan, &format.uuid, room, args)?)
        }
        None => None,
    };
    if let Some((disk, laid_out)) = &laid_out {
        disk.write(laid_out, image.file(), is_in_place).map_err(&failed)?;
    }
    let laid_out = laid_out.map(|(_, laid_out)| laid_out);
    image.publish()?;
    let sealed = match sealed {
        Some((sealed, tree)) => {
            tree.map_or(Ok(()), NewFile::publish)?;
            Some(sealed)
        }
        None => None,
    };
    if args.json {
        let made = to_json(&plan, &report, &format, header);
        let made = match &laid_out {
            Some(laid_out) => made.with("disk", disk::to_json(laid_out)),
            None => made,
        };
        let made = match &sealed {
            Some(sealed) => made.with("seal", options::to_json(sealed, &args.seal_options)),
            None => made,
        };
        return context.out.json(&made);
    }
    if !args.quiet {
        print(&plan, &report, &format, context)?;
        if let Some(laid_out) = &laid_out {
            disk::print(laid_out, context)?;
        }
    }
    match &sealed {
        Some(sealed) => options::print(sealed, &args.seal_options, context),
        None => Ok(()),
    }
}

/// Where a file system is to lie.
struct Wanted {
    /// The byte of the device at which it begins.
    base: u64,
    /// Bytes that there are; 0 for a new file.
    room: u64,
    is_in_place: bool,
}

/// Settles everything, for what goes in and what the arguments say.
fn plan(
    args: &Args,
    taken: &mut Taken,
    epoch: Option<Timestamp>,
    wanted: &Wanted,
    seal: Option<&Seal>,
    context: &Context,
) -> Result<(Plan, Format)> {
    let failed = failed(&args.image);
    let Wanted { base, room, is_in_place } = *wanted;
    let mut format = taken.format(args, epoch)?;
    let size = |of_source: Option<Size>| match (args.size.map(|wanted| wanted.size), of_source) {
        (Some(size), _) | (None, Some(size)) => Ok(size),
        (None, None) if is_in_place => {
            Ok(Size::Bytes(room.saturating_sub(seal.map_or(0, |seal| seal.bytes_for(room)))))
        }
        (None, None) if room > 0 && !taken.input.has_source() => Ok(Size::Bytes(room)),
        (None, None) if taken.input.has_source() => Ok(Size::Auto { slack: 0 }),
        (None, None) => Err(Failure::usage(&OsString::from("--size"), "says how large the image is to be")),
    };
    // An archive of an image says a size, which need not be enough for what became of it, nor have room here.
    let of_source = taken.size();
    let fallback = match args.size {
        None if of_source.is_some() && taken.may_have_grown() => Some(size(None)?),
        _ => None,
    };
    let size = size(of_source)?;
    if let (Size::Bytes(bytes), false, None) = (size, taken.input.has_source(), format.block_size) {
        // Pages, so that files can be mapped, but where hardly a page would be left.
        let pages = BlockSize::new(4096).filter(|_| bytes >= 1 << 20);
        format.block_size = pages.or_else(|| Some(format.block_size_for(bytes)));
    }
    let mut options = Options {
        size,
        spare: args.size.map(|wanted| wanted.spare).unwrap_or_default(),
        align: match args.dax_align {
            AlignArg::Auto if !taken.input.has_source() => AlignChoice::Off,
            AlignArg::Auto => AlignChoice::Auto,
            AlignArg::On => AlignChoice::Units,
            AlignArg::Off => AlignChoice::Off,
        },
        device_offset: args.device_offset + base,
        lost_and_found: if args.no_lost_and_found || taken.is_exact() {
            LostAndFound::AsInTree
        } else {
            LostAndFound::Always
        },
    };
    if args.source.sparse {
        let block = format.block_size.map_or(4096, |size| size.len());
        taken.input.find_holes(block).map_err(&failed)?;
    }
    let tree = std::mem::replace(&mut taken.input.tree, Tree::new(NodeAttrs::default()));
    let Some(fallback) = fallback else {
        let plan = Plan::new(tree, &format, &options).map_err(&failed)?;
        return Ok((plan, format));
    };
    let is_too_large = |plan: &Plan| is_in_place && plan.bytes() > room;
    match Plan::new(tree.clone(), &format, &options) {
        Ok(plan) if !is_too_large(&plan) => return Ok((plan, format)),
        Ok(_) | Err(Error::TooSmall { .. } | Error::TooFewInodes { .. }) => {}
        Err(error) => return Err(failed(error)),
    }
    let name = show_os(args.image.as_os_str());
    context.note(&format!(
        "{name}: not of the size of the image that the archive was made of, which does not fit"
    ));
    options.size = fallback;
    if args.format.inodes_are_open() {
        format.inodes = Inodes::BySize;
    }
    let plan = Plan::new(tree, &format, &options).map_err(&failed)?;
    Ok((plan, format))
}

/// The arguments of `mkfs` without the command.
#[derive(clap::Parser)]
#[command(name = "e2dax mkfs", no_binary_name = true)]
struct Alone {
    #[command(flatten)]
    args: Args,
}

/// The disk that `mkfs` would make of sources with these options, without making it.
pub(crate) fn synthetic(from: &[OsString], options: &[OsString], context: &Context) -> Result<Synthetic> {
    let image = std::env::temp_dir().join("disk");
    let named = from.first().cloned().unwrap_or_default();
    let mut all = vec![image.into_os_string()];
    all.extend(from.iter().flat_map(|from| [OsString::from("--from"), from.clone()]));
    all.extend_from_slice(options);
    let Alone { args } = Alone::try_parse_from(all).map_err(|error| {
        let text = error.to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        Failure::usage(&named, text.lines().next().unwrap_or("the options make no sense"))
    })?;
    if args.seal || args.pfn_header || args.disk.is_wanted() {
        let what = "a disk that is not made has no seal, no header and no partitions";
        return Err(Failure::usage(&named, what));
    }
    let epoch = clock::epoch()?;
    let mut taken = Taken::read(&args, epoch, false)?;
    let wanted = Wanted { base: 0, room: 0, is_in_place: false };
    let (plan, _) = plan(&args, &mut taken, epoch, &wanted, None, context)?;
    plan.tree().warnings().iter().for_each(|warning| context.warn(&warning.to_string()));
    Synthetic::new(plan, &*taken.input.contents).map_err(failed(Path::new(&named)))
}

/// Refuses an image that would be made of itself, and a hash tree in the place of what it is made of.
fn refuse_the_same(args: &Args, place: &Where) -> Result<()> {
    let sources = args.sources();
    let sources = sources.iter().map(Source::path).chain(args.disk.files());
    for from in sources {
        let source = if from == Path::new("-") { Path::new("/dev/stdin") } else { from };
        // What cannot be looked at is told by who opens it.
        let Ok(found) = std::fs::metadata(source) else { continue };
        let tree = args.seal_options.hash_file.as_deref().filter(|tree| is_same_file(tree, source));
        let same = if place.is(&found) { Some(args.image.as_path()) } else { tree };
        if let Some(same) = same.filter(|_| found.is_file()) {
            let what = "is what goes in and what comes out: name another file";
            return Err(Failure::text(show_os(same.as_os_str()), what));
        }
    }
    Ok(())
}

fn write(
    image: &Image,
    plan: &Plan,
    contents: &mut dyn Contents,
    header: u64,
    pfn_id: Option<[u8; 16]>,
) -> ext2_image::mkfs::Result<Report> {
    let io = |error: io::Error| {
        let error = blockdev::Error::Io {
            op: "resize",
            offset: 0,
            errno: error.raw_os_error(),
            message: error.to_string(),
        };
        ext2_image::mkfs::Error::from(error)
    };
    let fresh = if image.is_in_place() { Fresh::Unknown } else { Fresh::Zeros };
    if !image.is_in_place() {
        image.file().set_len(header + plan.bytes()).map_err(io)?;
    }
    let bar = bytes_bar("copying", plan.payload());
    let out = FileOutput::new(image.file(), image.base, plan.bytes(), fresh);
    let report = plan.write(contents, &out, &mut |copied| bar.set_position(copied))?;
    if let Some(id) = pfn_id {
        let bytes = pfn::header(id, plan.bytes());
        image.file().write_all_at(&bytes, image.base - header + pfn::HEADER_OFFSET).map_err(io)?;
    }
    if image.is_in_place() {
        out.flush()?;
    }
    bar.finish_and_clear();
    Ok(report)
}

fn to_json(plan: &Plan, report: &Report, format: &Format, header: u64) -> Json {
    let geometry = plan.layout().geometry();
    object! {
        "bytes": plan.bytes(),
        "block_size": geometry.block_size.bytes(),
        "blocks": geometry.blocks_count,
        "free_blocks": report.free_blocks,
        "inodes": geometry.inodes_count,
        "free_inodes": report.free_inodes,
        "files": report.files,
        "payload": plan.payload(),
        "copied": report.copied,
        "aligned_units": plan.aligned_units(),
        "alignment_cost": plan.alignment_cost(),
        "header": header,
        "uuid": uuid(&format.uuid),
    }
}

fn print(plan: &Plan, report: &Report, format: &Format, context: &mut Context) -> Result<()> {
    let geometry = plan.layout().geometry();
    context.out.line(format_args!(
        "{} bytes: {} blocks of {}, {} free; {} inodes, {} free; UUID {}",
        plan.bytes(),
        geometry.blocks_count,
        geometry.block_size,
        report.free_blocks,
        geometry.inodes_count,
        report.free_inodes,
        uuid(&format.uuid),
    ))?;
    if plan.payload() > 0 {
        context.out.line(format_args!(
            "{}, {} bytes in them",
            count(report.files, "file"),
            plan.payload()
        ))?;
    }
    if let Some(units) = plan.aligned_units().filter(|&units| units > 0) {
        let cost = plan.alignment_cost();
        context.out.line(format_args!(
            "{} of {} MiB aligned as a whole; that takes {cost} bytes more than without, {}",
            count(units, "unit"),
            UNIT >> 20,
            percent(cost, plan.bytes()),
        ))?;
    }
    Ok(())
}
