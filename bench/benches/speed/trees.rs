//! Whole trees: walking them with the attributes of each file, making images of them, and checking images.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bench::fixture;
use bench::measure::{Contestant, medians};
use bench::table::{Unit, head, row, skip};
use blockdev::{Backend, BlockDevice, DeviceOptions, open_image};
use e2dax_tests::{Access, mount, tools, with_mount};
use ext2_image::{Walk, check};

use crate::{Bench, Result, peers};

/// An image with `files` small files in directories of 100, and `megabytes` of larger ones.
fn image(bench: &Bench, name: &str, size: u64, files: u64, megabytes: u64) -> Result<PathBuf> {
    let path = bench.path(name);
    fixture::mke2fs(&path, size, &["-N", &(files * 2 + 1024).to_string()])?;
    let device = open_image(&path, &DeviceOptions { kind: Backend::Mmap, ..DeviceOptions::read_write() })?;
    let fs = fixture::open(device, false)?;
    let root = fs.root()?;
    for folder in 0..files.div_ceil(100) {
        let dir = fixture::folder(&root, &format!("folder{folder:05}"))?;
        for nr in 0..100.min(files - folder * 100) {
            let file = fixture::file(&dir, &format!("file{nr:02}"))?;
            file.write_at(0, format!("{folder} {nr}").as_bytes())?;
        }
    }
    for nr in 0..megabytes / 64 {
        fixture::fill(&fixture::file(&root, &format!("large{nr}"))?, 64 << 20)?;
    }
    drop(root);
    fs.close()?;
    Ok(path)
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    head("Whole trees");
    for full in [1_000, 10_000, 100_000] {
        let files = bench.scaled(full);
        let path = image(bench, "walk.img", (64 << 20) + files * 8192, files, 0)?;
        walk(&path, files)?;
        std::fs::remove_file(path)?;
    }
    for (gigabytes, files, megabytes) in [(1, 10_000, 512), (8, 100_000, 4096)] {
        let scale = |value| bench.scaled(value);
        let path = image(bench, "check.img", scale(gigabytes << 30), scale(files), scale(megabytes))?;
        check_it(&path, &format!("check an image of {} MiB", scale(gigabytes << 30) >> 20))?;
        std::fs::remove_file(path)?;
    }
    make(bench)
}

fn walk(path: &Path, files: u64) -> Result<()> {
    let device = open_image(path, &DeviceOptions { kind: Backend::Mmap, ..DeviceOptions::read_only() })?;
    let fs = fixture::open(Arc::clone(&device), true)?;
    let root = fs.root()?;
    let view = peers::ext4_view(&device)?;
    let mut results = medians(
        3,
        &mut [
            Contestant::new("ours", || {
                for folder in root.entries(0).into_iter().flatten().flatten() {
                    if folder.name.starts_with(b".") {
                        continue;
                    }
                    let Ok(dir) = fs.inode(folder.nr) else { continue };
                    for entry in dir.entries(0).into_iter().flatten().flatten() {
                        let _ = black_box(fs.inode(entry.nr).map(|inode| inode.attr()));
                    }
                }
            }),
            Contestant::new("ours, in the order of names (Walk)", || {
                for found in Walk::new(&root, b"/").flatten() {
                    black_box(found.inode.attr());
                }
            }),
            Contestant::new("ext4-view", || {
                for folder in view.read_dir("/").into_iter().flatten().flatten() {
                    for entry in view.read_dir(&folder.path()).into_iter().flatten().flatten() {
                        let _ = black_box(entry.metadata());
                    }
                }
            }),
        ],
    );
    if mount::possible().is_ok() {
        for (name, keep) in
            [("the kernel's loop mount, cached", true), ("the kernel's loop mount, cold", false)]
        {
            results.extend(with_mount(path, Access::ReadOnly, |folder| {
                medians(
                    3,
                    &mut [Contestant::timed(name, || {
                        if !keep {
                            // Names and inodes are forgotten; the image itself stays in memory.
                            let _ = std::fs::write("/proc/sys/vm/drop_caches", "2");
                        }
                        bench::measure::time(|| {
                            for dir in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                                for file in std::fs::read_dir(dir.path()).into_iter().flatten().flatten() {
                                    let _ = black_box(file.metadata());
                                }
                            }
                        })
                    })],
                )
            }));
        }
    }
    row(&format!("list and stat {files} files"), Unit::Calls(files as f64), &results);
    Ok(())
}

