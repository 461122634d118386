//! `shell`: all verbs in one image that stays open.

mod complete;
mod line;
mod names;

use std::ffi::OsString;
use std::io::{BufRead, IsTerminal as _, Write as _};
use std::path::PathBuf;

use ext2_core::{FileKind, Follow};
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{CompletionType, Config, Editor};

use crate::context::Context;
use crate::failure::{FAILED, Failure, Result};
use crate::kept;
use crate::target::{Mode, Target};
use crate::text::show;
use line::{Command, split};

/// Work in an image: all verbs, with a current directory, interactively or from a script
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax shell disk.img
  e2dax shell disk.img -f changes.txt
  e2dax shell disk.img -c 'mkdir /a' -c 'cp notes.txt :/a'
  echo 'stat <12>' | e2dax shell disk.img

The verbs are those of e2dax. Where they take IMG:/path, give a path in the image, without IMG, relative to the
current directory; <12> is inode 12. Where they also take files of this machine (cp), put a colon before a path in
the image: cp :/etc/passwd passwd. There are also cd, pwd, lcd, help, sync and quit, and the names of debugfs (help
debugfs lists them).
A script has one command per line; # begins a comment. It stops at the first command that fails and names the line;
a - before a command lets it fail. The image is opened once. Changes are kept in memory and reach the disk together:
at the end, at sync, and when there are too many to keep.")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMG")]
    image: OsString,

    /// Run the commands of a file; - is the standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "command")]
    file: Option<PathBuf>,

    /// Run a command; several run in order
    #[arg(short, long, value_name = "COMMAND", visible_short_alias = 'R')]
    command: Vec<String>,

    /// Print each command of a script before its output
    #[arg(short = 'x', long)]
    echo: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    if kept::directory().is_some() {
        return Err(Failure::text("shell", "is running already"));
    }
    let image = Target::parse_image(&args.image)?;
    kept::begin(&image);
    let done = if !args.command.is_empty() {
        args.command
            .iter()
            .map(|text| step(args, context, "command", text))
            .find(|done| !matches!(done, Ok(true)))
            .map_or(Ok(()), |done| done.map(|_| ()))
    } else if let Some(file) = &args.file {
        script(args, context, file)
    } else if std::io::stdin().is_terminal() {
        prompt(context, &image)
    } else {
        script(args, context, "-".as_ref())
    };
    kept::close(context);
    done
}

/// Commands of a file, to the first that fails.
fn script(args: &Args, context: &mut Context, file: &std::path::Path) -> Result<()> {
    let name = if file.as_os_str() == "-" { "standard input".into() } else { show_path(file) };
    let lines: Box<dyn BufRead> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let open = std::fs::File::open(file).map_err(|error| Failure::host(file, error))?;
        Box::new(std::io::BufReader::new(open))
    };
    for (nr, text) in lines.lines().enumerate() {
        let place = format!("{name}: line {}", nr + 1);
        let text = text.map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => Failure::text(&place[..], "is not UTF-8"),
            _ => Failure::host(file, error),
        })?;
        if !step(args, context, &place, &text)? {
            break;
        }
    }
    Ok(())
}

fn show_path(path: &std::path::Path) -> String {
    crate::text::show_os(path.as_os_str())
}

/// A command of a script. False when it was the last; a failure names the place.
fn step(args: &Args, context: &mut Context, place: &str, text: &str) -> Result<bool> {
    let text = text.trim();
    let (text, may_fail) = text.strip_prefix('-').map_or((text, false), |rest| (rest.trim(), true));
    if args.echo && !text.is_empty() {
        context.out.line(format_args!("> {}", show(text.as_bytes())))?;
    }
    let (goes_on, code) = execute(context, text)?;
    if code == 0 || may_fail {
        return Ok(goes_on);
    }
    context.set_exit(code);
    Err(Failure::text(place, format!("{}: failed", show(text.as_bytes()))))
}

/// Lines of a person.
fn prompt(context: &mut Context, image: &Target) -> Result<()> {
    let broken = |error: ReadlineError| Failure::text("terminal", error.to_string());
    let config = Config::builder().completion_type(CompletionType::List).auto_add_history(true).build();
    let history = MemHistory::with_config(&config);
    let mut editor = Editor::<complete::Helper, MemHistory>::with_history(config, history).map_err(broken)?;
    editor.set_helper(Some(complete::Helper::new(context.image.clone())));
    let name = image.image.file_name().map(crate::text::show_os).unwrap_or_default();
    loop {
        let directory = kept::directory().unwrap_or_default();
        match editor.readline(&format!("{name}:{}> ", show(&directory))) {
            Ok(text) => {
                if !execute(context, &text)?.0 {
                    return Ok(());
                }
            }
            // Ctrl-C takes the line back, Ctrl-D ends.
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(broken(error)),
        }
    }
}

/// One line. Gives whether it goes on, and the exit code of what was done.
fn execute(context: &mut Context, text: &str) -> Result<(bool, u8)> {
    let mut code = 0;
    let commands = match split(text) {
        Ok(commands) => commands,
        Err(failure) => {
            context.tell(&failure);
            return Ok((true, failure.code()));
        }
    };
    for command in commands {
        let mut inner = Context::new(context.image.clone());
        // What was printed before comes before.
        context.out.flush()?;
        let done = match command {
            Command::Quit => return Ok((false, code)),
            Command::Verb(words) => line::run(&mut inner, words),
            Command::Go(path) => go(&inner, &path),
            Command::Where => inner.out.line(show(&kept::directory().unwrap_or_default())),
            Command::HostGo(path) => {
                std::env::set_current_dir(&path).map_err(|error| Failure::host(&path, error))
            }
            Command::Sync => {
                kept::close(&mut inner);
                Ok(())
            }
            Command::Help => line::show_verbs(&mut inner),
            Command::HelpDebugfs => names::help(&mut inner),
        };
        let done = done.and_then(|()| inner.out.flush());
        match done {
            Err(failure) if failure.is_closed_output() => {
                // What follows is not done any more.
                context.set_exit(FAILED);
                return Err(failure);
            }
            Err(failure) => inner.complain(&failure),
            Ok(()) => {}
        }
        let _ = std::io::stderr().flush();
        code = code.max(inner.exit_code());
        if code != 0 {
            break;
        }
    }
    Ok((true, code))
}

/// `cd`.
fn go(context: &Context, path: &str) -> Result<()> {
    let Some(target) = kept::target(path.as_bytes()) else { return Ok(()) };
    let (_fs, inode) = target.resolve(&context.image, Mode::Read, Follow::Yes)?;
    if inode.kind() != FileKind::Directory {
        return Err(Failure::text(target.name(), "is not a directory"));
    }
    kept::set_directory(plain(target.path()));
    Ok(())
}

/// A path without `.`, `..` and slashes beside each other.
fn plain(path: &[u8]) -> Vec<u8> {
    if path.starts_with(b"<") {
        return path.to_vec();
    }
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    [b"/", names.join(&b'/').as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_made_plain() {
        assert_eq!(plain(b"/a/./b//../c"), b"/a/c");
        assert_eq!(plain(b"/../.."), b"/");
        assert_eq!(plain(b"<12>"), b"<12>");
    }
}
