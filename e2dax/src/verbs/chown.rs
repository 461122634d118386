//! `chown`: owners.

use std::ffi::OsString;

use ext2_core::{Follow, SetAttr};
use ext2_image::copy::Owner;

use crate::context::Context;
use crate::failure::{Of, Result};
use crate::images::{below, for_each};

/// Change owners in an image, by number
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax chown 1000:1000 disk.img:/home/me
  e2dax chown -R :100 disk.img:/srv")]
pub(crate) struct Args {
    /// UID, UID:GID or :GID
    #[arg(value_name = "OWNER", value_parser = parse_owner)]
    owner: Owner,

    /// Files
    #[arg(value_name = "IMG:/PATH", required = true)]
    targets: Vec<OsString>,

    /// Everything below too
    #[arg(short = 'R', long)]
    recursive: bool,

    /// Change symbolic links themselves, not their targets
    #[arg(short = 'n', long)]
    no_dereference: bool,
}

pub(super) fn parse_owner(text: &str) -> Result<Owner, String> {
    let number = |text: &str| match text {
        "" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| format!("{text:?} is no number of a user or group")),
    };
    let (uid, gid) = text.split_once(':').unwrap_or((text, ""));
    match (number(uid)?, number(gid)?) {
        (None, None) => Err("neither UID nor GID".into()),
        (uid, gid) => Ok(Owner { uid, gid }),
    }
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let follow = if args.no_dereference || args.recursive { Follow::No } else { Follow::Yes };
    let change = SetAttr { uid: args.owner.uid, gid: args.owner.gid, ..SetAttr::default() };
    for_each(context, &args.targets, |context, images, target| {
        let (_fs, inode) = images.resolve(context, target, follow)?;
        below(context, target, &inode, args.recursive, |_, path, inode| {
            inode.set_attr(&change).of(|| target.name_of(path))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_a_user_a_group_or_both() {
        assert_eq!(parse_owner("7"), Ok(Owner { uid: Some(7), gid: None }));
        assert_eq!(parse_owner(":8"), Ok(Owner { uid: None, gid: Some(8) }));
        assert_eq!(parse_owner("70000:0"), Ok(Owner { uid: Some(70_000), gid: Some(0) }));
        for bad in ["", ":", "root", "1:x", "-1"] {
            assert!(parse_owner(bad).is_err(), "{bad:?}");
        }
    }
}
