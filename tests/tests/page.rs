//! `docs/lab.html` as it is in the repository: its engine under Node beside the recordings of Linux, and all of it in a browser.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2dax_tests::{golden::testdata, need_tools, tools};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a script of `tests/page` and gives what it said, if all was well.
fn node(script: &str, arguments: &[&Path]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("page").join(script);
    let output = Command::new("node").arg(path).args(arguments).output().expect("node runs");
    let said = tools::words(&output);
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn the_engine_of_the_page_does_what_linux_was_recorded_to_do() {
    need_tools!("node");
    let said = node("oracle.mjs", &[&repository().join("docs/lab.html"), &testdata().join("linux-6.1")]);
    assert!(said.contains("28 scripts, 0 different"), "{said}");
}

/// With `E2DAX_PAGE_DAMAGED` as many damaged images are dropped; 12 by default.
#[test]
fn a_browser_walks_all_of_the_page_without_an_error() {
    need_tools!("node", "chromium");
    let damaged = std::env::var("E2DAX_PAGE_DAMAGED").unwrap_or_else(|_| "12".into());
    let chromium = tools::find("chromium").expect("it was found before");
    let page = repository().join("docs/lab.html");
    let said = node("walk.mjs", &[&chromium, &page, &testdata().join("golden"), Path::new(&damaged)]);
    assert!(said.contains(", 0 failed"), "{said}");
}

#[test]
fn the_page_is_used_without_a_mouse_and_on_paper() {
    need_tools!("node", "chromium");
    let chromium = tools::find("chromium").expect("it was found before");
    let said = node("use.mjs", &[&chromium, &repository().join("docs/lab.html")]);
    assert!(said.contains(", 0 failed"), "{said}");
}
