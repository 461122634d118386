//! Random operations on stacks of devices, against a vector of bytes.

#![cfg(feature = "std")]

use std::fs::File;

use blockdev::{
    Access, Backend, BlockDevice, CacheOptions, Cached, Counted, DeviceOptions, Durability, Faulty, Overlay,
    Partition, RamDevice, Recorder, open_image,
};
use proptest::prelude::*;
use tempfile::TempDir;

const SIZE: u64 = 300_000;

#[derive(Clone, Debug)]
enum Step {
    Write(u64, usize, u8),
    Zero(u64, u64),
    Read(u64, usize),
    Word(u64, u32),
    Words(u64, usize, u32),
    /// A store through a slice of some pages, cached or not.
    Slice {
        page: u64,
        pages: u64,
        at: u64,
        len: usize,
        value: u8,
        cached: bool,
    },
    Fence,
    Flush,
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..SIZE + 10, 1 => (0..SIZE / 4096).prop_map(|page| page * 4096), 1 => any::<u64>()]
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0..20_usize, 3 => 0..9000_usize, 1 => 0..200_000_usize, 1 => Just(4096)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (offset(), len(), 1..255_u8).prop_map(|(at, len, value)| Step::Write(at, len, value)),
        2 => (offset(), len()).prop_map(|(at, len)| Step::Zero(at, len as u64)),
        3 => (offset(), len()).prop_map(|(at, len)| Step::Read(at, len)),
        1 => (offset(), any::<u32>()).prop_map(|(at, value)| Step::Word(at & !3, value)),
        1 => (offset(), 0..2500_usize, any::<u32>()).prop_map(|(at, len, value)| Step::Words(at & !3, len, value)),
        3 => (0..SIZE / 4096 + 2, 0..5_u64, 0..9000_u64, len(), 1..255_u8, any::<bool>()).prop_map(
            |(page, pages, at, len, value, cached)| Step::Slice { page, pages, at, len, value, cached }
        ),
        1 => Just(Step::Fence),
        1 => Just(Step::Flush),
    ]
}

fn inside(offset: u64, len: u64) -> Option<std::ops::Range<usize>> {
    let end = offset.checked_add(len).filter(|&end| end <= SIZE)?;
    Some(offset as usize..end as usize)
}

fn agree(device: &dyn BlockDevice, steps: &[Step]) {
    let mut model = vec![0_u8; SIZE as usize];
    for step in steps {
        match *step {
            Step::Write(at, len, value) => {
                let done = device.write_at(at, &vec![value; len]);
                let range = inside(at, len as u64);
                assert_eq!(done.is_ok(), range.is_some(), "{step:?}: {done:?}");
                range.into_iter().for_each(|range| model[range].fill(value));
            }
            Step::Zero(at, len) => {
                let done = device.zero(at, len);
                let range = inside(at, len);
                assert_eq!(done.is_ok(), range.is_some(), "{step:?}: {done:?}");
                range.into_iter().for_each(|range| model[range].fill(0));
            }
            Step::Read(at, len) => {
                let mut buf = vec![0; len];
                let done = device.read_at(at, &mut buf);
                match inside(at, len as u64) {
                    Some(range) => assert!(done.is_ok() && buf == model[range], "{step:?}: {done:?}"),
                    None => assert!(done.is_err()),
                }
            }
            Step::Words(at, len, value) => {
                let words: Vec<u32> = (0..len as u32).map(|nr| value.wrapping_mul(nr | 1)).collect();
                let done = device.write_words(at, &words);
                let range = inside(at, 4 * len as u64);
                assert_eq!(done.is_ok(), range.is_some(), "{step:?}: {done:?}");
                if let Some(range) = range {
                    let places = model[range].chunks_exact_mut(4).zip(&words);
                    places.for_each(|(place, word)| place.copy_from_slice(&word.to_le_bytes()));
                }
            }
            Step::Word(at, value) => {
                let done = device.write_u32(at, value);
                let range = inside(at, 4);
                assert_eq!(done.is_ok(), range.is_some());
                if let Some(range) = range {
                    assert_eq!(device.read_u32(at), Ok(value));
                    model[range].copy_from_slice(&value.to_le_bytes());
                }
            }
            Step::Slice { page, pages, at, len, value, cached } => {
                let Some(dax) = device.dax() else { continue };
                let Ok(slice) = dax.direct_access(page, pages, Access::Write) else { continue };
                let data = vec![value; len];
                let done = if cached { slice.copy_in_cached(at, &data) } else { slice.copy_in(at, &data) };
                assert_eq!(done.is_ok(), at + len as u64 <= slice.len());
                if done.is_ok() {
                    dax.write_back(page * 4096 + at, len as u64).unwrap();
                    let at = (page * 4096 + at) as usize;
                    model[at..at + len].fill(value);
                    let mut back = vec![0; slice.len() as usize];
                    slice.copy_out(0, &mut back).unwrap();
                    let page = (page * 4096) as usize;
                    assert!(back == model[page..page + back.len()], "{step:?}");
                }
            }
            Step::Fence => device.fence().unwrap(),
            Step::Flush => device.flush().unwrap(),
        }
    }
    let mut all = vec![0; SIZE as usize];
    device.read_at(0, &mut all).unwrap();
    assert!(all == model, "the whole device differs");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_stack_agrees_with_a_vector(steps in prop::collection::vec(step(), 1..60)) {
        let ram = || RamDevice::new(SIZE).unwrap();
        let small = CacheOptions { bytes: 40 * 512, block_size: 512 };
        agree(&ram(), &steps);
        agree(&Overlay::new(Cached::new(ram(), small).unwrap()).unwrap(), &steps);
        agree(&Cached::new(ram(), small).unwrap(), &steps);
        let whole = RamDevice::new(SIZE + 16384).unwrap();
        agree(&Faulty::new(Counted::new(Partition::new(&whole, 8192, SIZE).unwrap())), &steps);
        let skewed = Recorder::new(RamDevice::new(SIZE + 512).unwrap());
        agree(&Partition::new(skewed, 512, SIZE).unwrap(), &steps);
        // Flushes of files wait for a disk; one is enough.
        let mut steps = steps;
        steps.retain(|step| !matches!(step, Step::Fence | Step::Flush));
        steps.push(Step::Flush);
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("image");
        for kind in [Backend::Mmap, Backend::File, Backend::Cached, Backend::Ram] {
            File::create(&path).unwrap().set_len(SIZE).unwrap();
            let options = DeviceOptions { kind, ..DeviceOptions::read_write() };
            agree(&*open_image(&path, &options).unwrap(), &steps);
        }
        File::create(&path).unwrap().set_len(SIZE).unwrap();
        let options = DeviceOptions { durability: Durability::Strict, ..DeviceOptions::read_write() };
        agree(&*open_image(&path, &options).unwrap(), &steps);
    }
}
