//! Two threads beside one: the same work twice, at once.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use bench::fixture;
use bench::table::head;
use blockdev::BlockDevice;
use ext2_core::{Ext2, Inode};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};

use crate::{Bench, Result};

const ROUNDS: usize = 7;

/// The time until all of `threads` threads have done `work`, which is given the thread's number.
fn together(threads: usize, work: &(impl Fn(usize) + Sync)) -> Duration {
    let barrier = Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        for nr in 0..threads {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                work(nr);
                barrier.wait();
            });
        }
        barrier.wait();
        let begin = Instant::now();
        barrier.wait();
        begin.elapsed()
    })
}

/// Prints how many times as much two threads do as one.
fn row(what: &str, work: impl Fn(usize) + Sync) {
    let mut ratios: Vec<(f64, Duration)> = (0..=ROUNDS)
        .map(|_| {
            let (one, two) = (together(1, &work), together(2, &work));
            (2.0 * one.as_secs_f64() / two.as_secs_f64(), one)
        })
        .skip(1)
        .collect();
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ratio, one) = ratios[ROUNDS / 2];
    println!("| {what} | {:.1} ms | two threads, each as much | | {ratio:.2} x |", one.as_secs_f64() * 1e3);
}

fn lookups(dir: &Inode, names: &[Vec<u8>]) {
    for _ in 0..200 {
        names.iter().for_each(|name| drop(black_box(dir.lookup_nr(name))));
    }
}

fn creates(fs: &Ext2, dirs: [&Inode; 2], nr: usize, count: u32) {
    let _ = fs;
    for file in 0..count {
        drop(black_box(fixture::file(dirs[nr], &format!("{nr}-{file}"))));
    }
    for file in 0..count {
        let _ = dirs[nr].unlink(format!("{nr}-{file}").as_bytes());
    }
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    let size = bench.scaled(128 << 20) >> 20 << 20;
    let device: Arc<dyn BlockDevice> = fixture::ram(3 * size + (256 << 20), 65_536)?;
    let dax = DaxFs::new(fixture::open(device.clone(), false)?, DaxOptions::default());
    let fs = dax.ext2();
    let root = fs.root()?;
    let mut files = Vec::new();
    for name in ["one", "two"] {
        let inode = fixture::file(&root, name)?;
        fixture::fill(&inode, size)?;
        files.push(File::open(&dax, inode, OpenFor::Writing)?);
    }
    head("Two threads; the ratio is of work done in the same time, 2 being the most");
    let read = |file: &File, call: usize| {
        let mut buffer = vec![0; call];
        (0..size).step_by(call).for_each(|at| drop(black_box(file.read_at(at, &mut buffer))));
    };
    let write = |file: &File, from: u64, call: usize| {
        let buffer = vec![3; call];
        (from..from + size / 2).step_by(call).for_each(|at| drop(black_box(file.write_at(at, &buffer))));
    };
    row("the device itself: loads of 64 KiB at two places", |nr| {
        let mut buffer = vec![0; 65536];
        let from = nr as u64 * size;
        (from..from + size).step_by(65536).for_each(|at| drop(black_box(device.read_at(at, &mut buffer))));
    });
    row("read two files, 64 KiB a call", |nr| read(&files[nr], 65536));
    row("read one file, 64 KiB a call", |_| read(&files[0], 65536));
    row("read two files, 4 KiB a call", |nr| read(&files[nr], 4096));
    row("read one file, 4 KiB a call", |_| read(&files[0], 4096));
    row("write over two files, 64 KiB a call", |nr| write(&files[nr], 0, 65536));
    row("write over one file, its halves, 64 KiB a call", |nr| write(&files[0], nr as u64 * size / 2, 65536));
    row("write two new files, 1 MiB a call, and remove them", |nr| {
        let name = format!("new{nr}");
        if let Ok(file) = fixture::file(&root, &name).map(|inode| File::open(&dax, inode, OpenFor::Writing)) {
            let _ = file.map(|file| write(&file, 0, 1 << 20));
        }
        let _ = root.unlink(name.as_bytes());
    });
    let dirs = [fixture::folder(&root, "a")?, fixture::folder(&root, "b")?];
    let names: Vec<Vec<u8>> = (0..2000).map(|nr| format!("name{nr}").into_bytes()).collect();
    for dir in &dirs {
        for name in &names {
            dir.create(name, &ext2_core::NewInode::new(ext2_core::FileKind::Regular, 0o644))?;
        }
    }
    row("look names up in two directories", |nr| lookups(&dirs[nr], &names));
    row("look names up in one directory", |_| lookups(&dirs[0], &names));
    row("create and remove in two directories", |nr| creates(fs, [&dirs[0], &dirs[1]], nr, 3000));
    row("create and remove in one directory", |nr| creates(fs, [&dirs[0], &dirs[0]], nr, 3000));
    Ok(())
}
