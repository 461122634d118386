//! A file of an image in this process's own memory, beside a plain file that is mapped, beside the same file in the image as
//! the kernel mounts it, and beside copies.

use std::cell::RefCell;
use std::fs::File as Plain;
use std::hint::black_box;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bench::fixture;
use bench::measure::{Contestant, medians, time};
use bench::table::{Unit, head, note, row, skip};
use blockdev::host_map::{FileUse, HostSpace, Rights};
use blockdev::{Backend, BlockDevice, DeviceOptions, Locking, PmemSlice, open_image};
use e2dax_tests::{Access, Rng, mount, with_mount};
use ext2_core::placement::{FreeSpace, Placed, Placement, Request, Which};
use ext2_core::{Ext2, GroupNr, OpenOptions};
use ext2_dax::mmu::host::{Faulting, Granularity, HostMap, HostMmu, HostOptions, Tracking};
use ext2_dax::mmu::soft::MapRequest;
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor, Wait};

use crate::{Bench, Result};

mod bare;
use bare::Bare;

const PAGE: u64 = 4096;
const UNIT: u64 = 2 << 20;
const RUN: u64 = 64 << 10;
const ROUNDS: usize = 5;

/// The first free blocks of the device, for everything: what is written in any order lies in that order.
#[derive(Debug)]
struct FirstFit;

impl Placement for FirstFit {
    fn place<'s>(&self, space: &'s FreeSpace<'_>, _: &Request) -> ext2_core::Result<Option<Placed<'s>>> {
        let first = space.group_blocks(GroupNr::new(0)).start;
        for which in [Which::Free, Which::EvenReserved] {
            if let Some(taken) = space.search(first, space.groups(), which)? {
                return Ok(Some(Placed { taken, window: None }));
            }
        }
        Ok(None)
    }
}

fn open(image: &Path, placement: Option<Arc<dyn Placement>>) -> Result<DaxFs> {
    let device: Arc<dyn BlockDevice> = open_image(
        image,
        &DeviceOptions { kind: Backend::Mmap, lock: Locking::Skip, ..DeviceOptions::read_write() },
    )?;
    let ext2 = Ext2::open(device, &OpenOptions { placement, ..OpenOptions::default() })?;
    Ok(DaxFs::new(ext2, DaxOptions::default()))
}

fn create(fs: &DaxFs, name: &str) -> Result<File> {
    Ok(File::open(fs, fixture::file(&fs.ext2().root()?, name)?, OpenFor::Writing)?)
}

fn find(fs: &DaxFs, name: &str) -> Result<File> {
    Ok(File::open(fs, fs.ext2().root()?.lookup(name)?, OpenFor::Writing)?)
}

/// Closes what [`open`] opened, with no file open any more.
fn close(fs: DaxFs) -> Result<()> {
    let ext2 = fs.ext2().clone();
    drop(fs);
    ext2.close()?;
    Ok(())
}

fn request(len: u64, protection: Protection) -> MapRequest {
    MapRequest { offset: 0, len, sharing: Sharing::Shared, protection, colour: 0 }
}

/// A plain mapping of a plain file: one `mmap`, and nobody answers anything.
fn plain_map(file: &Plain, len: u64, rights: Rights) -> Option<HostSpace> {
    let space = HostSpace::reserve(None, rights, len, 0).ok()?;
    space.place_file(0, len, file.as_fd(), 0, FileUse::Plain).ok()?;
    Some(space)
}

fn touch(memory: &PmemSlice<'_>, len: u64) {
    (0..len).step_by(PAGE as usize).for_each(|at| drop(black_box(memory.load_u64(at))));
}

/// Maps and touches each page: what of that counts.
fn map_and_touch<T>(
    len: u64,
    map: impl FnOnce() -> Option<T>,
    memory: impl Fn(&T) -> Option<PmemSlice<'_>>,
) -> Duration {
    let mut kept = None;
    let took = time(|| {
        kept = map();
        kept.as_ref().and_then(&memory).iter().for_each(|memory| touch(memory, len));
    });
    kept.map_or(Duration::MAX, |_| took)
}

fn of_space(space: &HostSpace) -> Option<PmemSlice<'_>> {
    space.memory(0, space.len()).ok()
}

fn of_map(map: &HostMap) -> Option<PmemSlice<'_>> {
    map.slice(0, map.len()).ok()
}

