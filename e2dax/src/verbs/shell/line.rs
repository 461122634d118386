//! A line of the shell as commands.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::names;
use crate::context::Context;
use crate::failure::{Failure, Result, USAGE};
use crate::verbs::Verb;
use crate::{help, kept};

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// A verb of e2dax with its arguments.
    Verb(Vec<String>),
    /// To another directory.
    Go(String),
    /// Which directory this is.
    Where,
    /// To another directory of this machine.
    HostGo(PathBuf),
    /// All changes to the image, now.
    Sync,
    /// The verbs.
    Help,
    /// The names of debugfs.
    HelpDebugfs,
    /// The end.
    Quit,
}

/// Verbs that have no place in a shell: they make an image, or run for long.
const OUTSIDE: [&str; 10] =
    ["shell", "mkfs", "demo", "bench", "man", "completions", "mount", "serve", "lab", "quiz"];

/// Verbs that go on with the image as it is open; before all others it is closed.
const INSIDE: [&str; 24] = [
    "ls", "tree", "stat", "cat", "find", "du", "xattr", "cp", "mkdir", "rm", "mv", "ln", "chmod", "chown",
    "touch", "truncate", "write", "punch", "setfattr", "chattr", "lsattr", "mknod", "mkfifo", "map",
];

/// The commands of a line; none of an empty one or a comment. Words are those of sh: quotes and backslashes.
pub(super) fn split(text: &str) -> Result<Vec<Command>> {
    let Some(words) = shlex::split(text) else {
        return Err(Failure::usage(OsStr::new(text), "a quote is not closed"));
    };
    let Some((first, rest)) = words.split_first() else { return Ok(Vec::new()) };
    let one = |wanted: &str| match rest {
        [one] => Ok(one.clone()),
        _ => Err(Failure::usage(OsStr::new(first), format!("takes {wanted}"))),
    };
    let none = |command: Command| match rest {
        [] => Ok(vec![command]),
        _ => Err(Failure::usage(OsStr::new(first), "takes no arguments")),
    };
    match first.as_str() {
        "cd" | "change_working_directory" if rest.is_empty() => Ok(vec![Command::Go("/".into())]),
        "cd" | "change_working_directory" => Ok(vec![Command::Go(one("a directory")?)]),
        "lcd" => Ok(vec![Command::HostGo(one("a directory of this machine")?.into())]),
        "pwd" | "print_working_directory" => none(Command::Where),
        "sync" | "flush" => none(Command::Sync),
        "quit" | "exit" | "q" => none(Command::Quit),
        "help" | "?" | "list_requests" | "lr" => match rest {
            [] => Ok(vec![Command::Help]),
            [topic] if topic == "debugfs" => Ok(vec![Command::HelpDebugfs]),
            [verb] => Ok(vec![Command::Verb(vec![verb.clone(), "--help".into()])]),
            _ => Err(Failure::usage(OsStr::new(first), "takes a verb")),
        },
        verb if is_verb(verb) && !names::is_meant(verb, rest) => Ok(vec![Command::Verb(words)]),
        _ => names::translate(first, rest),
    }
}

/// Parses a verb and its arguments.
fn parse(words: &[OsString]) -> std::result::Result<crate::Cli, clap::Error> {
    match words.first() {
        Some(verb) if verb == "find" => {
            let line = std::iter::once("e2dax".into()).chain(words.iter().cloned()).collect();
            help::parse(&crate::verbs::find::with_double_dashes(line))
        }
        _ => help::parse_verb(words),
    }
}

fn is_verb(name: &str) -> bool {
    Verb::NAMES.contains(&name)
}

/// The verbs that a shell has.
pub(super) fn verbs() -> Vec<String> {
    Verb::NAMES.iter().filter(|name| !OUTSIDE.contains(name)).map(|name| (*name).to_owned()).collect()
}

/// Whether the first argument of a verb is the image itself, which a shell leaves out.
fn takes_image(verb: &str) -> bool {
    let is_image = help::with_verb(verb, |verb| {
        let first = verb.get_positionals().next().and_then(|first| first.get_value_names());
        first.is_some_and(|names| names.first().is_some_and(|name| name.as_str() == "IMG"))
    });
    is_image.unwrap_or(false)
}

/// Runs a verb in the shell's image.
pub(super) fn run(context: &mut Context, words: Vec<String>) -> Result<()> {
    let verb = words.first().cloned().unwrap_or_default();
    if OUTSIDE.contains(&verb.as_str()) {
        return Err(Failure::text(verb, "is not for a shell; call e2dax for it"));
    }
    // What pokes goes on with the device as it is open.
    let goes_on = verb == "poke" && kept::is_poked();
    if !INSIDE.contains(&verb.as_str()) && !goes_on {
        kept::close(context);
    }
    let is_told = words.get(1).is_some_and(|word| word.starts_with(':'));
    let mut arguments: Vec<OsString> = words.into_iter().map(OsString::from).collect();
    let image = |arguments: &mut Vec<OsString>| arguments.insert(1, ":".into());
    if takes_image(&verb) && !is_told {
        image(&mut arguments);
    }
    let mut parsed = parse(&arguments);
    if parsed.as_ref().is_err_and(|error| error.kind() == clap::error::ErrorKind::MissingRequiredArgument) {
        // The place that is not said is here.
        image(&mut arguments);
        if let Ok(cli) = parse(&arguments) {
            parsed = Ok(cli);
        }
    }
    match parsed {
        Ok(cli) => {
            context.image = context.image.or(&cli.image);
            cli.verb.run(context)
        }
        Err(error) => {
            let _ = error.print();
            if error.exit_code() != 0 {
                context.set_exit(USAGE);
            }
            Ok(())
        }
    }
}

/// What there is.
pub(super) fn show_verbs(context: &mut Context) -> Result<()> {
    for name in verbs() {
        let about = help::with_verb(&name, |verb| verb.get_about().map(ToString::to_string)).flatten();
        context.out.line(format_args!("{name:<12} {}", about.unwrap_or_default()))?;
    }
    let own = [
        ("cd", "Go to a directory"),
        ("pwd", "Show the current directory"),
        ("lcd", "Go to a directory of this machine"),
        ("sync", "Bring all changes to the image"),
        ("help", "Show this, the help of a verb, or the names of debugfs (help debugfs)"),
        ("quit", "End"),
    ];
    own.iter().try_for_each(|(name, about)| context.out.line(format_args!("{name:<12} {about}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_knows_what_the_documents_say_it_knows() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compared.md");
        let text = std::fs::read_to_string(path).unwrap();
        let table = text.split("### The jobs of debugfs").nth(1).unwrap();
        let own = ["cd", "pwd", "lcd", "help", "list_requests", "quit"];
        let mut seen = 0;
        for row in table.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            if cells[3] != "✓" {
                continue;
            }
            let names = cells[1].split('`').skip(1).step_by(2).filter(|name| !name.starts_with('-'));
            for name in names {
                let is_known = own.contains(&name) || is_verb(name) || names::is_known(name);
                assert!(is_known, "{name} is said to be known to the shell");
                seen += 1;
            }
        }
        assert!(seen > 40, "{seen}");
        for name in own {
            let rest = if matches!(name, "cd" | "lcd") { " /" } else { "" };
            assert!(split(&format!("{name}{rest}")).is_ok(), "{name}");
        }
    }
}
