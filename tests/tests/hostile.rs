//! No image, however broken, makes the library panic, hang, take memory without bound or read outside the device.
//!
//! Damaged copies of the golden images are opened, walked and read to the end. Every answer is an error or one that
//! agrees with the others. A failure names the image and the number of the variant; `E2DAX_HOSTILE=NAME:NUMBER` runs
//! that one alone, `E2DAX_HOSTILE_VARIANTS=N` makes N of each image.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use blockdev::{BlockDevice, Counted, RamDevice};
use e2dax_tests::{
    Golden, Rng,
    exercise::{Came, modify_everything, remove_everything, try_everything},
    golden,
    hostile::{Damage, Victim, Workbench},
    memory, need_tools, tools,
};
use ext2_core::{Closed, Ext2, FileKind, GroupNr, InodeNr, NewInode, OpenOptions, Policy};
use ext2_dax::{
    DaxFs, DaxOptions, File, OpenFor,
    mmu::{
        Protection, Sharing,
        soft::{MapRequest, SoftMmu},
    },
};
use ext2_image::{
    check::{Options as CheckOptions, check, mend},
    manifest::from_image,
    mkfs,
};

/// Where all damage comes from.
const SEED: u64 = 0x6532_6461_7800;

/// Calls of `read_at` that one variant may cost: far above what any takes, far below what a loop would.
const READS: u64 = 30_000_000;

/// Ends the process when one variant takes too long, which a loop that reads nothing would.
struct Watchdog(Sender<String>);

impl Watchdog {
    fn new() -> Self {
        let (sender, receiver) = channel::<String>();
        thread::spawn(move || {
            let mut current = "the first variant".to_owned();
            loop {
                match receiver.recv_timeout(Duration::from_secs(120)) {
                    Ok(next) => current = next,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        // A thread that hangs cannot be stopped otherwise, and the reason has to be seen.
                        use std::io::Write;
                        let _ = writeln!(std::io::stderr(), "HANGS: {current}");
                        std::process::abort();
                    }
                }
            }
        });
        Self(sender)
    }

    fn enter(&self, what: &str) {
        self.0.send(what.to_owned()).expect("the watchdog listens");
    }
}

/// Runs one variant for writing.
fn run_write(victim: &Victim, damage: &[Damage], policy: Policy) -> Result<Came, String> {
    let device = Arc::new(Workbench::new(victim.damaged(damage), READS));
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let options = OpenOptions { policy, ..OpenOptions::default() };
        let Ok(fs) = Ext2::open(device.clone(), &options) else { return Came::Nowhere };
        modify_everything(&fs);
        let whole = from_image(&fs).is_ok();
        let _ = fs.close();
        if whole { Came::Through } else { Came::In }
    }));
    let outcome = outcome_of(outcome, device.offence())?;
    // What came of it is mended as far as that goes.
    let mended = catch_unwind(AssertUnwindSafe(|| {
        let _ = mend(&*device, 1_800_000_000, &mut |_| {});
        outcome
    }));
    outcome_of(mended, device.offence())
}

/// Runs one variant for changes by path, and has all of it removed.
fn run_removal(victim: &Victim, damage: &[Damage]) -> Result<Came, String> {
    // Far above what any takes: there are a few hundred names at most.
    let device = Arc::new(Workbench::new(victim.damaged(damage), READS / 20));
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let Ok(fs) = Ext2::open(device.clone(), &OpenOptions::default()) else { return Came::Nowhere };
        let came = remove_everything(&fs);
        let _ = fs.close();
        came
    }));
    outcome_of(outcome, device.offence())
}

