//! Any disk has partitions that lie in it, or an error.
#![no_main]

use blockdev::{RamDevice, partitions};
use libfuzzer_sys::fuzz_target;

/// Bytes of the disk: room for both tables and some extended partitions.
const DISK: usize = 256 << 10;

fuzz_target!(|bytes: &[u8]| {
    let mut disk = vec![0; DISK];
    // The input is the start of the disk and, from its middle on, the end: GPT has a copy there.
    let (front, back) = bytes.split_at(bytes.len() / 2);
    let len = front.len().min(DISK / 2);
    disk[..len].copy_from_slice(&front[..len]);
    let len = back.len().min(DISK / 2);
    disk[DISK - len..].copy_from_slice(&back[back.len() - len..]);
    let device = RamDevice::from_bytes(&disk).expect("memory");
    if let Ok(entries) = partitions(&device) {
        for entry in entries {
            assert!(entry.offset.checked_add(entry.len).is_some_and(|end| end <= DISK as u64), "{entry:?}");
        }
    }
});
