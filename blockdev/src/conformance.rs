//! What every device and layer must do, as one suite: for tests, here and in crates that make devices.
//!
//! Every function panics where the device is wrong, with what it found.
//!
//! ```
//! let device = blockdev::RamDevice::new(1 << 20)?;
//! blockdev::conformance::check(&device);
//! blockdev::conformance::check_read_only(&blockdev::ReadOnly::new(&device));
//! # Ok::<(), blockdev::Error>(())
//! ```

use std::thread;

use crate::{Access, BlockDevice, Error, PAGE_SIZE};

/// A deterministic byte for each place, different for each `seed`.
fn pattern(seed: u64, offset: u64) -> u8 {
    let mixed = (offset ^ seed.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // OK to cast: the top byte is wanted.
    (mixed >> 56) as u8
}

fn filled(seed: u64, offset: u64, len: usize) -> Vec<u8> {
    (offset..).take(len).map(|at| pattern(seed, at)).collect()
}

fn read(device: &dyn BlockDevice, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xa5; len];
    device.read_at(offset, &mut buf).unwrap();
    buf
}

/// Everything, on a writable device of at least 256 KiB whose contents may be destroyed. Takes a second on memory, and
/// some thousand calls.
///
/// # Panics
/// Where the device is wrong.
pub fn check(device: &dyn BlockDevice) {
    assert!(device.size() >= 256 << 10, "the suite needs 256 KiB");
    assert!(!device.is_read_only());
    reads_return_what_was_written(device);
    zeros_are_zero_and_nothing_else(device);
    words_are_little_endian(device);
    ranges_outside_are_refused(device);
    threads_do_not_disturb_each_other(device);
    words_are_never_torn(device);
    if device.dax().is_some() {
        slices_and_calls_see_the_same_bytes(device);
        slices_are_bounded(device);
        runs_are_within_the_device(device);
    }
    device.flush().unwrap();
}

/// What a read-only device of at least 4 KiB must refuse and still do.
///
/// # Panics
/// Where the device is wrong.
pub fn check_read_only(device: &dyn BlockDevice) {
    assert!(device.is_read_only());
    let before = read(device, 0, 4096);
    assert_eq!(device.write_at(0, &[1]), Err(Error::ReadOnly));
    assert_eq!(device.zero(0, 1), Err(Error::ReadOnly));
    assert_eq!(device.write_u32(0, 1), Err(Error::ReadOnly));
    assert_eq!(device.write_u16(0, 1), Err(Error::ReadOnly));
    assert!(matches!(device.write_at(device.size(), &[1]), Err(Error::OutOfRange { .. })));
    device.fence().unwrap();
    device.flush().unwrap();
    if let Some(dax) = device.dax() {
        assert_eq!(dax.direct_access(0, 1, Access::Write).unwrap_err(), Error::ReadOnly);
        assert_eq!(dax.direct_access(0, 1, Access::Recovery).unwrap_err(), Error::ReadOnly);
        assert_eq!(dax.recovery_write(0, &[0; 4096]), Err(Error::ReadOnly));
        let slice = dax.direct_access(0, 1, Access::Read).unwrap();
        assert_eq!(slice.store_u8(0, 1), Err(Error::ReadOnly));
        assert_eq!(slice.copy_in(0, &[1]), Err(Error::ReadOnly));
        assert_eq!(slice.zero(0, 1), Err(Error::ReadOnly));
        assert_eq!(slice.subslice(0, 8).unwrap().store_u64(0, 1), Err(Error::ReadOnly));
        let mut page = vec![0; before.len()];
        slice.copy_out(0, &mut page).unwrap();
        assert_eq!(page, before);
    }
    assert_eq!(read(device, 0, 4096), before);
}

fn reads_return_what_was_written(device: &dyn BlockDevice) {
    // Every small length at every alignment, then lengths around the sizes at which code paths change.
    let small = (0..=100).flat_map(|len| (0..9).map(move |skew| (len, skew)));
    let large = [127, 128, 129, 255, 256, 257, 511, 2047, 2048, 2049, 4095, 4096, 4097, 65536, 100_001];
    let large = large.into_iter().flat_map(|len| [0, 1, 7, 63].map(move |skew| (len, skew)));
    for (round, (len, skew)) in small.chain(large).enumerate() {
        let seed = round as u64;
        let offset = 8192 + skew;
        let around = offset - 64;
        let mut expected = read(device, around, len + 128);
        let data = filled(seed, offset, len);
        device.write_at(offset, &data).unwrap();
        expected[64..64 + len].copy_from_slice(&data);
        assert_eq!(read(device, around, len + 128), expected, "{len} bytes at {offset}");
        assert_eq!(read(device, offset, len), data, "{len} bytes at {offset}");
    }
    let last = device.size() - 5;
    device.write_at(last, b"tail!").unwrap();
    assert_eq!(read(device, last, 5), b"tail!");
    device.write_at(0, b"head").unwrap();
    assert_eq!(read(device, 0, 4), b"head");
}

