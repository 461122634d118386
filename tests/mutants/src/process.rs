//! Runs a killer: within a time, within bounds of memory, and with a temporary folder of its own.

use std::{
    fs, io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::killers::Killer;

/// Memory of its own that a process may have, in KiB. What asks for more is a mutant that never has enough.
const MEMORY: u32 = 4 << 20;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With success.
    Passed,
    /// With anything else.
    Failed,
    /// Not by itself.
    TimedOut,
}

/// Runs it with one environment variable, for twice the `usual` time of processors and some seconds, and by the clock for
/// longer, since others may use the processors. `temporary` is emptied first and afterwards.
///
/// # Errors
/// The host's.
pub fn run(
    killer: &Killer,
    variable: (&str, &str),
    usual: Duration,
    temporary: &Path,
) -> io::Result<(End, Duration)> {
    let _ = fs::remove_dir_all(temporary);
    fs::create_dir_all(temporary)?;
    let processor = usual.as_secs() * 2 + 3;
    let limit = usual * 10 + Duration::from_secs(10);
    let begin = Instant::now();
    let mut child = Command::new("sh")
        .args([
            "-c",
            &format!("ulimit -c 0 && ulimit -d {MEMORY} && ulimit -t {processor} && exec \"$0\" \"$@\""),
        ])
        .arg(&killer.program)
        .args(&killer.arguments)
        .env(variable.0, variable.1)
        .env("TMPDIR", temporary)
        // What goes wrong is counted, not read.
        .env("RUST_BACKTRACE", "0")
        .current_dir(temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let mut pause = Duration::from_millis(1);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if begin.elapsed() > limit {
            break None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    let took = begin.elapsed();
    // Also what it left running.
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    child.wait()?;
    let _ = fs::remove_dir_all(temporary);
    let end = match status {
        Some(status) if status.success() => End::Passed,
        Some(status) if status.signal() == Some(Signal::XCPU.as_raw()) => End::TimedOut,
        Some(_) => End::Failed,
        None => End::TimedOut,
    };
    Ok((end, took))
}