/// Reads every file by DAX, through read calls and through a mapping, beside copying: the same bytes, or an error of
/// each.
fn read_by_dax(fs: Ext2) -> Came {
    let dax = DaxFs::new(fs.clone(), DaxOptions::default());
    let mmu = SoftMmu::new();
    let mut came = Came::Through;
    let inodes = fs.superblock().inodes_count.min(200);
    for inode in (1..=inodes).filter_map(InodeNr::new).filter_map(|nr| fs.inode(nr).ok()) {
        if inode.kind() != FileKind::Regular || inode.size() == 0 {
            continue;
        }
        let size = inode.size();
        let file = File::open(&dax, inode.clone(), OpenFor::Reading).expect("a regular file opens");
        for at in [0, size / 2, size - 1, 12 << 10, 268 << 10, 64 << 20] {
            let start = at / 4096 * 4096;
            if start >= size {
                continue;
            }
            let length = (size - start).min(10_000);
            let mut copied = vec![0; usize::try_from(length).expect("short")];
            let mut read = copied.clone();
            let copy = inode.read_at(start, &mut copied).map(|n| n as u64);
            let call = file.read_at(start, &mut read);
            match (&copy, &call) {
                (Ok(_), Ok(n)) if *n == length => assert!(read == copied, "{inode:?}: read at {start}"),
                // A read call may stop at the broken block and give what is before it.
                (Err(_), Ok(n)) if *n < length => came = Came::In,
                (Err(_), Err(_)) => came = Came::In,
                _ => panic!("{inode:?} at {start}: copied {copy:?}, read {call:?}"),
            }
            if !file.is_dax() {
                // Its blocks are smaller than a page.
                continue;
            }
            let (sharing, protection) = (Sharing::Shared, Protection::ReadOnly);
            let request = MapRequest { offset: start, len: length, sharing, protection, colour: 0 };
            let map = file.map(&mmu, &request).expect("a file on memory can be mapped");
            let load = map.load_bytes(0, &mut read);
            assert_eq!(load.is_ok(), copy.is_ok(), "{inode:?} at {start}: copied {copy:?}, loaded {load:?}");
            assert!(load.is_err() || read == copied, "{inode:?}: loads at {start}");
        }
    }
    came
}

/// Runs one variant through DAX.
fn run_dax(victim: &Victim, damage: &[Damage]) -> Result<Came, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let Ok(device) = RamDevice::from_bytes(&victim.damaged(damage)) else { return Came::Nowhere };
        let options = OpenOptions { ignore_journal: true, ..OpenOptions::read_only() };
        Ext2::open(Arc::new(device), &options).map_or(Came::Nowhere, read_by_dax)
    }));
    outcome_of(outcome, None)
}

/// Runs one variant, and gives what is wrong with the answers.
fn run_variant(victim: &Victim, damage: &[Damage]) -> Result<Came, String> {
    let device = Arc::new(victim.device(damage, READS));
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let options = OpenOptions { ignore_journal: true, ..OpenOptions::read_only() };
        let mut findings = 0;
        let _ = check(&*device, &CheckOptions::default(), &mut |_| findings += 1);
        Ext2::open(device.clone(), &options).map_or(Came::Nowhere, |fs| try_everything(&fs))
    }));
    outcome_of(outcome, device.offence())
}

/// How a variant ended, or why it may not end like that.
fn outcome_of(outcome: thread::Result<Came>, offence: Option<String>) -> Result<Came, String> {
    match (outcome, offence) {
        (Ok(came), None) => Ok(came),
        (_, Some(offence)) => Err(offence),
        (Err(panic), None) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("panic: {}", text.unwrap_or_default()))
        }
    }
}

/// What a list of variants came to.
#[derive(Debug, Default)]
struct Tally {
    refused: usize,
    in_part: usize,
    whole: usize,
}

