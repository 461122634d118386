//! Pages of a mapped image that the system cannot supply are errors that name the place, and never end the process.

#![cfg(feature = "std")]

mod child;

use std::fs::File;
use std::path::Path;
use std::process::Command;

use blockdev::{
    Access, BlockDevice, DaxDevice, DeviceOptions, Error, LostPages, Media, MmapDevice, PmemSlice, sigbus,
};
use tempfile::TempDir;

const SIZE: u64 = 4 << 20;
/// What is left of the file.
const KEPT: u64 = 1 << 20;
const EIO: i32 = 5;

/// An image that has all of its blocks, and whoever truncates it.
fn image(dir: &Path) -> (std::path::PathBuf, File) {
    let path = dir.join("image");
    std::fs::write(&path, vec![7; SIZE as usize]).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    (path, file)
}

#[track_caller]
fn names<T: std::fmt::Debug>(result: Result<T, Error>, offset: u64) {
    match result {
        Err(Error::Io { offset: at, errno: Some(EIO), .. }) => assert_eq!(at, offset),
        other => panic!("no error of the page at {offset}: {other:?}"),
    }
}

/// Whether bus errors can be resumed here, and name the page that was lost.
fn can_resume() -> bool {
    if !sigbus::is_possible() {
        eprintln!("skipped: bus errors cannot be resumed on this target");
        return false;
    }
    // qemu-arm gives a bus error the host's address: its own `si_addr` is wrong by where the guest's memory begins.
    let is_shifted = cfg!(target_arch = "arm") && std::env::var_os("E2DAX_EMULATED").is_some();
    if is_shifted {
        eprintln!("skipped: qemu-user tells a wrong address of bus errors");
    }
    !is_shifted
}

#[test]
fn every_access_behind_a_truncation_is_an_error_that_names_its_offset() {
    if !can_resume() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let (path, file) = image(dir.path());
    let device = MmapDevice::open(&path, &DeviceOptions::read_write()).unwrap();
    let slice = device.direct_access(0, SIZE / 4096, Access::Write).unwrap();
    file.set_len(KEPT).unwrap();
    // Every length at which another way of copying begins, at a page's start, within it, and across the end.
    for len in
        [1_usize, 2, 3, 4, 7, 8, 15, 16, 32, 33, 64, 100, 255, 256, 1024, 2048, 4096, 16384, 16385, 300_000]
    {
        for offset in [KEPT, KEPT + 1, KEPT + 4096 + 61, SIZE - len as u64] {
            let mut buf = vec![1; len];
            names(device.read_at(offset, &mut buf), offset);
            names(device.write_at(offset, &buf), offset);
            names(device.zero(offset, len as u64), offset);
            names(slice.copy_out(offset, &mut buf), offset);
            names(slice.copy_in(offset, &buf), offset);
            names(slice.copy_in_cached(offset, &buf), offset);
            names(slice.zero(offset, len as u64), offset);
            let other = slice.subslice(0, len as u64).unwrap();
            names(slice.copy_from_slice_of(offset, &other), offset);
            names(slice.copy_from_slice_of(0, &slice.subslice(offset, len as u64).unwrap()), offset);
        }
        if len > 1 {
            let mut buf = vec![1; len];
            names(device.read_at(KEPT - 1, &mut buf), KEPT);
            names(slice.copy_out(KEPT - 1, &mut buf), KEPT);
            names(slice.copy_in(KEPT - 1, &buf), KEPT);
        }
    }
    names(device.write_words(KEPT + 8, &[1, 2, 3]), KEPT + 8);
    names(device.read_u32(KEPT + 4), KEPT + 4);
    names(device.write_u32(KEPT + 4, 1), KEPT + 4);
    names(device.write_u16(KEPT + 2, 1), KEPT + 2);
    names(slice.load_u8(KEPT + 3), KEPT + 3);
    names(slice.load_u16(KEPT + 2), KEPT + 2);
    names(slice.load_u32(KEPT + 4), KEPT + 4);
    names(slice.load_u64(KEPT + 8), KEPT + 8);
    names(slice.store_u8(KEPT + 3, 1), KEPT + 3);
    names(slice.store_u16(KEPT + 2, 1), KEPT + 2);
    names(slice.store_u32(KEPT + 4, 1), KEPT + 4);
    names(slice.store_u64(KEPT + 8, 1), KEPT + 8);
    // What there still is works as before, and comes back when the file does.
    let mut buf = [0; 4096];
    device.read_at(KEPT - 4096, &mut buf).unwrap();
    device.write_at(KEPT - 4096, &[9; 4096]).unwrap();
    device.flush().unwrap();
    assert_eq!(file.metadata().unwrap().len(), KEPT, "no store made the file longer");
    file.set_len(SIZE).unwrap();
    assert_eq!(device.read_u32(KEPT + 4), Ok(0));
    device.write_at(KEPT, b"again").unwrap();
}

