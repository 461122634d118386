//! `find`: files by what they are.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use ext2_core::{FileKind, Follow};
use ext2_image::{Found, Walk};

use crate::context::Context;
use crate::describe::{file_json, link_target};
use crate::failure::{Failure, Of, Result};
use crate::glob::matches;
use crate::target::{Mode, Target};
use crate::text::{parse_bytes, parse_octal, show};

/// Find files by name, type, size and more, and print their paths
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax find disk.img -name '*.so*' -type l
  e2dax find disk.img:/var -size +1M
  e2dax find disk.img -links +1 -type f --json
  e2dax find disk.img -perm 4000

Tests may be written with one dash, as in find(1), or two; a file must pass all of them. Patterns have * ? [abc]
[!abc] and \\, and match bytes. SIZE is in bytes, or with K, M, G (powers of 1024): +SIZE is more, -SIZE less, SIZE
exactly.")]
pub(crate) struct Args {
    /// Where to begin
    #[arg(value_name = "IMG[:/PATH]")]
    target: OsString,

    /// The file name matches this pattern
    #[arg(long, value_name = "PATTERN")]
    name: Option<OsString>,

    /// The whole path matches this pattern; * also matches /
    #[arg(long, value_name = "PATTERN")]
    path: Option<OsString>,

    /// The file type: f file, d directory, l symlink, c b device, p FIFO, s socket; several letters mean
    /// any of them
    #[arg(long = "type", value_name = "LETTERS", value_parser = parse_kinds)]
    kinds: Option<Kinds>,

    /// This size
    #[arg(long, value_name = "[+-]SIZE", value_parser = parse_size, allow_hyphen_values = true)]
    size: Option<Bound>,

    /// This many hard links
    #[arg(long, value_name = "[+-]N", value_parser = parse_size, allow_hyphen_values = true)]
    links: Option<Bound>,

    /// This owner, by number
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,

    /// This group, by number
    #[arg(long, value_name = "GID")]
    gid: Option<u32>,

    /// The inode with this number
    #[arg(long, value_name = "NR")]
    inum: Option<u32>,

    /// All of these permission bits, in octal
    #[arg(long, value_name = "BITS", value_parser = parse_octal)]
    perm: Option<u16>,

    /// Go down at most this many levels
    #[arg(long, value_name = "LEVELS")]
    max_depth: Option<usize>,

    /// Paths as they are, each ended by a NUL
    #[arg(short = '0', long, conflicts_with = "json")]
    print0: bool,

    /// Print a JSON object for each file, as ls does
    #[arg(long)]
    json: bool,
}

/// The tests that find(1) spells with one dash, which clap would take for letters.
const ONE_DASH: [&str; 11] =
    ["-name", "-path", "-type", "-size", "-links", "-uid", "-gid", "-inum", "-perm", "-print0", "-max-depth"];

/// The command line, with two dashes before the tests of `find`.
pub(crate) fn with_double_dashes(arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(1).is_none_or(|verb| verb != "find") {
        return arguments;
    }
    let spell = |argument: OsString| match argument.to_str() {
        Some("-maxdepth" | "--maxdepth") => "--max-depth".into(),
        Some(word) if ONE_DASH.contains(&word) => format!("-{word}").into(),
        _ => argument,
    };
    arguments.into_iter().map(spell).collect()
}

/// Kinds of file.
#[derive(Clone, Debug)]
struct Kinds(String);

impl Kinds {
    fn has(&self, kind: FileKind) -> bool {
        self.0.contains(kind.letter())
    }
}

/// A number with a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Less(u64),
    Exactly(u64),
    More(u64),
}

impl Bound {
    fn holds(self, number: u64) -> bool {
        match self {
            Self::Less(bound) => number < bound,
            Self::Exactly(bound) => number == bound,
            Self::More(bound) => number > bound,
        }
    }
}

fn parse_kinds(text: &str) -> Result<Kinds, String> {
    match text.chars().find(|letter| !"fdlcbps".contains(*letter)) {
        Some(letter) => Err(format!("{letter} is no type; types are f d l c b p s")),
        None => Ok(Kinds(text.into())),
    }
}

fn parse_size(text: &str) -> Result<Bound, String> {
    let (side, digits): (fn(u64) -> Bound, _) = match text.as_bytes().first() {
        Some(b'+') => (Bound::More, text.get(1..)),
        Some(b'-') => (Bound::Less, text.get(1..)),
        _ => (Bound::Exactly, Some(text)),
    };
    parse_bytes(digits.unwrap_or_default()).map(side)
}

impl Args {
    fn holds(&self, found: &Found) -> bool {
        let attr = found.inode.attr();
        let name = if found.path == b"/" { b"/" } else { found.name() };
        self.name.as_ref().is_none_or(|pattern| matches(pattern.as_bytes(), name))
            && self.path.as_ref().is_none_or(|pattern| matches(pattern.as_bytes(), &found.path))
            && self.kinds.as_ref().is_none_or(|kinds| kinds.has(attr.kind))
            && self.size.is_none_or(|bound| bound.holds(attr.size))
            && self.links.is_none_or(|bound| bound.holds(attr.links.into()))
            && self.uid.is_none_or(|uid| uid == attr.uid)
            && self.gid.is_none_or(|gid| gid == attr.gid)
            && self.inum.is_none_or(|nr| nr == attr.nr.get())
            && self.perm.is_none_or(|bits| attr.mode & bits == bits)
    }
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse(&args.target)?;
    let (_fs, start) = target.resolve(&context.image, Mode::Read, Follow::No)?;
    let mut walk = Walk::new(&start, target.path());
    while let Some(step) = walk.next() {
        let found = match step {
            Ok(found) => found,
            Err(error) => {
                context.complain(&Failure::new(target.name_of(&error.path), error.error));
                continue;
            }
        };
        if args.max_depth.is_some_and(|levels| found.depth >= levels) {
            walk.skip_below();
        }
        if !args.holds(&found) {
            continue;
        }
        if args.json {
            let link = link_target(&found.inode).of(|| target.name_of(&found.path));
            if let Some(link) = context.or_complain(link)? {
                context.out.json(&file_json(&found.path, &found.inode, link.as_deref()))?;
            }
        } else if args.print0 {
            context.out.bytes(&found.path)?;
            context.out.bytes(b"\0")?;
        } else {
            context.out.line(show(&found.path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_have_a_side_and_a_unit() {
        assert_eq!(parse_size("+1M"), Ok(Bound::More(1 << 20)));
        assert_eq!(parse_size("-3"), Ok(Bound::Less(3)));
        assert_eq!(parse_size("2k"), Ok(Bound::Exactly(2048)));
        assert!(parse_size("").is_err());
        assert!(parse_size("+").is_err());
        assert!(parse_size("99999999999G").is_err());
    }
}
