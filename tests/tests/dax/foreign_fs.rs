//! The conformance suite, and who passes it: ext2 and the toy, and no toy that breaks a rule.

use std::sync::Arc;

use blockdev::{BlockDevice, DaxDevice, RamDevice};
use ext2_core::{Ext2, FileBlock, OpenOptions};
use ext2_dax::Wait;
use ext2_dax::conformance::{self, RULES, Subject};
use ext2_dax::error::Result;
use ext2_dax::fault::{DaxInode, FaultRequest, FaultResult};
use ext2_dax::mmu::{Protection, Sharing, VmFile};

use crate::setup::{file, format, fresh, map};
use crate::toy::{Flaw, Toy};

#[test]
fn a_file_system_written_from_the_contract_keeps_it() {
    conformance::check(|| Toy::new(Flaw::None)).unwrap();
}

#[test]
fn each_flaw_is_found_by_the_rule_that_it_breaks() {
    let flaws = [
        (Flaw::DirtyPages, &[3, 6][..]),
        (Flaw::DirtyWrites, &[3]),
        (Flaw::StrayPage, &[7]),
        (Flaw::SizeOfRequest, &[4, 5]),
        (Flaw::ShortHoles, &[0]),
        (Flaw::Silent, &[8, 9]),
        (Flaw::Eager, &[0, 1]),
        (Flaw::KeepsTail, &[10]),
        (Flaw::CutsAlone, &[10]),
    ];
    for (flaw, rules) in flaws {
        let broken = conformance::check(|| Toy::new(flaw)).expect_err("found");
        assert!(rules.iter().any(|nr| RULES[*nr] == broken.rule), "{flaw:?}: {broken}");
    }
}

/// ext2 keeps the contract too, by the same suite: through its public file.
#[test]
fn what_the_suite_asks_of_a_page_table_ext2_s_files_do_as_well() {
    // `DaxInode` of ext2 is not public, so its rules are those of the file's calls.
    let device = RamDevice::new(32 << 20).unwrap();
    format(&device);
    // Free blocks have bytes of others.
    let fs = Ext2::open(Arc::new(device), &OpenOptions::default()).unwrap();
    let dirty = crate::setup::inode(&fs, b"dirty");
    dirty.write_at(0, &vec![0xee; 24 << 20]).unwrap();
    drop(dirty);
    fs.root().unwrap().unlink(b"dirty").unwrap();
    let fs = ext2_dax::DaxFs::new(fs, ext2_dax::DaxOptions::default());
    let file = file(&fs, b"f");
    file.write_at(100, b"hello").unwrap();
    file.truncate(5 << 20, Wait::Yes).unwrap();
    let map = map(&file, 5 << 20, Sharing::Shared);
    map.store(3 << 20, 7).unwrap();
    let mut bytes = vec![1; 5 << 20];
    file.read_at(0, &mut bytes).unwrap();
    let strange = (0..).zip(&bytes).find(|&(at, byte)| {
        let wanted = match at {
            100..105 => b"hello"[at - 100],
            at if at == 3 << 20 => 7,
            _ => 0,
        };
        *byte != wanted
    });
    assert_eq!(strange, None);
    assert_eq!(file.inode().map(FileBlock::new(512), 512).unwrap().count, 512);
}

/// A disk that is as good as full has pages, and no units: the fault says so and takes one page.
#[test]
fn a_full_disk_gives_pages_where_it_has_no_units() {
    let (_device, fs) = fresh(16);
    let full = file(&fs, b"full");
    // All but the last 64 pages or so.
    let free = fs.ext2().statfs().unwrap().blocks_free * 4096;
    full.write_at(0, &vec![1; usize::try_from(free - (64 << 12)).unwrap()]).unwrap();
    let log = ext2_dax::trace::EventLog::new();
    fs.tracer().listen(Some(log.clone()));
    let sparse = file(&fs, b"sparse");
    sparse.truncate(2 << 20, Wait::Yes).unwrap();
    let map = map(&sparse, 2 << 20, Sharing::Shared);
    map.store(5, 9).unwrap();
    let reasons: Vec<_> = log
        .take()
        .iter()
        .filter_map(|record| match record.event {
            ext2_dax::trace::Event::Fallback { reason, .. } => Some(reason),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, [ext2_dax::fault::Fallback::NoUnit]);
    assert_eq!(sparse.inode().attr().blocks_512, 8);
}

/// Nothing but what the public traits have is needed to stand between: a file of somebody else's that counts.
#[derive(Debug)]
struct Counting<F>(F, std::sync::atomic::AtomicU64);

impl<F: VmFile> VmFile for Counting<F> {
    fn pages(&self) -> &Arc<ext2_dax::mapping::DaxMapping> {
        self.0.pages()
    }
    fn memory(&self) -> &dyn DaxDevice {
        self.0.memory()
    }
    fn fault(&self, request: &FaultRequest<'_>) -> FaultResult {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.0.fault(request)
    }
    fn has_huge_faults(&self) -> bool {
        false
    }
    fn huge_fault(&self, _: &FaultRequest<'_>) -> FaultResult {
        FaultResult::FALLBACK
    }
    fn msync(&self, first: u64, last: u64) -> Result<()> {
        self.0.msync(first, last)
    }
    fn check_map(&self, sharing: Sharing, protection: Protection) -> Result<()> {
        self.0.check_map(sharing, protection)
    }
}

#[test]
fn a_file_is_mapped_through_a_layer_of_somebody_else_s() {
    let (device, fs) = fresh(16);
    let file = file(&fs, b"f");
    file.write_at(0, &[5; 8192]).unwrap();
    let counting = Arc::new(Counting(file.clone(), Default::default()));
    let mmu = ext2_dax::mmu::soft::SoftMmu::new();
    let map = mmu.map(counting.clone(), &crate::setup::request(8192, Sharing::Shared)).unwrap();
    assert_eq!((map.load(0), map.load(4096), map.store(1, 6)), (Ok(5), Ok(5), Ok(())));
    assert_eq!(counting.1.load(std::sync::atomic::Ordering::Relaxed), 3);
    assert_eq!(VmFile::memory(&file).size(), device.size());
    let toy = Toy::new(Flaw::None);
    toy.set_size(8192, Wait::Yes).unwrap();
    assert_eq!(DaxInode::size(&*toy), 8192);
}
