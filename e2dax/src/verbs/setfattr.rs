//! `setfattr`: extended attributes and access control lists.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use ext2_core::{Acl, AclEntry, AclKind, AclTag, Follow, XattrSet};
use ext2_image::{capability_from_text, is_capability};

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::images::for_each;

/// Set or remove extended attributes and access control lists in an image
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["name", "remove", "acl", "default_acl"]))]
#[command(after_help = "\
Examples:
  e2dax setfattr -n user.origin -v here disk.img:/file
  e2dax setfattr -n security.capability -v cap_net_raw+ep disk.img:/bin/ping
  e2dax setfattr -x user.origin disk.img:/file
  e2dax setfattr --acl u::rw-,u:1000:r--,g::r--,m::r--,o::--- disk.img:/file
  e2dax setfattr --default-acl none disk.img:/directory

A value that begins with 0x is hexadecimal. That of security.capability may be text, as setcap takes it.")]
pub(crate) struct Args {
    /// Files
    #[arg(value_name = "IMG:/PATH", required = true)]
    targets: Vec<OsString>,

    /// The attribute to set, by its whole name
    #[arg(short, long, value_name = "NAME")]
    name: Option<OsString>,

    /// Its value; empty if it is not given
    #[arg(short, long, value_name = "VALUE", requires = "name")]
    value: Option<OsString>,

    /// The attribute to remove
    #[arg(short = 'x', long, value_name = "NAME")]
    remove: Option<OsString>,

    /// The access control list to set, as xattr shows it; none removes it
    #[arg(long, value_name = "LIST", value_parser = parse_acl)]
    acl: Option<List>,

    /// The list that new files in a directory get; none removes it
    #[arg(long, value_name = "LIST", value_parser = parse_acl)]
    default_acl: Option<List>,

    /// Change symbolic links themselves, not their targets
    #[arg(long)]
    no_dereference: bool,
}

/// A list, or that there is to be none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct List(Option<Acl>);

fn parse_acl(text: &str) -> Result<List, String> {
    if text == "none" {
        return Ok(List(None));
    }
    let mut entries = text.split(',').map(parse_entry).collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(|entry| entry.tag);
    Acl::new(entries)
        .map(|acl| List(Some(acl)))
        .ok_or_else(|| "a list has u::, g:: and o:: once each, and m:: where it names users or groups".into())
}

fn parse_entry(text: &str) -> Result<AclEntry, String> {
    let wrong = || format!("{text:?} is no entry of a list");
    let mut parts = text.split(':');
    let (Some(who), Some(id), Some(bits), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong());
    };
    let id = match id {
        "" => None,
        id => Some(id.parse().map_err(|_| wrong())?),
    };
    let tag = match (who, id) {
        ("u" | "user", None) => AclTag::UserObj,
        ("u" | "user", Some(id)) => AclTag::User(id),
        ("g" | "group", None) => AclTag::GroupObj,
        ("g" | "group", Some(id)) => AclTag::Group(id),
        ("m" | "mask", None) => AclTag::Mask,
        ("o" | "other", None) => AclTag::Other,
        _ => return Err(wrong()),
    };
    let mut permissions = 0;
    for letter in bits.chars() {
        permissions |= match letter {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            '-' => 0,
            _ => return Err(wrong()),
        };
    }
    Ok(AclEntry { tag, permissions })
}

/// The bytes of a value.
fn value_bytes(value: &OsString) -> Result<Vec<u8>> {
    let bytes = value.as_bytes();
    let Some(digits) = bytes.strip_prefix(b"0x") else {
        return Ok(bytes.to_vec());
    };
    let pair = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok().filter(|text| text.len() == 2 && !text.starts_with('+'))?;
        u8::from_str_radix(text, 16).ok()
    };
    let decoded: Option<Vec<u8>> = digits.chunks(2).map(pair).collect();
    decoded.ok_or_else(|| Failure::usage(value, "is not hexadecimal"))
}

/// The bytes of capabilities: as they are where they are such, and else from the text that they are.
fn capability(value: &OsString, bytes: Vec<u8>) -> Result<Vec<u8>> {
    if is_capability(&bytes) {
        return Ok(bytes);
    }
    let refused = |what: String| Failure::usage(value, format!("is no capability of a file: {what}"));
    match (value.to_str(), value.as_bytes().starts_with(b"0x")) {
        (Some(text), false) => capability_from_text(text).map_err(refused),
        _ => Err(refused("neither its bytes nor text as setcap takes it".into())),
    }
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let mut value = args.value.as_ref().map(value_bytes).transpose()?.unwrap_or_default();
    if args.name.as_ref().is_some_and(|name| name == "security.capability") {
        value = capability(&args.value.clone().unwrap_or_default(), value)?;
    }
    let follow = if args.no_dereference { Follow::No } else { Follow::Yes };
    for_each(context, &args.targets, |context, images, target| {
        let (_fs, inode) = images.resolve(context, target, follow)?;
        if let Some(name) = &args.name {
            inode.xattr_set(name.as_bytes(), &value, XattrSet::Any).of(|| target.name())?;
        }
        if let Some(name) = &args.remove {
            inode.xattr_remove(name.as_bytes()).of(|| target.name())?;
        }
        for (which, list) in [(AclKind::Access, &args.acl), (AclKind::Default, &args.default_acl)] {
            if let Some(List(list)) = list {
                inode.set_acl(which, list.as_ref()).of(|| target.name())?;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_it_is_shown() {
        let text = "u::rw-,u:1000:r--,g::r--,m::r--,o::---";
        assert_eq!(parse_acl(text).unwrap().0.unwrap().to_string(), text);
        assert_eq!(parse_acl("none"), Ok(List(None)));
        for bad in ["", "u::rw", "u::rwx,g::r--,o::r--,u:5:rwx", "x::rwx", "u::rwz,g::r,o::r", "o:5:r"] {
            assert!(parse_acl(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_value_is_text_or_hexadecimal() {
        assert_eq!(value_bytes(&"0x00fF".into()).unwrap(), [0, 255]);
        assert_eq!(value_bytes(&"text".into()).unwrap(), b"text");
        assert!(value_bytes(&"0x0".into()).is_err());
        assert!(value_bytes(&"0x+1".into()).is_err());
    }
}