/// First touch, second touch and random loads of the file `big` of an image and of a plain file as long. The image's own file is
/// beside them: the very pages, in the very places of the machine's memory, mapped at once.
/// Where the file lies in `runs`, in that order, what the kernel takes for a mapping of each is beside it.
fn loads(
    what: &str,
    fs: &DaxFs,
    image: &Path,
    plain: &Plain,
    mounted: Option<&Path>,
    runs: &[u64],
    len: u64,
) -> Result<()> {
    let file = find(fs, "big")?;
    let mmu = HostMmu::new(HostOptions::default())?;
    let mounted = mounted.and_then(|folder| Plain::open(folder.join("big")).ok());
    let whole = Plain::open(image)?;
    let ours = || file.map_host(&mmu, &request(len, Protection::ReadOnly)).ok();
    let copies = || {
        let mut page = [0; PAGE as usize];
        (0..len).step_by(PAGE as usize).for_each(|at| drop(black_box(file.read_at(at, &mut page))));
    };
    let mut first = vec![
        Contestant::timed("ours", || map_and_touch(len, ours, of_map)),
        Contestant::timed("a plain file, mapped", || {
            map_and_touch(len, || plain_map(plain, len, Rights::Read), of_space)
        }),
        Contestant::timed("the image's own file, mapped", || {
            map_and_touch(len, || plain_map(&whole, len, Rights::Read), of_space)
        }),
    ];
    if let Some(theirs) = &mounted {
        first.push(Contestant::timed("loop mount, mapped", || {
            map_and_touch(len, || plain_map(theirs, len, Rights::Read), of_space)
        }));
    }
    if !runs.is_empty() {
        first.push(Contestant::timed("a plain file, one mmap for each run", || {
            map_and_touch(len, || bare::in_runs(plain, runs, RUN), of_space)
        }));
    }
    first.push(Contestant::new("File::read_at, each page", copies));
    let pages = Unit::Calls((len / PAGE) as f64);
    row(&format!("{what}: map, and touch each page"), pages, &medians(ROUNDS, &mut first));
    drop(first);

    let map = ours().ok_or("no mapping")?;
    let space = plain_map(plain, len, Rights::Read).ok_or("no mapping")?;
    let other = mounted.as_ref().and_then(|theirs| plain_map(theirs, len, Rights::Read));
    let same = plain_map(&whole, len, Rights::Read).ok_or("no mapping")?;
    let mut memories = vec![
        ("ours", of_map(&map)),
        ("a plain file, mapped", of_space(&space)),
        ("the image's own file, mapped", of_space(&same)),
    ];
    if let Some(other) = &other {
        memories.push(("loop mount, mapped", of_space(other)));
    }
    let memories: Vec<_> = memories.into_iter().filter_map(|(name, memory)| Some((name, memory?))).collect();
    let mut again: Vec<_> =
        memories.iter().map(|(name, memory)| Contestant::new(name, || touch(memory, len))).collect();
    row(&format!("{what}: touch each page again"), pages, &medians(2 * ROUNDS, &mut again));
    drop(again);
    let mut rng = Rng::new(19);
    let places: Vec<u64> = (0..2_000_000).map(|_| rng.below(len / 8) * 8).collect();
    let mut random: Vec<_> = memories
        .iter()
        .map(|(name, memory)| {
            Contestant::new(name, || places.iter().for_each(|&at| drop(black_box(memory.load_u64(at)))))
        })
        .collect();
    let mut word = [0; 8];
    random.push(Contestant::new("File::read_at", || {
        places.iter().for_each(|&at| drop(black_box(file.read_at(at, &mut word))));
    }));
    row(
        &format!("{what}: random loads of 8 bytes"),
        Unit::Calls(places.len() as f64),
        &medians(2 * ROUNDS, &mut random),
    );
    drop(random);
    let view = map.view()?;
    note(
        &format!("{what}: in pieces"),
        &format!(
            "{} runs of the file, {} mappings of the kernel, {} MiB by pages of 2 MiB",
            file.extents()?.len(),
            view.mappings,
            view.huge() >> 20
        ),
    );
    Ok(())
}

