//! The listings of `docs/` are what the command prints.

use std::fs;

use e2dax_tests::golden::{self, testdata};

use crate::common::Folder;

/// A command and the lines under it.
struct Listing {
    line: usize,
    command: String,
    output: Vec<String>,
}

/// The listings of all blocks marked as `console`; a block may be set in, below an item of a list.
fn listings(text: &str) -> Vec<Listing> {
    let mut found: Vec<Listing> = Vec::new();
    let mut indent = None;
    for (nr, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        match indent {
            None if trimmed == "```console" => indent = Some(line.len() - trimmed.len()),
            None => {}
            Some(_) if trimmed == "```" => indent = None,
            Some(width) => {
                let line = line.get(width..).unwrap_or_default();
                match line.strip_prefix("$ e2dax ") {
                    Some(command) => {
                        found.push(Listing { line: nr + 1, command: command.into(), output: Vec::new() });
                    }
                    None => found.last_mut().expect("a command comes first").output.push(line.into()),
                }
            }
        }
    }
    found
}

/// Whether lines are what is expected, where `…` stands for any number of them.
fn matches(expected: &[String], lines: &[&str]) -> bool {
    match (expected, lines) {
        ([], []) => true,
        ([dots, rest @ ..], _) if dots == "…" => {
            (0..=lines.len()).any(|skip| matches(rest, &lines[skip..]))
        }
        ([first, expected @ ..], [line, lines @ ..]) => first == line && matches(expected, lines),
        _ => false,
    }
}

/// A folder with everything that the listings name.
fn folder() -> Folder {
    let folder = Folder::with(&["two-mib"]);
    let recorded = testdata().join("linux-6.1");
    let image = golden::gunzip(&recorded.join("images/base-64m.img.gz"));
    golden::write_sparse(&folder.path("base.img"), &image).unwrap();
    for script in fs::read_dir(recorded.join("scripts")).unwrap() {
        let path = script.unwrap().path();
        fs::copy(&path, folder.path(path.file_name().unwrap().to_str().unwrap())).unwrap();
    }
    folder
}

#[test]
fn every_listing_in_the_conversion_is_what_the_command_prints() {
    let path = testdata().join("../docs/conversion.md");
    let listings = listings(&fs::read_to_string(path).unwrap());
    assert!(listings.len() >= 10, "{} listings", listings.len());
    let folder = folder();
    for listing in listings {
        let arguments: Vec<&str> = listing.command.split_whitespace().collect();
        let run = folder.run(&arguments);
        let text = run.ok();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            matches(&listing.output, &lines),
            "docs/conversion.md:{}: e2dax {} prints\n{text}",
            listing.line,
            listing.command
        );
    }
}

#[test]
fn dots_stand_for_any_lines_and_for_nothing_else() {
    let expected = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(matches(&expected("a\n…\nc"), &["a", "b", "b", "c"]));
    assert!(matches(&expected("a\n…"), &["a"]));
    assert!(!matches(&expected("a\n…\nc"), &["a", "c", "d"]));
    assert!(!matches(&expected("a"), &["a", "b"]));
}
