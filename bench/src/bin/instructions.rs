//! Hot paths to be counted by callgrind: `instructions.sh` runs this, and compares.
//!
//! Each row's work runs inside [`measured`], a few times after once outside, and callgrind is told to write
//! its counts at the end of each call of that function. The names of the rows, in order, with how often
//! each ran, are printed.

use std::hint::black_box;
use std::sync::Arc;

use bench::fixture::{self, FIRST_OF_DEPTH, first_of_depth};
use blockdev::BlockDevice;
use ext2_core::{FileBlock, Inode};
use ext2_dax::mmu::soft::{MapRequest, SoftMap, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What callgrind counts.
#[inline(never)]
fn measured(times: u64, work: &mut dyn FnMut(u64)) {
    for nr in 0..times {
        work(nr);
    }
    // Whatever follows the loop keeps the call a call.
    black_box(times);
}

/// A row: the work is given the numbers from `first` on, and one more at first to warm up.
fn row(name: &str, times: u64, mut work: impl FnMut(u64)) {
    work(0);
    measured(times, &mut |nr| work(nr + 1));
    println!("{times} {name}");
}

fn must<T, E: std::fmt::Display>(result: std::result::Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

fn names(prefix: &str, count: u64) -> Vec<Vec<u8>> {
    (0..count).map(|nr| format!("{prefix}{nr:06}").into_bytes()).collect()
}

fn lookups(deep: &Inode, pieces: &Inode) {
    for (depth, first) in FIRST_OF_DEPTH.into_iter().enumerate() {
        row(&format!("map 1 block at depth {depth}"), 100, |nr| {
            black_box(must(deep.map(FileBlock::new(first + nr % 8), 1)));
        });
    }
    row("map 1 block at depth 1 that is not known", 100, |nr| {
        black_box(must(pieces.map(FileBlock::new(12 + nr * 2), 1)));
    });
    for depth in 1..4 {
        row(&format!("map 512 blocks at depth {depth}"), 20, |_| {
            black_box(must(deep.map(first_of_depth(depth), 512)));
        });
    }
    row("map a hole of a tebibyte", 20, |_| {
        black_box(must(deep.map(FileBlock::new(2_000_000), 1 << 28)));
    });
}

fn reads(fs: &DaxFs, deep: &Inode) -> Result<()> {
    let file = File::open(fs, deep.clone(), OpenFor::Reading)?;
    let mut page = vec![0; 4096];
    for (depth, first) in FIRST_OF_DEPTH.into_iter().enumerate() {
        row(&format!("read 4 KiB at depth {depth}"), 50, |nr| {
            black_box(must(file.read_at((first + nr % 8) * 4096, &mut page)));
        });
    }
    row("read 4 KiB of a hole", 50, |nr| {
        black_box(must(file.read_at((600_000 + nr) * 4096, &mut page)));
    });
    row("read 64 bytes", 50, |nr| {
        black_box(must(file.read_at(nr * 64, &mut page[..64])));
    });
    Ok(())
}

fn loads(name: &str, map: &SoftMap, first: u64, stride: u64, times: u64) {
    row(name, times, |nr| {
        black_box(map.load((first + nr * stride) * 4096).unwrap_or(0));
    });
}

fn faults(fs: &DaxFs, small: &Inode, deep: &Inode, large: &Inode) -> Result<()> {
    let mmu = SoftMmu::new();
    let map = |inode: &Inode, offset: u64, colour: u64| -> Result<SoftMap> {
        let file = File::open(fs, inode.clone(), OpenFor::Reading)?;
        let request = MapRequest {
            offset,
            len: 64 << 20,
            sharing: Sharing::Shared,
            protection: Protection::ReadOnly,
            colour,
        };
        Ok(file.map(&mmu, &request)?)
    };
    // A colour other than 0 keeps units of 2 MiB from being mapped.
    let scattered = map(small, 0, 4096)?;
    loads("fault: a page", &scattered, 0, 1, 60);
    loads("load without a fault", &scattered, 0, 0, 100);
    loads("fault: the zero page", &map(deep, 600_000 * 4096, 4096)?, 0, 1, 60);
    loads("fault: 2 MiB", &map(large, 0, 0)?, 0, 512, 20);
    loads("fault: 2 MiB of zeros", &map(deep, 600_000 / 512 * 512 * 4096, 0)?, 0, 512, 20);
    Ok(())
}

fn writes(root: &Inode) -> Result<()> {
    let file = fixture::file(root, "written")?;
    let page = vec![9; 4096];
    row("write 4 KiB to a new block", 100, |nr| {
        black_box(must(file.write_at(nr * 4096, &page)));
    });
    row("write 4 KiB over", 100, |nr| {
        black_box(must(file.write_at(nr * 4096, &page)));
    });
    let megabyte = vec![9; 1 << 20];
    row("write 1 MiB to new blocks", 4, |nr| {
        black_box(must(file.write_at((nr + 1) << 20, &megabyte)));
    });
    Ok(())
}

/// Rows over the names of one directory that holds `count` files.
fn one_directory(root: &Inode, count: u64) -> Result<()> {
    let dir = fixture::folder(root, &format!("of{count}"))?;
    let there = names("file", count);
    for name in &there {
        dir.create(name, &ext2_core::NewInode::new(ext2_core::FileKind::Regular, 0o644))?;
    }
    let more = names("more", 51);
    let at = |nr: u64, len: usize| usize::try_from(nr * 7).unwrap_or(0) % len;
    row(&format!("look up a name, of {count}"), 50, |nr| {
        black_box(must(dir.lookup_nr(&there[at(nr, there.len())])));
    });
    row(&format!("miss a name, of {count}"), 50, |nr| {
        black_box(dir.lookup_nr(&more[at(nr, more.len())]).is_err());
    });
    row(&format!("open by name, of {count}"), 50, |nr| {
        black_box(must(dir.lookup(&there[at(nr, there.len())])));
    });
    row(&format!("create a file, of {count}"), 50, |nr| {
        black_box(must(fixture::file(&dir, &format!("more{nr:06}"))));
    });
    row(&format!("unlink a file, of {count}"), 50, |nr| {
        must(dir.unlink(&more[usize::try_from(nr).unwrap_or(0)]));
    });
    row(&format!("list a directory, of {count}"), 1, |_| {
        black_box(must(dir.entries(0)).count());
    });
    Ok(())
}

fn main() -> Result<()> {
    let device: Arc<dyn BlockDevice> = fixture::ram(1 << 30, 65_536)?;
    let fs = fixture::open(device.clone(), false)?;
    let root = fs.root()?;
    let deep = fixture::deep_file(&root, "deep", 512)?;
    let small = fixture::file(&root, "small")?;
    fixture::fill(&small, 1 << 20)?;
    let large = fixture::file(&root, "large")?;
    fixture::fill(&large, 64 << 20)?;
    let dax = DaxFs::new(fs.clone(), DaxOptions::default());

    lookups(&deep, &fixture::file_in_pieces(&root, "pieces", 200)?);
    reads(&dax, &deep)?;
    faults(&dax, &small, &deep, &large)?;
    writes(&root)?;
    for count in [20, 2000] {
        one_directory(&root, count)?;
    }
    let dirs = fixture::folder(&root, "directories")?;
    row("make a directory", 20, |nr| {
        black_box(must(fixture::folder(&dirs, &format!("{nr}"))));
    });
    row("statfs", 20, |_| {
        black_box(must(fs.statfs()));
    });
    drop((root, deep, small, large, dax, dirs));
    fs.close()?;
    row("open read-only", 5, |_| {
        black_box(must(fixture::open(device.clone(), true)));
    });
    Ok(())
}
