//! Holes that are mapped while they get blocks: what has returned is seen by every mapping.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use blockdev::{BlockDevice, Media};
use ext2_core::plumbing::Plumbing;
use ext2_core::{Ext2, OpenOptions, Wait};
use ext2_dax::compat::ReadFaults;
use ext2_dax::fault::{FaultRequest, StoreOrLoad};
use ext2_dax::mapping::{PrivateCopies, Translations};
use ext2_dax::mmu::{
    CowPage, PageTable, Protection, Sharing, Slot, SlotTaken, Target, VmFile, Vma, Writable,
};
use ext2_dax::{Compat, DaxFs, DaxOptions, File};

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

/// Attaches the door, and gives the ends of it.
fn door(file: &File, ahead: bool) -> (Receiver<()>, Sender<()>) {
    let ((tell, told), (answer, answered)) = (channel(), channel());
    file.pages().attach(Arc::new(Told { ahead, door: Mutex::new(Some((tell, answered))) }));
    (told, answer)
}

#[test]
fn what_is_stored_beside_a_write_to_a_hole_is_seen_by_every_mapping() {
    let file = hole(Compat::FULL);
    let (told, answer) = door(&file, false);
    let [one, other] = [(); 2].map(|()| map(&file, PAGE, Sharing::Shared));
    assert_eq!(other.load(200), Ok(0));
    let worker = std::thread::spawn(move || {
        told.recv().unwrap();
        one.store(200, 7).unwrap();
        let seen = other.load(200);
        let _ = answer.send(());
        seen
    });
    file.write_at(0, &[1; 100]).unwrap();
    assert_eq!(worker.join().unwrap(), Ok(7));
}

#[test]
fn what_is_written_beside_a_store_to_a_hole_is_seen_by_every_mapping() {
    let file = hole(Compat::FULL);
    let (told, answer) = door(&file, true);
    let [one, other] = [(); 2].map(|()| map(&file, PAGE, Sharing::Shared));
    assert_eq!(other.load(0), Ok(0));
    let writer = file.clone();
    let worker = std::thread::spawn(move || {
        told.recv().unwrap();
        writer.write_at(0, &[1; 100]).unwrap();
        let seen = other.load(0);
        let _ = answer.send(());
        seen
    });
    one.store(200, 7).unwrap();
    assert_eq!(worker.join().unwrap(), Ok(1));
}

/// A table of one page, which lets somebody write between the look at the block map and the translation.
#[derive(Debug)]
struct Gate {
    vma: Vma,
    leaf: Mutex<Option<(Target, Writable)>>,
    door: Door,
}

impl Translations for Gate {
    fn zap(&self, _: u64, _: u64, _: PrivateCopies) {
        *self.leaf.lock().unwrap() = None;
    }
    fn write_protect(&self, _: u64, _: u64) {}
}

impl PageTable for Gate {
    fn slot(&self, _: u64) -> Slot {
        Slot::Table
    }
    fn has_huge_zero_page(&self) -> bool {
        false
    }
    fn map_pte(&self, _: u64, target: Target, writable: Writable) {
        let_in(&self.door);
        *self.leaf.lock().unwrap() = Some((target, writable));
    }
    fn map_pmd(&self, _: u64, _: Target, _: Writable) -> Result<(), SlotTaken> {
        Err(SlotTaken)
    }
    fn map_copy(&self, _: u64, _: CowPage) {}
    fn split(&self, _: u64) {}
}

#[test]
fn no_page_of_a_hole_stays_mapped_after_a_write_where_loads_make_entries_dirty() {
    for compat in [Compat::FULL, Compat { read_faults: ReadFaults::Dirty, ..Compat::FULL }, Compat::LINUX_6_1]
    {
        let file = hole(compat);
        let looked = map(&file, PAGE, Sharing::Shared);
        assert_eq!(looked.load(0), Ok(0));
        let start = 0x4000_0000;
        let (sharing, protection) = (Sharing::Shared, Protection::ReadWrite);
        let vma = Vma { start, end: start + PAGE, pgoff: 0, sharing, protection };
        let ((tell, told), (answer, answered)) = (channel(), channel());
        let gate = Arc::new(Gate { vma, leaf: Mutex::default(), door: Mutex::new(Some((tell, answered))) });
        file.pages().attach(gate.clone());
        let other = file.clone();
        let writer = std::thread::spawn(move || {
            told.recv().unwrap();
            other.write_at(0, &[1; 4096]).unwrap();
            let _ = answer.send(());
        });
        let access = StoreOrLoad::Load;
        file.fault(&FaultRequest { vma: &gate.vma, table: &*gate, address: start, access });
        writer.join().unwrap();
        let leaf = *gate.leaf.lock().unwrap();
        assert!(!matches!(leaf, Some((Target::Zero, _))), "{leaf:?}, {compat:?}");
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
