//! `stat`: all that is known of a file.

use std::ffi::OsString;

use ext2_core::{Attr, Follow, Inode};

use crate::context::Context;
use crate::describe::{allocated, file_json, flag_letters, kind_name, link_target, name_and_target};
use crate::failure::{Of, Result};
use crate::target::{Mode, Target};
use crate::text::{Align, mode_letters, table, time_utc_exact};

/// Show all that is known of a file
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax stat disk.img:/etc/passwd
  e2dax stat -L disk.img:/etc/localtime
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
    let (_fs, inode) = target.resolve(&context.image, Mode::Read, follow)?;
    let link = link_target(&inode).of(|| target.name())?;
    if args.json {
        return context.out.json(&file_json(target.path(), &inode, link.as_deref()));
    }
    let rows = rows(target, &inode, link.as_deref());
    table(&[Align::Left, Align::Left], &rows).into_iter().try_for_each(|line| context.out.line(line))
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
