//! Numbers, times, kinds and errors as FUSE has them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ext2_core::{DeviceNr, FileKind, InodeNr, Timestamp};
use fuser::{Errno, FileType, INodeNo};

/// The kernel's name for an inode: its number, but for the root, which FUSE calls 1. Inode 1 of ext2 has no name.
pub(crate) fn node_of(nr: InodeNr) -> u64 {
    if nr == InodeNr::ROOT { INodeNo::ROOT.0 } else { u64::from(nr.get()) }
}

/// The inode of a kernel's name, if there can be one.
pub(crate) fn nr_of(node: u64) -> Option<InodeNr> {
    if node == INodeNo::ROOT.0 {
        return Some(InodeNr::ROOT);
    }
    InodeNr::new(u32::try_from(node).ok()?)
}

/// The number that a program is told. What the image has wrong is the log's matter, too.
pub(crate) fn errno(error: &ext2_core::Error) -> Errno {
    match error {
        ext2_core::Error::Caller(..) => {}
        other => log::error!("{other}"),
    }
    Errno::from_i32(error.errno().get())
}

/// A kind of file.
pub(crate) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
    }
}

/// A device number in the form of the protocol (Linux: `new_encode_dev`).
pub(crate) fn encode_device(device: DeviceNr) -> u32 {
    (device.minor & 0xff) | (device.major & 0xfff) << 8 | (device.minor & 0xfff00) << 12
}

/// A device number of the protocol.
pub(crate) fn decode_device(raw: u32) -> DeviceNr {
    DeviceNr { major: raw >> 8 & 0xfff, minor: raw & 0xff | raw >> 12 & 0xfff00 }
}

/// A time of the file system for the protocol.
pub(crate) fn to_system_time(time: Timestamp) -> SystemTime {
    let seconds = Duration::from_secs(time.sec.unsigned_abs());
    let whole = if time.sec >= 0 { UNIX_EPOCH.checked_add(seconds) } else { UNIX_EPOCH.checked_sub(seconds) };
    whole.and_then(|whole| whole.checked_add(Duration::from_nanos(time.nsec.into()))).unwrap_or(UNIX_EPOCH)
}

/// A time that came with a request.
///
/// fuser 0.18 takes the nanoseconds of a time before 1970 off instead of adding them; this is its exact reverse.
pub(crate) fn from_request(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => {
            Timestamp { sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nsec: since.subsec_nanos() }
        }
        Err(before) => {
            let before = before.duration();
            Timestamp {
                sec: i64::try_from(before.as_secs()).map_or(i64::MIN, i64::wrapping_neg),
                nsec: before.subsec_nanos(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_1_for_the_kernel_and_2_on_disk() {
        assert_eq!(node_of(InodeNr::ROOT), 1);
        assert_eq!(nr_of(1), Some(InodeNr::ROOT));
        assert_eq!(nr_of(0), None);
        assert_eq!(nr_of(1 << 40), None);
        assert_eq!(nr_of(12).map(node_of), Some(12));
    }

    #[test]
    fn device_numbers_survive_the_protocol() {
        for (major, minor) in [(0, 0), (8, 1), (4095, 0xf_ffff), (259, 256)] {
            let device = DeviceNr { major, minor };
            assert_eq!(decode_device(encode_device(device)), device);
        }
    }

    #[test]
    fn times_before_1970_come_out_of_requests_and_go_into_replies_right() {
        // What fuser makes of -1.5 s, which the protocol has as -2 s and 500,000,000 ns.
        let request = UNIX_EPOCH - Duration::new(2, 500_000_000);
        assert_eq!(from_request(request), Timestamp { sec: -2, nsec: 500_000_000 });
        let reply = to_system_time(Timestamp { sec: -2, nsec: 500_000_000 });
        assert_eq!(UNIX_EPOCH.duration_since(reply).unwrap(), Duration::from_millis(1500));
        for sec in [0, 1, 1 << 33] {
            let time = Timestamp { sec, nsec: 7 };
            assert_eq!(from_request(to_system_time(time)), time);
        }
    }
}
