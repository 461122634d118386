//! The write that meets a fault: a page is mapped while its contents are on their way to another place.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use blockdev::{BlockDevice, RamDevice};
use ext2_core::plumbing::{Allocate, Plumbing};
use ext2_core::{Ext2, FileBlock, Inode, OpenOptions, Wait};
use ext2_image::mkfs;

use super::FILE;

/// On which a thread faults on the first page of a file while somebody else stores contents; then that fails the next time.
#[derive(Debug)]
struct Faults {
    inner: RamDevice,
    file: Mutex<Option<Inode>>,
    fails: AtomicBool,
}

impl BlockDevice for Faults {
    e2dax_tests::forward!(inner: size, read_at, write_at, zero, fence, flush);

    fn write_contents(&self, offset: u64, buf: &[u8]) -> blockdev::Result<()> {
        if self.fails.swap(false, Ordering::SeqCst) {
            return Err(blockdev::Error::NoSpace { offset });
        }
        let file = self.file.lock().expect("not poisoned").take();
        if let Some(file) = file {
            file.map_for_write(FileBlock::new(0), 1, Allocate::Fault).expect("mapped");
            self.fails.store(true, Ordering::SeqCst);
        }
        self.inner.write_at(offset, buf)
    }
}

#[test]
fn a_write_that_meets_a_fault_and_cannot_be_copied_to_its_block_is_an_error() {
    let inner = mkfs::in_memory(4 << 20).expect("made");
    let device = Arc::new(Faults { inner, file: Mutex::default(), fails: AtomicBool::new(false) });
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
    let file = fs.root().expect("root").create(b"f", &FILE).expect("created");
    file.truncate(4096, Wait::Yes).expect("grown");
    *device.file.lock().expect("not poisoned") = Some(file.clone());
    let written = file.write_at(0, b"bytes");
    assert!(device.file.lock().expect("not poisoned").is_none() && !device.fails.load(Ordering::SeqCst));
    assert!(written.is_err(), "{written:?}");
    assert_eq!(file.write_at(0, b"bytes").expect("written"), 5);
    let mut there = [0; 5];
    file.read_exact_at(0, &mut there).expect("read");
    assert_eq!(&there, b"bytes");
}