fn zeros_are_zero_and_nothing_else(device: &dyn BlockDevice) {
    for (offset, len) in
        [(8192, 0), (8193, 1), (8200, 64), (8191, 65), (8192, 4096), (10_000, 70_001), (65536, 131_072)]
    {
        let around = offset - 100;
        let mut expected = filled(3, around, len + 200);
        device.write_at(around, &expected).unwrap();
        device.zero(offset, len as u64).unwrap();
        expected[100..100 + len].fill(0);
        assert!(read(device, around, len + 200) == expected, "{len} zeros at {offset}");
    }
    device.zero(0, device.size()).unwrap();
    assert!(read(device, 0, 200 << 10).iter().all(|&byte| byte == 0));
    device.write_at(70_000, b"after the zeros").unwrap();
    assert_eq!(read(device, 70_000, 15), b"after the zeros");
    device.discard(131_072, 4096).unwrap();
}

fn words_are_little_endian(device: &dyn BlockDevice) {
    device.write_u32(4096, 0x0102_0304).unwrap();
    assert_eq!(read(device, 4096, 4), [4, 3, 2, 1]);
    assert_eq!(device.read_u32(4096), Ok(0x0102_0304));
    device.write_u16(4098, 0xef53).unwrap();
    assert_eq!(read(device, 4096, 4), [4, 3, 0x53, 0xef]);
    device.write_at(8184, &[9; 24]).unwrap();
    device.write_words(8188, &[0x0102_0304, 0x0506_0708, 0x090a_0b0c]).unwrap();
    assert_eq!(read(device, 8184, 20), [9, 9, 9, 9, 4, 3, 2, 1, 8, 7, 6, 5, 12, 11, 10, 9, 9, 9, 9, 9]);
    assert!(matches!(device.write_words(8190, &[0]), Err(Error::Unsupported(_))));
    device.write_words(device.size() & !3, &[]).unwrap();
    let last = (device.size() - 8) & !3;
    let before = read(device, last, 8);
    assert!(matches!(device.write_words(last, &[7; 3]), Err(Error::OutOfRange { .. })));
    assert_eq!(read(device, last, 8), before, "something of a refused array was stored");
}

fn ranges_outside_are_refused(device: &dyn BlockDevice) {
    let size = device.size();
    device.write_at(size - 4, b"keep").unwrap();
    let mut buf = [0; 8];
    for offset in [size - 7, size, size + 1, u64::MAX - 8, u64::MAX - 7, u64::MAX - 3, u64::MAX] {
        let out_of_range = Err(Error::OutOfRange { offset, len: 8, size });
        assert_eq!(device.read_at(offset, &mut buf), out_of_range);
        assert_eq!(device.write_at(offset, &buf), out_of_range);
        assert_eq!(device.zero(offset, 8), out_of_range);
        assert_eq!(device.discard(offset, 8), out_of_range);
        assert_eq!(device.populate(offset, 8), out_of_range);
    }
    device.populate(0, size).unwrap();
    device.populate(size, 0).unwrap();
    device.populate(size - 1, 1).unwrap();
    for (offset, len) in [(0, size + 1), (1, size), (0, u64::MAX), (1, u64::MAX), (u64::MAX, u64::MAX)] {
        assert_eq!(device.zero(offset, len), Err(Error::OutOfRange { offset, len, size }));
    }
    assert!(device.read_u32(size & !3).is_err());
    assert!(device.write_u32(u64::MAX - 3, 1).is_err());
    assert!(device.write_u16(u64::MAX - 1, 1).is_err());
    assert!(device.read_at(size, &mut []).is_ok());
    assert!(device.write_at(size, &[]).is_ok());
    assert!(device.zero(size, 0).is_ok());
    assert!(device.read_at(size + 1, &mut []).is_err());
    assert_eq!(read(device, size - 4, 4), b"keep");
}

fn threads_do_not_disturb_each_other(device: &dyn BlockDevice) {
    // Odd lengths, so that neighbours share words, lines and blocks.
    const LEN: usize = 12_345;
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            scope.spawn(move || {
                let base = 16_384 + thread * LEN as u64;
                for round in 0..8 {
                    let data = filled(thread * 100 + round, base, LEN);
                    for (piece, offset) in data.chunks(1111).zip((base..).step_by(1111)) {
                        device.write_at(offset, piece).unwrap();
                    }
                    device.fence().unwrap();
                    assert!(read(device, base, LEN) == data, "thread {thread}, round {round}");
                    device.zero(base, LEN as u64).unwrap();
                    assert!(read(device, base, LEN).iter().all(|&byte| byte == 0));
                }
            });
        }
    });
}

fn words_are_never_torn(device: &dyn BlockDevice) {
    // A machine of 32 bits stores 8 bytes in two halves.
    const WORD: usize = size_of::<usize>();
    device.write_at(4096, &[0; WORD]).unwrap();
    thread::scope(|scope| {
        for value in [[0x11_u8; WORD], [0xee; WORD]] {
            scope.spawn(move || (0..2000).for_each(|_| device.write_at(4096, &value).unwrap()));
        }
        for _ in 0..2000 {
            let word = read(device, 4096, WORD);
            assert!(word.iter().all(|byte| *byte == word[0]), "torn: {word:x?}");
        }
    });
}

