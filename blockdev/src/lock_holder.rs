//! Who holds the lock of an image, for messages: a person who is refused wants to know by whom.
//!
//! # What is asked
//! `/proc/locks` has the process that took an advisory lock, by the device and inode of the file. That process may be gone
//! while a child of it goes on with the open file (so a mount goes into the background), and file systems like btrfs have
//! other device numbers there than `stat` tells; then the open files of the processes that we may look at are asked.
//!
//! # Invariants
//! Nothing here waits or opens the image. Where the machine does not answer, nobody is named.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, major, makedev, minor, statx};

/// The process that has the image open in a way that keeps us out, as `NAME (process N)`; `only_writers` leaves out those that
/// read.
pub(crate) fn lock_holder(image: &File, only_writers: bool) -> Option<String> {
    let meta = image.metadata().ok()?;
    let table = fs::read_to_string("/proc/locks").unwrap_or_default();
    let file = format!("{:02x}:{:02x}:{}", major(meta.dev()), minor(meta.dev()), meta.ino());
    let told = table.lines().find_map(|line| pid_of(line, &file, only_writers));
    told.and_then(name_of).or_else(|| opener(image, only_writers))
}

/// The first process that has the image open, ourselves left out; `only_writers` leaves out those that read, too.
pub(crate) fn opener(image: &File, only_writers: bool) -> Option<String> {
    let (meta, me) = (image.metadata().ok()?, std::process::id());
    let processes = fs::read_dir("/proc").ok()?;
    let mut pids: Vec<u32> =
        processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let has = |pid: u32| has_open(pid, (meta.dev(), meta.ino()), only_writers);
    pids.into_iter().find(|&pid| pid != me && has(pid)).and_then(name_of)
}

/// The process of a line of `/proc/locks`, if it is about the file and the lock is held, and not waited for.
fn pid_of(line: &str, file: &str, only_writers: bool) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    let (kind, _, access) = (words.next()?, words.next()?, words.next()?);
    if kind != "FLOCK" || (only_writers && access != "WRITE") {
        return None;
    }
    let pid = words.next()?.parse().ok()?;
    (words.next()? == file).then_some(pid)
}

/// How a process is called.
fn name_of(pid: u32) -> Option<String> {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = arguments.split(|&byte| byte == 0).filter(|word| !word.is_empty());
    let program = String::from_utf8_lossy(words.next()?).into_owned();
    let program = Path::new(&program).file_name()?.to_string_lossy().into_owned();
    // The verb of the command, and what an interpreter runs, say more than the program alone.
    let next = words.next().map(|word| String::from_utf8_lossy(word).into_owned());
    let verb = next.filter(|word| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
    let name = match verb.filter(|word| !word.starts_with('-')) {
        Some(verb) => format!("{program} {verb}"),
        None => program,
    };
    let name: String = name.chars().filter(|sign| !sign.is_control()).collect();
    Some(format!("{name} (process {pid})"))
}

/// Whether a process has a file open; to write, where that is asked for.
fn has_open(pid: u32, file: (u64, u64), only_writers: bool) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    open.filter_map(Result::ok).any(|entry| {
        // Without a question to its file system: that of a network, or a mount whose server hangs, may never answer.
        let stat = statx(CWD, entry.path(), AtFlags::STATX_DONT_SYNC, StatxFlags::INO);
        let of = |stat: Statx| (makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino);
        let is_it = stat.is_ok_and(|stat| of(stat) == file);
        is_it && (!only_writers || is_to_write(pid, &entry.file_name().to_string_lossy()))
    })
}

/// Whether an open file was opened to write.
fn is_to_write(pid: u32, number: &str) -> bool {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).unwrap_or(0);
    flags & 3 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_of_locks_is_read() {
        let line = "3: FLOCK  ADVISORY  WRITE 812 fe:01:1234 0 EOF";
        assert_eq!(pid_of(line, "fe:01:1234", true), Some(812));
        assert_eq!(pid_of(line, "fe:01:123", true), None);
        assert_eq!(pid_of("3: FLOCK  ADVISORY  READ 812 fe:01:1234 0 EOF", "fe:01:1234", true), None);
        assert_eq!(pid_of("3: FLOCK  ADVISORY  READ 812 fe:01:1234 0 EOF", "fe:01:1234", false), Some(812));
        assert_eq!(pid_of("3: -> FLOCK  ADVISORY  WRITE 812 fe:01:1234 0 EOF", "fe:01:1234", true), None);
        assert_eq!(pid_of("nonsense", "fe:01:1234", false), None);
    }

    #[test]
    fn the_holder_of_a_lock_is_named() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let other = File::open(image.path()).unwrap();
        rustix::fs::flock(&other, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let found = lock_holder(image.as_file(), true).unwrap();
        assert!(found.ends_with(&format!("(process {})", std::process::id())), "{found}");
    }
}
