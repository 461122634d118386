//! `mkfs`: make a file system, empty or from a directory, a tar archive or a manifest.

mod format;
mod seal;
mod source;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use ext2_core::Timestamp;
use ext2_image::UNIT;
use ext2_image::mkfs::{
    AlignChoice, FileOutput, Format, Fresh, LostAndFound, Options, Output as _, Plan, Report, Size, pfn,
};
use rustix::fs::OFlags;

use crate::context::Context;
use crate::failure::{Failure, Of as _, Result};
use crate::json::{Json, object};
use crate::progress::bytes_bar;
use crate::text::{parse_bytes, percent, show_os, uuid};
use crate::verbs::seal::options::{self, SealOptions};
use seal::Seal;
use source::Input;

/// Make a file system, empty or with the files of a directory, a tar archive or a manifest
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax mkfs disk.img --size 64M                       an empty file system, as mke2fs -t ext2 makes it
  e2dax mkfs disk.img --from rootfs/ --owner 0:0       of exactly the size that it needs
  docker export NAME | e2dax mkfs disk.img --from -    from a tar archive, with 64 MiB left free:
                     --size auto+64M
  e2dax mkfs disk.img --from disk.manifest --contents files/

The same input, options and SOURCE_DATE_EPOCH give the same bytes, for every user and on every machine. Times later
than SOURCE_DATE_EPOCH become SOURCE_DATE_EPOCH. UUID and hash seed derive from names, sizes, owners and times of
what goes in and from --seed. Of a directory only the time of the last change is taken (--times all takes the others).

From 64 MiB up, files are laid out so that every whole 2 MiB of them can be mapped by one page of 2 MiB.")]
pub(crate) struct Args {
    /// The image; a file is made new, a block device is overwritten
    #[arg(value_name = "IMG")]
    image: PathBuf,

    /// What goes in: a directory, a tar archive (plain, gzip, zstd; - is the standard input) or a manifest
    #[arg(long, value_name = "SOURCE")]
    from: Option<PathBuf>,

    /// The directory with the contents of a manifest's files [default: where the manifest is]
    #[arg(long, value_name = "DIR", requires = "from")]
    contents: Option<PathBuf>,

    /// Bytes (K, M, G and T are known), auto, or auto+BYTES for so many bytes free [default: auto, with --from]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: Option<Size>,

    /// Replace an image that is there
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

    /// Make no directory lost+found unless the source has it
    #[arg(long)]
    no_lost_and_found: bool,

    /// Seal it: add a dm-verity hash tree, and print the root hash
    #[arg(long)]
    seal: bool,

    #[command(flatten)]
    seal_options: SealOptions,

    /// Print what was made as JSON
    #[arg(long)]
    json: bool,

    /// Print nothing but warnings
    #[arg(long, short)]
    quiet: bool,
}

/// When to lay files out for 2 MiB pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AlignArg {
    /// From 64 MiB up
    Auto,
    /// Always
    On,
    /// Never: files follow each other without gaps
    Off,
}

fn parse_size(text: &str) -> Result<Size, String> {
    match text.strip_prefix("auto") {
        Some("") => Ok(Size::Auto { slack: 0 }),
        Some(rest) => {
            let slack = rest.strip_prefix('+').ok_or_else(|| format!("{text:?}: auto or auto+BYTES"))?;
            Ok(Size::Auto { slack: parse_bytes(slack)? })
        }
        None => parse_bytes(text).map(Size::Bytes),
    }
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
    let failed = failed(&args.image);
    let existing = std::fs::metadata(&args.image).ok();
    if existing.as_ref().is_some_and(|found| found.is_dir()) {
        return Err(Failure::text(show_os(args.image.as_os_str()), "is a directory"));
    }
    let is_device = existing.as_ref().is_some_and(|found| found.file_type().is_block_device());
    let epoch = source_date_epoch()?;
    let seal = Seal::new(args)?;
    let mut input = Input::open(args, epoch)?;
    let mut format = input.format(&args.format, epoch)?;
    let header = if args.pfn_header { pfn::DATA_OFFSET } else { 0 };
    let size = match (args.size, input.size()) {
        (Some(size), _) | (None, Some(size)) => size,
        (None, None) if is_device => {
            let room = device_size(&args.image)?.saturating_sub(header);
            Size::Bytes(room.saturating_sub(seal.as_ref().map_or(0, |seal| seal.bytes_for(room))))
        }
        (None, None) => match existing.as_ref().filter(|found| found.len() > header && !input.has_source()) {
            Some(found) => Size::Bytes(found.len() - header),
            None if input.has_source() => Size::Auto { slack: 0 },
            None => {
                return Err(Failure::usage(&OsString::from("--size"), "says how large the image is to be"));
            }
        },
    };
    if let (Size::Bytes(bytes), false) = (size, input.has_source()) {
        format.block_size = Some(format.block_size_for(bytes));
    }
    let options = Options {
        size,
        align: match args.dax_align {
            AlignArg::Auto if !input.has_source() => AlignChoice::Off,
            AlignArg::Auto => AlignChoice::Auto,
            AlignArg::On => AlignChoice::Units,
            AlignArg::Off => AlignChoice::Off,
        },
        device_offset: args.device_offset + header,
        lost_and_found: if args.no_lost_and_found || input.is_exact() {
            LostAndFound::AsInTree
        } else {
            LostAndFound::Always
        },
    };
    if args.source.sparse {
        let block = format.block_size.map_or(4096, |size| size.len());
        input.find_holes(block).map_err(&failed)?;
    }
    let plan = Plan::new(input.take_tree(), &format, &options).map_err(&failed)?;
    plan.tree().warnings().iter().for_each(|warning| context.warn(&warning.to_string()));
    let image = Image::create(&args.image, existing.is_some(), is_device, args.force)?;
    let report = image.write(&plan, &mut input, header, format.uuid).map_err(|error| {
        image.remove();
        failed(error)
    })?;
    let sealed = match &seal {
        Some(seal) => Some(
            seal.add(&image.file, header, &plan, &format.uuid, is_device, args)
                .inspect_err(|_| image.remove())?,
        ),
        None => None,
    };
    if args.json {
        let made = to_json(&plan, &report, &format, header);
        let made = match &sealed {
            Some(sealed) => made.with("seal", options::to_json(sealed, &args.seal_options)),
            None => made,
        };
        return context.out.json(&made);
    }
    if !args.quiet {
        print(&plan, &report, &format, context)?;
    }
    match &sealed {
        Some(sealed) => options::print(sealed, &args.seal_options, context),
        None => Ok(()),
    }
}

