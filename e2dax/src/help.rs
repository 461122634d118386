//! The texts behind the options in a verb's help: written in lines of the source, shown in lines of the terminal.

use std::cell::{LazyCell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Args as _, CommandFactory as _, FromArgMatches as _};

use crate::Cli;
use crate::target::ImageOptions;
use crate::verbs::Verb;

/// What clap knows of one verb and no other: to make up all of them is more work than most verbs are.
struct Line {
    /// The verb with its own options.
    verb: clap::Command,
    /// As it stands in a command line, behind the options that all verbs have; made when it is asked for.
    whole: Option<clap::Command>,
}

thread_local! {
    /// Each verb that was asked for.
    static VERBS: RefCell<HashMap<&'static str, Line>> = RefCell::default();
    /// The options that all verbs have, as they are written.
    static SHARED: LazyCell<Vec<String>> = LazyCell::new(|| {
        let options = ImageOptions::augment_args(clap::Command::new("e2dax"));
        options.get_arguments().filter_map(|option| option.get_long()).map(|long| format!("--{long}")).collect()
    });
    /// All of it, without the texts of [`definition`].
    static WHOLE: LazyCell<RefCell<clap::Command>> = LazyCell::new(|| RefCell::new(Cli::command()));
}

/// Looks something up in what a verb takes; none where there is no such verb.
pub(crate) fn with_verb<T>(name: &str, look: impl FnOnce(&clap::Command) -> T) -> Option<T> {
    with_line(name, |line| look(&line.verb))
}

fn with_line<T>(name: &str, work: impl FnOnce(&mut Line) -> T) -> Option<T> {
    let name = *Verb::NAMES.iter().find(|known| **known == name)?;
    VERBS.with_borrow_mut(|lines| match lines.entry(name) {
        Entry::Occupied(there) => Some(work(there.into_mut())),
        Entry::Vacant(place) => {
            let verb = Verb::definition(name)?.no_binary_name(true);
            Some(work(place.insert(Line { verb, whole: None })))
        }
    })
}

/// Parses a verb and its arguments, as [`parse`] does with the name of the program before them. A shell does this for each
/// line, most of which have none of the options that all verbs share: those are not looked for where none is written.
pub(crate) fn parse_verb(words: &[OsString]) -> Result<Cli, clap::Error> {
    let alone = words.split_first().and_then(|(verb, rest)| {
        let verb = verb.to_str()?;
        let is_shared = |word: &OsString| {
            let word = word.as_encoded_bytes();
            word.starts_with(b"--")
                && SHARED.with(|shared| shared.iter().any(|option| word.starts_with(option.as_bytes())))
        };
        if rest.iter().any(is_shared) {
            return None;
        }
        let matches = with_line(verb, |line| line.verb.try_get_matches_from_mut(rest).ok()).flatten();
        Verb::of_matches(verb, &mut matches?)
    });
    match alone {
        Some(verb) => Ok(Cli { verb, image: ImageOptions::default() }),
        None => {
            let name = OsString::from("e2dax");
            parse(&std::iter::once(name).chain(words.iter().cloned()).collect::<Vec<_>>())
        }
    }
}

/// Parses a command line, the name of the program first. By the first word that is a verb's name; where that does not go
/// well, or a help is asked for, by all there is, whose errors and texts are for people.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let verb =
        arguments.iter().skip(1).filter_map(|word| word.to_str()).find(|word| Verb::NAMES.contains(word));
    let known = verb.and_then(|verb| {
        let matches = with_line(verb, |line| {
            let whole = line.whole.get_or_insert_with(|| {
                let empty = clap::Command::new("e2dax").subcommand_required(true);
                ImageOptions::augment_args(empty).subcommands(Verb::definition(verb))
            });
            whole.try_get_matches_from_mut(arguments).ok()
        });
        matches.flatten().and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches).ok())
    });
    if let Some(cli) = known {
        return Ok(cli);
    }
    let matches = WHOLE.with(|command| command.borrow_mut().try_get_matches_from_mut(arguments));
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
    fn a_verb_alone_takes_what_it_takes_among_all() {
        let all = Cli::command();
        assert_eq!(all.get_subcommands().map(clap::Command::get_name).collect::<Vec<_>>(), Verb::NAMES);
        for verb in all.get_subcommands() {
            let mut alone = Verb::definition(verb.get_name()).unwrap();
            let long = |verb: &mut clap::Command| verb.render_long_help().to_string();
            assert_eq!(long(&mut alone), long(&mut verb.clone()));
        }
    }

    #[test]
    fn options_before_a_verb_and_words_that_are_verbs_are_taken_as_they_are_meant() {
        let parse = |line: &str| parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(matches!(parse("e2dax --wait ls cat").unwrap().verb, Verb::Ls(_)));
        assert!(matches!(parse("e2dax --device file cat ls --wait").unwrap().verb, Verb::Cat(_)));
        // The value of an option, whatever it is called.
        assert_eq!(parse("e2dax --device ls cat a").err().unwrap().kind(), ErrorKind::InvalidValue);
        assert_eq!(parse("e2dax ls --help").err().unwrap().kind(), ErrorKind::DisplayHelp);
        assert_eq!(parse("e2dax lss a").err().unwrap().kind(), ErrorKind::InvalidSubcommand);
        assert_eq!(parse("e2dax --version ls").err().unwrap().kind(), ErrorKind::DisplayVersion);
    }

    #[test]
    fn a_verb_in_a_shell_takes_what_it_takes_in_a_command_line() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        let lines = [
            "chmod 600 /a",
            "ls -l --json /a",
            "cp --wait a b",
            "cp -r a :b --durability=strict",
            "--device file ls /a",
            "write /a --wait -t --rescue",
            "poke : inode:/a i_uid -1 --force",
            "rm -- --wait",
            "mkdir",
            "mkdir --help",
            "lss a",
            "ls --waits",
        ];
        for line in lines {
            let alone = parse_verb(&words(line));
            let whole = parse(&words(&format!("e2dax {line}")));
            match (alone, whole) {
                (Ok(alone), Ok(whole)) => {
                    let kind = std::mem::discriminant(&whole.verb);
                    assert_eq!(std::mem::discriminant(&alone.verb), kind, "{line}");
                    assert_eq!(format!("{:?}", alone.image), format!("{:?}", whole.image), "{line}");
                }
                (Err(alone), Err(whole)) => assert_eq!(alone.to_string(), whole.to_string(), "{line}"),
                (alone, whole) => panic!("{line}: {} and {}", alone.is_ok(), whole.is_ok()),
            }
        }
        let Ok(Cli { verb: Verb::Rm(_), image }) = parse_verb(&words("rm -- --wait")) else { panic!() };
        assert!(!image.wait);
        assert!(parse_verb(&words("ls --wait :")).unwrap().image.wait);
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
