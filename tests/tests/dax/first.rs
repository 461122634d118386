//! Whoever is the first to open a file while blocks of it go waits until they are gone, by whatever door they go.

use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use blockdev::{BlockDevice, DaxDevice, RamDevice, Result};
use ext2_core::{Barrier, FileBlock, Inode, Wait};
use ext2_dax::mmu::Sharing;
use ext2_dax::{File, OpenFor};

use crate::setup::{format, inode, map, open};

const PAGE: u64 = 4096;

/// Where a thread waits in the midst of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Nowhere,
    Fence(Barrier),
    /// Before a store of four bytes.
    Word,
}

#[derive(Debug)]
struct State {
    at: At,
    is_there: bool,
    is_open: bool,
}

/// Memory on which one thread waits in the midst of a change.
#[derive(Debug)]
struct Gate {
    inner: RamDevice,
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    fn new() -> Self {
        let state = Mutex::new(State { at: At::Nowhere, is_there: false, is_open: false });
        Self { inner: RamDevice::new(16 << 20).unwrap(), state, changed: Condvar::new() }
    }

    fn pass(&self, is_at: impl Fn(At) -> bool) {
        let mut state = self.state.lock().unwrap();
        if is_at(state.at) {
            (state.at, state.is_there) = (At::Nowhere, true);
            self.changed.notify_all();
            drop(self.changed.wait_while(state, |state| !state.is_open).unwrap());
        }
    }

    fn wait_until_somebody_is_there(&self) {
        let state = self.state.lock().unwrap();
        let limit = Duration::from_secs(20);
        let (_state, late) = self.changed.wait_timeout_while(state, limit, |state| !state.is_there).unwrap();
        assert!(!late.timed_out(), "nobody came by");
    }

    fn open(&self) {
        self.state.lock().unwrap().is_open = true;
        self.changed.notify_all();
    }
}

impl BlockDevice for Gate {
    e2dax_tests::forward!(inner: size, read_at, write_at, zero, fence, flush);

    fn write_u32(&self, offset: u64, value: u32) -> Result<()> {
        self.pass(|at| at == At::Word);
        self.inner.write_u32(offset, value)
    }

    fn fence_tagged(&self, tag: u64) -> Result<()> {
        self.pass(|at| matches!(at, At::Fence(barrier) if barrier.tag() == tag));
        self.inner.fence()
    }

    fn dax(&self) -> Option<&dyn DaxDevice> {
        self.inner.dax()
    }
}

/// A file of `len` bytes is changed by a thread that waits `at` some place; meanwhile somebody is the first to open it, maps it
/// and stores to it. He stores once more when all is done, and another file has what was free.
fn opened_amid(at: At, len: usize, change: impl Fn(&Inode) + Sync) {
    let device = Arc::new(Gate::new());
    format(&*device);
    let fs = open(device.clone());
    let changed = inode(fs.ext2(), b"changed");
    changed.write_at(0, &vec![1; len]).unwrap();
    thread::scope(|scope| {
        device.state.lock().unwrap().at = at;
        let changing = scope.spawn(|| change(&changed));
        device.wait_until_somebody_is_there();
        let opening = scope.spawn(|| {
            let file = File::open(&fs, changed.clone(), OpenFor::Writing).unwrap();
            let map = map(&file, PAGE, Sharing::Shared);
            let stored = map.store(0, 0x55);
            (file, map, stored)
        });
        // He waits, or is through by then.
        thread::sleep(Duration::from_millis(200));
        device.open();
        changing.join().unwrap();
        let (file, map, stored) = opening.join().unwrap();
        let mut byte = [0; 1];
        let there = file.read_at(0, &mut byte).unwrap();
        assert!(stored.is_err() || there == 0 || byte == [0x55], "{at:?}: what was stored is lost");
        let other = inode(fs.ext2(), b"other");
        while other.append(&[2; PAGE as usize]).is_ok() {}
        let _ = map.store(1, 0x66);
        let mut bytes = vec![0; other.size() as usize];
        other.read_exact_at(0, &mut bytes).unwrap_or_else(|error| panic!("{at:?}: {error}"));
        assert!(bytes.iter().all(|&byte| byte == 2), "{at:?}: another file has what was stored to this one");
        let end = FileBlock::new(other.size() / PAGE);
        assert!(other.map(end, 1).unwrap().is_hole(), "{at:?}");
    });
    fs.ext2().clone().close().unwrap();
}

#[test]
fn a_file_that_is_opened_while_it_is_cut_off_is_shorter_to_who_maps_it() {
    let cut = |inode: &Inode| inode.truncate(0, Wait::Yes).unwrap();
    opened_amid(At::Fence(Barrier::OrphanListed), 4096, cut);
}

#[test]
fn a_file_that_is_opened_while_it_is_punched_has_a_hole_to_who_maps_it() {
    opened_amid(At::Word, 8192, |inode| inode.punch_hole(0, PAGE, Wait::Yes).unwrap());
}

#[test]
fn a_file_that_is_opened_while_its_blocks_move_is_mapped_where_they_are() {
    opened_amid(At::Fence(Barrier::Moved), 512 << 10, |inode| {
        inode.append(&vec![3; 1 << 20]).unwrap();
    });
}
