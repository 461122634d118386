//! Files of an image mapped into this process, beside a plain file of the host that is mapped.

use std::fs::File as HostFile;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bench::fixture::open;
use bench::measure::{Contestant, medians, time};
use bench::table::{Unit, head, note, row, skip};
use blockdev::host_map::{FileUse, HostSpace, Rights};
use blockdev::{MmapDevice, PmemSlice};
use ext2_core::{BlockSize, FileKind, NewInode};
use ext2_dax::Wait;
use ext2_dax::mmu::host::{Granularity, HostMap, HostMmu, HostOptions};
use ext2_dax::mmu::soft::MapRequest;
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};
use ext2_image::mkfs::{self, Format, Fresh};
use std::os::fd::AsFd;

use super::{Bench, Result};

const PAGE: u64 = 4096;
const UNIT: u64 = 2 << 20;

/// A plain file, mapped as a program maps it.
struct Plain {
    file: HostFile,
    len: u64,
}

impl Plain {
    fn new(path: &Path, len: u64) -> Result<Self> {
        let file = HostFile::options().read(true).write(true).create(true).truncate(true).open(path)?;
        let part = vec![1; UNIT as usize];
        for at in (0..len).step_by(part.len()) {
            file.write_all_at(&part, at)?;
        }
        Ok(Self { file, len })
    }

    fn map(&self, rights: Rights) -> Result<HostSpace> {
        let space = HostSpace::reserve(None, rights, self.len, 0)?;
        space.place_file(0, self.len, self.file.as_fd(), 0, FileUse::Plain)?;
        Ok(space)
    }
}

fn touch(memory: PmemSlice<'_>) {
    for at in (0..memory.len()).step_by(PAGE as usize) {
        std::hint::black_box(memory.load_u64(at).unwrap_or(0));
    }
}

fn random(memory: PmemSlice<'_>, loads: u64) {
    let mut state = 1_u64;
    for _ in 0..loads {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = (state >> 16) % (memory.len() / 8) * 8;
        std::hint::black_box(memory.load_u64(at).unwrap_or(0));
    }
}

fn map(file: &File, mmu: &Arc<HostMmu>, protection: Protection) -> Result<HostMap> {
    let len = file.size();
    Ok(file.map_host(mmu, &MapRequest { offset: 0, len, sharing: Sharing::Shared, protection, colour: 0 })?)
}

fn new_file(fs: &DaxFs, name: &[u8]) -> Result<File> {
    let inode = fs.ext2().root()?.create(name, &NewInode::new(FileKind::Regular, 0o644))?;
    Ok(File::open(fs, inode, OpenFor::Writing)?)
}

/// A file whose runs are 64 KiB, with somebody else's between.
fn aged(fs: &DaxFs, len: u64) -> Result<File> {
    let (file, other) = (new_file(fs, b"aged")?, new_file(fs, b"between")?);
    let part = vec![1; 64 << 10];
    // Backwards, so that no two runs that follow in the file follow on the device.
    for at in (0..len).step_by(2 * part.len()).rev() {
        file.write_at(at, &part)?;
        other.write_at(at / 2, &part)?;
    }
    for at in (part.len() as u64..len).step_by(2 * part.len()).rev() {
        file.write_at(at, &part)?;
    }
    Ok(file)
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    head("files mapped into this process");
    if !HostMmu::features().faults {
        skip("all of it", "no userfaultfd");
        return Ok(());
    }
    let len = bench.scaled(1 << 30) / UNIT * UNIT;
    let image = bench.path("host.img");
    let file = HostFile::create(&image)?;
    file.set_len(5 * len)?;
    drop(file);
    let device = MmapDevice::open(&image, &blockdev::DeviceOptions::read_write())?;
    mkfs::format(&device, &Format { block_size: BlockSize::new(4096), ..Format::default() }, Fresh::Zeros)?;
    let ext2 = open(Arc::new(device), false)?;
    let fs = DaxFs::new(ext2.clone(), DaxOptions::default());
    let (whole, pieces) = (new_file(&fs, b"whole")?, aged(&fs, len)?);
    let part = vec![1; UNIT as usize];
    for at in (0..len).step_by(part.len()) {
        whole.write_at(at, &part)?;
    }
    let plain = Plain::new(&bench.path("plain"), len)?;
    let mmu = HostMmu::new(HostOptions::default())?;
    touches(&plain, &whole, &pieces, &mmu, bench)?;
    faults(&fs, &whole, bench)?;
    syncs(&plain, &whole, &mmu)?;
    drop((whole, pieces, fs));
    let _ = ext2.close()?;
    Ok(())
}

