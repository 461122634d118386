//! `chattr`: flags of inodes.

use std::ffi::OsString;

use ext2_core::{Error, Follow, InodeFlags};

use crate::context::Context;
use crate::failure::{Of, Result};
use crate::images::{below, for_each};

/// Change flags of files in an image
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax chattr +i disk.img:/etc/passwd
  e2dax chattr -R =A disk.img:/var/cache

Letters: a append only, A no access times, c compress, d no dump, D synchronous directory, i immutable, j data through
the journal, s secure deletion, S synchronous, t no tail merging, T top of a hierarchy, u undeletable.")]
pub(crate) struct Args {
    /// +, - or = and letters: sets them, clears them, sets those and no others
    #[arg(value_name = "FLAGS", value_parser = parse, allow_hyphen_values = true)]
    change: Change,

    /// Files
    #[arg(value_name = "IMG:/PATH", required = true)]
    targets: Vec<OsString>,

    /// Everything below too
    #[arg(short = 'R', long)]
    recursive: bool,
}

/// A change of flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    operator: char,
    flags: InodeFlags,
}

fn parse(text: &str) -> Result<Change, String> {
    let mut letters = text.chars();
    let operator = letters.next().filter(|letter| "+-=".contains(*letter));
    let operator = operator.ok_or_else(|| format!("{text:?} does not begin with +, - or ="))?;
    let mut flags = InodeFlags::empty();
    for letter in letters {
        let flag = InodeFlags::from_letter(letter);
        let flag = flag.filter(|flag| InodeFlags::MODIFIABLE.contains(*flag));
        flags |= flag.ok_or_else(|| format!("{letter:?} is no flag that can be changed"))?;
    }
    if flags.is_empty() && operator != '=' {
        return Err(format!("{text:?} names no flag"));
    }
    Ok(Change { operator, flags })
}

impl Change {
    /// The new flags; those that cannot be changed stay.
    fn apply(self, flags: InodeFlags) -> InodeFlags {
        match self.operator {
            '+' => flags | self.flags,
            '-' => flags - self.flags,
            _ => (flags - InodeFlags::MODIFIABLE) | self.flags,
        }
    }
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    for_each(context, &args.targets, |context, images, target| {
        let (_fs, inode) = images.resolve(context, target, Follow::No)?;
        below(context, target, &inode, args.recursive, |_, path, inode| {
            let flags = args.change.apply(inode.attr().flags);
            if flags == inode.attr().flags {
                return Ok(());
            }
            match inode.set_flags(flags) {
                // As chattr(1) with -R: what can have no flags is passed over.
                Err(Error::Caller(..)) if args.recursive && !can_have(inode.kind()) => Ok(()),
                other => other.of(|| target.name_of(path)),
            }
        })
    })
}

/// Whether things of a kind have flags, under Linux.
fn can_have(kind: ext2_core::FileKind) -> bool {
    matches!(kind, ext2_core::FileKind::Regular | ext2_core::FileKind::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_change_as_chattr_changes_them() {
        let old = InodeFlags::IMMUTABLE | InodeFlags::INDEX | InodeFlags::NODUMP;
        let changed = |text: &str| parse(text).unwrap().apply(old);
        assert_eq!(changed("+aA"), old | InodeFlags::APPEND | InodeFlags::NOATIME);
        assert_eq!(changed("-i"), InodeFlags::INDEX | InodeFlags::NODUMP);
        assert_eq!(changed("=a"), InodeFlags::INDEX | InodeFlags::APPEND);
        assert_eq!(changed("="), InodeFlags::INDEX);
    }

    #[test]
    fn what_is_no_change_of_flags_is_refused() {
        for text in ["", "i", "+", "-", "+q", "+I", "=e"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
