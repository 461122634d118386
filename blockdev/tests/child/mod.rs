//! Tests that run in a process of their own, since that is to die.

use std::process::Command;

/// This program, to run the test `name` alone.
pub(crate) fn of_test(name: &str) -> Command {
    // Under an emulator a process is started by it, in words of a command.
    let emulator = std::env::var("E2DAX_EMULATED").unwrap_or_default();
    let program = std::env::current_exe().unwrap().into_os_string();
    let mut words = emulator.split_whitespace().map(Into::into).chain([program]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args(["--exact", name, "--nocapture"]);
    command
}
