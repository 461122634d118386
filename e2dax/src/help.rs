//! The texts behind the options in a verb's help: written in lines of the source, shown in lines of the terminal.

use std::cell::RefCell;
use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _};

use crate::Cli;

thread_local! {
    /// The command line without the texts of [`definition`], made once: it is more work than most verbs are.
    static COMMAND: RefCell<clap::Command> = RefCell::new(Cli::command());
}

/// Looks something up in the command line.
pub(crate) fn with_command<T>(look: impl FnOnce(&clap::Command) -> T) -> T {
    COMMAND.with(|command| look(&command.borrow()))
}

/// Parses a command line, the name of the program first. Only a help that is asked for needs the texts of [`definition`].
pub(crate) fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let matches = COMMAND.with(|command| command.borrow_mut().try_get_matches_from_mut(arguments));
    let parsed = matches.and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            definition().try_get_matches_from(arguments).err().unwrap_or(error)
        }
        _ => error,
    })
}

/// The command line with texts whose paragraphs are one line each, for clap to wrap.
pub(crate) fn definition() -> clap::Command {
    let command = Cli::command();
    let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    verbs.into_iter().fold(flowing(command), |command, verb| command.mut_subcommand(verb, flowing))
}

fn flowing(command: clap::Command) -> clap::Command {
    match command.get_after_help().map(ToString::to_string) {
        Some(text) => command.after_help(flow(&text)),
        None => command,
    }
}

/// Joins lines that are one in meaning: those of a paragraph, and those that go on with an item far to the right of where it
/// begins.
fn flow(text: &str) -> String {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let last = lines.last_mut().filter(|last| !last.is_empty() && !line.is_empty());
        match last {
            Some(last) if indent(line) > indent(last) + 4 || indent(line) == 0 && goes_on(last) => {
                last.push(' ');
                last.push_str(line.trim_start());
            }
            _ => lines.push(line.into()),
        }
    }
    lines.join("\n")
}

/// Whether what follows an unindented line belongs to its paragraph.
fn goes_on(line: &str) -> bool {
    !line.starts_with(' ') && !line.ends_with(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_and_items_become_lines() {
        let text = "Examples:\n  e2dax a b\n  e2dax c\n\nOne\ntwo.\nThree\n\nOptions:\n  x      is\n         this\n  y      that";
        let flowing = "Examples:\n  e2dax a b\n  e2dax c\n\nOne two. Three\n\nOptions:\n  x      is this\n  y      that";
        assert_eq!(flow(text), flowing);
        assert_eq!(flow(flowing), flowing);
    }

    #[test]
    fn no_help_has_lines_that_only_fit_wide_windows() {
        let command = definition();
        for verb in command.get_subcommands() {
            let text = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            let pairs: Vec<&str> = text.lines().collect();
            for pair in pairs.windows(2) {
                let both = pair.iter().all(|line| !line.is_empty() && !line.starts_with(' '));
                assert!(!both || pair[0].ends_with(':'), "{}: {pair:?}", verb.get_name());
            }
        }
    }
}
