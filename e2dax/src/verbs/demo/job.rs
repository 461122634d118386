//! The whole job: an empty image is written, mapped, stored to, synced and checked, by the new path and by the old.

use std::sync::Arc;

use blockdev::RamDevice;
use ext2_core::{FileKind, NewInode};
use ext2_dax::buffer_head::HoleSize;
use ext2_dax::mmu::soft::{Counters, MapRequest, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::{Asked, DataPath, DaxFs, DaxOptions, File, OpenFor};
use ext2_image::check::{self, check};
use ext2_image::{UNIT, Units};

use super::{NAME, compare, mount, say, show_table, unpack};
use crate::context::Context;
use crate::describe::allocated;
use crate::failure::{Failure, Of, Result};
use crate::text::Align;

/// An empty file system of 64 MiB by mke2fs: `testdata/linux-6.1/README.md` tells of it.
const EMPTY: &[u8] = include_bytes!("../../../shipped/base-64m.img.gz");

/// Bytes that are written to `/data`.
const DATA: u64 = 4 * UNIT;

/// What the job came to on one path.
struct Done {
    device: Arc<RamDevice>,
    asked: Asked,
    counters: Counters,
    /// Bytes that one store into a hole of 2 MiB allocated.
    for_one_store: u64,
    /// Whole units of `/data` that a PMD can map.
    mappable: u64,
    /// What the job read, to be compared.
    sum: u64,
}

pub(super) fn run(context: &mut Context) -> Result<()> {
    say(
        context,
        "\nNow the whole job, on an empty image: write 8 MiB to /data by DAX, map it and load a byte of each\n\
         page; make /sparse, a hole of 2 MiB, map it, load a byte of each page and store one; sync; read\n\
         everything back. By the data path of Linux 4.8 (get_block and buffer heads), and by the new one:\n",
    )?;
    let new = job(DataPath::Iomap)?;
    let old = job(DataPath::BufferHead(HoleSize::Untold))?;
    print(context, &old, &new)?;
    if old.sum != new.sum {
        return Err(Failure::text(NAME, "the two paths read different bytes"));
    }
    say(context, "\nBoth read the same bytes. The new image, read once more with both behaviours:\n")?;
    compare(context, &new.device, "/data")?;
    for device in [&old.device, &new.device] {
        clean(device)?;
    }
    say(context, "\nBoth images were closed and checked as e2fsck -fn does: clean.")
}

/// Does it by one path.
fn job(path: DataPath) -> Result<Done> {
    let of = || NAME.to_owned();
    let device = unpack(EMPTY)?;
    let fs = mount(&device)?;
    let dax = DaxFs::new(fs.clone(), DaxOptions { path, ..DaxOptions::default() });
    let make = |name: &[u8]| -> Result<File> {
        let inode = fs.root().and_then(|root| root.create(name, &NewInode::new(FileKind::Regular, 0o644)));
        File::open(&dax, inode.of(of)?, OpenFor::Writing).of(of)
    };
    let mmu = SoftMmu::new();
    let map = |file: &File, len| {
        let request = MapRequest {
            offset: 0,
            len,
            sharing: Sharing::Shared,
            protection: Protection::ReadWrite,
            colour: 0,
        };
        file.map(&mmu, &request).of(of)
    };
    let died = |signal: ext2_dax::mmu::soft::Signal| Failure::text(NAME, signal.to_string());

    let data = make(b"data")?;
    let bytes: Vec<u8> = (0..UNIT).map(|at| (at % 251) as u8).collect();
    for unit in 0..DATA / UNIT {
        data.write_at(unit * UNIT, &bytes).of(of)?;
    }
    let map_of_data = map(&data, DATA)?;
    let mut sum = 0;
    for page in 0..DATA / 4096 {
        sum += u64::from(map_of_data.load(page * 4096).map_err(died)?);
    }

    let sparse = make(b"sparse")?;
    sparse.truncate(UNIT, ext2_dax::Wait::Yes).of(of)?;
    let map_of_sparse = map(&sparse, UNIT)?;
    for page in 0..UNIT / 4096 {
        sum += u64::from(map_of_sparse.load(page * 4096).map_err(died)?);
    }
    map_of_sparse.store(UNIT / 2, 7).map_err(died)?;
    sparse.sync().of(of)?;
    let mut back = vec![0; bytes.len()];
    for file in [&data, &sparse] {
        let read = file.read_at(0, &mut back).of(of)?;
        sum += read + back.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    }
    let counters = mmu.counters();
    let mappable = Units::of(data.inode(), 0).counts().of(of)?.mappable;
    let for_one_store = allocated(&sparse.inode().attr());
    drop((map_of_data, map_of_sparse, data, sparse));
    let asked = dax.asked();
    drop(dax);
    fs.close().of(of)?;
    Ok(Done { device, asked, counters, for_one_store, mappable, sum })
}

fn print(context: &mut Context, old: &Done, new: &Done) -> Result<()> {
    let mut rows = vec![["", "the old path", "the new path"].map(String::from).to_vec()];
    let mut row = |what: &str, count: &dyn Fn(&Done) -> String| {
        rows.push(vec![what.into(), count(old), count(new)]);
    };
    let faults =
        |done: &Done| done.counters.pte_faults + done.counters.pmd_faults - done.counters.pmd_fallbacks;
    row("calls of the file system", &|done| done.asked.calls.to_string());
    row("blocks asked", &|done| done.asked.blocks_asked.to_string());
    row("blocks answered", &|done| done.asked.blocks_answered.to_string());
    row("exclusive locks of an inode", &|done| done.asked.exclusive_locks.to_string());
    row("operations counted for truncate", &|done| done.asked.dio_counts.to_string());
    row("faults", &|done| faults(done).to_string());
    row("of them of 2 MiB", &|done| (done.counters.pmd_faults - done.counters.pmd_fallbacks).to_string());
    row("2 MiB translations at the end", &|done| done.counters.pmds.to_string());
    row("bytes allocated for the byte stored", &|done| done.for_one_store.to_string());
    row("units of /data that a PMD can map", &|done| format!("{} of {}", done.mappable, DATA / UNIT));
    show_table(context, &[Align::Left, Align::Right, Align::Right], &rows)
}

/// Checks an image as e2fsck does.
fn clean(device: &RamDevice) -> Result<()> {
    let mut findings = Vec::new();
    let mut sink = |finding: &check::Finding| findings.push(finding.to_string());
    let summary = check(device, &check::Options::default(), &mut sink).of(|| NAME.into())?;
    if summary.is_clean() { Ok(()) } else { Err(Failure::broken(NAME, findings.join("; "))) }
}
