//! How fast the devices are next to the memory itself: word loads, and copies of a page and a megabyte.
//!
//! `cargo run --release -p e2dax-blockdev --example device_speed [DIR]`, where image files are made in `DIR`.

use std::fs::File;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use blockdev::{Access, Backend, BlockDevice, DeviceOptions, Media, RamDevice, open_image};

const SIZE: u64 = 256 << 20;

/// Nanoseconds of one call, the best of five rounds.
fn time(calls: u64, mut call: impl FnMut(u64)) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let begin = Instant::now();
        (0..calls).for_each(&mut call);
        best = best.min(begin.elapsed().as_secs_f64());
    }
    best * 1e9 / calls as f64
}

fn measure(name: &str, device: &dyn BlockDevice) -> blockdev::Result<()> {
    for offset in (0..SIZE).step_by(1 << 20) {
        device.write_at(offset, &vec![1; 1 << 20])?;
    }
    let word = time(10_000_000, |n| {
        black_box(device.read_u32(n * 4 % 16384).unwrap_or(0));
    });
    let store = time(10_000_000, |n| {
        let _ = black_box(device.write_u32(n * 4 % 16384, n as u32));
    });
    println!("{name:9} read_u32 {word:8.2} ns  write_u32 {store:8.2} ns");
    for (len, window) in [(4096, 16384), (4096, SIZE), (1 << 20, 1 << 20), (1 << 20, SIZE)] {
        let calls = ((256_u64 << 20) / len).min(100_000);
        let mut buf = vec![7; len as usize];
        let gigabytes = |nanoseconds: f64| len as f64 / nanoseconds;
        let read = gigabytes(time(calls, |n| {
            let _ = black_box(device.read_at(n * len % window, &mut buf));
        }));
        let write = gigabytes(time(calls, |n| {
            let _ = black_box(device.write_at(n * len % window, &buf));
        }));
        let zero = gigabytes(time(calls, |n| {
            let _ = black_box(device.zero(n * len % window, len));
        }));
        println!(
            "{name:9} {len:8} bytes within {window:10}: GB/s: read {read:6.1} write {write:6.1} zero {zero:6.1}"
        );
    }
    if let Some(dax) = device.dax() {
        let slice = dax.direct_access(0, 4, Access::Write)?;
        let load = time(10_000_000, |n| {
            black_box(slice.load_u32(n * 4 % 16384).unwrap_or(0));
        });
        println!("{name:9} slice load_u32 {load:.2} ns");
    }
    Ok(())
}

fn main() -> blockdev::Result<()> {
    let ram: Arc<dyn BlockDevice> = Arc::new(RamDevice::new(SIZE)?);
    measure("ram", &ram)?;
    measure("as pmem", &RamDevice::with_media(SIZE, Media::Persistent)?)?;
    let dir = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "/dev/shm".into()));
    let path = dir.join(format!("device_speed.{}", std::process::id()));
    if let Err(error) = File::create(&path).and_then(|file| file.set_len(SIZE)) {
        eprintln!("no image at {}: {error}", path.display());
        return Ok(());
    }
    for kind in [Backend::Mmap, Backend::File, Backend::Cached] {
        let device = open_image(&path, &DeviceOptions { kind, ..DeviceOptions::read_write() })?;
        measure(&format!("{kind:?}"), &device)?;
    }
    let _ = std::fs::remove_file(&path);
    // The memory itself.
    let (source, mut target) = (vec![1_u8; SIZE as usize], vec![2_u8; SIZE as usize]);
    for (len, window) in [(4096, 16384), (4096, SIZE), (1 << 20, 1 << 20), (1 << 20, SIZE)] {
        let calls = ((256_u64 << 20) / len).min(100_000);
        let copy = time(calls, |n| {
            let at = (n * len % window) as usize;
            target[..len as usize].copy_from_slice(black_box(&source[at..at + len as usize]));
            black_box(&mut target);
        });
        println!("memcpy    {len:8} bytes within {window:10}: {:6.1} GB/s", len as f64 / copy);
    }
    Ok(())
}
