//! `touch`: times, and empty files.

use std::ffi::OsString;

use ext2_core::{SetAttr, Timestamp};

use crate::context::Context;
use crate::failure::{Of, Result};
use crate::images::for_each;

/// Set times in an image; create files that do not exist
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax touch disk.img:/etc/stamp
  e2dax touch -t 1700000000.5 disk.img:/etc/stamp")]
pub(crate) struct Args {
    /// Files
    #[arg(value_name = "IMG:/PATH", required = true)]
    targets: Vec<OsString>,

    /// Seconds since 1970, fractions allowed, instead of now
    #[arg(short, long, value_name = "SECONDS", value_parser = parse_time, allow_hyphen_values = true)]
    time: Option<Timestamp>,

    /// Only the time of access
    #[arg(short, long, conflicts_with = "mtime")]
    atime: bool,

    /// Only the time of change
    #[arg(short, long)]
    mtime: bool,

    /// Do not create files
    #[arg(short = 'c', long)]
    no_create: bool,
}

/// `SECONDS[.FRACTION]`; the fraction is added, as everywhere in ext2.
fn parse_time(text: &str) -> Result<Timestamp, String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let wrong = || format!("{text:?} is no number of seconds");
    let sec = whole.parse().map_err(|_| wrong())?;
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let nsec = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    Ok(Timestamp { sec, nsec })
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    // Both times to now is what an append-only file lets be done.
    let is_plain = args.time.is_none() && !args.atime && !args.mtime;
    let now = match args.time {
        Some(time) => time,
        None => crate::clock::now()?,
    };
    let change = SetAttr {
        atime: (!args.mtime).then_some(now),
        mtime: (!args.atime).then_some(now),
        ..SetAttr::default()
    };
    for_each(context, &args.targets, |context, images, target| {
        let Some(inode) = images.file(context, target, args.no_create)? else { return Ok(()) };
        if is_plain { inode.touch() } else { inode.set_attr(&change) }.of(|| target.name())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_up_to_nine_digits_after_the_dot() {
        assert_eq!(parse_time("-5"), Ok(Timestamp { sec: -5, nsec: 0 }));
        assert_eq!(parse_time("7.25"), Ok(Timestamp { sec: 7, nsec: 250_000_000 }));
        for bad in ["", "x", "1.x", "1.0000000001", "1.-5"] {
            assert!(parse_time(bad).is_err(), "{bad:?}");
        }
    }
}