fn slices_and_calls_see_the_same_bytes(device: &dyn BlockDevice) {
    let dax = device.dax().unwrap();
    let slice = dax.direct_access(2, 4, Access::Write).unwrap();
    assert_eq!(slice.device_offset(), 2 * PAGE_SIZE);
    assert!(slice.len() >= PAGE_SIZE && slice.len() <= 4 * PAGE_SIZE);
    slice.copy_in(100, b"copied in").unwrap();
    assert_eq!(read(device, 2 * PAGE_SIZE + 100, 9), b"copied in");
    device.write_at(2 * PAGE_SIZE + 200, b"written").unwrap();
    let mut buf = [0; 7];
    slice.copy_out(200, &mut buf).unwrap();
    assert_eq!(&buf, b"written");
    slice.zero(100, 4).unwrap();
    assert_eq!(read(device, 2 * PAGE_SIZE + 100, 9), b"\0\0\0\0ed in");
    slice.store_u64(8, 0x0807_0605_0403_0201).unwrap();
    assert_eq!(slice.load_u64(8), Ok(0x0807_0605_0403_0201));
    assert_eq!(slice.load_u32(12), Ok(0x0807_0605));
    assert_eq!(slice.load_u16(10), Ok(0x0403));
    assert_eq!(slice.load_u8(9), Ok(2));
    slice.store_u32(16, 0xaabb_ccdd).unwrap();
    slice.store_u16(20, 0xeeff).unwrap();
    slice.store_u8(22, 0x77).unwrap();
    slice.copy_in_cached(24, b"cached").unwrap();
    dax.write_back(2 * PAGE_SIZE, 32).unwrap();
    device.fence().unwrap();
    assert_eq!(read(device, 2 * PAGE_SIZE + 16, 14), b"\xdd\xcc\xbb\xaa\xff\xee\x77\0cached");
    let other = dax.direct_access(8, 1, Access::Write).unwrap();
    other.copy_in(0, &filled(9, 0, 4096)).unwrap();
    slice.copy_from_slice_of(1000, &other.subslice(10, 3000).unwrap()).unwrap();
    assert!(read(device, 2 * PAGE_SIZE + 1000, 3000) == filled(9, 10, 3000));
    dax.recovery_write(2 * PAGE_SIZE, &filled(10, 0, 4096)).unwrap();
    assert!(read(device, 2 * PAGE_SIZE, 4096) == filled(10, 0, 4096));
}

fn slices_are_bounded(device: &dyn BlockDevice) {
    let slice = device.dax().unwrap().direct_access(1, 1, Access::Write).unwrap();
    let len = slice.len();
    assert!(slice.copy_in(len - 1, &[0; 2]).is_err());
    assert!(slice.copy_out(u64::MAX, &mut [0; 2]).is_err());
    assert!(slice.zero(1, len).is_err());
    assert!(slice.zero(1, u64::MAX).is_err());
    assert!(slice.load_u8(len).is_err());
    assert!(slice.load_u64(len - 7).is_err());
    assert!(slice.load_u32(2).is_err(), "unaligned");
    assert!(slice.store_u16(1, 0).is_err(), "unaligned");
    assert!(slice.subslice(1, len).is_err());
    assert!(slice.subslice(len, 0).unwrap().is_empty());
    let inner = slice.subslice(16, 32).unwrap();
    assert_eq!(inner.device_offset(), PAGE_SIZE + 16);
    assert!(inner.copy_in(30, &[0; 3]).is_err());
    assert!(inner.copy_from_slice_of(1, &slice.subslice(64, 32).unwrap()).is_err());
}

fn runs_are_within_the_device(device: &dyn BlockDevice) {
    let dax = device.dax().unwrap();
    let pages = device.size().div_ceil(PAGE_SIZE);
    for (page, count) in [(0, 0), (pages, 1), (0, pages + 1), (1, pages), (u64::MAX, 1), (1, u64::MAX)] {
        for mode in [Access::Read, Access::Write, Access::Recovery] {
            assert!(
                matches!(dax.direct_access(page, count, mode), Err(Error::OutOfRange { .. })),
                "{count} pages from {page}"
            );
        }
    }
    let mut page = 0;
    while page < pages {
        let run = dax.direct_access(page, pages - page, Access::Read).unwrap();
        assert_eq!(run.device_offset(), page * PAGE_SIZE);
        assert!(!run.is_empty());
        assert_eq!(dax.pfn(page), dax.pfn(0) + page);
        page += run.len().div_ceil(PAGE_SIZE);
    }
    assert!(dax.write_back(device.size(), 1).is_err());
    assert!(dax.write_back(u64::MAX, 1).is_err());
    assert!(dax.recovery_write(device.size(), &[0]).is_err());
}