/// Runs a list of variants, and panics with those that fail.
fn run_all(
    variants: impl Iterator<Item = (String, Victim, Vec<Damage>)>,
    run: impl Fn(&Victim, &[Damage]) -> Result<Came, String>,
) -> Tally {
    let watchdog = Watchdog::new();
    let mut failures = Vec::new();
    let mut tally = Tally::default();
    let mut slowest = (Duration::ZERO, String::new());
    for (name, victim, damage) in variants {
        watchdog.enter(&name);
        let begin = Instant::now();
        match run(&victim, &damage) {
            Ok(Came::Nowhere) => tally.refused += 1,
            Ok(Came::In) => tally.in_part += 1,
            Ok(Came::Through) => tally.whole += 1,
            Err(why) => failures.push(format!("{name}: {why} {:.300}\n", format!("{damage:?}"))),
        }
        slowest = slowest.max((begin.elapsed(), name));
    }
    let peak = memory::of(std::process::id(), "VmHWM").expect("Linux tells of a process") / 1024;
    println!("{tally:?}, the slowest {} in {:?}, at most {peak} MiB of memory", slowest.1, slowest.0);
    assert!(peak < 512, "the process has had {peak} MiB, and no image is larger than 24");
    assert!(slowest.0 < Duration::from_secs(30), "{} took {:?}", slowest.1, slowest.0);
    let shown = failures[..failures.len().min(20)].concat();
    assert!(failures.is_empty(), "{} variants failed:\n{shown}", failures.len());
    tally
}

/// So many variants of each golden image that `pick` takes, or the one that is asked for.
/// Of every depth must be at least `least`.
fn sweep(
    pick: impl Fn(&Golden) -> bool,
    least: usize,
    run: impl Fn(&Victim, &[Damage]) -> Result<Came, String>,
) {
    let only = std::env::var("E2DAX_HOSTILE").ok();
    let count = std::env::var("E2DAX_HOSTILE_VARIANTS").map_or(60, |n| n.parse().expect("a number"));
    let images = golden::all().into_iter().filter(pick);
    let variants = images.flat_map(|image| {
        let (victim, only) = (Victim::new(image.file_system()), &only);
        (0..count).filter_map(move |number: u64| {
            let name = format!("{}:{number}", image.name);
            if only.as_ref().is_some_and(|only| *only != name) {
                return None;
            }
            let damage = victim.damage(&mut Rng::named(SEED.wrapping_add(number), &image.name));
            Some((name, victim.clone(), damage))
        })
    });
    let tally = run_all(variants, run);
    if only.is_none() && count >= 60 {
        let fewest = tally.refused.min(tally.in_part).min(tally.whole);
        assert!(fewest >= least, "the damage is of every depth: {tally:?}");
    }
}

#[test]
fn damaged_golden_images_give_errors_or_consistent_answers() {
    sweep(|_| true, 100, run_variant);
}

#[test]
fn damaged_golden_images_can_be_written_without_harm_to_the_process() {
    // The larger ones would spend the time with being copied.
    let pick = |image: &Golden| image.reads() && image.bytes().len() <= 4 << 20;
    sweep(pick, 100, |victim, damage| run_write(victim, damage, Policy::Aligned));
}

#[test]
fn trees_of_damaged_golden_images_are_removed_or_refused() {
    sweep(|image| image.reads() && image.bytes().len() <= 4 << 20, 100, run_removal);
}

/// A name that has no length, a directory in itself, an entry for what is no inode, a map that leads back into it, and all else.
#[test]
fn a_tree_in_which_any_byte_is_wrong_is_removed_or_refused() {
    if std::env::var_os("E2DAX_HOSTILE").is_some() {
        return;
    }
    let device = Arc::new(RamDevice::new(256 << 10).expect("memory"));
    let format = mkfs::Format {
        block_size: ext2_core::BlockSize::new(1024),
        inodes: mkfs::Inodes::Count(32),
        ..mkfs::Format::default()
    };
    mkfs::format(&*device, &format, mkfs::Fresh::Zeros).expect("made");
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
    fs.create_dir_all("a/b/c").expect("made");
    for path in ["a/file", "a/b/file", "a/b/c/file"] {
        fs.write(path, b"x").expect("written");
    }
    fs.hard_link("a/file", "a/b/second").expect("made");
    fs.symlink("a/b", "link").expect("made");
    fs.write("large", [7; 20_000]).expect("written");
    fs.close().expect("closed");
    let victim = Victim::new(device.to_vec());
    let grains: Vec<_> = victim.hot_grains().collect();
    let variants = grains.into_iter().flatten().flat_map(|at| {
        let old = victim.byte(at);
        let mut values = vec![0, 0xff, old ^ 1, old.wrapping_add(4)];
        values.retain(|new| *new != old && !matches!(old, 7 | 0xff));
        let victim = victim.clone();
        values.into_iter().map(move |new| {
            (format!("tree[{at}]={new:#04x}"), victim.clone(), vec![Damage::Replace(at, vec![new])])
        })
    });
    let tally = run_all(variants, run_removal);
    assert!(tally.refused > 100 && tally.in_part > 300 && tally.whole > 1000, "{tally:?}");
}

