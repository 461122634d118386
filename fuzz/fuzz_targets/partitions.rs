//! Any disk has partitions that lie in it, or an error; the data behind a header of nvdimm's lies in it too.
#![no_main]

use blockdev::{BlockDevice as _, Partition, RamDevice, partitions};
use ext2_image::mkfs::pfn;
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
            // What a table says may lie anywhere; what is opened lies in the device.
            let inside = entry.offset.checked_add(entry.len).is_some_and(|end| end <= DISK as u64);
            let opened = Partition::numbered(&device, entry.index);
            assert!(inside || opened.is_err(), "{entry:?}");
            if let Ok(opened) = opened {
                let _ = opened.read_at(opened.size() / 2, &mut [0]);
            }
        }
    }
    if let Ok(Some(found)) = pfn::find(&device) {
        assert!(found.data_offset < DISK as u64, "{found:?}");
    }
});
