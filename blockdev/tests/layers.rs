//! Layers: that each conforms, and what each is for.

#![cfg(feature = "std")]

use std::collections::BTreeMap;
use std::sync::Arc;

use blockdev::{
    Access, BlockDevice, CacheOptions, Cached, Calls, Counted, DaxDevice, DeviceOptions, Error, Extent,
    Fault, FaultError, Faulty, FileDevice, Media, Overlay, Partition, Patched, RamDevice, ReadOnly, Recorder,
    Repeat, Tear, conformance,
};

const SIZE: u64 = (1 << 20) + 1234;

fn ram() -> RamDevice {
    RamDevice::new(SIZE).unwrap()
}

#[test]
fn layers_conform() {
    conformance::check(&Faulty::new(ram()));
    conformance::check(&Overlay::new(ram()).unwrap());
    conformance::check(&Overlay::new(ReadOnly::new(ram())).unwrap());
    conformance::check(&Partition::new(ram(), 4096, 500_000).unwrap());
    conformance::check(&Partition::new(ram(), 512, 500_000).unwrap());
    conformance::check(&Partition::new(Counted::new(ram()), 8192, 500_000).unwrap());
    let device: Arc<dyn BlockDevice> = Arc::new(ram());
    conformance::check(&Faulty::new(Counted::new(Partition::from_offset(device, 4096).unwrap())));
    conformance::check_read_only(&Partition::new(ReadOnly::new(ram()), 4096, 500_000).unwrap());
    conformance::check_read_only(&Faulty::new(ReadOnly::new(ram())));
}

#[test]
fn layers_do_not_take_bytes_of_a_file_for_those_that_are_read_in_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    std::fs::File::create(&path).unwrap().set_len(64 << 10).unwrap();
    let patched = || {
        let file = FileDevice::open(&path, &DeviceOptions::read_only()).unwrap();
        Patched::new(file, 4096, BTreeMap::from([(4, vec![7; 4096])]))
    };
    let layers: [(Box<dyn BlockDevice>, u64); 2] = [
        (Box::new(ReadOnly::new(patched())), 16384),
        (Box::new(Partition::from_offset(patched(), 8192).unwrap()), 8192),
    ];
    for (layer, at) in layers {
        let mut found = [0; 16];
        layer.read_at(at, &mut found).unwrap();
        assert_eq!(found, [7; 16]);
        // The file has a hole there.
        assert_eq!(layer.extent(at, 4096).unwrap().0, Extent::Data);
        assert!(
            !layer.is_in_place(at + 4095, 1) && layer.is_in_place(at + 4096, 1) && layer.is_in_place(0, 4096)
        );
    }
}

#[test]
fn a_page_that_is_poisoned_below_an_overlay_is_healed_by_writing_all_of_it() {
    let below = ram();
    (1..4).try_for_each(|page| below.poison(page)).unwrap();
    let overlay = Overlay::new(below).unwrap();
    // A part of the first, and all of the second.
    assert_eq!(overlay.write_at(4097, &[7; 8191]), Err(Error::Poisoned { offset: 4096 }));
    overlay.write_at(8190, &[]).unwrap();
    overlay.write_at(8192, &[7; 4096]).unwrap();
    overlay.recovery_write(12288, &[8; 4097]).unwrap();
    let mut found = [0; 8193];
    overlay.read_at(8192, &mut found).unwrap();
    assert!(found[..4096] == [7; 4096] && found[4096..] == [8; 4097]);
    assert_eq!(overlay.read_at(8191, &mut found[..1]), Err(Error::Poisoned { offset: 4096 }));
}

#[test]
fn a_run_above_an_overlay_ends_before_a_page_that_is_poisoned_below_and_that_page_can_be_recovered() {
    let below = ram();
    below.poison(3).unwrap();
    let overlay = Overlay::new(below).unwrap();
    let poisoned = Error::Poisoned { offset: 3 * 4096 };
    assert_eq!(overlay.direct_access(0, 8, Access::Read).unwrap().len(), 3 * 4096);
    assert_eq!(overlay.direct_access(3, 1, Access::Write).unwrap_err(), poisoned);
    assert_eq!(overlay.direct_access(3, 1, Access::Recovery).unwrap().len(), 4096);
    assert_eq!(overlay.recovery_write(3 * 4096, &[7; 100]), Err(poisoned));
    overlay.recovery_write(3 * 4096, &[7; 4096]).unwrap();
    assert_eq!(overlay.direct_access(0, 8, Access::Read).unwrap().len(), 8 * 4096);
    assert_eq!(overlay.read_u32(3 * 4096), Ok(0x0707_0707));
}