fn check_it(path: &Path, what: &str) -> Result<()> {
    let device = open_image(path, &DeviceOptions { kind: Backend::Mmap, ..DeviceOptions::read_only() })?;
    let summary = check::check(&*device, &check::Options::default(), &mut |_| ())?;
    assert!(summary.is_clean(), "the image of the benchmark is sound");
    let mut contestants = vec![Contestant::new("ours", || {
        let _ = black_box(check::check(&*device, &check::Options::default(), &mut |_| ()));
    })];
    if tools::have("e2fsck") {
        contestants.push(Contestant::new("e2fsck -fn", || {
            let _ = tools::e2fsck_fn(path);
        }));
    }
    row(what, Unit::Seconds, &medians(3, &mut contestants));
    Ok(())
}

/// The command, where it was built beside this.
fn command() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?.parent()?.parent()?.join("e2dax");
    let help = std::process::Command::new(&program).args(["mkfs", "--help"]).output().ok()?;
    help.status.success().then_some(program)
}

/// Images made of a tree of the host: of large files, and of small ones.
fn make(bench: &Bench) -> Result<()> {
    let ours = command();
    if ours.is_none() {
        skip("an image from a tree", "no `e2dax mkfs` beside this: cargo build --release -p e2dax");
        return Ok(());
    }
    let small = bench.scaled(100_000);
    for (what, files, bytes) in [
        (format!("an image from {} files of 1 MiB", bench.scaled(1000)), bench.scaled(1000), 1 << 20),
        (format!("an image from {small} small files"), small, 300),
    ] {
        let tree = bench.path("tree");
        let contents = vec![0x5a; bytes];
        for nr in 0..files {
            let folder = tree.join(format!("folder{:05}", nr / 100));
            if nr % 100 == 0 {
                std::fs::create_dir_all(&folder)?;
            }
            std::fs::write(folder.join(format!("file{nr:06}")), &contents)?;
        }
        let image = bench.path("made.img");
        let blocks = (files * (bytes as u64).next_multiple_of(4096) * 11 / 10 + (128 << 20)) / 4096;
        let inodes = (files * 11 / 10 + 2048).to_string();
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let (tree_text, image_text, count) = (text(&tree), text(&image), blocks.to_string());
        let run = |program: &str, arguments: &[&str]| {
            let _ = std::fs::remove_file(&image);
            if let Err(error) = tools::run(program, arguments) {
                println!("| {what} | {program} failed: {} | | | |", error.lines().next().unwrap_or_default());
            }
        };
        let mut contestants = Vec::new();
        if let Some(program) = &ours {
            let program = text(program);
            let (tree, image) = (&tree_text, &image_text);
            contestants.push(Contestant::new("ours", move || {
                run(&program, &["mkfs", "--quiet", image, "--from", tree])
            }));
        }
        if tools::have("mke2fs") {
            contestants.push(Contestant::new("mke2fs -d", || {
                let options = ["-q", "-F", "-t", "ext2", "-b", "4096", "-N", &inodes];
                run("mke2fs", &[&options[..], &["-d", &tree_text, &image_text, &count]].concat());
            }));
        }
        if tools::have("genext2fs") {
            contestants.push(Contestant::new("genext2fs", || {
                let options =
                    ["-q", "-B", "4096", "-b", &count, "-N", &inodes, "-d", &tree_text, &image_text];
                run("genext2fs", &options);
            }));
        }
        if tools::have("tar") {
            contestants.push(Contestant::new("tar", || run("tar", &["-cf", &image_text, &tree_text])));
        }
        if !contestants.is_empty() {
            row(&what, Unit::Seconds, &medians(1, &mut contestants));
        }
        drop(contestants);
        std::fs::remove_dir_all(tree)?;
        let _ = std::fs::remove_file(&image);
    }
    Ok(())
}

/// The device of an image, for reading.
pub(crate) fn read_only(path: &Path) -> Result<Arc<dyn BlockDevice>> {
    Ok(open_image(path, &DeviceOptions { kind: Backend::Mmap, ..DeviceOptions::read_only() })?)
}
