//! File systems in a part of a device that does not begin at a multiple of 2 MiB, as most partitions do.

use std::ops::ControlFlow;
use std::sync::Arc;

use blockdev::crash::{CrashState, PmemModel};
use blockdev::{BlockDevice, DaxDevice, Media, Partition, RamDevice, Recorder};
use ext2_core::{Ext2, FileBlock, OpenOptions, Wait};
use ext2_dax::mmu::Sharing;
use ext2_dax::mmu::soft::SoftMmu;

use crate::setup::{file, format, open, request};

const UNIT: u64 = 2 << 20;

/// Where the parts begin: one at a unit of the device, the others beside.
const BEGINS: [u64; 3] = [0, 1 << 20, UNIT - 4096];

/// Bytes of each.
const SIZE: u64 = 16 << 20;

fn part<D: BlockDevice>(whole: D, begin: u64) -> Partition<D> {
    Partition::new(whole, begin, SIZE).unwrap()
}

#[test]
fn a_store_fault_of_a_unit_returns_when_block_map_and_size_are_durable() {
    for begin in BEGINS {
        let ram = RamDevice::with_media(begin + SIZE, Media::Persistent).unwrap();
        let ram = part(ram, begin);
        format(&ram);
        let recorder = Arc::new(Recorder::new(ram.into_inner()));
        let fs = open(Arc::new(part(recorder.clone(), begin)));
        let file = file(&fs, b"f");
        fs.ext2().sync().unwrap();
        recorder.take();
        let base = recorder.inner().to_vec();
        file.write_at(0, &vec![1; UNIT as usize]).unwrap();
        let soft = SoftMmu::new();
        let map = file.map(&soft, &request(UNIT, Sharing::Synchronous)).unwrap();
        map.store(0, 7).unwrap();
        let counters = soft.counters();
        assert_eq!((counters.pmd_faults, counters.pmd_fallbacks), (1, 0), "at {begin}");
        // Whoever has the mapping writes the line back and fences, and relies on it.
        recorder.mark(1);
        fs.ext2().sync().unwrap();
        let log = recorder.snapshot();
        let (mut seen, mut lost) = (0, 0);
        PmemModel::new(&base, &log).run(|state: &CrashState<'_>| {
            if state.mark.is_some() {
                seen += 1;
                let image = part(RamDevice::from_bytes(state.image).unwrap(), begin);
                let fs = Ext2::open(Arc::new(image), &OpenOptions::read_only()).unwrap();
                let inode = fs.root().unwrap().lookup(b"f").unwrap();
                let blocks = inode.map(FileBlock::new(0), 512).unwrap();
                lost += u64::from(inode.size() < UNIT || blocks.is_hole() || blocks.count < 512);
            }
            ControlFlow::Continue(())
        });
        assert!(seen > 0);
        assert_eq!(lost, 0, "at {begin}: of {seen} states");
    }
}

#[test]
fn a_store_to_a_hole_gets_a_unit_that_is_aligned_in_the_memory_of_the_device() {
    for begin in BEGINS {
        let part = Arc::new(part(RamDevice::new(begin + SIZE).unwrap(), begin));
        format(&*part);
        let fs = open(part.clone());
        let file = file(&fs, b"f");
        file.truncate(2 * UNIT, Wait::Yes).unwrap();
        let soft = SoftMmu::new();
        let map = file.map(&soft, &request(2 * UNIT, Sharing::Shared)).unwrap();
        for at in (0..2 * UNIT).step_by(4096) {
            map.store(at, 7).unwrap();
        }
        let counters = soft.counters();
        assert_eq!((counters.pmd_faults, counters.pte_faults), (2, 0), "at {begin}");
        for unit in 0..2 {
            let run = file.inode().map(FileBlock::new(unit * 512), 512).unwrap();
            let first = u64::from(run.target.unwrap().get());
            assert_eq!((run.count, part.pfn(first) % 512), (512, 0), "at {begin}");
        }
    }
}
