//! Lookups in the block map, and what of the device each touches.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bench::fixture::{self, FIRST_OF_DEPTH};
use bench::measure::{Contestant, medians};
use bench::table::{Unit, head, note, row, skip};
use blockdev::{Backend, BlockDevice, Counted, DeviceOptions, open_image};
use ext2_core::{FileBlock, Follow};

use crate::{Bench, Result, peers};

const LOOKUPS: u64 = 2_000_000;

/// Blocks of a file in pieces: far more than a file's known runs.
const PIECES: u64 = 10_000;

pub(crate) fn run(bench: &Bench) -> Result<()> {
    let image = bench.path("lookup.img");
    fixture::mke2fs(&image, 256 << 20, &[""; 0])?;
    let (number, pieces) = {
        let device =
            open_image(&image, &DeviceOptions { kind: Backend::Mmap, ..DeviceOptions::read_write() })?;
        let fs = fixture::open(device, false)?;
        let root = fs.root()?;
        let number = fixture::deep_file(&root, "deep", 12)?.nr();
        let hole = fixture::file(&root, "hole")?;
        hole.write_at(0, &[1])?;
        hole.write_at(1 << 40, &[1])?;
        let pieces = fixture::file_in_pieces(&root, "pieces", PIECES)?.nr();
        drop((root, hole));
        fs.close()?;
        (number, pieces)
    };
    let ram: Arc<dyn BlockDevice> = fixture::load(&image)?;
    let counted = Arc::new(Counted::new(Arc::clone(&ram)));
    let fs = fixture::open(Arc::clone(&counted) as Arc<dyn BlockDevice>, true)?;
    let bare = fixture::open(ram, true)?;
    let inode = bare.inode(number)?;
    let theirs = peers::libext2fs(bench.folder.path());
    head("Looking blocks up: one block a call");
    if let Err(why) = &theirs {
        skip("libext2fs bmap", why);
    }
    let path = &image;
    for (depth, first) in FIRST_OF_DEPTH.into_iter().enumerate() {
        let calls = bench.scaled(LOOKUPS);
        let inode = &inode;
        let mut contestants = vec![Contestant::new("ours", move || {
            for nr in 0..calls {
                black_box(inode.map(FileBlock::new(black_box(first + nr % 12)), 1).is_ok());
            }
        })];
        if let Ok(program) = &theirs {
            let arguments = [u64::from(number.get()), first, 12, bench.scaled(20_000)];
            contestants.push(Contestant::timed("libext2fs bmap", move || {
                let words = arguments.map(|number| number.to_string());
                let output = std::process::Command::new(program).arg(path).args(&words).output();
                let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
                let each: f64 = text.unwrap_or_default().trim().parse().unwrap_or(f64::INFINITY);
                Duration::try_from_secs_f64(each * calls as f64 / 1e9).unwrap_or(Duration::MAX)
            }));
        }
        row(&format!("at depth {depth}"), Unit::Calls(calls as f64), &medians(5, &mut contestants));
    }
    let pieces = bare.inode(pieces)?;
    let calls = bench.scaled(LOOKUPS);
    row(
        "in a file of 10,000 pieces, never known (depths 1 and 2)",
        Unit::Calls(calls as f64),
        &medians(
            5,
            &mut [Contestant::new("ours", || {
                for nr in 0..calls {
                    let block = FileBlock::new(12 + nr.wrapping_mul(7919) % (PIECES - 6) * 2);
                    black_box(pieces.map(black_box(block), 1).is_ok());
                }
            })],
        ),
    );
    let counted_inode = fs.inode(number)?;
    for (depth, first) in FIRST_OF_DEPTH.into_iter().enumerate() {
        let loads = || -> Result<String> {
            counted.reset();
            counted_inode.map(FileBlock::new(first), 1)?;
            let counts = counted.snapshot();
            Ok(format!("{} loads, {} bytes", counts.reads, counts.read_bytes))
        };
        let (first, again) = (loads()?, loads()?);
        note(&format!("of the device, at depth {depth}"), &format!("{first}; again: {again}"));
    }
    let hole = fs.resolve(b"/hole", Follow::Yes)?;
    counted.reset();
    let mapping = hole.map(FileBlock::new(1), (1 << 28) - 1)?;
    let counts = counted.snapshot();
    note(
        "of the device, a hole of 1 TiB",
        &format!("{} blocks: {} loads, {} bytes", mapping.count, counts.reads, counts.read_bytes),
    );
    counted.reset();
    let data = hole.seek_data(4096)?;
    let counts = counted.snapshot();
    note(
        "of the device, SEEK_DATA across it",
        &format!("to {data}: {} loads, {} bytes", counts.reads, counts.read_bytes),
    );
    let bare_hole = bare.resolve(b"/hole", Follow::Yes)?;
    let calls = bench.scaled(500_000);
    row(
        "SEEK_DATA across a hole of 1 TiB",
        Unit::Calls(calls as f64),
        &medians(
            5,
            &mut [Contestant::new("ours", || {
                (0..calls).for_each(|_| drop(black_box(bare_hole.seek_data(black_box(4096)))));
            })],
        ),
    );
    drop((fs, bare, inode));
    std::fs::remove_file(image)?;
    Ok(())
}
