//! An address space of somebody else's over files of ours and of others: it hears of every page that is taken away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use blockdev::Access;
use ext2_dax::Wait;
use ext2_dax::conformance::Subject;
use ext2_dax::entry::{DevPage, PAGE_SIZE};
use ext2_dax::fault::{FaultRequest, FaultResult, StoreOrLoad};
use ext2_dax::mapping::{PrivateCopies, Translations};
use ext2_dax::mmu::{
    CowPage, PageTable, Protection, Sharing, Slot, SlotTaken, Target, VmFile, Vma, Writable,
};
use ext2_dax::uio::SliceSource;

use crate::setup::{file, fresh};
use crate::toy::{Flaw, Toy};

#[derive(Debug)]
enum Leaf {
    Zero,
    Device(DevPage, Writable),
    Mine(CowPage),
}

/// A flat table from addresses of pages to what they lead to.
#[derive(Debug)]
struct Flat {
    vma: Vma,
    leaves: Mutex<BTreeMap<u64, Leaf>>,
}

impl Flat {
    fn forget(&self, start: u64, end: u64, copies: PrivateCopies) {
        let Some((start, end)) = self.vma.addresses_of(start, end) else { return };
        self.leaves.lock().unwrap().retain(|address, leaf| {
            !(start..end).contains(address) || matches!(leaf, Leaf::Mine(_)) && copies == PrivateCopies::Keep
        });
    }
}

impl Translations for Flat {
    fn zap(&self, start: u64, end: u64, copies: PrivateCopies) {
        self.forget(start, end, copies);
    }

    fn write_protect(&self, start: u64, end: u64) {
        let Some((start, end)) = self.vma.addresses_of(start, end) else { return };
        for (_, leaf) in self.leaves.lock().unwrap().range_mut(start..end) {
            if let Leaf::Device(_, writable) = leaf {
                *writable = Writable::No;
            }
        }
    }
}

impl PageTable for Flat {
    fn slot(&self, _: u64) -> Slot {
        Slot::Table
    }

    fn has_huge_zero_page(&self) -> bool {
        false
    }

    fn map_pte(&self, address: u64, target: Target, writable: Writable) {
        let leaf = match target {
            Target::Zero => Leaf::Zero,
            Target::Page(page) => Leaf::Device(page, writable),
        };
        let mut leaves = self.leaves.lock().unwrap();
        // One that was made meanwhile stays.
        let there = leaves.entry(address & !(PAGE_SIZE - 1)).or_insert(Leaf::Zero);
        if !matches!(there, Leaf::Mine(_)) {
            *there = leaf;
        }
    }

    fn map_pmd(&self, _: u64, _: Target, _: Writable) -> Result<(), SlotTaken> {
        Err(SlotTaken)
    }

    fn map_copy(&self, address: u64, page: CowPage) {
        let mut leaves = self.leaves.lock().unwrap();
        let there = leaves.entry(address & !(PAGE_SIZE - 1)).or_insert(Leaf::Zero);
        if !matches!(there, Leaf::Mine(_)) {
            *there = Leaf::Mine(page);
        }
    }

    fn split(&self, _: u64) {}
}

/// A file that is mapped: what a program would touch.
struct Mapped {
    file: Arc<dyn VmFile>,
    flat: Arc<Flat>,
}

impl Mapped {
    fn new(file: Arc<dyn VmFile>, len: u64, sharing: Sharing) -> Self {
        file.check_map(sharing, Protection::ReadWrite).unwrap();
        let start = 0x4000_0000;
        let vma = Vma { start, end: start + len, pgoff: 0, sharing, protection: Protection::ReadWrite };
        let flat = Arc::new(Flat { vma, leaves: Mutex::default() });
        let heard: Arc<dyn Translations> = Arc::<Flat>::clone(&flat);
        file.pages().attach(heard);
        Self { file, flat }
    }

    fn fault(&self, address: u64, access: StoreOrLoad) -> Result<(), FaultResult> {
        let table: &Flat = &self.flat;
        let result = self.file.fault(&FaultRequest { vma: &self.flat.vma, table, address, access });
        if result.is_error() { Err(result) } else { Ok(()) }
    }

