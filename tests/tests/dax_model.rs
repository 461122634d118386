//! Random programs of reads, writes, truncations, loads, stores and syncs by several threads, beside an array of bytes.
//!
//! Each thread has a file of its own and a window of a file that all share. Its own file it may cut, punch and let grow;
//! of the shared one it owns every fourth page, so that neighbours in one 2 MiB unit, and in one page table, belong to
//! others. What a thread reads of what it owns has to be what its model says, at every moment.

use std::sync::Arc;

use blockdev::{BlockDevice, FileDevice, MmapDevice, RamDevice};
use e2dax_tests::oracle::empty_device;
use e2dax_tests::{Rng, tools};
use ext2_core::{Ext2, FileKind, NewInode, OpenOptions};
use ext2_dax::Wait;
use ext2_dax::entry::{PAGE_SIZE, PMD_SIZE};
use ext2_dax::mmu::soft::{MapRequest, Signal, SoftMap, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};

const THREADS: u64 = 4;
/// Bytes of the file that all share, and the most that a file of one's own has.
const SHARED: u64 = 3 * PMD_SIZE;
const OWN: u64 = 2 * PMD_SIZE + 5000;

fn create(fs: &DaxFs, name: &str) -> File {
    let new = NewInode { kind: FileKind::Regular, mode: 0o644, uid: 0, gid: 0, umask: 0, device: None };
    let inode = fs.ext2().root().unwrap().create(name.as_bytes(), &new).unwrap();
    File::open(fs, inode, OpenFor::Writing).unwrap()
}

fn map(file: &File, mmu: &Arc<SoftMmu>, len: u64) -> Option<SoftMap> {
    let (sharing, protection) = (Sharing::Shared, Protection::ReadWrite);
    let request = MapRequest { offset: 0, len, sharing, protection, colour: 0 };
    file.is_dax().then(|| file.map(mmu, &request).unwrap())
}

/// A thread's own file, and what should be in it.
struct Own {
    file: File,
    map: Option<SoftMap>,
    model: Vec<u8>,
}

impl Own {
    fn step(&mut self, rng: &mut Rng) {
        let pos = if rng.below(3) == 0 { PMD_SIZE - 8000 + rng.below(16_000) } else { rng.below(OWN) };
        let longest = if rng.below(4) == 0 { 60_000 } else { 5000 };
        let len = 1 + rng.below(longest);
        let value = rng.below(255) as u8 + 1;
        let size = self.model.len() as u64;
        match rng.below(10) {
            0..=2 => {
                let len = len.min(OWN - pos.min(OWN - 1));
                assert_eq!(self.file.write_at(pos, &vec![value; len as usize]).unwrap(), len);
                self.model.resize(size.max(pos + len) as usize, 0);
                self.model[pos as usize..(pos + len) as usize].fill(value);
            }
            3 => {
                self.file.truncate(pos, Wait::Yes).unwrap();
                self.model.resize(pos as usize, 0);
            }
            4 => {
                self.file.punch_hole(pos, len, Wait::Yes).unwrap();
                let end = (pos + len).min(size);
                if pos < end {
                    self.model[pos as usize..end as usize].fill(0);
                }
            }
            5 => self.file.sync().unwrap(),
            6 | 7 => self.store(pos, value),
            _ => self.check(pos, len),
        }
    }

    fn store(&mut self, pos: u64, value: u8) {
        let Some(map) = &self.map else { return };
        let size = self.model.len() as u64;
        let stored = map.store(pos, value);
        if pos < size {
            assert_eq!(stored, Ok(()));
            self.model[pos as usize] = value;
        } else if pos >= size.next_multiple_of(PAGE_SIZE) {
            assert_eq!(stored, Err(Signal::Bus), "byte {pos} of {size}");
        }
    }

    fn check(&self, pos: u64, len: u64) {
        let mut bytes = vec![0xee; len as usize];
        let got = self.file.read_at(pos, &mut bytes).unwrap() as usize;
        let expected = self.model.get(pos as usize..).unwrap_or_default();
        let expected = &expected[..expected.len().min(len as usize)];
        assert!(bytes[..got] == *expected, "read at {pos}: {got} bytes, expected {}", expected.len());
        if let Some(map) = &self.map
            && !expected.is_empty()
        {
            map.load_bytes(pos, &mut bytes[..expected.len()]).unwrap();
            assert!(bytes[..expected.len()] == *expected, "load at {pos}");
        }
    }
}

/// A thread's share of the file that all share.
struct Share {
    file: File,
    map: Option<SoftMap>,
    thread: u64,
    model: Vec<u8>,
}

