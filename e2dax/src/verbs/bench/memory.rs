//! A file system made in RAM for the purpose: data, lookups, faults and names.

use std::ffi::OsStr;
use std::hint::black_box;
use std::sync::Arc;

use blockdev::{BlockDevice, RamDevice};
use ext2_core::{BlockSize, Ext2, FileKind, Inode, NewInode, OpenOptions};
use ext2_dax::mmu::soft::{MapRequest, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};
use ext2_image::UNIT;
use ext2_image::mkfs::{Format, Fresh, format};

use super::{ROUNDS, Row, Work, row, time};
use crate::dax::PAGE;
use crate::failure::{Failure, Of, Result};
use crate::progress;

/// What messages call it.
const NAME: &str = "the file system in RAM";
/// Bytes of a large call.
const CALL: usize = 1 << 20;
/// Files of the rows about names.
const FILES: u64 = 10_000;

fn name() -> String {
    NAME.into()
}

/// The table for a file of `size` bytes.
pub(super) fn rows(size: u64) -> Result<Vec<Row>> {
    let size = size / UNIT * UNIT;
    if size == 0 {
        return Err(Failure::usage(OsStr::new("--size"), "2 MiB at least"));
    }
    // Room for the file twice, and for the names.
    let room = size.checked_mul(2).and_then(|twice| twice.checked_add(64 << 20));
    let room = room.ok_or_else(|| Failure::text(NAME, "is too large"))?;
    let device = Arc::new(RamDevice::new(room).of(name)?);
    format(&*device, &Format { block_size: BlockSize::new(4096), ..Format::default() }, Fresh::Zeros)
        .map_err(|error| Failure::text(NAME, error.to_string()))?;
    let shared: Arc<dyn BlockDevice> = device;
    let dax = DaxFs::new(Ext2::open(shared, &OpenOptions::default()).of(name)?, DaxOptions::default());
    let root = dax.ext2().root().of(name)?;
    let bar = progress::count_bar("measuring", 9);
    let mut rows = Vec::new();
    let mut add = |row: Result<Row>| -> Result<()> {
        rows.push(row?);
        bar.inc(1);
        Ok(())
    };
    let file = File::open(&dax, make(&root, b"data")?, OpenFor::Writing).of(name)?;
    let mut copy = Copy { from: vec![1; size.min(64 << 20) as usize], to: vec![2; CALL] }; // at most 64 MiB

    add(new_blocks(&dax, &root, size, &mut copy))?;
    write_all(&file, size)?;
    add(row(
        "write over, 1 MiB a call",
        Work::Bytes(size),
        &mut || time(|| write_all(&file, size)),
        Some(("memcpy", &mut || time(|| copy.in_order(size)))),
    ))?;
    let mut buffer = vec![0; CALL];
    add(row(
        "read in order, 1 MiB a call",
        Work::Bytes(size),
        &mut || time(|| (0..size).step_by(CALL).try_for_each(|at| read(&file, at, &mut buffer))),
        Some(("memcpy", &mut || time(|| copy.in_order(size)))),
    ))?;
    let pages = (size / PAGE).min(1 << 15);
    let mut page = [0; PAGE as usize];
    add(row(
        "read random pages of 4 KiB",
        Work::Bytes(pages * PAGE),
        &mut || time(|| random(pages, size / PAGE).try_for_each(|nr| read(&file, nr * PAGE, &mut page))),
        Some(("memcpy", &mut || time(|| copy.pages(pages)))),
    ))?;
    for (what, colour, step) in [("fault of 4 KiB", PAGE, PAGE), ("fault of 2 MiB", 0, UNIT)] {
        add(row(what, Work::Calls(size / step), &mut || touch(&file, size, colour, step), None))?;
    }
    for row in names(&root)? {
        add(Ok(row))?;
    }
    bar.finish_and_clear();
    Ok(rows)
}

