//! Holes that are mapped while they get blocks: what has returned is seen by every mapping.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use blockdev::{BlockDevice, Media};
use ext2_core::plumbing::Plumbing;
use ext2_core::{Ext2, OpenOptions, Wait};
use ext2_dax::compat::ReadFaults;
use ext2_dax::mapping::{PrivateCopies, Translations};
use ext2_dax::mmu::Sharing;
use ext2_dax::mmu::soft::{Signal, SoftMap};
use ext2_dax::{Compat, DaxFs, DaxOptions, File};

use crate::flat::Mapped;
use crate::setup::{device, file, map};

const PAGE: u64 = 4096;

/// How long somebody is let in who may have to wait.
const LET_IN: Duration = Duration::from_millis(300);

/// A file of one page, which is a hole.
fn hole(compat: Compat) -> File {
    let device: Arc<dyn BlockDevice> = device(4, Media::Volatile);
    let fs = Ext2::open(device, &OpenOptions::default()).unwrap();
    let file = file(&DaxFs::new(fs, DaxOptions { compat, ..DaxOptions::default() }), b"f");
    file.truncate(PAGE, Wait::Yes).unwrap();
    file
}

/// Somebody who is let in once, and told of.
type Door = Mutex<Option<(Sender<()>, Receiver<()>)>>;

fn let_in(door: &Door) {
    let guest = door.lock().unwrap().take();
    if let Some((tell, told)) = guest {
        tell.send(()).unwrap();
        let _ = told.recv_timeout(LET_IN);
    }
}

/// Lets somebody in where translations of a hole go: in that of whoever maps ahead, or of all.
#[derive(Debug)]
struct Told {
    ahead: bool,
    door: Door,
}

impl Translations for Told {
    fn zap(&self, _: u64, _: u64, _: PrivateCopies) {
        if !self.ahead {
            let_in(&self.door);
        }
    }
    fn write_protect(&self, _: u64, _: u64) {}
    fn maps_ahead(&self) -> bool {
        self.ahead
    }
    fn published(&self, start: u64, end: u64) {
        if self.ahead { let_in(&self.door) } else { self.zap(start, end, PrivateCopies::Keep) }
    }
}

/// Two mappings of a hole are looked at. While the first does `outer`, and those who map it are told, the second does `inner`;
/// what it sees then at byte `at`.
fn seen_inside(
    ahead: bool,
    outer: impl FnOnce(&File, &SoftMap),
    inner: impl FnOnce(&File, &SoftMap) + Send + 'static,
    at: u64,
) -> Result<u8, Signal> {
    let file = hole(Compat::FULL);
    let ((tell, told), (answer, answered)) = (channel(), channel());
    file.pages().attach(Arc::new(Told { ahead, door: Mutex::new(Some((tell, answered))) }));
    let [one, other] = [(); 2].map(|()| map(&file, PAGE, Sharing::Shared));
    assert_eq!(other.load(at), Ok(0));
    let (also, first) = (file.clone(), map(&file, PAGE, Sharing::Shared));
    let worker = std::thread::spawn(move || {
        told.recv().unwrap();
        inner(&also, &first);
        let seen = other.load(at);
        let _ = answer.send(());
        seen
    });
    outer(&file, &one);
    worker.join().unwrap()
}

#[test]
fn what_is_stored_beside_a_write_to_a_hole_is_seen_by_every_mapping() {
    let write = |file: &File, _: &SoftMap| assert_eq!(file.write_at(0, &[1; 100]), Ok(100));
    let store = |_: &File, map: &SoftMap| assert_eq!(map.store(200, 7), Ok(()));
    assert_eq!(seen_inside(false, write, store, 200), Ok(7));
}

#[test]
fn what_is_written_beside_a_store_to_a_hole_is_seen_by_every_mapping() {
    let write = |file: &File, _: &SoftMap| assert_eq!(file.write_at(0, &[1; 100]), Ok(100));
    let store = |_: &File, map: &SoftMap| assert_eq!(map.store(200, 7), Ok(()));
    assert_eq!(seen_inside(true, store, write, 0), Ok(1));
}

#[test]
fn no_page_of_a_hole_stays_mapped_after_a_write_where_loads_make_entries_dirty() {
    for compat in [Compat::FULL, Compat { read_faults: ReadFaults::Dirty, ..Compat::FULL }, Compat::LINUX_6_1]
    {
        let file = hole(compat);
        let looked = map(&file, PAGE, Sharing::Shared);
        assert_eq!(looked.load(0), Ok(0));
        let mapped = Mapped::new(Arc::new(file.clone()), PAGE, Sharing::Shared);
        let ((tell, told), (done, over)) = (channel(), channel());
        // Between the look at the block map and the translation somebody writes, if nobody keeps him from it.
        mapped.before_map(move || {
            std::thread::spawn(move || {
                file.write_at(0, &[1; 4096]).unwrap();
                let _ = tell.send(());
                done.send(()).unwrap();
            });
            let _ = told.recv_timeout(LET_IN);
        });
        mapped.load(0).unwrap();
        over.recv().unwrap();
        assert_eq!(mapped.load(0), Ok(1), "{compat:?}");
    }
}

#[test]
fn a_file_that_grows_beside_a_write_keeps_what_was_written() {
    for compat in [Compat::FULL, Compat::LINUX_6_1] {
        let file = hole(compat);
        let io = file.inode().io_lock().write();
        let other = file.clone();
        let growing = std::thread::spawn(move || other.truncate(5000, Wait::Yes));
        std::thread::sleep(LET_IN);
        // What a write does under the lock.
        file.inode().write_piece(0, &[7; 8192]).unwrap();
        drop(io);
        growing.join().unwrap().unwrap();
        // It came after the write, and cut it off.
        let mut bytes = vec![0; file.size() as usize];
        file.read_exact_at(0, &mut bytes).unwrap();
        assert_eq!(bytes, vec![7; 5000], "{compat:?}");
    }
}
