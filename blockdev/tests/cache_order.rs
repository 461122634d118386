//! The cache: that it conforms at any size, stays within its memory, and keeps the order of fences.

#![cfg(feature = "std")]

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use blockdev::crash::{BlockModel, CrashLimits, FenceMeans};
use blockdev::{
    BlockDevice, CacheOptions, Cached, Calls, Counted, Fault, Faulty, Overlay, Partition, RamDevice,
    ReadOnly, RecordedOp, Recorder, Stored, conformance,
};
use proptest::prelude::*;

const SIZE: u64 = (1 << 20) + 1234;

fn ram() -> RamDevice {
    RamDevice::new(SIZE).unwrap()
}

fn options(blocks: u64, block_size: u32) -> CacheOptions {
    CacheOptions { bytes: blocks * u64::from(block_size), block_size }
}

#[test]
fn a_cache_conforms_at_any_size() {
    for options in
        [options(8, 512), options(9, 4096), options(64, 1024), options(4, 65536 * 2), CacheOptions::default()]
    {
        match Cached::new(ram(), options) {
            Ok(cached) => {
                conformance::check(&cached);
                assert!(cached.held_blocks() * u64::from(options.block_size) <= options.bytes);
            }
            Err(error) => assert!(options.bytes < 8 * u64::from(options.block_size), "{error}"),
        }
    }
    conformance::check(&Cached::new(Partition::new(ram(), 512, 300_000).unwrap(), options(20, 512)).unwrap());
    conformance::check(&Overlay::new(Cached::new(ram(), options(20, 512)).unwrap()).unwrap());
    conformance::check_read_only(&Cached::new(ReadOnly::new(ram()), options(20, 512)).unwrap());
}

#[test]
fn a_cache_of_no_use_is_refused() {
    for options in [options(7, 4096), options(100, 256), options(100, 3000), options(0, 512)] {
        assert!(Cached::new(ram(), options).is_err(), "{options:?}");
    }
}

#[test]
fn a_fence_below_that_fails_while_room_is_made_is_told_to_who_flushes_next() {
    let cached = Cached::new(Faulty::new(ram()), options(8, 512)).unwrap();
    let write = |block: u64| cached.write_at(block * 512, &[1; 512]);
    (0..8).try_for_each(write).unwrap();
    cached.fence().unwrap();
    // Makes room: what is before the fence goes below, and may be lost there as long as no fence below succeeds.
    (8..16).try_for_each(write).unwrap();
    cached.fence().unwrap();
    cached.inner().arm(Fault::once(Calls::FENCE, 0));
    let unlucky = (16..24).filter(|block| write(*block).is_err()).count();
    assert_eq!((unlucky, cached.inner().fired()), (1, 1));
    // One writer knows; whoever wrote before must not be told that all is durable.
    assert!(cached.flush().is_err());
    cached.flush().unwrap();
    // A flush that meets it itself has told it.
    write(0).unwrap();
    cached.fence().unwrap();
    write(1).unwrap();
    cached.inner().arm(Fault::once(Calls::FENCE, 0));
    assert!(cached.flush().is_err());
    cached.flush().unwrap();
}

#[test]
fn what_is_flushed_is_below_and_neighbours_go_together() {
    let cached = Cached::new(Counted::new(ram()), CacheOptions::default()).unwrap();
    for at in (0..65536).rev().step_by(100) {
        cached.write_at(at, &[at as u8 | 1; 100]).unwrap();
    }
    assert_eq!(cached.inner().snapshot().writes, 0);
    cached.flush().unwrap();
    let counts = cached.inner().snapshot();
    assert_eq!((counts.writes, counts.flushes), (1, 1), "one run of neighbours");
    let (mut above, mut below) = (vec![0; 70_000], vec![0; 70_000]);
    cached.read_at(0, &mut above).unwrap();
    cached.inner().read_at(0, &mut below).unwrap();
    assert!(above == below && above[65000] != 0);
    assert_eq!(cached.stats().written_blocks, 17);
}

#[test]
fn reading_forward_reads_ahead_and_reading_again_reads_nothing() {
    let cached = Cached::new(Counted::new(ram()), CacheOptions::default()).unwrap();
    for at in (0..SIZE - 512).step_by(512) {
        cached.read_at(at, &mut [0; 512]).unwrap();
    }
    let reads = cached.inner().snapshot().reads;
    assert!(reads <= SIZE / (8 * 4096) + 2, "{reads} reads below");
    cached.read_at(0, &mut vec![0; SIZE as usize]).unwrap();
    assert_eq!(cached.inner().snapshot().reads, reads);
}

#[test]
fn dropping_a_cache_flushes_what_it_wrote_around_itself() {
    let device = Faulty::new(RamDevice::new(1 << 20).unwrap());
    // Counts, and never strikes.
    device.arm(Fault::once(Calls::FLUSH, u64::MAX));
    let cached = Cached::new(&device, CacheOptions::default()).unwrap();
    cached.zero(0, 1 << 20).unwrap();
    drop(cached);
    assert_eq!(device.counted(), 1);
    drop(Cached::new(&device, CacheOptions::default()).unwrap());
    assert_eq!(device.counted(), 1, "nothing was written");
}

#[test]
fn dropping_a_cache_writes_what_it_holds() {
    let below = Arc::new(ram());
    let cached = Cached::new(Arc::clone(&below), CacheOptions::default()).unwrap();
    cached.write_at(5000, b"kept").unwrap();
    drop(cached);
    assert_eq!(&below.to_vec()[5000..5004], b"kept");
}

