//! `check`: whether an image is sound.

mod seal;

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::PathBuf;

use ext2_image::check::{self, Finding, Options, Place, Preen, Summary};

use crate::context::Context;
use crate::failure::{Of, Result};
use crate::json::{Json, object};
use crate::progress::PassBar;
use crate::target::{Mode, Target};
use crate::text::count;
use crate::verbs::seal::options::parse_root;

/// Errors are left, as e2fsck says it.
const ERRORS_LEFT: u8 = 4;

/// Check an image in the passes of e2fsck, and change nothing
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax check a.img
  e2dax check --json a.img@p1
  e2dax check --backups a.img
  e2dax check --seal 4392712b… a.img         first whether the seal is whole and of this root hash

Each finding names the object and says whether e2fsck -p mends it without a question (mends) or stops and asks for a
person (halts). Remarks are what e2fsck -n does not count as a fault.

Exit codes are those of e2fsck: 0 clean, 4 there are errors, 8 there is no file system or it cannot be checked,
16 usage.")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMG")]
    image: OsString,

    /// Also compare the backups of the superblock with the primary one
    #[arg(long)]
    backups: bool,

    /// First verify the dm-verity seal of the image against this root hash
    #[arg(long, value_name = "ROOTHASH", value_parser = parse_root)]
    seal: Option<std::vec::Vec<u8>>,

    /// The file with the hash tree, where it does not lie behind the file system
    #[arg(long, value_name = "FILE", requires = "seal")]
    hash_file: Option<PathBuf>,

    /// Print only the verdict
    #[arg(short, long)]
    quiet: bool,

    /// Print a JSON object for each finding, and one with the verdict
    #[arg(long)]
    json: bool,
}

/// Nothing could be checked, as e2fsck says it.
const OPERATIONAL: u8 = 8;
/// The command line makes no sense, as e2fsck says it.
const USAGE: u8 = 16;

/// The exit code for a command line that makes no sense, when it is one of this verb.
pub(crate) fn usage_code(arguments: &[OsString]) -> Option<u8> {
    let verb = arguments.iter().skip(1).find(|argument| !argument.as_encoded_bytes().starts_with(b"-"));
    verb.is_some_and(|verb| verb == "check").then_some(USAGE)
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    match look(args, context) {
        Err(failure) if !failure.is_closed_output() => {
            let is_usage = failure.code() == crate::failure::USAGE;
            context.complain(&failure);
            context.set_exit(if is_usage { USAGE } else { OPERATIONAL });
            Ok(())
        }
        result => result,
    }
}

fn look(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse_image(&args.image)?;
    let device = target.open_device(&context.image, Mode::Read, blockdev::Durability::Relaxed)?;
    // What a crash left in a log is a part of the image.
    let device = ext2_core::recovered(device).of(|| target.image_name())?;
    if let Some(root) = &args.seal {
        let seal =
            seal::Request { root, hash_file: args.hash_file.as_deref(), quiet: args.quiet, json: args.json };
        if !seal.verify(&target, &*device, context)? {
            context.set_exit(ERRORS_LEFT);
        }
    }
    let bar = PassBar::default();
    let options = Options { backups: args.backups, progress: &|progress| bar.show(progress) };
    // The findings are printed as they come; a closed output is remembered and ends the printing.
    let closed = RefCell::new(None);
    let out = &mut context.out;
    let summary = check::check(&*device, &options, &mut |finding| {
        if args.quiet || closed.borrow().is_some() {
            return;
        }
        let line = bar.hidden_for(|| match args.json {
            true => out.json(&to_json(finding)),
            false => out.line(to_text(finding)),
        });
        if let Err(failure) = line {
            closed.replace(Some(failure));
        }
    });
    bar.end();
    if let Some(failure) = closed.into_inner() {
        return Err(failure);
    }
    let summary = summary.map_err(|error| target.failure(&*device, error))?;
    if args.json {
        context.out.json(&summary_to_json(&summary))?;
    } else {
        context.out.line(verdict(&target.image_name(), &summary))?;
    }
    if !summary.is_clean() {
        context.set_exit(ERRORS_LEFT);
    }
    Ok(())
}

fn preen(finding: &Finding) -> &'static str {
    match finding.preen() {
        _ if finding.kind.is_remark() => "remark",
        Preen::Mends => "mends",
        Preen::Halts => "halts",
    }
}

fn to_text(finding: &Finding) -> String {
    format!("{finding} ({})", preen(finding))
}

fn verdict(image: &str, summary: &Summary) -> String {
    let (inodes, blocks) = (summary.inodes, summary.blocks);
    match summary {
        _ if summary.is_clean() => {
            format!("{image}: clean, {}/{} inodes, {}/{} blocks", inodes.0, inodes.1, blocks.0, blocks.1)
        }
        Summary { complete: true, faults, .. } => format!("{image}: {}", count(*faults, "fault")),
        Summary { faults, .. } => {
            format!("{image}: {}, and the layout is too broken to look at the rest", count(*faults, "fault"))
        }
    }
}

fn number(value: Option<u64>) -> Json {
    value.map_or(Json::Null, |value| Json::Number(value.into()))
}

fn to_json(finding: &Finding) -> Json {
    let place = match finding.place {
        Place::Group(nr) => object! { "object": "group", "number": nr },
        Place::Inode(nr) => object! { "object": "inode", "number": nr },
        Place::Block(nr) => object! { "object": "block", "number": nr },
        Place::Entry { directory, block, offset } => object! {
            "object": "directory",
            "number": directory,
            "block": block,
            "offset": offset,
            "name": Json::bytes(&finding.name),
        },
        _ => object! { "object": "superblock", "number": Json::Null },
    };
    place
        .with("kind", finding.kind.name())
        .with("text", finding.kind.text())
        .with("found", number(finding.found))
        .with("expected", number(finding.expected))
        .with("preen", preen(finding))
}

fn summary_to_json(summary: &Summary) -> Json {
    object! {
        "clean": summary.is_clean(),
        "complete": summary.complete,
        "faults": summary.faults,
        "inodes_used": summary.inodes.0,
        "inodes": summary.inodes.1,
        "blocks_used": summary.blocks.0,
        "blocks": summary.blocks.1,
    }
}
