//! Files over DAX, as the tests of calls and faults map and read them.

use ext2_dax::File;
use ext2_dax::mmu::soft::{MapRequest, SoftMap, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing};

/// The first `len` bytes of a file, mapped shared in an address space of its own.
pub fn map(file: &File, len: u64) -> SoftMap {
    let (sharing, protection) = (Sharing::Shared, Protection::ReadWrite);
    let request = MapRequest { offset: 0, len, sharing, protection, colour: 0 };
    file.map(&SoftMmu::new(), &request).unwrap()
}

/// Up to `len` bytes of a file from byte `pos`, as far as it goes.
pub fn read(file: &File, pos: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    let got = file.read_at(pos, &mut bytes).unwrap();
    bytes.truncate(got as usize);
    bytes
}
