//! Faults on the page table in software.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bench::fixture;
use bench::measure::{Contestant, medians, time};
use bench::table::{Unit, head, row};
use blockdev::BlockDevice;
use ext2_dax::mmu::soft::{MapRequest, SoftMap, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};

use crate::{Bench, Result};

const SIZE: u64 = 256 << 20;

/// One access in every `step` bytes of `size` to a new mapping: the time of the accesses alone.
fn touch(file: &File, colour: u64, step: u64, access: impl Fn(&SoftMap, u64)) -> Duration {
    let mmu = SoftMmu::new();
    let request = MapRequest {
        offset: 0,
        len: SIZE,
        sharing: Sharing::Shared,
        protection: Protection::ReadWrite,
        colour,
    };
    let Ok(map) = file.map(&mmu, &request) else { return Duration::MAX };
    time(|| (0..SIZE).step_by(step as usize).for_each(|at| access(&map, at)))
}

fn load(map: &SoftMap, at: u64) {
    let _ = black_box(map.load(at));
}

fn store(map: &SoftMap, at: u64) {
    let _ = black_box(map.store(at, 1));
}

pub(crate) fn run(_: &Bench) -> Result<()> {
    let device: Arc<dyn BlockDevice> = fixture::ram(2 * SIZE, 1024)?;
    let fs = DaxFs::new(fixture::open(device, false)?, DaxOptions::default());
    let root = fs.ext2().root()?;
    let open =
        |name: &str| -> Result<File> { Ok(File::open(&fs, fixture::file(&root, name)?, OpenFor::Writing)?) };
    let full = open("full")?;
    fixture::fill(full.inode(), SIZE)?;
    let sparse = open("sparse")?;
    sparse.truncate(SIZE, ext2_dax::Wait::Yes)?;
    head("Faults on the page table in software, of a file of 256 MiB");
    let (page, unit, odd) = (4096, 2 << 20, 4096);
    let pages = Unit::Calls((SIZE / page) as f64);
    let units = Unit::Calls((SIZE / unit) as f64);
    let one = |what, each, run: &mut dyn FnMut() -> Duration| {
        row(what, each, &medians(5, &mut [Contestant::timed("ours", run)]));
    };
    one("load: a page", pages, &mut || touch(&full, odd, page, load));
    one("load: 2 MiB", units, &mut || touch(&full, 0, unit, load));
    one("load: the zero page", pages, &mut || touch(&sparse, odd, page, load));
    one("load: 2 MiB of zeros", units, &mut || touch(&sparse, 0, unit, load));
    one("store: a page", pages, &mut || touch(&full, odd, page, store));
    one("store: 2 MiB", units, &mut || touch(&full, 0, unit, store));
    one("load, then store: a page made writable", pages, &mut || {
        touch(&full, odd, page, |map, at| {
            load(map, at);
            store(map, at);
        })
    });
    one("store: 2 MiB of a hole, allocated and zeroed", units, &mut || {
        let fresh = open("fresh").and_then(|file| {
            file.truncate(SIZE, ext2_dax::Wait::Yes)?;
            Ok(file)
        });
        let took = fresh.map_or(Duration::MAX, |file| touch(&file, 0, unit, store));
        let _ = root.unlink(b"fresh");
        took
    });
    Ok(())
}