fn touches(plain: &Plain, whole: &File, pieces: &File, mmu: &Arc<HostMmu>, bench: &Bench) -> Result<()> {
    let gib = plain.len as f64;
    for (what, file) in
        [("map and touch each page of 1 GiB, contiguous", whole), ("the same, runs of 64 KiB", pieces)]
    {
        let ours =
            || map(file, mmu, Protection::ReadOnly).and_then(|map| Ok(touch(map.slice(0, map.len())?)));
        let theirs = || plain.map(Rights::Read).and_then(|space| Ok(touch(space.memory(0, space.len())?)));
        let mut buffer = vec![0; 1 << 20];
        let medians = medians(
            5,
            &mut [
                Contestant::new("mapped", || ours().expect("it maps")),
                Contestant::new("plain file", || theirs().expect("it maps")),
                Contestant::new("read_at of all, 1 MiB a call", || {
                    for at in (0..file.size()).step_by(buffer.len()) {
                        file.read_at(at, &mut buffer).expect("it reads");
                    }
                }),
            ],
        );
        row(what, Unit::Bytes(gib), &medians);
        let (ours, theirs) = (map(file, mmu, Protection::ReadOnly)?, plain.map(Rights::Read)?);
        let (here, there) = (ours.slice(0, ours.len())?, theirs.memory(0, theirs.len())?);
        touch(here);
        touch(there);
        let again = medians_of(5, ("mapped", &mut || touch(here)), ("plain file", &mut || touch(there)));
        row("touch each again", Unit::Calls(gib / PAGE as f64), &again);
        let loads = bench.scaled(20_000_000);
        let loads_of = medians_of(
            5,
            ("mapped", &mut || random(here, loads)),
            ("plain file", &mut || random(there, loads)),
        );
        row("random loads of 8 bytes", Unit::Calls(loads as f64), &loads_of);
        let view = ours.view()?;
        note("mappings, MiB of 2 MiB pages", &format!("{}, {}", view.mappings, view.huge() >> 20));
    }
    Ok(())
}

fn medians_of(
    rounds: usize,
    one: (&'static str, &mut dyn FnMut()),
    other: (&'static str, &mut dyn FnMut()),
) -> Vec<(&'static str, Duration)> {
    medians(rounds, &mut [Contestant::new(one.0, one.1), Contestant::new(other.0, other.1)])
}

/// What one fault takes.
fn faults(fs: &DaxFs, whole: &File, bench: &Bench) -> Result<()> {
    let pages = bench.scaled(16_384);
    let by_pages = HostMmu::new(HostOptions { granularity: Granularity::Pages, ..HostOptions::default() })?;
    // At an address of another colour each fault is one of 4 KiB.
    let request = MapRequest {
        offset: 0,
        len: pages * PAGE,
        sharing: Sharing::Shared,
        protection: Protection::ReadOnly,
        colour: PAGE,
    };
    let took = one(|| {
        let map = whole.map_host(&by_pages, &request)?;
        Ok(time(|| (0..pages).for_each(|page| drop(map.load(page * PAGE)))))
    })?;
    row("a fault of 4 KiB on demand", Unit::Calls(pages as f64), &[("", took)]);

    let mmu = HostMmu::new(HostOptions::default())?;
    let len = bench.scaled(1 << 28) / UNIT * UNIT;
    let hole = new_file(fs, b"hole")?;
    hole.truncate(len, Wait::Yes)?;
    let took = one(|| {
        let begin = Instant::now();
        let map = map(&hole, &mmu, Protection::ReadWrite)?;
        touch(map.slice(0, len)?);
        Ok(begin.elapsed())
    })?;
    row("map a hole and touch each page", Unit::Calls((len / PAGE) as f64), &[("", took)]);

    // The last unit of each of these is not whole, so that each store takes one page.
    let small = new_file(fs, b"small")?;
    let stores = bench.scaled(20_000).min(400);
    let took = one(|| {
        small.truncate(0, Wait::Yes)?;
        small.truncate(stores * PAGE, Wait::Yes)?;
        let map = map(&small, &mmu, Protection::ReadWrite)?;
        Ok(time(|| (0..stores).for_each(|page| drop(map.store(page * PAGE, 1)))))
    })?;
    row("a first store into a hole, a page each", Unit::Calls(stores as f64), &[("", took)]);
    let units = len / UNIT;
    let took = one(|| {
        hole.truncate(0, Wait::Yes)?;
        hole.truncate(len, Wait::Yes)?;
        let map = map(&hole, &mmu, Protection::ReadWrite)?;
        Ok(time(|| (0..units).for_each(|unit| drop(map.store(unit * UNIT, 1)))))
    })?;
    row("the same, a unit of 2 MiB each", Unit::Calls(units as f64), &[("", took)]);
    hole.truncate(0, Wait::Yes)?;
    Ok(())
}

/// The median of five.
fn one(mut round: impl FnMut() -> Result<Duration>) -> Result<Duration> {
    let mut times = (0..5).map(|_| round()).collect::<Result<Vec<_>>>()?;
    times.sort_unstable();
    Ok(times[2])
}

fn syncs(plain: &Plain, whole: &File, mmu: &Arc<HostMmu>) -> Result<()> {
    let ours = map(whole, mmu, Protection::ReadWrite)?;
    let theirs = plain.map(Rights::ReadWrite)?;
    let (here, there) = (ours.slice(0, ours.len())?, theirs.memory(0, theirs.len())?);
    let dirty = |memory: PmemSlice<'_>| {
        for page in 0..1000 {
            memory.store_u64(page * 251 * PAGE % memory.len(), page).expect("it stores");
        }
    };
    let medians = medians(
        9,
        &mut [
            Contestant::timed("mapped", || {
                dirty(here);
                time(|| whole.sync().expect("it syncs"))
            }),
            Contestant::timed("plain file, fdatasync", || {
                dirty(there);
                time(|| plain.file.sync_data().expect("it syncs"))
            }),
        ],
    );
    row("fsync of 1,000 dirty pages", Unit::Calls(1.0), &medians);
    Ok(())
}