#[test]
fn a_failed_write_below_loses_nothing() {
    let cached = Cached::new(Faulty::new(ram()), options(16, 512)).unwrap();
    cached.write_at(0, &[1; 4096]).unwrap();
    cached.inner().arm(Fault::from_then_on(Calls::WRITE | Calls::FLUSH, 0));
    assert!(cached.flush().is_err());
    // No room can be made for more than the cache holds.
    assert!(cached.write_at(8192, &[2; 16384]).is_err());
    let mut buf = [0; 4096];
    cached.read_at(0, &mut buf).unwrap();
    assert_eq!(buf, [1; 4096]);
    cached.inner().disarm();
    cached.flush().unwrap();
    cached.inner().read_at(0, &mut buf).unwrap();
    assert_eq!(buf, [1; 4096]);
}

#[test]
fn threads_that_share_a_small_cache_see_their_own_writes() {
    let cached = Cached::new(ram(), options(16, 512)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let cached = &cached;
            scope.spawn(move || {
                // Interleaved blocks, so that runs and shards are shared.
                for round in 0..200_u64 {
                    for block in (thread..200).step_by(4).skip(round as usize % 7) {
                        let value = (round << 32 | block << 8 | thread).to_le_bytes();
                        cached.write_at(block * 512 + thread * 8, &value).unwrap();
                        let mut back = [0; 8];
                        cached.read_at(block * 512 + thread * 8, &mut back).unwrap();
                        assert_eq!(back, value);
                        if block % 50 == 0 {
                            cached.fence().unwrap();
                        }
                    }
                }
            });
        }
    });
    cached.flush().unwrap();
    let mut above = vec![0; SIZE as usize];
    cached.read_at(0, &mut above).unwrap();
    assert!(above == cached.inner().to_vec());
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64),
    /// A zeroing large enough to go around the cache.
    ZeroAll,
    Read(u64),
    Fence,
    Flush,
}

const BLOCKS: u64 = 40;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..BLOCKS).prop_map(Step::Write),
        1 => Just(Step::ZeroAll),
        3 => (0..BLOCKS).prop_map(Step::Read),
        3 => Just(Step::Fence),
        1 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every write has a number of its own, so an image below tells how far each block has come. An image
    /// is in order if there is an epoch of which some writes are there, all of those before and none of
    /// those after.
    #[test]
    fn no_crash_below_shows_an_epoch_before_the_end_of_another(steps in steps(), blocks in 8..30_u64) {
        let cached = Cached::new(
            Recorder::new(RamDevice::new(BLOCKS * 512).unwrap()),
            options(blocks, 512),
        ).unwrap();
        // For each block its versions: number and epoch; the first is that of the empty device.
        let mut versions = vec![vec![(0_u64, 0_u64)]; BLOCKS as usize];
        let (mut epoch, mut number) = (1, 0_u64);
        // Log entries below at the end of each flush, with the epoch it closed.
        let mut flushed = Vec::new();
        for step in &steps {
            match step {
                Step::Write(block) => {
                    number += 1;
                    cached.write_at(block * 512, &number.to_le_bytes().repeat(64)).unwrap();
                    versions[*block as usize].push((number, epoch));
                }
                Step::ZeroAll => {
                    cached.zero(0, BLOCKS * 512).unwrap();
                    versions.iter_mut().for_each(|list| list.push((0, epoch)));
                }
                Step::Read(block) => {
                    let mut word = [0; 8];
                    cached.read_at(block * 512, &mut word).unwrap();
                    let newest = versions[*block as usize].last().unwrap().0;
                    prop_assert_eq!(u64::from_le_bytes(word), newest);
                }
                Step::Fence => {
                    cached.fence().unwrap();
                    epoch += 1;
                }
                Step::Flush => {
                    cached.flush().unwrap();
                    let newest = versions.iter().map(|list| list.last().unwrap().0).collect::<Vec<_>>();
                    flushed.push((cached.inner().len(), newest));
                }
            }
        }
        let log = cached.inner().take();
        let base = vec![0; (BLOCKS * 512) as usize];
        let mut model = BlockModel::new(&base, &log).fences(FenceMeans::Durable);
        model.limits = CrashLimits { exhaustive: 300, ..CrashLimits::default() };
        let mut wrong = None;
        model.run(|state| {
            if !in_order(state.image, &versions) {
                wrong = Some((state.op, state.choice));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        prop_assert!(wrong.is_none(), "{wrong:?}");
        // What a flush below ends is durable, and holds everything that was written above.
        for (len, newest) in flushed {
            prop_assert!(matches!(log[len - 1], RecordedOp::Flush(_)));
            let mut image = base.clone();
            for op in &log[..len] {
                if let RecordedOp::Store { offset, data, .. } = op {
                    let range = *offset as usize..(*offset + data.len()) as usize;
                    match data {
                        Stored::Bytes(bytes) => image[range].copy_from_slice(bytes),
                        Stored::Zeros(_) => image[range].fill(0),
                    }
                }
            }
            prop_assert_eq!(image.chunks(512).map(number_of).collect::<Vec<_>>(), newest);
        }
    }
}

fn number_of(block: &[u8]) -> u64 {
    u64::from_le_bytes(block[..8].try_into().unwrap())
}

fn in_order(image: &[u8], versions: &[Vec<(u64, u64)>]) -> bool {
    // The epochs that explain every block. A number may stand for several versions only where it is 0.
    let epochs = versions.iter().flatten().map(|&(_, epoch)| epoch).collect::<BTreeSet<_>>();
    epochs.into_iter().any(|epoch| {
        image.chunks(512).zip(versions).all(|(block, versions)| {
            let number = number_of(block);
            versions.iter().enumerate().any(|(at, &(version, written))| {
                let next = versions.get(at + 1).map_or(u64::MAX, |next| next.1);
                version == number && written <= epoch && epoch <= next
            })
        })
    })
}