#[test]
fn stores_that_go_past_the_caches_are_errors_too() {
    if !can_resume() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let (path, file) = image(dir.path());
    let device = MmapDevice::open(&path, &DeviceOptions::read_write()).unwrap();
    let slice = device.direct_access(0, SIZE / 4096, Access::Write).unwrap();
    // SAFETY: the same memory under another name, used as long as the device is borrowed.
    #[allow(unsafe_code)]
    let pmem = unsafe {
        PmemSlice::from_raw_parts(slice.as_ptr(), SIZE as usize, 0, Media::Persistent, Access::Write)
    };
    file.set_len(KEPT).unwrap();
    for len in [1_usize, 4, 8, 33, 255, 256, 320, 4096, 70_000] {
        for offset in [KEPT, KEPT + 8, KEPT + 4096 + 61] {
            names(pmem.copy_in(offset, &vec![1; len]), offset);
            names(pmem.zero(offset, len as u64), offset);
            names(pmem.copy_from_slice_of(offset, &slice.subslice(0, len as u64).unwrap()), offset);
        }
        if len > 1 {
            names(pmem.copy_in(KEPT - 1, &vec![1; len]), KEPT);
            names(pmem.zero(KEPT - 1, len as u64), KEPT);
        }
    }
    // What lies before the edge is stored, with the lines written back.
    pmem.copy_in(KEPT - 4096, &[5; 4096]).unwrap();
    pmem.zero(KEPT - 64, 64).unwrap();
    assert_eq!(device.read_u32(KEPT - 68), Ok(0x0505_0505));
    assert_eq!(device.read_u32(KEPT - 4), Ok(0));
}

#[test]
fn the_error_says_that_the_image_was_truncated() {
    if !can_resume() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let (path, file) = image(dir.path());
    let device = MmapDevice::open(&path, &DeviceOptions::read_only()).unwrap();
    file.set_len(KEPT).unwrap();
    let error = device.read_at(KEPT + 100, &mut [0; 10]).unwrap_err().to_string();
    assert!(error.contains("truncated") && error.contains(&(KEPT + 100).to_string()), "{error}");
}

#[test]
fn a_buffer_of_the_callers_own_that_is_lost_is_not_called_the_images_page() {
    if !can_resume() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let (path, file) = image(dir.path());
    let device = MmapDevice::open(&path, &DeviceOptions::read_write()).unwrap();
    let ram = blockdev::RamDevice::new(SIZE).unwrap();
    let from = device.direct_access(0, SIZE / 4096, Access::Write).unwrap();
    let to = ram.direct_access(0, 16, Access::Write).unwrap();
    file.set_len(KEPT).unwrap();
    // The source's page, in the source's coordinates.
    names(to.copy_from_slice_of(64, &from.subslice(KEPT - 4096, 8192).unwrap()), KEPT);
}

#[test]
fn threads_that_fault_at_once_get_an_error_each() {
    if !can_resume() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let (path, file) = image(dir.path());
    let device = MmapDevice::open(&path, &DeviceOptions::read_write()).unwrap();
    file.set_len(KEPT).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let device = &device;
            scope.spawn(move || {
                let mut buf = [0; 3000];
                for round in 0..2000 {
                    let offset = KEPT + 4096 * thread + round % 1000;
                    names(device.read_at(offset, &mut buf), offset);
                    names(device.write_u32(offset & !3, 1), offset & !3);
                    assert_eq!(device.read_u32(4096 * thread), Ok(0x0707_0707));
                }
            });
        }
    });
}

/// Runs a test of this file in a process of its own, which is to die or to live.
fn in_a_process(test: &str) -> std::process::ExitStatus {
    child::of_test(test).env("LOST_PAGES_CHILD", "1").output().unwrap().status
}

fn is_child() -> bool {
    std::env::var_os("LOST_PAGES_CHILD").is_some()
}

const SIGBUS: i32 = 7;

#[test]
fn a_load_of_the_programs_own_keeps_its_signal() {
    use std::os::unix::process::ExitStatusExt;
    if !is_child() {
        let status = in_a_process("a_load_of_the_programs_own_keeps_its_signal");
        assert_eq!(status.signal(), Some(SIGBUS), "{status}");
        return;
    }
    let dir = TempDir::new().unwrap();
    let (path, file) = image(dir.path());
    let device = MmapDevice::open(&path, &DeviceOptions::read_only()).unwrap();
    let slice = device.direct_access(0, SIZE / 4096, Access::Read).unwrap();
    file.set_len(KEPT).unwrap();
    names_if_possible(device.read_at(KEPT, &mut [0]));
    // SAFETY: it is not sound, which is what this shows: the process ends here.
    #[allow(unsafe_code)]
    unsafe {
        slice.as_ptr().wrapping_add(KEPT as usize).read_volatile();
    }
}

fn names_if_possible(result: Result<(), Error>) {
    if can_resume() {
        names(result, KEPT);
    }
}

#[test]
fn who_asks_for_the_signal_gets_it() {
    use std::os::unix::process::ExitStatusExt;
    if !is_child() {
        let status = in_a_process("who_asks_for_the_signal_gets_it");
        assert_eq!(status.signal(), Some(SIGBUS), "{status}");
        return;
    }
    let dir = TempDir::new().unwrap();
    let (path, file) = image(dir.path());
    let options = DeviceOptions { lost_pages: LostPages::Signal, ..DeviceOptions::read_only() };
    let device = MmapDevice::open(&path, &options).unwrap();
    file.set_len(KEPT).unwrap();
    let _ = device.read_at(KEPT, &mut [0]);
}

#[test]
fn a_signal_that_somebody_sends_ends_the_process_as_ever() {
    use std::os::unix::process::ExitStatusExt;
    if !is_child() {
        let status = in_a_process("a_signal_that_somebody_sends_ends_the_process_as_ever");
        assert_eq!(status.signal(), Some(SIGBUS), "{status}");
        return;
    }
    sigbus::install();
    let me = std::process::id().to_string();
    // The first one goes to the standard library's handler, which takes itself away and returns.
    for _ in 0..3 {
        Command::new("kill").args(["-BUS", &me]).status().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}
