//! `stat`: all that is known of a file.

use std::ffi::OsString;

use ext2_core::{Attr, Follow, Inode};
use ext2_image::fields::{InodeShape, Layout};
use ext2_image::inspect::{Step, pointers, read_inode};

use crate::context::Context;
use crate::describe::{allocated, file_json, flag_letters, kind_name, link_target, name_and_target};
use crate::failure::{Failure, Of, Result};
use crate::json::Json;
use crate::target::{Mode, Target};
use crate::text::{Align, mode_letters, table, time_utc_exact};

/// Show everything about a file
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax stat disk.img:/etc/passwd
  e2dax stat -L disk.img:/etc/localtime
  e2dax stat 'disk.img:<12>'                  the inode of a number
  e2dax stat --json disk.img:/bin/sh | jq .inode")]
pub(crate) struct Args {
    /// Files, each as IMG:/path
    #[arg(value_name = "IMG[:/PATH]", required = true)]
    targets: Vec<OsString>,

    /// Follow a link at the end of the path
    #[arg(short = 'L', long)]
    dereference: bool,

    /// Print a JSON object for each file
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    for argument in &args.targets {
        let shown = Target::parse(argument).and_then(|target| show_one(args, context, &target));
        context.or_complain(shown)?;
    }
    Ok(())
}

fn show_one(args: &Args, context: &mut Context, target: &Target) -> Result<()> {
    let follow = if args.dereference { Follow::Yes } else { Follow::No };
    let (fs, inode) =
        target.resolve(&context.image, Mode::Read, follow).map_err(|failure| match target.number() {
            Some(nr) if failure.is_stale() => {
                let image = target.image_name();
                Failure::text(
                    target.name(),
                    format!("is deleted; e2dax hex {image} --inode {nr} shows what is left"),
                )
            }
            _ => failure,
        })?;
    let layout = Layout::read(&**fs.device()).of(|| target.name())?;
    let (raw, bytes) = read_inode(&**fs.device(), &layout, inode.nr()).of(|| target.name())?;
    let has_pointers = InodeShape::of(&bytes) == InodeShape::Pointers;
    let link = link_target(&inode).of(|| target.name())?;
    if args.json {
        let pointers = has_pointers.then(|| Json::list(raw.i_block.map(|pointer| pointer.get())));
        let json = file_json(target.path(), &inode, link.as_deref());
        return context
            .out
            .json(&json.with("pointers", pointers).with("attribute_block", raw.i_file_acl.get()));
    }
    let mut rows = rows(target, &inode, link.as_deref());
    if raw.i_file_acl.get() != 0 {
        rows.push(vec!["attributes in:".into(), format!("block {}", raw.i_file_acl.get())]);
    }
    if has_pointers {
        let steps = pointers(&**fs.device(), fs.geometry(), &bytes).of(|| target.name())?;
        let text: Vec<String> = steps.iter().map(step_text).collect();
        rows.push(vec!["blocks:".into(), if text.is_empty() { "none".into() } else { text.join(", ") }]);
    }
    table(&[Align::Left, Align::Left], &rows).into_iter().try_for_each(|line| context.out.line(line))
}

/// A part of a block map as debugfs writes it: `(0-11):100-111`, `(IND):112`.
fn step_text(step: &Step) -> String {
    let range = |first: u64, count: u64| match count {
        1 => first.to_string(),
        _ => format!("{first}-{}", first + count - 1),
    };
    match *step {
        Step::Run { first, count, block } => {
            format!("({}):{}", range(first, count), range(block.into(), count))
        }
        Step::Indirect { level, block, is_wrong, .. } => {
            let kind = ["", "IND", "DIND", "TIND"].get(level as usize).copied().unwrap_or_default();
            let wrong = if is_wrong { " (wrong)" } else { "" };
            format!("({kind}):{block}{wrong}")
        }
    }
}

fn rows(target: &Target, inode: &Inode, link: Option<&[u8]>) -> Vec<Vec<String>> {
    let attr: Attr = inode.attr();
    let mut rows = vec![
        ("path", name_and_target(target.path(), link)),
        ("inode", attr.nr.to_string()),
        ("type", kind_name(attr.kind).into()),
        ("mode", format!("{:04o} ({})", attr.mode, mode_letters(attr.kind, attr.mode))),
        ("owner", format!("{}:{}", attr.uid, attr.gid)),
        ("links", attr.links.to_string()),
        ("size", format!("{} bytes", attr.size)),
        ("allocated", format!("{} bytes", allocated(&attr))),
    ];
    if let Some(nr) = attr.device {
        rows.push(("device", format!("{}:{}", nr.major, nr.minor)));
    }
    rows.extend([
        ("accessed", time_utc_exact(attr.atime)),
        ("modified", time_utc_exact(attr.mtime)),
        ("changed", time_utc_exact(attr.ctime)),
    ]);
    if let Some(time) = attr.crtime {
        rows.push(("created", time_utc_exact(time)));
    }
    let flags = flag_letters(attr.flags);
    if !flags.is_empty() {
        rows.push(("flags", flags));
    }
    rows.push(("generation", attr.generation.to_string()));
    rows.into_iter().map(|(key, value)| vec![format!("{key}:"), value]).collect()
}