/// A file of `len` bytes on a file system of its own in `folder`, and a plain one beside it.
fn contiguous(folder: &Path, len: u64) -> Result<(std::path::PathBuf, Plain)> {
    let image = folder.join("map.img");
    fixture::mke2fs(&image, len + (64 << 20), &["-m", "0"])?;
    let fs = open(&image, None)?;
    let file = create(&fs, "big")?;
    fixture::fill(file.inode(), len)?;
    drop(file);
    close(fs)?;
    let path = folder.join("plain");
    fill_plain(&path, len)?;
    Ok((image, Plain::options().read(true).write(true).open(path)?))
}

fn fill_plain(path: &Path, len: u64) -> Result<()> {
    use std::io::Write;
    let mut file = Plain::create(path)?;
    let buffer = vec![0x5a_u8; 4 << 20];
    let mut at = 0;
    while at < len {
        // OK to cast: at most the buffer's length.
        file.write_all(&buffer[..(len - at).min(4 << 20) as usize])?;
        at += 4 << 20;
    }
    Ok(())
}

/// The same on pages of 4 KiB, with the kernel's mount of the very image beside it.
fn small_pages(bench: &Bench, len: u64) -> Result<()> {
    let (image, plain) = contiguous(&bench.path(""), len)?;
    let run = |mounted: Option<&Path>| -> Result<()> {
        let fs = open(&image, None)?;
        loads("4 KiB pages", &fs, &image, &plain, mounted, &[], len)?;
        close(fs)
    };
    match mount::possible() {
        Ok(()) => with_mount(&image, Access::ReadOnly, |folder| run(Some(folder)))?,
        Err(why) => {
            skip("the kernel's loop mount", why);
            run(None)?;
        }
    }
    on_demand(&image, &plain, bench.scaled(256 << 20))?;
    std::fs::remove_file(image)?;
    aged(bench, &plain, len)?;
    std::fs::remove_file(bench.path("plain"))?;
    Ok(())
}

fn huge_pages(len: u64) -> Result<()> {
    let done = mount::with_huge_tmpfs((2 * len + (256 << 20)) >> 20, |folder| -> Result<()> {
        let (image, plain) = contiguous(folder, len)?;
        let fs = open(&image, None)?;
        loads("2 MiB pages", &fs, &image, &plain, None, &[], len)?;
        close(fs)
    });
    match done {
        Ok(done) => done,
        Err(why) => {
            skip("pages of 2 MiB", why);
            Ok(())
        }
    }
}

/// A file whose runs of 64 KiB lie in random order.
fn aged(bench: &Bench, plain: &Plain, len: u64) -> Result<()> {
    let image = bench.path("aged.img");
    fixture::mke2fs(&image, len + (64 << 20), &["-m", "0"])?;
    let fs = open(&image, Some(Arc::new(FirstFit)))?;
    let file = create(&fs, "big")?;
    let mut order: Vec<u64> = (0..len / RUN).collect();
    let mut rng = Rng::new(20);
    for at in (1..order.len()).rev() {
        // OK to cast: an index.
        order.swap(at, rng.below(at as u64 + 1) as usize);
    }
    let bytes = vec![0x33; RUN as usize];
    for run in &order {
        file.inode().write_at(run * RUN, &bytes)?;
    }
    drop(file);
    loads("aged, runs of 64 KiB", &fs, &image, plain, None, &order, len)?;
    close(fs)?;
    std::fs::remove_file(image)?;
    Ok(())
}

/// Faults of 4 KiB that somebody answers, one by one.
fn on_demand(image: &Path, plain: &Plain, len: u64) -> Result<()> {
    let fs = open(image, None)?;
    let file = find(&fs, "big")?;
    let mmu = HostMmu::new(HostOptions { granularity: Granularity::Pages, ..HostOptions::default() })?;
    // At an odd colour no fault is one of 2 MiB.
    let odd = MapRequest { colour: PAGE, ..request(len, Protection::ReadWrite) };
    let took = || {
        let Ok(map) = file.map_host(&mmu, &odd) else { return Duration::MAX };
        of_map(&map).map_or(Duration::MAX, |memory| time(|| touch(&memory, len)))
    };
    let calls_alone = || {
        let Some(bare) = Bare::new(plain, len) else { return Duration::MAX };
        bare.memory().map_or(Duration::MAX, |memory| time(|| touch(&memory, len)))
    };
    row(
        "a fault on demand, 4 KiB",
        Unit::Calls((len / PAGE) as f64),
        &medians(
            3,
            &mut [
                Contestant::timed("ours", took),
                Contestant::timed("the kernel's calls alone", calls_alone),
            ],
        ),
    );
    drop(file);
    close(fs)
}