    fn load(&self, at: u64) -> Result<u8, FaultResult> {
        let (address, within) = (self.flat.vma.start + at, at % PAGE_SIZE);
        loop {
            match self.flat.leaves.lock().unwrap().get(&(address - within)) {
                Some(Leaf::Zero) => return Ok(0),
                Some(Leaf::Mine(page)) => return Ok(page[within as usize]),
                Some(Leaf::Device(page, _)) => {
                    let memory = self.file.memory().direct_access(page.get(), 1, Access::Read).unwrap();
                    return Ok(memory.load_u8(within).unwrap());
                }
                None => {}
            }
            self.fault(address, StoreOrLoad::Load)?;
        }
    }

    fn store(&self, at: u64, byte: u8) -> Result<(), FaultResult> {
        let (address, within) = (self.flat.vma.start + at, at % PAGE_SIZE);
        loop {
            match self.flat.leaves.lock().unwrap().get_mut(&(address - within)) {
                Some(Leaf::Mine(page)) => {
                    page[within as usize] = byte;
                    return Ok(());
                }
                Some(Leaf::Device(page, Writable::Yes)) => {
                    let memory = self.file.memory().direct_access(page.get(), 1, Access::Write).unwrap();
                    memory.copy_in_cached(within, &[byte]).unwrap();
                    return Ok(());
                }
                _ => {}
            }
            self.fault(address, StoreOrLoad::Store)?;
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let heard: Arc<dyn Translations> = Arc::<Flat>::clone(&self.flat);
        self.file.pages().detach(&heard);
    }
}

/// What every file owes an address space.
fn exercise(file: Arc<dyn VmFile>, set_size: &dyn Fn(u64), write: &dyn Fn(u64, &[u8])) {
    set_size(40 * PAGE_SIZE);
    let (one, other) = (Mapped::new(file.clone(), 64 * PAGE_SIZE, Sharing::Shared), {
        Mapped::new(file.clone(), 64 * PAGE_SIZE, Sharing::Private)
    });
    assert_eq!(file.pages().mappings(), 2);
    assert_eq!((one.load(0), other.load(8192)), (Ok(0), Ok(0)));
    write(0, &[3; 10_000]);
    assert_eq!((one.load(0), other.load(8192), one.load(12_000)), (Ok(3), Ok(3), Ok(0)));
    one.store(5, 4).unwrap();
    other.store(6, 9).unwrap();
    assert_eq!((one.load(6), other.load(6), other.load(5)), (Ok(3), Ok(9), Ok(4)));
    // Synced pages fault again when they are stored to.
    assert_eq!(file.pages().dirty_entries(), 1);
    file.msync(0, 63).unwrap();
    assert_eq!(file.pages().dirty_entries(), 0);
    one.store(7, 4).unwrap();
    assert_eq!(file.pages().dirty_entries(), 1);
    // What is cut off is mapped nowhere.
    one.store(20 * PAGE_SIZE, 8).unwrap();
    set_size(4096);
    assert_eq!(one.load(20 * PAGE_SIZE), Err(FaultResult::SIGBUS));
    assert_eq!((one.load(5), other.load(6)), (Ok(4), Ok(9)));
    set_size(0);
    assert!(one.flat.leaves.lock().unwrap().is_empty() && other.flat.leaves.lock().unwrap().is_empty());
    assert_eq!((one.load(0), other.load(0)), (Err(FaultResult::SIGBUS), Err(FaultResult::SIGBUS)));
    set_size(8192);
    assert_eq!((one.load(5), other.load(6)), (Ok(0), Ok(0)));
    drop((one, other));
    assert_eq!(file.pages().mappings(), 0);
}

#[test]
fn it_hears_of_what_happens_to_a_file_of_ext2() {
    let (_device, fs) = fresh(16);
    let file = file(&fs, b"f");
    exercise(
        Arc::new(file.clone()),
        &|size| file.truncate(size, Wait::Yes).unwrap(),
        // By the door of the file system below.
        &|pos, bytes| assert_eq!(file.inode().write_at(pos, bytes), Ok(bytes.len())),
    );
}

#[test]
fn it_hears_of_what_happens_to_a_file_of_the_toy() {
    let toy = Toy::new(Flaw::None);
    exercise(toy.clone(), &|size| toy.set_size(size, Wait::Yes).unwrap(), &|pos, bytes| {
        let mut source = SliceSource::new(bytes);
        let done = ext2_dax::rw::write(&*toy, pos, bytes.len() as u64, &mut source, Default::default());
        assert_eq!(done.unwrap(), bytes.len() as u64);
    });
}
