//! An address space of somebody else's over files of ours and of others: it hears of every page that is taken away.

use std::sync::Arc;

use ext2_dax::Wait;
use ext2_dax::conformance::Subject;
use ext2_dax::entry::PAGE_SIZE;
use ext2_dax::fault::FaultResult;
use ext2_dax::mmu::{Sharing, VmFile};
use ext2_dax::uio::SliceSource;

use crate::flat::Mapped;
use crate::setup::{file, fresh};
use crate::toy::{Flaw, Toy};

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
    assert!(one.is_empty() && other.is_empty());
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
