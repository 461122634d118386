//! What a lease promises, and what it cannot hold up.

use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use blockdev::crash::{CrashState, PmemModel};
use blockdev::{Access, Media, RamDevice, Recorder};
use ext2_core::Wait;
use ext2_core::plumbing::Plumbing;
use ext2_dax::{Errno, File, Lease, Leased, LeasedPart};

use crate::setup::{file, finishes, format, fresh, open};

const PAGE: u64 = 4096;

#[test]
fn growing_waits_for_no_lease() {
    let (_device, fs) = fresh(16);
    let file = file(&fs, b"f");
    file.write_at(0, &[1; 4096]).unwrap();
    finishes("growth under a lease", move || {
        let lease = file.lease(0..1 << 20, Access::Write).unwrap();
        assert_eq!(file.write_at(8192, b"x").unwrap(), 1);
        file.truncate(300_000, Wait::Yes).unwrap();
        file.inode().truncate(400_000, Wait::Yes).unwrap();
        file.inode().write_at(500_000, b"y").unwrap();
        file.zero_range(0, 100).unwrap();
        file.sync().unwrap();
        assert_eq!(file.size(), 500_001);
        drop(lease);
    });
}

#[test]
fn who_leases_pages_is_refused_to_take_them_and_never_waits_for_himself() {
    let (_device, fs) = fresh(16);
    let file = file(&fs, b"f");
    file.write_at(0, &[1; 40_000]).unwrap();
    finishes("taking what one leases oneself", move || {
        let lease = file.lease(4096..8192, Access::Read).unwrap();
        let busy = |done: ext2_dax::Result<()>| assert!(done.is_err_and(|error| error.is(Errno::BUSY)));
        busy(file.truncate(0, Wait::Yes));
        busy(file.truncate(5000, Wait::Yes));
        busy(file.punch_hole(0, 40_000, Wait::Yes));
        busy(file.inode().punch_hole(4096, 4096, Wait::Yes).map_err(ext2_dax::Error::from));
        busy(file.inode().truncate(1, Wait::Yes).map_err(ext2_dax::Error::from));
        // What is not leased goes.
        file.truncate(8192, Wait::Yes).unwrap();
        file.punch_hole(0, 4096, Wait::Yes).unwrap();
        // Passed to another thread and used there, it is that one's, and this one waits.
        let (used, wait) = mpsc::channel();
        let holder = thread::spawn(move || {
            lease.parts().unwrap();
            used.send(()).unwrap();
            thread::sleep(Duration::from_millis(100));
            let busy = lease.range();
            drop(lease);
            busy
        });
        wait.recv().unwrap();
        assert!(file.truncate(0, Wait::No).is_err_and(|error| error.is(Errno::BUSY)));
        file.truncate(0, Wait::Yes).unwrap();
        assert_eq!(holder.join().unwrap(), 4096..8192);
    });
}

#[test]
fn what_is_leased_past_the_end_of_a_file_holds_no_truncation_up() {
    let (_device, fs) = fresh(16);
    let file = file(&fs, b"f");
    file.write_at(0, &[1; 10_000]).unwrap();
    let lease = file.lease(3 * PAGE..u64::MAX, Access::Write).unwrap();
    file.truncate(9000, Wait::No).unwrap();
    file.truncate(5000, Wait::Yes).unwrap();
    file.inode().free_past_size().unwrap();
    // The page in which it ends has bytes of it.
    let tail = file.lease(PAGE + 2000..2 * PAGE, Access::Read).unwrap();
    assert!(file.truncate(4500, Wait::No).is_err_and(|error| error.is(Errno::BUSY)));
    drop(tail);
    // What it is leased of by then.
    file.truncate(4 * PAGE, Wait::No).unwrap();
    assert!(file.truncate(5000, Wait::No).is_err_and(|error| error.is(Errno::BUSY)));
    drop(lease);
    file.truncate(0, Wait::No).unwrap();
}

