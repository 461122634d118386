//! Writing a file over, and into new blocks.

use std::cell::RefCell;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bench::fixture;
use bench::measure::{Contestant, medians, time};
use bench::table::{Unit, head, row, skip};
use blockdev::{Backend, BlockDevice, DeviceOptions, Media, RamDevice, open_image};
use e2dax_tests::{Access, mount, with_mount};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};

use crate::{Bench, Result};

const CALL: usize = 1 << 20;

/// Writes all of a file of `size` bytes.
fn write_all(file: &File, size: u64, bytes: &[u8]) {
    (0..size).step_by(CALL).for_each(|at| drop(black_box(file.write_at(at, bytes))));
}

/// The time to write a new file of `size` bytes, from the first call to the last, and the places of the device that
/// it got.
fn write_new(fs: &DaxFs, size: u64, bytes: &[u8]) -> Result<(Duration, Vec<u64>)> {
    let root = fs.ext2().root()?;
    let file = File::open(fs, fixture::file(&root, "new")?, OpenFor::Writing)?;
    let took = time(|| write_all(&file, size, bytes));
    assert_eq!(file.size(), size, "the file could not be written");
    let places = fixture::places(file.inode(), (0..size).step_by(CALL))?;
    drop(file);
    root.unlink(b"new")?;
    Ok((took, places))
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    let size = bench.scaled(512 << 20) / CALL as u64 * CALL as u64;
    let room = size + (64 << 20);
    let bytes = vec![0xa5; CALL];
    head(&format!("Writing a file of {} MiB, 1 MiB a call", size >> 20));
    for (name, media) in [("RAM", Media::Volatile), ("RAM stored to as pmem", Media::Persistent)] {
        let device: Arc<dyn BlockDevice> = {
            let fresh = fixture::ram(room, 1024)?;
            let device = RamDevice::with_media(room, media)?;
            let mut buffer = vec![0; CALL];
            for at in (0..room).step_by(CALL) {
                fresh.read_at(at, &mut buffer)?;
                device.write_at(at, &buffer)?;
            }
            Arc::new(device)
        };
        let fs = DaxFs::new(fixture::open(Arc::clone(&device), false)?, DaxOptions::default());
        let over = File::open(&fs, fixture::file(&fs.ext2().root()?, "over")?, OpenFor::Writing)?;
        let half = size / 2 / CALL as u64 * CALL as u64;
        write_all(&over, half, &bytes);
        // The same bytes at the same places: the file stays what it is.
        let places = fixture::places(over.inode(), (0..half).step_by(CALL))?;
        let store = |at: u64| drop(black_box(device.write_at(at, &bytes)));
        let results = medians(
            7,
            &mut [
                Contestant::new("ours", || write_all(&over, half, &bytes)),
                Contestant::new("the device's own stores", || places.iter().copied().for_each(store)),
            ],
        );
        row(&format!("{name}: over"), Unit::Bytes(half as f64), &results);
        let places = RefCell::new(Vec::new());
        let results = medians(
            7,
            &mut [
                Contestant::timed("ours", || {
                    let (took, at) = write_new(&fs, half, &bytes).unwrap_or((Duration::MAX, Vec::new()));
                    places.replace(at);
                    took
                }),
                Contestant::new("the device's own stores", || {
                    places.borrow().iter().copied().for_each(store)
                }),
            ],
        );
        row(&format!("{name}: into new blocks"), Unit::Bytes(half as f64), &results);
    }
    kernel(bench, size, &bytes)
}

/// The kernel on a loop device over tmpfs, into its cache and with the sync; ours on a map of the same kind
/// of file.
fn kernel(bench: &Bench, size: u64, bytes: &[u8]) -> Result<()> {
    if let Err(why) = mount::possible() {
        skip("the kernel's loop mount", why);
        return Ok(());
    }
    let (own, theirs) = (bench.path("own.img"), bench.path("kernel.img"));
    for image in [&own, &theirs] {
        fixture::mke2fs(image, size + (64 << 20), &["-m", "0"])?;
    }
    let device = open_image(&own, &DeviceOptions { kind: Backend::Mmap, ..DeviceOptions::read_write() })?;
    let fs = DaxFs::new(fixture::open(device, false)?, DaxOptions::default());
    with_mount(&theirs, Access::ReadWrite, |folder| {
        let path = folder.join("new");
        let mut results = medians(
            3,
            &mut [
                Contestant::timed("ours", || {
                    write_new(&fs, size, bytes).map_or(Duration::MAX, |(took, _)| took)
                }),
                Contestant::timed("the kernel's loop mount, up to its cache", || {
                    kernel_new(&path, size, bytes, false)
                }),
                Contestant::timed("the kernel's loop mount, with fsync", || {
                    kernel_new(&path, size, bytes, true)
                }),
            ],
        );
        row("mmap: into new blocks", Unit::Bytes(size as f64), &results);
        results = medians(
            3,
            &mut [
                Contestant::timed("ours", || overwrite(&fs, size, bytes).unwrap_or(Duration::MAX)),
                Contestant::timed("the kernel's loop mount, up to its cache", || {
                    kernel_over(&path, size, bytes)
                }),
            ],
        );
        row("mmap: over", Unit::Bytes(size as f64), &results);
    });
    drop(fs);
    std::fs::remove_file(own)?;
    std::fs::remove_file(theirs)?;
    Ok(())
}

fn overwrite(fs: &DaxFs, size: u64, bytes: &[u8]) -> Result<Duration> {
    let root = fs.ext2().root()?;
    let inode = match root.lookup(b"over") {
        Ok(inode) => inode,
        Err(_) => fixture::file(&root, "over")?,
    };
    let file = File::open(fs, inode, OpenFor::Writing)?;
    Ok(time(|| write_all(&file, size, bytes)))
}

fn kernel_new(path: &std::path::Path, size: u64, bytes: &[u8], sync: bool) -> Duration {
    let Ok(file) = std::fs::File::create(path) else { return Duration::MAX };
    let took = time(|| {
        (0..size).step_by(CALL).for_each(|at| drop(black_box(file.write_all_at(bytes, at))));
        if sync {
            let _ = file.sync_all();
        }
    });
    let _ = std::fs::remove_file(path);
    took
}

fn kernel_over(path: &std::path::Path, size: u64, bytes: &[u8]) -> Duration {
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let Ok(file) = file else { return Duration::MAX };
    time(|| (0..size).step_by(CALL).for_each(|at| drop(black_box(file.write_all_at(bytes, at)))))
}
