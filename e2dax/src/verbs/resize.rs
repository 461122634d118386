//! `resize`: another size for an image.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use blockdev::BlockDevice;
use ext2_image::resize::{Resize, Resized};
use ext2_image::rewrite;

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::json::{Json, object};
use crate::settle::settle;
use crate::stop::{Stop, explained};
use crate::target::{DeviceKind, Mode, Target};
use crate::text::parse_bytes;

/// Grow or shrink an image that is not mounted
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax resize disk.img 2G
  e2dax resize disk.img +512M
  e2dax resize disk.img auto                 as large as the file, partition or device is
  e2dax resize --minimum disk.img            as small as what is in it allows
  e2dax resize --minimum --dry-run disk.img  only say how small that is

The numbers of the result are those of resize2fs. Files that are in the way move, whole units of 2 MiB into whole units.
The file of an image grows and shrinks with its file system; one in a partition or behind an offset can grow to the
end of that.

Until the last step the image is unchanged, whatever happens. If the machine dies during that step, nothing will
open the image until this command, or any e2dax command that changes it, is run again and finishes the change.
Ctrl-C leaves the image as it was.")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMG")]
    image: OsString,

    // Given as help and not as a doc comment, which would take the brackets for links.
    #[arg(
        value_name = "SIZE",
        value_parser = parse,
        required_unless_present = "minimum",
        conflicts_with = "minimum",
        allow_hyphen_values = true,
        help = "Bytes, with K, M, G or T for powers of 1024; +N or -N for more or fewer; auto for all the room there is"
    )]
    size: Option<Size>,

    /// As small as the contents allow
    #[arg(short = 'M', long)]
    minimum: bool,

    /// Only print what the result would be
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Auto,
    To(u64),
    More(u64),
    Less(u64),
}

fn parse(text: &str) -> Result<Size, String> {
    match text.as_bytes() {
        b"auto" => Ok(Size::Auto),
        [b'+', ..] => parse_bytes(&text[1..]).map(Size::More),
        [b'-', ..] => parse_bytes(&text[1..]).map(Size::Less),
        _ => parse_bytes(text).map(Size::To),
    }
}

/// Bytes that a file is made longer by while it is resized, where there is no other room for the log of the change.
const SPILL: u64 = 64 << 20;

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse_image(&args.image)?;
    let name = target.image_name();
    let device = open(&target, context, args.dry_run)?;
    let current = Current::of(&target, &*device)?;
    let wanted = match args.size {
        None => u64::from(Resize::minimum(&*device).of(|| name.clone())?) * current.block,
        // Whole pages, so that the last page of a device can be mapped.
        Some(Size::Auto) => device.size() / 4096 * 4096,
        Some(Size::To(bytes)) => bytes,
        Some(Size::More(bytes)) => current.bytes.saturating_add(bytes),
        Some(Size::Less(bytes)) => current.bytes.saturating_sub(bytes),
    };
    let plan = Resize::plan(&*device, wanted / current.block).of(|| name.clone())?;
    if plan.bytes() > device.size() && !has_file(&target, context) {
        let what = format!("has room for {} bytes, and {} are asked for", device.size(), plan.bytes());
        return Err(Failure::text(name, what));
    }
    if args.dry_run || plan.is_nothing() {
        let blocks = (current.blocks(), plan.blocks());
        return tell(args, context, &name, current.block, &Resized { blocks, ..Resized::default() });
    }
    let done = if has_file(&target, context) {
        in_file(&target, context, device, &plan, &current)?
    } else {
        carry_out(&target, plan.blocks(), &*device, None)?
    };
    tell(args, context, &name, current.block, &done)
}

/// Whether the file of the image can become longer and shorter; not for a copy in memory, of which nothing stays.
fn has_file(target: &Target, context: &Context) -> bool {
    target.is_whole_file() && context.image.device() != DeviceKind::Ram
}

/// The image on its device, clean.
fn open(target: &Target, context: &Context, only_look: bool) -> Result<Arc<dyn BlockDevice>> {
    let mode = if only_look { Mode::Read } else { Mode::Write };
    let device = target.open_device(&context.image.by_calls(), mode, context.image.durability())?;
    settle(target, &device, context)?;
    // What is no image is told by its name.
    target.open_on(device.clone(), &context.image, Mode::Read, false)?;
    Ok(device)
}

/// The image before.
struct Current {
    block: u64,
    bytes: u64,
    /// Bytes of its file or device.
    device: u64,
}

impl Current {
    fn of(target: &Target, device: &dyn BlockDevice) -> Result<Self> {
        let mut raw = [0; 1024];
        device.read_at(1024, &mut raw).of(|| target.image_name())?;
        let word =
            |at: usize| u64::from(u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]));
        // What is no superblock is told by the plan.
        let block = 1024 << (word(24).min(6));
        Ok(Self { block, bytes: word(4) * block, device: device.size() })
    }

    fn blocks(&self) -> u32 {
        // OK to cast: it was read from 32 bits.
        (self.bytes / self.block) as u32
    }
}

