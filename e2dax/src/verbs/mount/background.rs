//! Going to the background: a second process of this program serves the mount, in a session of its own, and tells
//! through its standard output when it is ready. The first one waits for that and leaves with its exit code.
//!
//! A process with threads cannot fork safely; starting anew needs none of that, and the image is opened and locked by
//! one process only.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use crate::context::Context;
use crate::failure::{FAILED, Failure, Result};

/// What is told.
const READY: &[u8] = b"ready\n";
/// Where a process that has nothing to say says it.
const NOWHERE: &str = "/dev/null";

fn myself() -> Result<Command> {
    let program =
        std::env::current_exe().map_err(|error| Failure::text("this program", error.to_string()))?;
    let mut command = Command::new(program);
    command.args(super::helper::arguments().get(1..).unwrap_or_default());
    Ok(command)
}

/// Starts the process that serves the mount, and waits until it is ready or has failed.
pub(super) fn start(context: &mut Context) -> Result<()> {
    let failed = |error: std::io::Error| Failure::text("the background", error.to_string());
    let mut child = myself()?
        .arg("--tell-when-ready")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut told = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(READY.len() as u64).read_to_end(&mut told).map_err(failed)?;
    }
    if told == READY {
        return Ok(());
    }
    // It has said why.
    let status = child.wait().map_err(failed)?;
    context.set_exit(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED).max(FAILED));
    Ok(())
}

/// Lets go of the terminal and of the folder, and tells that the mount is ready.
pub(super) fn tell_ready() {
    // Each of these makes a process that nobody waits for a better guest; none is needed for the mount.
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
    let nowhere = std::fs::OpenOptions::new().read(true).write(true).open(NOWHERE);
    // Before it is told: who reads the errors of the first process to their end must not find this one holding them
    // once that has left.
    if let Ok(nowhere) = &nowhere {
        let _ = rustix::stdio::dup2_stderr(nowhere);
    }
    let mut output = std::io::stdout();
    let _ = output.write_all(READY).and_then(|()| output.flush());
    if let Ok(nowhere) = &nowhere {
        let _ = rustix::stdio::dup2_stdout(nowhere);
    }
}

/// Becomes this program once more, with a log.
pub(super) fn again_with_log() -> Result<()> {
    let error = myself()?.env("E2DAX_LOG", "debug").exec();
    Err(Failure::text("this program", error.to_string()))
}
