//! `chmod`: permissions.

use std::ffi::OsString;

use ext2_core::{FileKind, Follow, SetAttr};

use crate::context::Context;
use crate::failure::{Of, Result};
use crate::images::{below, for_each};

/// Change permissions in an image
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax chmod 4755 disk.img:/bin/su
  e2dax chmod -R go-w,u+X disk.img:/srv")]
pub(crate) struct Args {
    // Given as help and not as a doc comment, which would take the brackets for links.
    #[arg(
        value_name = "MODE",
        value_parser = parse,
        allow_hyphen_values = true,
        help = "Octal, or as in chmod(1): [ugoa][+-=][rwxXst], separated by commas"
    )]
    mode: Change,

    /// Files
    #[arg(value_name = "IMG:/PATH", required = true)]
    targets: Vec<OsString>,

    /// Everything below, too; links are left alone
    #[arg(short = 'R', long)]
    recursive: bool,
}

/// A change of a mode.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    To(u16),
    By(Vec<Clause>),
}

/// One `who`, `operator`, `what`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clause {
    /// The bits of those it is for, set-id and sticky bits included.
    who: u16,
    operator: char,
    /// Permissions for everybody, to be masked by `who`.
    what: u16,
    /// `X`: execution where somebody has it already, and for directories.
    search: bool,
}

fn parse(text: &str) -> Result<Change, String> {
    if text.starts_with(|letter: char| letter.is_ascii_digit()) {
        return crate::text::parse_octal(text).map(Change::To);
    }
    text.split(',')
        .map(|clause| parse_clause(clause).ok_or_else(|| format!("{clause:?} is no change of a mode")))
        .collect::<Result<_, _>>()
        .map(Change::By)
}

fn parse_clause(text: &str) -> Option<Clause> {
    let at = text.find(['+', '-', '='])?;
    let (who, rest) = text.split_at(at);
    let mut letters = rest.chars();
    let operator = letters.next()?;
    let mut clause = Clause { who: 0, operator, what: 0, search: false };
    for letter in who.chars() {
        clause.who |= match letter {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            'a' => 0o7777,
            _ => return None,
        };
    }
    if who.is_empty() {
        clause.who = 0o7777;
    }
    for letter in letters {
        clause.what |= match letter {
            'r' => 0o444,
            'w' => 0o222,
            'x' => 0o111,
            's' => 0o6000,
            't' => 0o1000,
            'X' => {
                clause.search = true;
                0
            }
            _ => return None,
        };
    }
    // The sticky bit is nobody's in particular.
    if clause.what & 0o1000 != 0 {
        clause.who |= 0o1000;
    }
    Some(clause)
}

impl Change {
    /// The new mode.
    fn apply(&self, mode: u16, kind: FileKind) -> u16 {
        let clauses = match self {
            Self::To(mode) => return *mode,
            Self::By(clauses) => clauses,
        };
        clauses.iter().fold(mode, |mode, clause| {
            let search = clause.search && (kind == FileKind::Directory || mode & 0o111 != 0);
            let bits = (clause.what | if search { 0o111 } else { 0 }) & clause.who;
            match clause.operator {
                '+' => mode | bits,
                '-' => mode & !bits,
                // As chmod(1): a directory keeps its set-id bits unless they are named.
                _ if kind == FileKind::Directory => mode & !(clause.who & 0o1777) | bits,
                _ => mode & !clause.who | bits,
            }
        })
    }
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    for_each(context, &args.targets, |context, images, target| {
        let (_fs, inode) = images.resolve(context, target, Follow::Yes)?;
        below(context, target, &inode, args.recursive, |_, path, inode| {
            if inode.kind() == FileKind::Symlink {
                return Ok(());
            }
            let mode = args.mode.apply(inode.attr().mode, inode.kind());
            inode.set_attr(&SetAttr { mode: Some(mode), ..SetAttr::default() }).of(|| target.name_of(path))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str, mode: u16, kind: FileKind) -> u16 {
        parse(text).unwrap().apply(mode, kind)
    }

    #[test]
    fn modes_change_as_chmod_changes_them() {
        let file = FileKind::Regular;
        assert_eq!(changed("640", 0o777, file), 0o640);
        assert_eq!(changed("u+x", 0o644, file), 0o744);
        assert_eq!(changed("go-rwx", 0o777, file), 0o700);
        assert_eq!(changed("a=r", 0o4755, file), 0o444);
        assert_eq!(changed("u+s,g-x", 0o755, file), 0o4745);
        assert_eq!(changed("+t", 0o755, FileKind::Directory), 0o1755);
        assert_eq!(changed("a+X", 0o644, file), 0o644);
        assert_eq!(changed("a+X", 0o744, file), 0o755);
        assert_eq!(changed("a+X", 0o644, FileKind::Directory), 0o755);
        assert_eq!(changed("g=rx", 0o2770, FileKind::Directory), 0o2750);
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for text in ["", "9", "77777", "u", "u+q", "z+x", "u+x,"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