impl Share {
    fn step(&mut self, rng: &mut Rng) {
        let page = rng.below(SHARED / PAGE_SIZE / THREADS) * THREADS + self.thread;
        let (pos, value) = (page * PAGE_SIZE + rng.below(PAGE_SIZE - 64), rng.below(255) as u8 + 1);
        match (rng.below(4), &self.map) {
            (0, _) | (1, None) => {
                assert_eq!(self.file.write_at(pos, &[value; 64]).unwrap(), 64);
                self.model[pos as usize..pos as usize + 64].fill(value);
            }
            (1, Some(map)) => {
                map.store(pos, value).unwrap();
                self.model[pos as usize] = value;
            }
            (2, Some(map)) => {
                assert_eq!(map.load(pos), Ok(self.model[pos as usize]), "byte {pos} of the shared file");
                if rng.below(20) == 0 {
                    map.msync(page * PAGE_SIZE, PAGE_SIZE).unwrap();
                }
            }
            _ => {
                let mut bytes = [0; 64];
                self.file.read_at(pos, &mut bytes).unwrap();
                assert!(
                    bytes == self.model[pos as usize..pos as usize + 64],
                    "byte {pos} of the shared file"
                );
            }
        }
    }
}

/// Runs the threads over a device with an empty file system, and checks everything at the end.
fn run(device: Arc<dyn BlockDevice>, seed: u64, steps: u64) {
    let fs = DaxFs::new(Ext2::open(device, &OpenOptions::default()).unwrap(), DaxOptions::default());
    let shared = create(&fs, "shared");
    shared.truncate(SHARED, Wait::Yes).unwrap();
    let own: Vec<File> = (0..THREADS).map(|thread| create(&fs, &format!("own-{thread}"))).collect();
    // Half of the threads are one process, each of the others is one of its own.
    let process = SoftMmu::new();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let mmu = if thread % 2 == 0 { Arc::clone(&process) } else { SoftMmu::new() };
            let (file, shared) = (own[thread as usize].clone(), shared.clone());
            scope.spawn(move || {
                let mut rng = Rng::named(seed, &format!("thread {thread}"));
                let map_own = map(&file, &mmu, OWN.next_multiple_of(PAGE_SIZE));
                let mut own = Own { file, map: map_own, model: Vec::new() };
                let map_shared = map(&shared, &mmu, SHARED);
                let model = vec![0; SHARED as usize];
                let mut share = Share { file: shared, map: map_shared, thread, model };
                for _ in 0..steps {
                    own.step(&mut rng);
                    share.step(&mut rng);
                }
                own.check(0, OWN);
                for page in (thread..SHARED / PAGE_SIZE).step_by(THREADS as usize) {
                    let range = (page * PAGE_SIZE) as usize..((page + 1) * PAGE_SIZE) as usize;
                    let mut bytes = [0; PAGE_SIZE as usize];
                    share.file.read_at(page * PAGE_SIZE, &mut bytes).unwrap();
                    assert!(bytes == share.model[range], "page {page} of the shared file");
                }
            });
        }
    });
    shared.sync().unwrap();
    assert_eq!(shared.pages().dirty_entries(), 0);
    drop((shared, own));
    fs.ext2().sync().unwrap();
}

fn steps() -> u64 {
    std::env::var("E2DAX_MODEL_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(400)
}

fn clean_for_e2fsck(image: &std::path::Path) {
    if tools::have("e2fsck") {
        tools::e2fsck_fn(image).unwrap();
    } else {
        e2dax_tests::skip::announce(module_path!(), line!(), "no e2fsck");
    }
}

#[test]
fn threads_on_memory_equal_the_model_and_leave_a_clean_image() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..3 {
        let device = empty_device();
        run(device.clone(), seed, steps());
        let path = dir.path().join("image");
        std::fs::write(&path, device.to_vec()).unwrap();
        clean_for_e2fsck(&path);
    }
}

#[test]
fn threads_on_a_mapped_file_equal_the_model_and_leave_a_clean_image() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, empty_device().to_vec()).unwrap();
    run(Arc::new(MmapDevice::open(&path, &blockdev::DeviceOptions::default()).unwrap()), 7, steps());
    clean_for_e2fsck(&path);
}

#[test]
fn threads_on_a_plain_file_equal_the_model_without_mappings() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, empty_device().to_vec()).unwrap();
    run(Arc::new(FileDevice::open(&path, &blockdev::DeviceOptions::default()).unwrap()), 8, steps() / 4);
    clean_for_e2fsck(&path);
}

#[test]
fn a_device_that_moves_nothing_is_no_test() {
    // The steps above do store: an image that was only read would pass all of them.
    let device: Arc<RamDevice> = empty_device();
    let before = device.to_vec();
    run(device.clone(), 1, 20);
    assert!(before != device.to_vec());
}
