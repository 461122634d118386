//! A load or store that fails in the middle of a transfer, and would work the next time: what is reported is what was moved.

use std::sync::Arc;

use blockdev::{Calls, Fault, Faulty, RamDevice};
use e2dax_tests::ShortRuns;
use ext2_core::FileBlock;
use ext2_dax::rw::Limits;
use ext2_dax::uio::SliceSink;

use crate::setup::{file, format, open};

const PAGE: usize = 4096;

/// Four pages of which each has a byte of its own.
fn four() -> Vec<u8> {
    (0..4 * PAGE).map(|at| 1 + (at / PAGE) as u8).collect()
}

#[test]
fn among_runs_of_a_page_no_byte_is_reported_in_the_place_of_another() {
    let memory = ShortRuns { ram: RamDevice::new(4 << 20).unwrap(), most: 1 };
    format(&memory);
    let device = Arc::new(Faulty::new(memory));
    let file = file(&open(device.clone()), b"f");
    for after in 0..4 {
        file.write_all_at(0, &four()).unwrap();
        device.arm(Fault::once(Calls::LOAD, after));
        let mut read = vec![0; 4 * PAGE];
        let (len, mut sink) = (read.len() as u64, SliceSink::new(&mut read));
        let done = file.read_to(0, len, &mut sink, Limits::default());
        assert_eq!(device.fired(), 1);
        device.disarm();
        assert_eq!(done.is_err(), after == 0);
        let done = done.unwrap_or(0) as usize;
        assert_eq!((done, &read[..done]), (after as usize * PAGE, &four()[..done]));
        file.write_all_at(0, &[9; 4 * PAGE]).unwrap();
        device.arm(Fault::once(Calls::STORE, after));
        let done = file.write_at(0, &four());
        assert_eq!(device.fired(), 1);
        device.disarm();
        assert_eq!(done.is_err(), after == 0);
        let done = done.unwrap_or(0) as usize;
        file.read_exact_at(0, &mut read).unwrap();
        assert_eq!((done, &read[..done]), (after as usize * PAGE, &four()[..done]));
    }
}

#[test]
fn over_poison_that_cannot_be_healed_the_first_time_no_byte_is_written_in_the_place_of_another() {
    let memory = RamDevice::new(4 << 20).unwrap();
    format(&memory);
    let device = Arc::new(Faulty::new(memory));
    let file = file(&open(device.clone()), b"f");
    file.write_at(0, &[9; 4 * PAGE]).unwrap();
    let first = file.inode().map(FileBlock::new(0), 4).unwrap().target.unwrap();
    device.poison(u64::from(first.get()) + 1).unwrap();
    device.arm(Fault::once(Calls::WRITE, 0));
    let done = file.write_at(0, &four()).unwrap() as usize;
    device.disarm();
    assert_eq!(done, PAGE);
    // The rest, once more: as a program does that goes on behind what was written.
    file.write_all_at(done as u64, &four()[done..]).unwrap();
    let mut read = vec![0; 4 * PAGE];
    file.read_exact_at(0, &mut read).unwrap();
    assert_eq!(read, four());
}
