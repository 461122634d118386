//! `xattr`: extended attributes and access control lists.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

use ext2_core::{Acl, Errno, Follow, Inode};

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::json::{Json, object};
use crate::target::{Mode, Target};
use crate::text::show;

/// Show extended attributes; access control lists are decoded
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax xattr disk.img:/bin/ping
  e2dax xattr -n user.origin --raw disk.img:/file > value")]
pub(crate) struct Args {
    /// The file
    #[arg(value_name = "IMG:/PATH")]
    target: OsString,

    /// Only this attribute, by its full name
    #[arg(short, long, value_name = "NAME")]
    name: Option<OsString>,

    /// The bytes of the value and nothing else
    #[arg(long, requires = "name", conflicts_with = "json")]
    raw: bool,

    /// Follow a link at the end of the path
    #[arg(short = 'L', long)]
    dereference: bool,

    /// Print a JSON object for each attribute
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse(&args.target)?;
    let follow = if args.dereference { Follow::Yes } else { Follow::No };
    let (_fs, inode) = target.resolve(&context.image, Mode::Read, follow)?;
    let mut all = chosen(args, &target, &inode)?;
    all.sort();
    for (name, value) in all {
        if args.raw {
            context.out.bytes(&value)?;
        } else if args.json {
            context.out.json(&to_json(&name, &value))?;
        } else {
            context.out.line(format_args!("{}={}", show(&name), shown(&name, &value)))?;
        }
    }
    Ok(())
}

/// Names and values.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

fn chosen(args: &Args, target: &Target, inode: &Inode) -> Result<Xattrs> {
    let Some(name) = &args.name else {
        return inode.xattrs().of(|| target.name());
    };
    let name = name.as_bytes();
    match inode.xattr_get(name) {
        Ok(value) => Ok(vec![(name.to_vec(), value)]),
        Err(error) if error.is(Errno::NODATA) => {
            Err(Failure::text(target.name(), format!("there is no attribute {}", show(name))))
        }
        Err(error) => Err(error).of(|| target.name()),
    }
}

/// The list of an attribute that is one.
fn acl(name: &[u8], value: &[u8]) -> Option<Acl> {
    name.starts_with(b"system.posix_acl_").then(|| Acl::from_user(value)).flatten()
}

/// A value for people: an ACL in words, text in quotes, all else in hexadecimal.
fn shown(name: &[u8], value: &[u8]) -> String {
    if let Some(acl) = acl(name, value) {
        return acl.to_string();
    }
    match std::str::from_utf8(value) {
        Ok(text) if !text.chars().any(char::is_control) => {
            format!("\"{}\"", show(value).replace('"', "\\x22"))
        }
        _ => format!("0x{}", hex(value)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn to_json(name: &[u8], value: &[u8]) -> Json {
    let text = acl(name, value).map(|acl| acl.to_string());
    object! { "name": Json::bytes(name), "value": Json::bytes(value), "hex": hex(value), "acl": text }
}