#[test]
fn a_bad_block_takes_none_of_its_neighbours_along_when_a_cache_reads_ahead() {
    let below = Faulty::new(RamDevice::from_bytes(&[7; 64 << 10]).unwrap());
    below.poison(5).unwrap();
    let cached = Cached::new(below, CacheOptions::default()).unwrap();
    let mut buf = [0; 4096];
    for _ in 0..2 {
        let read: Vec<bool> = (0..16).map(|nr| cached.read_at(nr * 4096, &mut buf).is_ok()).collect();
        assert!((0..16).all(|nr| read[nr] == (nr != 5)), "{read:?}");
    }
}

#[test]
fn a_cache_reads_what_is_good_while_what_it_holds_cannot_be_written() {
    let below = Arc::new(Faulty::new(RamDevice::from_bytes(&[7; 256 << 10]).unwrap()));
    let options = CacheOptions { bytes: 32 << 10, block_size: 4096 };
    let cached = Cached::new(Arc::clone(&below), options).unwrap();
    cached.write_at(0, &[9; 32 << 10]).unwrap();
    below.arm(Fault::from_then_on(Calls::WRITE, 0));
    let mut buf = [0; 10_000];
    cached.read_at(100_000, &mut buf).unwrap();
    assert!(buf == [7; 10_000]);
    assert!(cached.write_at(100_000, b"x").is_err() && cached.flush().is_err());
    below.disarm();
    cached.flush().unwrap();
    cached.read_at(0, &mut buf).unwrap();
    assert!(buf == [9; 10_000]);
}

#[test]
fn a_partition_stays_inside_itself() {
    let whole: Arc<dyn BlockDevice> = Arc::new(ram());
    assert!(Partition::new(Arc::clone(&whole), 0, SIZE + 1).is_err());
    assert!(Partition::new(Arc::clone(&whole), u64::MAX, u64::MAX).is_err());
    assert!(Partition::from_offset(Arc::clone(&whole), SIZE + 1).is_err());
    let part = Partition::new(Arc::clone(&whole), 8192, 6000).unwrap();
    part.zero(0, 6000).unwrap();
    part.write_at(5999, b"x").unwrap();
    assert!(part.write_at(5999, b"xy").is_err());
    let mut byte = [0];
    whole.read_at(8192 + 5999, &mut byte).unwrap();
    assert_eq!(&byte, b"x");
    let dax = part.dax().unwrap();
    assert_eq!(dax.direct_access(0, 2, Access::Write).unwrap().len(), 6000);
    assert_eq!(dax.pfn(0), whole.dax().unwrap().pfn(2));
    assert!(Partition::new(whole, 512, 6000).unwrap().dax().is_none());
}

#[test]
fn a_layer_that_hands_stores_on_says_what_media_they_go_to_also_without_memory_to_show() {
    for media in [Media::Volatile, Media::Persistent] {
        // It begins beside a page.
        let part = || Partition::new(RamDevice::with_media(SIZE, media).unwrap(), 512, 500_000).unwrap();
        assert!(part().dax().is_none());
        let layers: [Arc<dyn BlockDevice>; 6] = [
            Arc::new(part()),
            Arc::new(Faulty::new(part())),
            Arc::new(Counted::new(part())),
            Arc::new(Recorder::new(part())),
            Arc::new(ReadOnly::new(part())),
            Arc::new(Cached::new(part(), CacheOptions::default()).unwrap()),
        ];
        for layer in layers {
            assert_eq!(layer.media(), media, "{layer:?}");
        }
        assert_eq!(RamDevice::with_media(SIZE, media).unwrap().media(), media);
    }
}

#[test]
fn stores_through_stacked_slices_reach_every_observer_in_its_own_offsets() {
    let below = Counted::new(Partition::from_offset(Counted::new(ram()), 4096).unwrap());
    let above = Faulty::new(Partition::from_offset(&below, 8192).unwrap());
    let slice = above.dax().unwrap().direct_access(1, 1, Access::Write).unwrap();
    assert_eq!(slice.device_offset(), 4096);
    slice.store_u32(4, 7).unwrap();
    assert_eq!(slice.load_u32(4), Ok(7));
    assert_eq!((below.snapshot().stores, below.snapshot().loads), (1, 1));
    let bottom = below.inner();
    let mut word = [0; 4];
    bottom.read_at(8192 + 4096 + 4, &mut word).unwrap();
    assert_eq!(word, [7, 0, 0, 0]);
    above.arm(Fault::once(Calls::STORE, 0));
    assert!(slice.copy_in(0, &[1; 8]).is_err());
    assert_eq!(slice.load_u64(0), Ok(7 << 32));
}