/// Resizes an image that has a file for itself, which gets longer and shorter with it.
fn in_file(
    target: &Target,
    context: &Context,
    device: Arc<dyn BlockDevice>,
    plan: &Resize,
    current: &Current,
) -> Result<Resized> {
    let name = target.image_name();
    let host = |error: std::io::Error| Failure::host(&target.image, error);
    let file = OpenOptions::new().read(true).write(true).open(&target.image).map_err(host)?;
    // What lies behind the file system is somebody's, unless it is nothing but zeros.
    let is_last = is_zero(&file, current.bytes, current.device).map_err(host)?;
    let spill = plan.bytes().max(current.device);
    let kept = if is_last { plan.bytes() } else { spill };
    if !is_last && plan.bytes() > current.bytes {
        let what = "something lies behind the file system in its file (a seal?), and would be overwritten";
        return Err(Failure::text(name, what));
    }
    // What is new of a larger image has room for the log of the change as a rule; the file is longer than both only where it
    // has none, or there is nothing new.
    let mut len = if plan.bytes() > current.bytes { spill } else { spill + SPILL };
    let mut device = device;
    let done = loop {
        if len != device.size() {
            file.set_len(len).map_err(host)?;
            drop(device);
            device =
                target.open_device(&context.image.by_calls(), Mode::Write, context.image.durability())?;
        }
        let room = (len > spill).then_some(spill);
        let done = carry_out(target, plan.blocks(), &*device, room);
        if room.is_some() || !done.as_ref().is_err_and(Failure::is_no_room) {
            break done;
        }
        len = spill + SPILL;
    };
    // A log that was not carried out may lie there, or the device failed when all was in its place.
    let is_as_before = || {
        !rewrite::is_unfinished(&*device).unwrap_or(true)
            && Current::of(target, &*device).is_ok_and(|now| now.bytes == current.bytes)
    };
    if done.is_err() && !is_as_before() {
        return done;
    }
    // Its lock is kept until the file has its length.
    let wanted = if done.is_ok() { kept } else { current.device };
    if wanted != len {
        file.set_len(wanted).and_then(|()| file.sync_all()).map_err(host)?;
    }
    drop(device);
    if !is_last {
        let what = "something lies behind the file system in its file, which stays as long as it was";
        context.note(&format!("{name}: {what}"));
    }
    done
}

/// Whether bytes of a file are all zeros; more than a few MiB are not looked at and count as such only in holes.
fn is_zero(file: &File, from: u64, to: u64) -> std::io::Result<bool> {
    let mut part = vec![0; 1 << 16];
    let mut at = from;
    while at < to {
        let data = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => return Ok(true),
            Err(_) => at,
        };
        if data >= to {
            return Ok(true);
        }
        let len = (to - data).min(part.len() as u64) as usize;
        file.read_exact_at(&mut part[..len], data)?;
        if part[..len].iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        at = data + len as u64;
    }
    Ok(true)
}

/// Plans again, since others may have had the image meanwhile, and does it.
fn carry_out(target: &Target, blocks: u32, device: &dyn BlockDevice, spill: Option<u64>) -> Result<Resized> {
    let name = target.image_name();
    let plan = Resize::plan(device, blocks.into()).of(|| name.clone())?;
    let stop = Stop::new();
    let now = crate::clock::now()?.encode(false).0;
    let bias = target.bias(device);
    let done =
        stop.watched(|watch| plan.run(device, &rewrite::Options { bias, spill, now: Some(now), watch }));
    explained(done, &name, "run it again to begin anew")
}

fn tell(args: &Args, context: &mut Context, name: &str, block: u64, done: &Resized) -> Result<()> {
    let bytes = |blocks: u32| u64::from(blocks) * block;
    if args.json {
        return context.out.json(&object! {
            "image": Json::bytes(name.as_bytes()),
            "dry_run": args.dry_run,
            "block_size": block,
            "blocks_before": done.blocks.0,
            "blocks": done.blocks.1,
            "bytes_before": bytes(done.blocks.0),
            "bytes": bytes(done.blocks.1),
            "moved_blocks": done.moved_blocks,
            "moved_inodes": done.moved_inodes,
            "units_kept": done.units_kept,
            "units_broken": done.units_broken,
            "logged_blocks": done.logged_blocks,
        });
    }
    let what = if args.dry_run { "would come to" } else { "has" };
    let (before, after) = (bytes(done.blocks.0), bytes(done.blocks.1));
    context.out.line(format_args!(
        "{name}: {what} {} blocks of {block} bytes, {after} bytes; had {before}",
        done.blocks.1
    ))?;
    if done.units_broken > 0 {
        context.note(&format!(
            "{} units of 2 MiB had to be broken for want of whole ones: e2dax align where there is more room",
            done.units_broken
        ));
    }
    Ok(())
}
