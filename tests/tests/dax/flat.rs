//! A table of pages that is no tree: from addresses to what they lead to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use blockdev::Access;
use e2dax_tests::Hook;
use ext2_dax::entry::{DevPage, PAGE_SIZE};
use ext2_dax::fault::{FaultRequest, FaultResult, StoreOrLoad};
use ext2_dax::mapping::{PrivateCopies, Translations};
use ext2_dax::mmu::{
    CowPage, PageTable, Protection, Sharing, Slot, SlotTaken, Target, VmFile, Vma, Writable,
};

/// What a page leads to.
#[derive(Debug)]
pub(crate) enum Leaf {
    Zero,
    Device(DevPage, Writable),
    Mine(CowPage),
}

/// A flat table from addresses of pages to what they lead to.
#[derive(Debug)]
struct Flat {
    vma: Vma,
    leaves: Mutex<BTreeMap<u64, Leaf>>,
    /// Before the next page is mapped by a fault, which has looked at the block map by then.
    before_map: Hook,
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
        self.before_map.run();
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
pub(crate) struct Mapped {
    file: Arc<dyn VmFile>,
    flat: Arc<Flat>,
}

impl Mapped {
    pub(crate) fn new(file: Arc<dyn VmFile>, len: u64, sharing: Sharing) -> Self {
        file.check_map(sharing, Protection::ReadWrite).unwrap();
        let start = 0x4000_0000;
        let vma = Vma { start, end: start + len, pgoff: 0, sharing, protection: Protection::ReadWrite };
        let flat = Arc::new(Flat { vma, leaves: Mutex::default(), before_map: Hook::default() });
        let heard: Arc<dyn Translations> = Arc::<Flat>::clone(&flat);
        file.pages().attach(heard);
        Self { file, flat }
    }

    /// Does something before the next page is mapped.
    pub(crate) fn before_map(&self, work: impl FnOnce() + Send + 'static) {
        self.flat.before_map.set(work);
    }

    /// Whether nothing is mapped.
    pub(crate) fn is_empty(&self) -> bool {
        self.flat.leaves.lock().unwrap().is_empty()
    }

    fn fault(&self, address: u64, access: StoreOrLoad) -> Result<(), FaultResult> {
        let table: &Flat = &self.flat;
        let result = self.file.fault(&FaultRequest { vma: &self.flat.vma, table, address, access });
        if result.is_error() { Err(result) } else { Ok(()) }
    }

    pub(crate) fn load(&self, at: u64) -> Result<u8, FaultResult> {
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

    pub(crate) fn store(&self, at: u64, byte: u8) -> Result<(), FaultResult> {
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