#[test]
fn what_is_stored_through_a_lease_survives_every_crash_after_a_sync() {
    let ram = RamDevice::with_media(2 << 20, Media::Persistent).unwrap();
    format(&ram);
    let recorder = Arc::new(Recorder::new(ram));
    let fs = open(recorder.clone());
    let file = file(&fs, b"f");
    file.write_at(0, &[1; 4096]).unwrap();
    fs.ext2().sync().unwrap();
    type Sync = fn(&File, &Lease);
    let while_held: [(u64, Sync); 3] = [
        (64, |file, _| file.sync().unwrap()),
        (192, |_, lease| lease.sync().unwrap()),
        (320, |file, _| {
            file.inode().fs().sync().unwrap();
        }),
    ];
    for (at, sync) in while_held {
        recorder.take();
        let base = recorder.inner().to_vec();
        let lease = file.lease(0..4096, Access::Write).unwrap();
        let parts = lease.parts().unwrap();
        let Leased::Memory(memory) = parts[0].1 else { panic!("a hole") };
        memory.store_u64(at, 0x1122).unwrap();
        sync(&file, &lease);
        recorder.mark(1);
        // The same lease stores again, gives up, and the next sync covers it.
        memory.store_u64(at + 1024, 0x33).unwrap();
        let byte = memory.device_offset() as usize;
        drop(parts);
        drop(lease);
        file.sync().unwrap();
        recorder.mark(2);
        fs.ext2().sync().unwrap();
        let log = recorder.snapshot();
        let mut seen = [0, 0];
        PmemModel::new(&base, &log).run(|state: &CrashState<'_>| {
            let (at, mark) = (byte + at as usize, state.mark.unwrap_or(0));
            assert!(mark < 1 || state.image[at] == 0x22, "a synced store through a lease is lost");
            assert!(mark < 2 || state.image[at + 1024] == 0x33, "a store before the lease ended is lost");
            seen[usize::from(mark >= 2)] += 1;
            ControlFlow::Continue(())
        });
        assert!(seen[0] > 1 && seen[1] > 0, "{seen:?} states");
    }
}

#[test]
fn what_two_leases_lent_is_written_back_to_the_end_of_the_longer_whichever_ends_last() {
    for longer_ends_last in [false, true] {
        let ram = RamDevice::with_media(2 << 20, Media::Persistent).unwrap();
        format(&ram);
        let recorder = Arc::new(Recorder::new(ram));
        let fs = open(recorder.clone());
        let file = file(&fs, b"f");
        file.write_at(0, &[1; 8192]).unwrap();
        fs.ext2().sync().unwrap();
        recorder.take();
        let base = recorder.inner().to_vec();
        let short = file.lease(0..PAGE, Access::Write).unwrap();
        let long = file.lease(0..2 * PAGE, Access::Write).unwrap();
        short.parts().unwrap();
        let parts = long.parts().unwrap();
        let Leased::Memory(memory) = parts[0].1 else { panic!("a hole") };
        memory.store_u64(PAGE + 64, 0x1122).unwrap();
        let at = memory.device_offset() as usize + PAGE as usize + 64;
        drop(parts);
        if longer_ends_last {
            drop(short);
            drop(long);
        } else {
            drop(long);
            drop(short);
        }
        // A sync of the second page alone.
        file.lease(PAGE..2 * PAGE, Access::Read).unwrap().sync().unwrap();
        recorder.mark(1);
        let log = recorder.snapshot();
        let mut seen = 0;
        PmemModel::new(&base, &log).run(|state: &CrashState<'_>| {
            seen += u64::from(state.mark.is_some());
            assert!(state.mark.is_none() || state.image[at] == 0x22, "last: {longer_ends_last}");
            ControlFlow::Continue(())
        });
        assert!(seen > 0);
    }
}

#[test]
fn a_hole_that_is_filled_is_memory_when_the_lease_is_asked_again() {
    let (_device, fs) = fresh(16);
    let file = file(&fs, b"f");
    file.truncate(3 * PAGE, Wait::Yes).unwrap();
    let lease = file.lease(0..3 * PAGE, Access::Read).unwrap();
    assert!(matches!(lease.parts().unwrap()[..], [(0, Leased::Hole(len))] if len == 3 * PAGE));
    file.write_at(PAGE, &[7; 4096]).unwrap();
    let parts = lease.parts().unwrap();
    let kinds: Vec<_> = parts.iter().map(|(at, part)| (*at, matches!(part, Leased::Hole(_)))).collect();
    assert_eq!(kinds, [(0, true), (PAGE, false), (2 * PAGE, true)]);
    // What lies past the end of the file is nobody's, whatever the block has there.
    file.truncate(PAGE + 10, Wait::No).unwrap_err();
    drop(lease);
    file.truncate(PAGE + 10, Wait::No).unwrap();
    let lease = file.lease(0..u64::MAX, Access::Read).unwrap();
    let Leased::Memory(memory) = lease.parts().unwrap()[1].1 else { panic!("a hole") };
    assert_eq!(memory.len(), 10);
}

/// A lease and its memory in one place, without a lifetime.
struct Region {
    lease: Lease,
    parts: Vec<LeasedPart>,
}

