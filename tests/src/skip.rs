//! Tests that cannot run here say so.
//!
//! A test that needs root, a loop device or a tool that is not there must not pass in silence: [`skip!`](crate::skip!)
//! writes a line to standard error that the test runner does not capture, and one to the file that `E2DAX_SKIP_LOG`
//! names, which `.ci/run` counts.

use std::{
    fs::OpenOptions,
    io::{self, Write},
};

/// Announces that the calling test does nothing and leaves it.
///
/// `skip!("no /dev/loop0")` is for a test that returns nothing; a format string with arguments works as in `println!`.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        $crate::skip::announce(module_path!(), line!(), &format!($($reason)+));
        return;
    }};
}

/// Leaves the calling test, aloud, unless it can mount images here.
#[macro_export]
macro_rules! need_mount {
    () => {
        if let Err(reason) = $crate::mount::possible() {
            $crate::skip!("{reason}");
        }
    };
}

/// Leaves the calling test, aloud, unless all the named programs are there.
#[macro_export]
macro_rules! need_tools {
    ($($tool:expr),+) => {
        $(if !$crate::tools::have($tool) {
            $crate::skip!("no {}", $tool);
        })+
    };
}

/// Writes the announcement. Tests call it through [`skip!`](crate::skip!).
pub fn announce(module: &str, line: u32, reason: &str) {
    let text = format!("SKIPPED: {module}:{line}: {reason}\n");
    // Not eprint!, which the test runner captures.
    io::stderr().write_all(text.as_bytes()).expect("standard error takes a line");
    if let Some(path) = std::env::var_os("E2DAX_SKIP_LOG") {
        let mut log = OpenOptions::new().append(true).create(true).open(path).expect("the skip log opens");
        log.write_all(text.as_bytes()).expect("the skip log takes a line");
    }
}