/// Seconds of `SOURCE_DATE_EPOCH`, or of `E2FSPROGS_FAKE_TIME`, where one is set.
fn source_date_epoch() -> Result<Option<Timestamp>> {
    for name in ["SOURCE_DATE_EPOCH", "E2FSPROGS_FAKE_TIME"] {
        if let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) {
            let seconds = value.to_str().and_then(|text| text.parse().ok());
            let seconds = seconds.ok_or_else(|| Failure::text(name, "is not a number of seconds"))?;
            return Ok(Some(Timestamp::from_secs(seconds)));
        }
    }
    Ok(None)
}

fn device_size(path: &Path) -> Result<u64> {
    use std::io::{Seek as _, SeekFrom};
    let size = File::open(path).and_then(|mut file| file.seek(SeekFrom::End(0)));
    size.map_err(|error| Failure::host(path, error))
}

/// The image in the making.
struct Image {
    file: File,
    path: PathBuf,
    is_device: bool,
    is_new: bool,
}

impl Image {
    fn create(path: &Path, exists: bool, is_device: bool, force: bool) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if is_device {
            // The kernel refuses one that is mounted or held.
            options.custom_flags(i32::try_from(OFlags::EXCL.bits()).unwrap_or_default());
        } else {
            options.create(true).create_new(!exists);
        }
        if exists && !force && !is_empty(path) {
            return Err(Failure::text(show_os(path.as_os_str()), "is not empty: --force replaces it"));
        }
        let file = options.open(path).map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => {
                Failure::new(show_os(path.as_os_str()), blockdev::explain_busy(path, error))
            }
            _ => Failure::host(path, error),
        })?;
        // Not before it is known that nobody uses what is there.
        blockdev::take_for_replacing(&file, path).of(|| show_os(path.as_os_str()))?;
        if !is_device {
            file.set_len(0).map_err(|error| Failure::host(path, error))?;
        }
        Ok(Self { file, path: path.to_path_buf(), is_device, is_new: !exists })
    }

    /// Nobody takes half an image for a whole one.
    fn remove(&self) {
        if self.is_new {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    fn write(
        &self,
        plan: &Plan,
        input: &mut Input,
        header: u64,
        id: [u8; 16],
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
        let fresh = if self.is_device { Fresh::Unknown } else { Fresh::Zeros };
        if !self.is_device {
            self.file.set_len(header + plan.bytes()).map_err(io)?;
        }
        let bar = bytes_bar("copying", plan.payload());
        let out = FileOutput::new(&self.file, header, plan.bytes(), fresh);
        let report = plan.write(input.contents(), &out, &mut |copied| bar.set_position(copied))?;
        if header > 0 {
            let bytes = pfn::header(id, plan.bytes());
            self.file.write_all_at(&bytes, pfn::HEADER_OFFSET).map_err(io)?;
        }
        if self.is_device {
            out.flush()?;
        }
        bar.finish_and_clear();
        Ok(report)
    }
}

/// Whether nothing is lost when an image is made over this file: it has no byte, or none but zeros at its beginning.
fn is_empty(path: &Path) -> bool {
    let mut start = vec![0; 1 << 16];
    let read = File::open(path).and_then(|file| file.read_at(&mut start, 0));
    read.is_ok_and(|len| start.iter().take(len).all(|&byte| byte == 0))
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
        context.out.line(format_args!("{} files, {} bytes in them", report.files, plan.payload()))?;
    }
    if let Some(units) = plan.aligned_units().filter(|&units| units > 0) {
        let cost = plan.alignment_cost();
        context.out.line(format_args!(
            "{units} whole units of {} MiB aligned; that takes {cost} bytes more than without, {}",
            UNIT >> 20,
            percent(cost, plan.bytes()),
        ))?;
    }
    Ok(())
}
