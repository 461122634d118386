//! Threads that map images at the same time have each their own memory.
//!
//! A `MAP_FIXED` call that the kernel refuses leaves a gap; what another thread mapped there in the meantime was once
//! replaced by an image, and the image unmapped with it.

use std::io::Write as _;

use blockdev::{BlockDevice, DeviceOptions, MmapDevice};

const SIZE: usize = 3 << 20;

/// Maps an image, stores to it beside memory that the allocator maps, and looks whether both kept what they got.
fn map_and_store(path: &std::path::Path, mark: u8) {
    let device = MmapDevice::open(path, &DeviceOptions::read_write()).expect("opens");
    let memory = vec![!mark; SIZE + (usize::from(mark) << 12)];
    let mut block = [0; 4096];
    for offset in (0..SIZE as u64).step_by(64 << 10) {
        device.write_at(offset, &[mark; 4096]).expect("stored");
    }
    for offset in (0..SIZE as u64).step_by(64 << 10) {
        device.read_at(offset, &mut block).expect("loaded");
        assert_eq!(block, [mark; 4096], "at byte {offset}");
    }
    assert!(memory.iter().all(|&byte| byte == !mark));
}

#[test]
fn threads_that_map_images_at_once_do_not_take_each_others_memory() {
    let images: Vec<_> = (0..4)
        .map(|_| {
            let mut image = tempfile::NamedTempFile::new().expect("a file");
            image.write_all(&vec![0; SIZE]).expect("written");
            image
        })
        .collect();
    std::thread::scope(|scope| {
        for image in &images {
            scope.spawn(|| (0..200).for_each(|round| map_and_store(image.path(), round)));
        }
    });
}
