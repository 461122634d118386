//! A VMM gives a file of an image to its guest as memory: each run of the file is a slot, and the blocks stay where they
//! are for as long as the guest has them.
//!
//! `cargo run -p ext2-dax --example vmm_slots`

use blockdev::Access;
use ext2_core::{Errno, Ext2, Follow, OpenOptions};
use ext2_dax::{DaxFs, DaxOptions, File, Lease, OpenFor, Wait};

/// A range of guest memory, and where it lies in the image (none for a hole, which gets zeroed memory).
#[derive(Debug)]
struct Slot {
    guest: u64,
    len: u64,
    image: Option<u64>,
}

/// A guest's file: the lease lives beside what it protects.
struct Shared {
    slots: Vec<Slot>,
    _lease: Lease,
}

fn share(file: &File, guest: u64) -> ext2_dax::Result<Shared> {
    let lease = file.lease(0..file.size(), Access::Write)?;
    let slot =
        |run: ext2_dax::LeasedRun| Slot { guest: guest + run.start, len: run.len, image: run.device_byte };
    let slots = lease.runs()?.into_iter().map(slot).collect();
    Ok(Shared { slots, _lease: lease })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let fs = Ext2::open(ext2_image::mkfs::in_memory(16 << 20)?, &OpenOptions::default())?;
    fs.write("disk", vec![7; 5 << 20])?;
    let file = File::open(
        &DaxFs::new(fs.clone(), DaxOptions::default()),
        fs.resolve("disk", Follow::Yes)?,
        OpenFor::Writing,
    )?;
    file.punch_hole(1 << 20, 1 << 20, Wait::Yes)?;

    let shared = share(&file, 0x1_0000_0000)?;
    for slot in &shared.slots {
        println!("guest {:#x}, {:#x} bytes: image {:x?}", slot.guest, slot.len, slot.image);
    }
    assert_eq!(shared.slots.iter().map(|slot| slot.len).sum::<u64>(), 5 << 20);
    assert!(shared.slots.iter().any(|slot| slot.image.is_none()));

    // Nobody takes the memory away while the guest has it.
    let refused = file.truncate(0, Wait::No).expect_err("it is leased");
    assert!(refused.is(Errno::BUSY), "{refused}");
    drop(shared);
    file.truncate(0, Wait::No)?;
    Ok(())
}
