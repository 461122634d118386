//! `lab`, `replay --html` and `quiz`: what they print is what the page has, opens in a browser, and is the same each time.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2dax_tests::{golden, need_tools, tools};

use crate::common::Folder;

const SCRIPT: &str = "# </script> is no end of it\ncreate f\nwrite f 0 5000 1\nmap m f 0 8192 shared rw\nload m 0\nstore m 0x1000 7\n\
                      rename f g\nstat g\n";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a script of `tests/page` and gives what it said, if all was well.
fn node<S: AsRef<OsStr>>(script: &str, arguments: &[S]) -> String {
    let path = repository().join("tests/page").join(script);
    let output = Command::new("node").arg(path).args(arguments).output().unwrap();
    let said = tools::words(&output);
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn lab_prints_the_page_of_the_repository() {
    let folder = Folder::with(&[]);
    let run = folder.run(&["lab"]);
    assert_eq!(run.code(), 0);
    assert!(run.bytes() == fs::read(repository().join("docs/lab.html")).unwrap());
}

#[test]
fn a_recording_opens_in_a_browser() {
    need_tools!("node", "chromium");
    let folder = Folder::with(&["block-4k"]);
    fs::write(folder.path("my.ops"), SCRIPT).unwrap();
    folder.run(&["replay", "--html", "out.html", "block-4k.img", "my.ops"]).ok();
    let (chromium, out) = (tools::find("chromium").unwrap(), folder.path("out.html"));
    node("recording.mjs", &[chromium.as_os_str(), out.as_os_str(), "my.ops".as_ref(), "7".as_ref()]);
    // From standard input too; and what is no script leaves no page.
    folder.run_with(&["replay", "--html", "in.html", "block-4k.img", "-"], SCRIPT.as_bytes()).ok();
    assert!(folder.path("in.html").exists());
    fs::write(folder.path("bad.ops"), "create f\nfly f\n").unwrap();
    let bad = folder.run(&["replay", "--html", "bad.html", "block-4k.img", "bad.ops"]);
    assert_eq!(bad.code(), 1, "{}", bad.err());
    assert!(bad.err().contains("line 2"), "{}", bad.err());
    assert!(!folder.path("bad.html").exists());
    let no_place = folder.run(&["replay", "--html", "no/out.html", "block-4k.img", "my.ops"]);
    assert_eq!(no_place.code(), 1);
    assert!(no_place.err().contains("no/out.html"), "{}", no_place.err());
}

/// With `E2DAX_PAGE_DAMAGED` as many damaged images; 100 by default.
#[test]
fn the_page_answers_as_the_command_does() {
    need_tools!("node");
    let damaged = std::env::var("E2DAX_PAGE_DAMAGED").unwrap_or_else(|_| "100".into());
    let (page, golden) = (repository().join("docs/lab.html"), golden::testdata().join("golden"));
    let said = node(
        "answers.mjs",
        &[page.as_os_str(), env!("CARGO_BIN_EXE_e2dax").as_ref(), golden.as_os_str(), damaged.as_ref()],
    );
    assert!(said.contains("36 golden") && said.contains(" 0 different"), "{said}");
}

#[test]
fn a_quiz_number_asks_the_same_question_each_time() {
    let folder = Folder::with(&[]);
    let topics = ["superblock", "groups", "bitmaps", "inodes", "directories", "pointers", "paging"];
    for topic in topics {
        let asked = folder.run(&["quiz", "--seed", "7", topic]).ok();
        assert_eq!(folder.run(&["quiz", "--seed", "7", topic]).ok(), asked);
        assert!(asked.starts_with(&format!("Question 7 ({topic})\n")), "{asked}");
        let choices: Vec<&str> = asked.lines().filter(|line| line.starts_with("  ")).collect();
        assert!(choices.len() >= 3 && choices[0].starts_with("  a) "), "{asked}");
        assert!(!asked.contains("Answer"), "{asked}");
        // The answer comes behind the question, and is one of the choices.
        let answered = folder.run(&["quiz", "--seed", "7", "-c", topic]).ok();
        let answer = answered.strip_prefix(asked.as_str()).unwrap();
        let right = answer.lines().next().unwrap().strip_prefix("Answer: ").unwrap();
        assert!(choices.contains(&format!("  {right}").as_str()), "{answered}");
        assert!(answer.lines().count() > 1, "no explanation: {answered}");
    }
    let others = (0..20).map(|seed| folder.run(&["quiz", "--seed", &seed.to_string(), "paging"]).ok());
    assert!(others.collect::<std::collections::BTreeSet<_>>().len() > 10);
}

#[test]
fn a_quiz_hides_its_answer_and_its_fault_until_asked() {
    let folder = Folder::with(&[]);
    let hidden = folder.run(&["quiz", "--seed", "3", "inodes", "--json", "--image", "hunt.img"]).ok();
    assert!(!hidden.contains("answer") && !hidden.contains("explanation"), "{hidden}");
    let shown = folder.run(&["quiz", "--seed", "3", "inodes", "--json", "-c"]).ok();
    assert!(shown.contains("\"answer\":\"inode ") && shown.contains("\"explanation\":"), "{shown}");
    let check = folder.run(&["check", "-n", "hunt.img"]);
    assert_eq!(check.code(), 4, "{}", check.out());
    let wrong = folder.run(&["quiz", "weather"]);
    assert_eq!(wrong.code(), 2);
    assert!(wrong.err().contains("superblock") && wrong.err().contains("paging"), "{}", wrong.err());
    assert_eq!(folder.run(&["quiz", "--seed", "-1"]).code(), 2);
    assert_eq!(folder.run(&["quiz", "--image", "no/hunt.img"]).code(), 1);
    folder.run(&["quiz", "--seed", "18446744073709551615"]).ok();
}
