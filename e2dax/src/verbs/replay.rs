//! `replay`: scripts of operations, and what came of each.

use std::ffi::OsString;
use std::io::Read as _;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
#[cfg(target_os = "linux")]
use std::sync::Arc;

use blockdev::BlockDevice;
#[cfg(target_os = "linux")]
use blockdev::Partition;
use clap::ValueEnum;
use ext2_core::Ext2;
use ext2_dax::buffer_head::HoleSize;
#[cfg(target_os = "linux")]
use ext2_dax::mmu::host::{Granularity, HostMmu, HostOptions};
use ext2_dax::replay::{Events, Outcome, Player, Script};
use ext2_dax::trace::{Record, chrome, ftrace, json};
use ext2_dax::{Asked, DataPath, DaxFs, DaxOptions, Flushing};

use super::lab;
use crate::context::Context;
use crate::dax::Behaviour;
use crate::failure::{Failure, Of, Result};
use crate::json::object;
use crate::target::{DeviceKind, ImageOptions, Mode, Target};
use crate::text::show_os;

/// Play a script of file operations, and show the result of each
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax replay --events base.img 02-hole-2m.ops
  e2dax replay --compat linux-6.1 --events base.img 02-hole-2m.ops
  e2dax replay --path buffer-head --asked base.img 03-rw-unaligned.ops
  e2dax replay --mmu host base.img 04-eof-sigbus.ops
  e2dax replay --trace-format chrome base.img my.ops > trace.json
  e2dax replay --html out.html base.img my.ops

