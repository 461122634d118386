//! The locks by which QEMU, and what is built like it, keeps others out of an image: on single bytes of the file, which
//! `flock` knows nothing of.
//!
//! A byte from [`DOES`] on is locked, shared, by whoever does something with the image, one from [`REFUSES`] on by whoever bears
//! nobody else to do it. Nobody who has locked a byte is asked what for, so that a look at the other half tells whether two can
//! be at it together. (QEMU: `RAW_LOCK_PERM_BASE` and `RAW_LOCK_SHARED_BASE`, the order of `BLK_PERM_*`.)

use std::fs::File;
use std::os::fd::AsRawFd as _;

const DOES: i64 = 100;
const REFUSES: i64 = 200;

/// To read what is consistent, to write, to change the size.
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// What a writer of ours does, and what he bears nobody else to do.
const OURS: [i64; 2] = [READ, WRITE];
const OURS_ALONE: [i64; 2] = [WRITE, RESIZE];

/// Of the kernel's interface; `libc` does not have them for every library.
const F_OFD_GETLK: i32 = 36;
const F_OFD_SETLK: i32 = 37;

/// Locks a file as one that is written to, as long as it is open. False where a machine or a server of its disk has it open in a
/// way that goes with no writer. Where the file system has no such locks, nobody has one.
pub(crate) fn take(file: &File) -> bool {
    for byte in OURS.iter().map(|does| DOES + does).chain(OURS_ALONE.iter().map(|alone| REFUSES + alone)) {
        set(file, libc::F_RDLCK, byte, 1);
    }
    let is_free = |byte| !is_locked_by_another(file, byte);
    OURS.iter().all(|does| is_free(REFUSES + does)) && OURS_ALONE.iter().all(|alone| is_free(DOES + alone))
}

/// Gives up what [`take`] took: a child that was forked meanwhile has the open file, too.
pub(crate) fn release(file: &File) {
    set(file, libc::F_UNLCK, DOES, REFUSES + RESIZE + 1 - DOES);
}

fn range(kind: i32, start: i64, len: i64) -> libc::flock {
    libc::flock {
        // OK to cast: the constants are small.
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start as libc::off_t,
        l_len: len as libc::off_t,
        l_pid: 0,
    }
}

fn set(file: &File, kind: i32, start: i64, len: i64) {
    let lock = range(kind, start, len);
    // SAFETY: the descriptor is open, and the command reads a `struct flock`.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), F_OFD_SETLK, &raw const lock) };
    if done != 0 {
        log::debug!("no lock of byte {start}: {}", std::io::Error::last_os_error());
    }
}

fn is_locked_by_another(file: &File, byte: i64) -> bool {
    let mut lock = range(libc::F_WRLCK, byte, 1);
    // SAFETY: the descriptor is open, and the command reads and fills in a `struct flock`.
    let asked = unsafe { libc::fcntl(file.as_raw_fd(), F_OFD_GETLK, &raw mut lock) };
    asked == 0 && i32::from(lock.l_type) != libc::F_UNLCK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_kept_out_by_one_who_writes_or_refuses_and_not_by_one_who_reads() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(image.path()).unwrap();
        for (byte, goes) in [
            (DOES + READ, true),
            (DOES + WRITE, false),
            (DOES + RESIZE, false),
            (REFUSES + READ, false),
            (REFUSES + WRITE, false),
            (REFUSES + RESIZE, true),
        ] {
            let (other, ours) = (open(), open());
            set(&other, libc::F_RDLCK, byte, 1);
            assert_eq!(take(&ours), goes, "{byte}");
        }
        let (ours, other) = (open(), open());
        assert!(take(&ours));
        assert!(!take(&other), "two writers");
        let forked = ours.try_clone().unwrap();
        release(&ours);
        drop(other);
        assert!(take(&open()), "given up, although a copy is open");
        drop(forked);
    }
}