/// Holes: whole ones that are read, and pages of them that are stored to first.
fn holes(bench: &Bench, len: u64) -> Result<()> {
    let image = bench.path("holes.img");
    fixture::mke2fs(&image, 512 << 20, &["-m", "0"])?;
    let fs = open(&image, None)?;
    let sparse = create(&fs, "sparse")?;
    sparse.truncate(len, Wait::Yes)?;
    let mmu = HostMmu::new(HostOptions::default())?;
    let before = mmu.counters().faults;
    let ours =
        || map_and_touch(len, || sparse.map_host(&mmu, &request(len, Protection::ReadWrite)).ok(), of_map);
    let took = medians(ROUNDS, &mut [Contestant::timed("ours", ours)]);
    row("a hole of 2 MiB: map it, and touch each page", Unit::Calls((len / UNIT) as f64), &took);
    let events = (mmu.counters().faults - before) as f64 / ((ROUNDS + 1) as f64 * (len / UNIT) as f64);
    note("events for each 2 MiB of hole", &format!("{events:.3}"));
    drop(sparse);

    // Every other page is a hole.
    let count = bench.scaled(8192);
    let round = RefCell::new(0);
    let fresh = || -> Result<Duration> {
        let name = format!("f{}", round.replace_with(|round| *round + 1));
        let file = create(&fs, &name)?;
        (0..count).try_for_each(|page| file.write_at(page * 2 * PAGE, &[1; PAGE as usize]).map(drop))?;
        file.truncate(count * 2 * PAGE, Wait::Yes)?;
        let map = file.map_host(&mmu, &request(count * 2 * PAGE, Protection::ReadWrite))?;
        let memory = map.slice(0, map.len())?;
        let took = time(|| (0..count).for_each(|page| drop(memory.store_u64((2 * page + 1) * PAGE, 1))));
        drop(map);
        drop(file);
        fs.ext2().root()?.unlink(name.as_str())?;
        Ok(took)
    };
    let path = bench.path("plain-holes");
    let plain = || -> Result<Duration> {
        let file = Plain::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        for page in 0..count {
            std::os::unix::fs::FileExt::write_all_at(&file, &[1; PAGE as usize], page * 2 * PAGE)?;
        }
        file.set_len(count * 2 * PAGE)?;
        let space = plain_map(&file, count * 2 * PAGE, Rights::ReadWrite).ok_or("no mapping")?;
        let memory = space.memory(0, space.len())?;
        Ok(time(|| (0..count).for_each(|page| drop(memory.store_u64((2 * page + 1) * PAGE, 1)))))
    };
    let calls_alone = || -> Option<Duration> {
        let file = Plain::options().read(true).write(true).create(true).truncate(true).open(&path).ok()?;
        file.set_len(count * 2 * PAGE).ok()?;
        let bare = Bare::with_holes(&file, count * 2 * PAGE)?;
        let memory = bare.memory()?;
        Some(time(|| (0..count).for_each(|page| drop(memory.store_u64((2 * page + 1) * PAGE, 1)))))
    };
    let took = medians(
        ROUNDS,
        &mut [
            Contestant::timed("ours", || fresh().unwrap_or(Duration::MAX)),
            Contestant::timed("the kernel's calls alone", || calls_alone().unwrap_or(Duration::MAX)),
            Contestant::timed("a plain file, mapped", || plain().unwrap_or(Duration::MAX)),
        ],
    );
    row("the first store into a hole of 4 KiB", Unit::Calls(count as f64), &took);
    close(fs)?;
    std::fs::remove_file(&path)?;
    std::fs::remove_file(image)?;
    Ok(())
}