#[test]
fn an_overlay_changes_only_itself() {
    let golden = ram();
    golden.write_at(0, &[7; 65536]).unwrap();
    let mut overlay = Overlay::new(&golden).unwrap();
    assert_eq!(overlay.pages(), 0);
    overlay.write_at(5000, b"above").unwrap();
    overlay.zero(16384, 8192).unwrap();
    assert_eq!(overlay.pages(), 3);
    let slice = overlay.direct_access(10, 1, Access::Write).unwrap();
    assert_eq!(slice.load_u8(100), Ok(7));
    slice.store_u8(100, 8).unwrap();
    let mut buf = vec![0; 65536];
    overlay.read_at(0, &mut buf).unwrap();
    let mut expected = vec![7; 65536];
    expected[5000..5005].copy_from_slice(b"above");
    expected[16384..24576].fill(0);
    expected[40960 + 100] = 8;
    assert!(buf == expected);
    golden.read_at(0, &mut buf).unwrap();
    assert!(buf.iter().all(|&byte| byte == 7));
    overlay.reset().unwrap();
    overlay.read_at(0, &mut buf).unwrap();
    assert!(buf.iter().all(|&byte| byte == 7));
}

#[test]
fn the_nth_call_of_the_kinds_fails_and_no_other() {
    let device = Faulty::new(ram());
    device.arm(Fault::once(Calls::WRITE | Calls::FLUSH, 2));
    assert_eq!(device.remaining(), Some(2));
    device.write_at(0, b"one").unwrap();
    device.read_at(0, &mut [0; 3]).unwrap();
    device.flush().unwrap();
    assert_eq!(device.remaining(), Some(0));
    let error = device.write_at(8, b"two").unwrap_err();
    assert!(matches!(error, Error::Io { op: "write", offset: 8, errno: Some(5), .. }), "{error:?}");
    assert_eq!((device.remaining(), device.fired(), device.counted()), (None, 1, 3));
    device.write_at(8, b"two").unwrap();
    device.arm(Fault { error: FaultError::NoSpace, ..Fault::from_then_on(Calls::ZERO, 0) });
    assert_eq!(device.zero(100, 1), Err(Error::NoSpace { offset: 100 }));
    assert_eq!(device.zero(100, 1), Err(Error::NoSpace { offset: 100 }));
    device.disarm();
    device.zero(100, 1).unwrap();
    for (calls, fails) in [
        (Calls::READ, device.read_u32(0).is_ok()),
        (Calls::FENCE, device.fence().is_ok()),
        (Calls::WRITE_BACK, device.write_back(0, 1).is_ok()),
    ] {
        assert!(fails, "{calls:?} before it is armed");
    }
    device.arm(Fault::from_then_on(Calls::all(), 0));
    assert!(device.read_u32(0).is_err() && device.write_u16(0, 0).is_err() && device.fence().is_err());
    assert!(device.flush().is_err() && device.write_back(0, 1).is_err() && device.discard(0, 1).is_err());
    assert!(device.direct_access(0, 1, Access::Read).is_err());
    assert!(device.recovery_write(0, &[0; 8]).is_err());
}

#[test]
fn a_torn_write_leaves_its_first_half() {
    let device = Faulty::new(ram());
    device.arm(Fault { tear: Tear::FirstHalf, repeat: Repeat::Once, ..Fault::once(Calls::WRITE, 0) });
    device.write_at(0, &[1; 100]).unwrap_err();
    let mut buf = [9; 100];
    device.read_at(0, &mut buf).unwrap();
    assert!(buf[..48].iter().all(|&byte| byte == 1) && buf[48..].iter().all(|&byte| byte == 0));
}

#[test]
fn poison_in_a_layer_strikes_reads_slices_and_loads() {
    let device = Faulty::new(ram());
    let held = device.direct_access(0, 8, Access::Read).unwrap();
    device.poison(3).unwrap();
    assert_eq!(device.read_u32(3 * 4096 + 8), Err(Error::Poisoned { offset: 3 * 4096 }));
    assert_eq!(device.direct_access(0, 8, Access::Read).unwrap().len(), 3 * 4096);
    assert_eq!(device.direct_access(3, 1, Access::Read).unwrap_err(), Error::Poisoned { offset: 3 * 4096 });
    assert_eq!(held.load_u64(3 * 4096), Err(Error::Poisoned { offset: 3 * 4096 }));
    assert_eq!(device.write_u32(3 * 4096, 1), Err(Error::Poisoned { offset: 3 * 4096 }));
    assert!(device.recovery_write(3 * 4096, &[5; 4096]).is_ok());
    assert_eq!(device.read_u32(3 * 4096), Ok(0x0505_0505));
    assert!(device.poison(SIZE).is_err());
}
