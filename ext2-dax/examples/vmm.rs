//! The memory slots of a virtual machine whose RAM, or persistent memory, is a file of an image: each run of blocks is a slot,
//! at its place in the guest, and a lease keeps the blocks in their places for as long as the guest runs.
//!
//! A monitor gives each slot to KVM (`KVM_SET_USER_MEMORY_REGION`: slot, guest address, length, address in this process).
//! Here a thread stands for the guest, and stores through the addresses that it is given.

use std::error::Error;
use std::sync::Arc;

use blockdev::{Access, MmapDevice};
use ext2_core::{BlockSize, Ext2, FileKind, NewInode, OpenOptions};
use ext2_dax::Wait;
use ext2_dax::mmu::host::{HostMap, HostMmu, HostOptions};
use ext2_dax::mmu::soft::MapRequest;
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::{DaxFs, DaxOptions, Errno, File, Lease, Leased, OpenFor};
use ext2_image::mkfs::{self, Format, Fresh};

/// A run of memory of the guest.
#[derive(Debug)]
struct Slot {
    guest: u64,
    len: u64,
    /// Where it is in the mapping.
    offset: u64,
}

/// The slots of a file: what has blocks. A guest that touches a hole leaves its memory, and the monitor stores for it.
fn slots(lease: &Lease, guest: u64) -> Result<Vec<Slot>, Box<dyn Error>> {
    let mut slots: Vec<Slot> = Vec::new();
    for (start, part) in lease.parts()? {
        let Leased::Memory(memory) = part else { continue };
        match slots.last_mut() {
            // The file's order is the mapping's order, whatever the blocks are.
            Some(last) if last.offset + last.len == start => last.len += memory.len(),
            _ => slots.push(Slot { guest: guest + start, len: memory.len(), offset: start }),
        }
    }
    Ok(slots)
}

/// What the guest does: it counts in the first word of each of its slots.
fn run_guest(map: &HostMap, slots: &[Slot]) -> Result<(), Box<dyn Error>> {
    for slot in slots {
        let memory = map.slice(slot.offset, slot.len)?;
        memory.store_u64(0, memory.load_u64(0)? + 1)?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let image = tempfile::Builder::new().prefix("vmm").tempfile()?;
    image.as_file().set_len(64 << 20)?;
    let device = MmapDevice::open(image.path(), &blockdev::DeviceOptions::read_write())?;
    mkfs::format(&device, &Format { block_size: BlockSize::new(4096), ..Format::default() }, Fresh::Zeros)?;
    let ext2 = Ext2::open(Arc::new(device), &OpenOptions::default())?;
    let fs = DaxFs::new(ext2.clone(), DaxOptions::default());
    let inode = ext2.root()?.create(b"ram", &NewInode::new(FileKind::Regular, 0o600))?;
    let file = File::open(&fs, inode, OpenFor::Writing)?;
    // A kernel at the beginning, a device tree near the end, and a hole between.
    let size = 16 << 20;
    file.write_at(0, &vec![0; 4 << 20])?;
    file.write_at(size - (1 << 20), &vec![0; 1 << 20])?;

    let mmu = HostMmu::new(HostOptions::default())?;
    println!("{}", mmu.capabilities());
    let (sharing, protection) = (Sharing::Shared, Protection::ReadWrite);
    let map = file.map_host(&mmu, &MapRequest { offset: 0, len: size, sharing, protection, colour: 0 })?;
    let lease = file.lease(0..size, Access::Write)?;
    let slots = slots(&lease, 0x4000_0000)?;
    for (nr, slot) in slots.iter().enumerate() {
        let host = map.as_ptr().addr() as u64 + slot.offset;
        println!("slot {nr}: guest {:#x}, {} KiB, here {host:#x}", slot.guest, slot.len >> 10);
    }
    std::thread::scope(|scope| {
        scope.spawn(|| run_guest(&map, &slots).map_err(|error| error.to_string())).join()
    })
    .map_err(|_| "the guest died")??;

    // Nobody takes the memory away while the guest has it.
    let refused = file.truncate(0, Wait::No);
    assert!(refused.is_err_and(|error| error.is(Errno::BUSY)));
    lease.sync()?;
    drop(lease);
    let mut word = [0; 8];
    file.read_at(size - (1 << 20), &mut word)?;
    println!("the last slot counts {}", u64::from_le_bytes(word));
    file.truncate(0, Wait::No)?;
    drop((map, file, fs));
    let _ = ext2.close()?;
    Ok(())
}