fn make(dir: &Inode, file: &[u8]) -> Result<Inode> {
    dir.create(file, &NewInode::new(FileKind::Regular, 0o644)).of(name)
}

fn write_all(file: &File, size: u64) -> Result<()> {
    let bytes = vec![3; CALL];
    (0..size).step_by(CALL).try_for_each(|at| file.write_at(at, &bytes).of(name).map(drop))
}

fn read(file: &File, at: u64, buffer: &mut [u8]) -> Result<()> {
    black_box(file.read_at(at, buffer).of(name)?);
    Ok(())
}

/// A file that is written from nothing each time. To remove it is not measured.
fn new_blocks(dax: &DaxFs, root: &Inode, size: u64, copy: &mut Copy) -> Result<Row> {
    row(
        "write new blocks, 1 MiB a call",
        Work::Bytes(size),
        &mut || {
            let file = File::open(dax, make(root, b"new")?, OpenFor::Writing).of(name)?;
            let took = time(|| write_all(&file, size));
            root.unlink(b"new").of(name)?;
            took
        },
        Some(("memcpy", &mut || time(|| copy.in_order(size)))),
    )
}

/// Memory that is copied as the C library copies it.
struct Copy {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Copy {
    fn in_order(&mut self, size: u64) -> Result<()> {
        let pieces = self.from.chunks_exact(CALL.min(self.from.len())).cycle();
        for piece in pieces.take((size / CALL as u64) as usize) {
            // fits: it is in memory
            self.to[..piece.len()].copy_from_slice(piece);
            black_box(&mut self.to);
        }
        Ok(())
    }

    fn pages(&mut self, count: u64) -> Result<()> {
        let page = PAGE as usize;
        for nr in random(count, self.from.len() as u64 / PAGE) {
            let at = nr as usize * page; // within `from`
            self.to[..page].copy_from_slice(&self.from[at..at + page]);
            black_box(&mut self.to);
        }
        Ok(())
    }
}

/// `count` numbers below `end`, the same each time.
fn random(count: u64, end: u64) -> impl Iterator<Item = u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..count).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % end
    })
}

/// One load in every `step` bytes of a new mapping.
fn touch(file: &File, size: u64, colour: u64, step: u64) -> Result<std::time::Duration> {
    let mmu = SoftMmu::new();
    let (sharing, protection) = (Sharing::Shared, Protection::ReadOnly);
    let map = file.map(&mmu, &MapRequest { offset: 0, len: size, sharing, protection, colour }).of(name)?;
    time(|| {
        for at in (0..size).step_by(step as usize) {
            // 4 KiB or 2 MiB
            black_box(map.load(at).map_err(|signal| Failure::text(NAME, signal.to_string()))?);
        }
        Ok(())
    })
}

/// Files made, looked up with their attributes, and removed, each round anew.
fn names(root: &Inode) -> Result<Vec<Row>> {
    let path = |nr: u64| format!("file-{nr}").into_bytes();
    let mut times = [const { Vec::new() }; 3];
    for round in 0..ROUNDS {
        let dir = root.create(format!("dir-{round}").as_bytes(), &NewInode::new(FileKind::Directory, 0o755));
        let dir = dir.of(name)?;
        let each = |work: &dyn Fn(u64) -> Result<()>| time(|| (0..FILES).try_for_each(work));
        times[0].push(each(&|nr| make(&dir, &path(nr)).map(drop))?);
        times[1].push(each(&|nr| {
            black_box(dir.lookup(path(nr)).of(name)?.attr());
            Ok(())
        })?);
        times[2].push(each(&|nr| dir.unlink(path(nr)).of(name))?);
    }
    let what = ["create a file, of 10,000 in a directory", "look up and stat", "unlink"];
    let rows = what.into_iter().zip(times).map(|(what, times)| Row {
        what: what.to_owned(),
        work: Work::Calls(FILES),
        ours: super::median(times),
        beside: None,
    });
    Ok(rows.collect())
}