/// What fsync costs after 1,000 pages of many were stored to. Where the files lie on a disk it is the disk's time too.
fn syncs(folder: &Path, what: &str, len: u64) -> Result<()> {
    let (image, plain) = contiguous(folder, len)?;
    let fs = open(&image, None)?;
    let file = find(&fs, "big")?;
    let host = HostMmu::new(HostOptions { tracking: Tracking::Host, ..HostOptions::default() })?;
    let pages = HostMmu::new(HostOptions { tracking: Tracking::Pages, ..HostOptions::default() })?;
    plain.sync_all()?;
    file.sync()?;
    let mut rng = Rng::new(21);
    let places: Vec<u64> = (0..1000).map(|_| rng.below(len / PAGE) * PAGE).collect();
    let round = RefCell::new(0);
    let store = |memory: &PmemSlice<'_>| {
        let value = round.replace_with(|round| *round + 1);
        places.iter().for_each(|&at| drop(memory.store_u64(at, value)));
    };
    let space = plain_map(&plain, len, Rights::ReadWrite).ok_or("no mapping")?;
    let by_plain = of_space(&space).ok_or("no memory")?;
    let ours = |mmu: &Arc<HostMmu>| -> Result<Vec<(&'static str, Duration)>> {
        let map = file.map_host(mmu, &request(len, Protection::ReadWrite))?;
        let memory = map.slice(0, map.len())?;
        touch(&memory, len);
        file.sync()?;
        Ok(medians(
            ROUNDS,
            &mut [
                Contestant::timed("ours", || {
                    store(&memory);
                    time(|| drop(file.sync()))
                }),
                Contestant::timed("a plain file, fdatasync", || {
                    store(&by_plain);
                    time(|| drop(plain.sync_data()))
                }),
            ],
        ))
    };
    row(&format!("fsync of 1,000 pages, {what}"), Unit::Calls(1.0), &ours(&host)?);
    row(&format!("fsync of 1,000 pages, tracked by pages, {what}"), Unit::Calls(1.0), &ours(&pages)?);
    drop(file);
    close(fs)
}

/// The first store to each of many pages that are there, by who finds it.
fn first_stores(folder: &Path, len: u64) -> Result<()> {
    let (image, _) = contiguous(folder, len)?;
    let fs = open(&image, None)?;
    let file = find(&fs, "big")?;
    let count = (len / PAGE / 16).min(4000);
    let maps = [
        ("by the kernel (WP_ASYNC)", HostOptions { tracking: Tracking::Pages, ..HostOptions::default() }),
        (
            "by userfaultfd, as before Linux 6.7",
            HostOptions { tracking: Tracking::Pages, before_6_7: true, ..HostOptions::default() },
        ),
        (
            "by SIGSEGV",
            HostOptions { tracking: Tracking::Pages, faulting: Faulting::Eager, ..HostOptions::default() },
        ),
        ("by entries", HostOptions { tracking: Tracking::Entries, ..HostOptions::default() }),
    ]
    .map(|(name, options)| {
        let map =
            HostMmu::new(options).and_then(|mmu| file.map_host(&mmu, &request(len, Protection::ReadWrite)));
        (name, map)
    });
    let mut contestants = Vec::new();
    for (name, map) in &maps {
        let Ok(map) = map else { continue };
        let memory = of_map(map).ok_or("no memory")?;
        touch(&memory, len);
        let file = &file;
        contestants.push(Contestant::timed(name, move || {
            drop(file.sync());
            time(|| (0..count).for_each(|page| drop(memory.store_u64(page * 16 * PAGE, page))))
        }));
    }
    row(
        "the first store to a page that is tracked",
        Unit::Calls(count as f64),
        &medians(ROUNDS, &mut contestants),
    );
    drop(contestants);
    drop(maps);
    drop(file);
    close(fs)?;
    std::fs::remove_file(image)?;
    std::fs::remove_file(folder.join("plain"))?;
    Ok(())
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    if !HostMmu::features().faults {
        skip("real mappings", "no userfaultfd");
        return Ok(());
    }
    let len = bench.scaled(1 << 30) / UNIT * UNIT;
    head(&format!("A file of {} MiB in this process's memory, for each page or call", len >> 20));
    small_pages(bench, len)?;
    huge_pages(len)?;
    holes(bench, len)?;
    first_stores(&bench.path(""), bench.scaled(256 << 20) / UNIT * UNIT)?;
    syncs(&bench.path(""), "in memory", len)?;
    let disk = tempfile::Builder::new().prefix("e2dax-bench-").tempdir_in(std::env::temp_dir())?;
    syncs(disk.path(), "on a disk", len)
}