#[test]
fn a_lease_and_its_parts_live_in_one_structure() {
    let (_device, fs) = fresh(16);
    let file = file(&fs, b"f");
    file.write_at(0, &[3; 9000]).unwrap();
    let lease = file.lease(0..20_000, Access::Write).unwrap();
    let region = Region { parts: lease.owned_parts().unwrap(), lease };
    let region = thread::spawn(move || {
        let memory = region.parts[0].memory().unwrap().unwrap();
        memory.store_u8(5, 4).unwrap();
        region
    })
    .join()
    .unwrap();
    let mut bytes = [0; 6];
    file.read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, [3, 3, 3, 3, 3, 4]);
    assert!(region.parts.iter().all(|part| !part.is_empty()));
    let last = region.parts.last().unwrap();
    assert!(last.memory().unwrap().is_none() && last.start() + last.len() == 20_000);
    assert_eq!((region.lease.range(), last.lease().range()), (0..20_000, 0..20_000));
    // The last part keeps it.
    let last = last.clone();
    drop(region);
    assert!(file.truncate(0, Wait::No).is_err_and(|error| error.is(Errno::BUSY)));
    drop(last);
    file.truncate(0, Wait::No).unwrap();
}

#[test]
fn leased_blocks_stay_while_the_file_grows_to_whole_units() {
    let (_device, fs) = fresh(64);
    let file = file(&fs, b"f");
    file.write_at(0, &[1; 8192]).unwrap();
    let place = |lease: &Lease| match lease.parts().unwrap()[0].1 {
        Leased::Memory(memory) => memory.device_offset(),
        Leased::Hole(_) => panic!("a hole"),
    };
    let lease = file.lease(0..8192, Access::Read).unwrap();
    let before = place(&lease);
    for page in 0..1024 {
        file.write_at(page * PAGE, &[2; 4096]).unwrap();
    }
    assert_eq!(place(&lease), before);
}

#[test]
fn types_may_be_sent_shared_compared_and_hashed() {
    fn sent<T: Send + Sync>() {}
    fn hashed<T: std::hash::Hash + Eq>() {}
    fn cloned<T: Clone + PartialEq>() {}
    sent::<ext2_dax::DaxFs>();
    sent::<File>();
    sent::<Lease>();
    sent::<LeasedPart>();
    sent::<Leased<'static>>();
    sent::<ext2_dax::mmu::soft::SoftMap>();
    sent::<ext2_dax::replay::Player>();
    sent::<ext2_dax::Error>();
    sent::<ext2_core::plumbing::Unpublished>();
    hashed::<ext2_core::Inode>();
    cloned::<ext2_dax::Error>();
    fn compared<T: Eq>() {}
    compared::<File>();
}

#[test]
fn a_hole_waits_for_leases_of_pages_that_it_takes_and_for_no_others() {
    for own in [true, false] {
        let (_device, fs) = fresh(16);
        let file = file(&fs, b"f");
        file.write_at(0, &[1; 40_000]).unwrap();
        let (tell, told) = mpsc::channel();
        let holder = file.clone();
        // Somebody has a page of the file for a moment, and something past its end for long.
        let other = thread::spawn(move || {
            let long = (!own).then(|| holder.lease(1 << 20..2 << 20, Access::Read).unwrap());
            let short = holder.lease(2 * PAGE..3 * PAGE, Access::Read).unwrap();
            tell.send(()).unwrap();
            thread::sleep(Duration::from_millis(200));
            drop(short);
            thread::sleep(Duration::from_secs(2));
            drop(long);
        });
        told.recv().unwrap();
        let _mine = own.then(|| file.lease(1 << 20..2 << 20, Access::Read).unwrap());
        let begin = Instant::now();
        let done = file.punch_hole(0, u64::MAX, Wait::Yes);
        let took = begin.elapsed();
        assert!(done.is_ok() && took < Duration::from_secs(1), "own {own}: {done:?} after {took:?}");
        other.join().unwrap();
    }
}

#[test]
fn a_part_of_a_lease_is_all_of_its_memory_or_the_poison_that_came_since() {
    let (device, fs) = fresh(16);
    let file = file(&fs, b"f");
    file.write_at(0, &[3; 4 * PAGE as usize]).unwrap();
    let parts = file.lease(0..4 * PAGE, Access::Read).unwrap().owned_parts().unwrap();
    let part = &parts[0];
    assert_eq!((parts.len(), part.len()), (1, 4 * PAGE));
    let first = part.memory().unwrap().unwrap().device_offset() / PAGE;
    for page in 0..4 {
        device.poison(first + page).unwrap();
        assert!(part.memory().is_err_and(|error| error.is(Errno::IO)), "page {page}");
        device.heal(first + page);
        assert_eq!(part.memory().unwrap().unwrap().len(), part.len());
    }
}