#[test]
fn damaged_golden_images_read_by_dax_as_by_copying() {
    sweep(|image| image.bytes().len() <= 6 << 20, 10, run_dax);
}

#[test]
fn the_changes_that_damaged_images_are_put_through_leave_sound_ones_sound() {
    need_tools!("e2fsck");
    let folder = tempfile::tempdir().unwrap();
    for image in golden::readable().iter().filter(|image| image.bytes().len() <= 4 << 20) {
        for policy in [Policy::Aligned, Policy::Goal] {
            let device = Arc::new(Workbench::new(image.file_system(), READS));
            let fs = Ext2::open(device.clone(), &OpenOptions { policy, ..OpenOptions::default() }).unwrap();
            let before = from_image(&fs).unwrap();
            modify_everything(&fs);
            let after = from_image(&fs).unwrap();
            assert_ne!(before, after, "{}: something changes", image.name);
            fs.close().unwrap();
            assert_eq!(device.offence(), None, "{}", image.name);
            let path = folder.path().join("image");
            golden::write_sparse(&path, &device.to_vec()).unwrap();
            tools::e2fsck_fn(&path).unwrap_or_else(|error| panic!("{}, {policy:?}: {error}", image.name));
        }
    }
}

#[test]
fn every_metadata_byte_of_a_small_image_may_be_anything() {
    if std::env::var_os("E2DAX_HOSTILE").is_some() {
        return;
    }
    let variants = ["empty", "xattr-256"].into_iter().flat_map(|name| {
        let victim = Victim::new(golden::image(name).file_system());
        let grains: Vec<_> = victim.hot_grains().collect();
        grains.into_iter().flatten().flat_map(move |at| {
            let old = victim.byte(at);
            let mut values = vec![0, 0xff, old ^ 1, old ^ 0x80];
            values.retain(|new| *new != old);
            let victim = victim.clone();
            values.into_iter().map(move |new| {
                (format!("{name}[{at}]={new:#04x}"), victim.clone(), vec![Damage::Replace(at, vec![new])])
            })
        })
    });
    let tally = run_all(variants, run_variant);
    assert!(tally.refused > 100 && tally.in_part > 1000 && tally.whole > 1000, "{tally:?}");
}

#[test]
fn a_file_whose_map_leads_into_itself_is_removed_by_no_more_reads_than_there_are_blocks() {
    let device = Arc::new(Counted::new(mkfs::in_memory(16 << 20).expect("made")));
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
    let file =
        fs.root().expect("root").create("f", &NewInode::new(FileKind::Regular, 0o600)).expect("created");
    file.write_all_at(5 << 30, b"x").expect("written");
    let offset = fs.geometry().block_size.bytes()
        * u64::from(fs.descriptor(GroupNr::new(0)).expect("descriptor").bg_inode_table.get())
        + u64::from(file.nr().get() - 1) * u64::from(fs.geometry().inode_size);
    drop(file);
    assert_eq!(fs.close().expect("closed"), Closed::Clean);
    let top = device.read_u32(offset + 40 + 4 * 14).expect("read");
    assert_ne!(top, 0);
    device.write_words(u64::from(top) * 4096, &[top; 1024]).expect("written");
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).expect("open");
    device.reset();
    let done = fs.root().expect("root").unlink("f");
    // Each pointer that is followed counts, as a leaf's do: a leaf has a thousand.
    let reads = device.reset().reads;
    assert!(reads < 500, "{reads} reads, {done:?}");
}