The language of the scripts, and what Linux 6.1 did with 28 of them, is in testdata/linux-6.1. The image is copied
into RAM and stays unchanged without --in-place. Like that of the machine that was recorded, the device asks to be
flushed, so synchronous mappings are refused; --media as-device allows them on persistent memory.")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMG")]
    image: OsString,

    /// The script; - is the standard input
    #[arg(value_name = "SCRIPT.ops")]
    script: PathBuf,

    /// Whose behaviour to show
    #[arg(long, value_name = "WHOSE", default_value = "full")]
    compat: Behaviour,

    /// The data path: the new one, or that of Linux 4.8
    #[arg(long, value_name = "PATH", default_value = "iomap")]
    path: PathName,

    /// On the old path, what is reported about the size of a hole
    #[arg(long, value_name = "HOW", default_value = "untold")]
    holes: HoleName,

    /// What the device says about its memory
    #[arg(long, value_name = "MEDIA", default_value = "needs-flush")]
    media: MediaName,

    /// What files are mapped into: a page table in software, or the address space of this process
    #[arg(long, value_name = "MMU", default_value = "soft")]
    mmu: MmuName,

    /// Events under the operations that caused them
    #[arg(long)]
    events: bool,

    /// How events are printed; chrome and ftrace print nothing else
    #[arg(long, value_name = "FORMAT", default_value = "listing")]
    trace_format: TraceFormat,

    /// At the end, print what the file system was asked
    #[arg(long)]
    asked: bool,

    /// Save the image as the script leaves it
    #[arg(long, value_name = "OUT.img", conflicts_with = "in_place")]
    save: Option<PathBuf>,

    /// Change the image itself
    #[arg(long)]
    in_place: bool,

    /// Write an HTML page that shows the script on Linux 4.8, Linux 6.1 and here, step by step, and print
    /// nothing
    #[arg(long, value_name = "OUT.html", conflicts_with_all = ["in_place", "save", "asked", "mmu"])]
    html: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PathName {
    /// iomap
    Iomap,
    /// get_block and buffer heads
    BufferHead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum HoleName {
    /// Nothing, as in Linux 4.8
    Untold,
    /// One block, as the patch of August 2016 did
    OneBlock,
    /// All of it
    InFull,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MediaName {
    /// What the device says: synchronous mappings where it is persistent memory
    AsDevice,
    /// A flush has to be asked for, as of virtio-pmem
    NeedsFlush,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MmuName {
    /// In software
    Soft,
    /// This process: by real page faults
    #[cfg(target_os = "linux")]
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TraceFormat {
    /// The format of testdata/linux-6.1
    Listing,
    /// As the kernel's trace file
    Ftrace,
    /// A JSON object for each operation, and for each event
    Json,
    /// A file for chrome://tracing and Perfetto
    Chrome,
}

impl Args {
    fn options(&self) -> DaxOptions {
        let holes = match self.holes {
            HoleName::Untold => HoleSize::Untold,
            HoleName::OneBlock => HoleSize::OneBlock,
            HoleName::InFull => HoleSize::InFull,
        };
        DaxOptions {
            compat: self.compat.compat(),
            path: match self.path {
                PathName::Iomap => DataPath::Iomap,
                PathName::BufferHead => DataPath::BufferHead(holes),
            },
            media: match self.media {
                MediaName::AsDevice => Flushing::AsDevice,
                MediaName::NeedsFlush => Flushing::NeedsFlush,
            },
            ..DaxOptions::default()
        }
    }
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse_image(&args.image)?;
    if let Some(path) = &args.html {
        return html(args, context, &target, path);
    }
    let script = read(&args.script)?;
    let fs = open(args, context, &target)?;
    let image = fs.device().clone();
    let dax = DaxFs::new(fs.clone(), args.options());
    let played = play(args, context, &dax, &script);
    let asked = dax.asked();
    drop(dax);
    close(&target, fs)?;
    played?;
    if args.asked {
        print_asked(context, &asked)?;
    }
    match &args.save {
        Some(path) => save(&*image, path),
        None => Ok(()),
    }
}

/// The image itself, or a copy of it: in RAM, or in a file in memory where it has to be mapped.
fn open(args: &Args, context: &Context, target: &Target) -> Result<Ext2> {
    if args.in_place {
        return target.open(&context.image, Mode::Write);
    }
    let options = ImageOptions { device: Some(DeviceKind::Ram), ..context.image.clone() };
    match args.mmu {
        MmuName::Soft => target.open(&options, Mode::Write),
        #[cfg(target_os = "linux")]
        MmuName::Host => {
            let image = target.open_device(&context.image, Mode::Read, options.durability())?;
            let copy = in_memory(&*image, target)?;
            target.open_on(copy, &options, Mode::Write, false)
        }
    }
}

/// A copy that can be mapped, as far behind a multiple of 2 MiB as the image in its container.
#[cfg(target_os = "linux")]
fn in_memory(image: &dyn BlockDevice, target: &Target) -> Result<Arc<dyn BlockDevice>> {
    let name = || target.image_name();
    let memory: std::fs::File = rustix::fs::memfd_create("image", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|error| Failure::host(Path::new("a file in memory"), error))?
        .into();
    let path = PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
    copy(image, &memory, &path, target.offset())?;
    let whole = blockdev::open_image(&path, &blockdev::DeviceOptions::read_write()).of(name)?;
    if target.offset() == 0 {
        return Ok(whole);
    }
    Ok(Arc::new(Partition::from_offset(whole, target.offset()).of(name)?))
}

/// The page of `e2dax lab`, with the script on three machines in it.
fn html(args: &Args, context: &Context, target: &Target, path: &Path) -> Result<()> {
    let text = String::from_utf8_lossy(&read_text(&args.script)?).into_owned();
    let fs =
        target.open(&ImageOptions { device: Some(DeviceKind::Ram), ..context.image.clone() }, Mode::Read)?;
    let device = fs.device();
    // OK to cast: the device is in memory.
    let mut image = vec![0; device.size() as usize];
    device.read_at(0, &mut image).of(|| target.image_name())?;
    let wrong = |error| Failure::text(show_os(args.script.as_os_str()), error);
    let name = format!("{} on {}", show_os(args.script.as_os_str()), target.image_name());
    let recording = e2dax_lab::Recording::of(&name, &text, &image).map_err(wrong)?;
    let page = e2dax_lab::page_with(lab::PAGE, &recording)
        .ok_or_else(|| Failure::text("the page", "has no place for a recording"))?;
    std::fs::write(path, page).map_err(|error| Failure::host(path, error))
}

/// Reads a script whole before anything is done.
fn read(path: &Path) -> Result<Script> {
    let text = read_text(path)?;
    Script::parse(&text).map_err(|error| Failure::text(show_os(path.as_os_str()), error.to_string()))
}

fn read_text(path: &Path) -> Result<Vec<u8>> {
    let text = if path == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin().read_to_end(&mut text).map(|_| text)
    } else {
        std::fs::read(path)
    };
    text.map_err(|error| Failure::host(path, error))
}

fn close(target: &Target, fs: Ext2) -> Result<()> {
    fs.close().map(drop).of(|| target.image_name())
}

fn play(args: &Args, context: &mut Context, dax: &DaxFs, script: &Script) -> Result<()> {
    let mut player = match args.mmu {
        MmuName::Soft => Player::new(dax.clone()),
        #[cfg(target_os = "linux")]
        MmuName::Host => {
            let options = HostOptions { granularity: Granularity::Pages, ..HostOptions::default() };
            Player::with_host(
                dax.clone(),
                HostMmu::new(options).of(|| "the mappings of this process".into())?,
            )
        }
    };
    let mut records: Vec<Record> = Vec::new();
    for line in &script.lines {
        let outcome = player.step(line);
        match args.trace_format {
            TraceFormat::Listing => context.out.text(listing(args, &outcome))?,
            TraceFormat::Json => print_json(args, context, &outcome)?,
            TraceFormat::Ftrace | TraceFormat::Chrome => records.extend(outcome.events),
        }
    }
    let mut text = String::new();
    // Writing to a String does not fail.
    let written = match args.trace_format {
        TraceFormat::Ftrace => {
            text.push_str(ftrace::HEADER);
            records.iter().try_for_each(|record| ftrace::write(&mut text, record))
        }
        TraceFormat::Chrome => chrome::write_all(&mut text, &records),
        TraceFormat::Listing | TraceFormat::Json => Ok(()),
    };
    debug_assert!(written.is_ok());
    context.out.text(text)
}

fn listing(args: &Args, outcome: &Outcome) -> String {
    let mut text = String::new();
    let events = if args.events { Events::Shown } else { Events::Hidden };
    let written = outcome.write_oracle(&mut text, events);
    debug_assert!(written.is_ok());
    text
}

fn print_json(args: &Args, context: &mut Context, outcome: &Outcome) -> Result<()> {
    let line = outcome.text.as_str();
    let done = object! { "op": outcome.number, "line": line, "result": outcome.result.as_str() };
    context.out.json(&done)?;
    if !args.events {
        return Ok(());
    }
    let mut text = String::new();
    let written = outcome.events.iter().try_for_each(|record| json::write(&mut text, record));
    debug_assert!(written.is_ok());
    context.out.text(text)
}

fn print_asked(context: &mut Context, asked: &Asked) -> Result<()> {
    let lines = [
        ("calls of the file system", asked.calls),
        ("blocks asked", asked.blocks_asked),
        ("blocks answered", asked.blocks_answered),
        ("exclusive locks", asked.exclusive_locks),
        ("shared locks", asked.shared_locks),
        ("dio counts", asked.dio_counts),
    ];
    lines.iter().try_for_each(|(what, count)| context.out.line(format_args!("{what}: {count}")))
}

/// Writes a device to a file, its zeros as holes.
fn save(device: &dyn BlockDevice, path: &Path) -> Result<()> {
    let file = std::fs::File::create(path).map_err(|error| Failure::host(path, error))?;
    copy(device, &file, path, 0)
}

/// Writes a device to an empty file from the byte `base` on, its zeros as holes.
fn copy(device: &dyn BlockDevice, file: &std::fs::File, path: &Path, base: u64) -> Result<()> {
    const CHUNK: usize = 64 << 10;
    let host = |error: std::io::Error| Failure::host(path, error);
    file.set_len(base + device.size()).map_err(host)?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < device.size() {
        // OK to cast: at most the buffer's length.
        let len = (device.size() - at).min(CHUNK as u64) as usize;
        let part = buffer.get_mut(..len).unwrap_or_default();
        device.read_at(at, part).of(|| "the image".into())?;
        if part.iter().any(|&byte| byte != 0) {
            file.write_all_at(part, base + at).map_err(host)?;
        }
        at += len as u64;
    }
    Ok(())
}
