//! Names: many in one directory, and trees of directories.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bench::fixture;
use bench::measure::time;
use bench::table::{Unit, head, row, skip};
use blockdev::{Backend, BlockDevice, DeviceOptions, open_image};
use e2dax_tests::{Access, mount, tools, with_mount};
use ext2_core::{Ext2, FileKind, NewInode};

use crate::{Bench, Result, peers};

/// The times of three kinds of work on the same names.
type Times = [Duration; 3];

fn names(count: u64) -> Vec<String> {
    (0..count).map(|nr| format!("a-file-of-the-benchmark-{nr:07}")).collect()
}

fn ours(fs: &Ext2, names: &[String]) -> Result<Times> {
    let dir = fixture::folder(&fs.root()?, "d")?;
    let new = NewInode::new(FileKind::Regular, 0o644);
    let create = time(|| names.iter().for_each(|name| drop(black_box(dir.create(name.as_bytes(), &new)))));
    let look_up = time(|| {
        names.iter().for_each(|name| drop(black_box(dir.lookup(name.as_bytes()).map(|inode| inode.attr()))));
    });
    let unlink = time(|| names.iter().for_each(|name| drop(black_box(dir.unlink(name.as_bytes())))));
    assert_eq!(dir.entries(0)?.count(), 2, "all names came and went");
    Ok([create, look_up, unlink])
}

/// The same through the kernel, below `folder`.
fn system(folder: &Path, names: &[String]) -> Result<Times> {
    let dir = folder.join("d");
    std::fs::create_dir(&dir)?;
    let paths: Vec<_> = names.iter().map(|name| dir.join(name)).collect();
    let create = time(|| paths.iter().for_each(|path| drop(black_box(std::fs::File::create(path)))));
    let look_up = time(|| paths.iter().for_each(|path| drop(black_box(std::fs::metadata(path)))));
    let unlink = time(|| paths.iter().for_each(|path| drop(black_box(std::fs::remove_file(path)))));
    assert_eq!(std::fs::read_dir(&dir)?.count(), 0, "all names came and went");
    Ok([create, look_up, unlink])
}

fn rsext4(device: &Arc<dyn BlockDevice>, names: &[String]) -> Result<Times> {
    let failed = |error| format!("rsext4: {error:?}");
    let mut fs = peers::rsext4(device, rsext4::MountOptions::read_write()).map_err(failed)?;
    let context = rsext4::MutationContext::new(0, 0, 0, 0);
    let mode = rsext4::FilePermissions::new(0o644).map_err(failed)?;
    let root = fs.root_inode();
    fn name(text: &str) -> rsext4::FileName<'_> {
        rsext4::FileName::new(text.as_bytes()).expect("a name of 31 bytes can be")
    }
    let dir = fs.create_directory(context, root, name("d"), mode).map_err(failed)?.number;
    let mut good = true;
    let create = time(|| {
        names.iter().for_each(|own| good &= fs.create_regular_file(context, dir, name(own), mode).is_ok());
    });
    let look_up = time(|| {
        names
            .iter()
            .for_each(|own| good &= fs.lookup_child(dir, name(own)).is_ok_and(|found| found.is_some()));
    });
    let unlink = time(|| names.iter().for_each(|own| good &= fs.unlink(dir, name(own)).is_ok()));
    if good { Ok([create, look_up, unlink]) } else { Err("rsext4 failed on the way".into()) }
}

/// A fresh image, in a file; with hashed directories for those who use them.
fn image(bench: &Bench, count: u64) -> Result<std::path::PathBuf> {
    let path = bench.path("names.img");
    let _ = std::fs::remove_file(&path);
    let inodes = (count + 4096).to_string();
    fixture::mke2fs(&path, (64 << 20) + count * 1024, &["-O", "dir_index", "-N", &inodes])?;
    Ok(path)
}

fn fuse2fs(image: &Path, names: &[String]) -> Result<Times> {
    let folder = tempfile::tempdir()?;
    tools::run("fuse2fs", &["-o".as_ref(), "rw".as_ref(), image.as_os_str(), folder.path().as_os_str()])?;
    let times = system(folder.path(), names);
    for _ in 0..50 {
        if tools::run("fusermount3", &["-u".as_ref(), folder.path().as_os_str()]).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    times
}

fn rows(count: u64, all: &[(&'static str, Times)]) {
    for (nr, what) in ["create", "look up and stat", "unlink"].into_iter().enumerate() {
        let medians: Vec<_> = all.iter().map(|(name, times)| (*name, times[nr])).collect();
        row(&format!("{what} {count} files"), Unit::Calls(count as f64), &medians);
    }
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    head("Names: files in one directory, each call on one file");
    for full in [2_000, 20_000, 200_000] {
        let count = bench.scaled(full);
        let names = names(count);
        let mut all = Vec::new();
        // The median of three of ours, beside one of each peer: the peers are slow.
        let mut own: Vec<Times> = Vec::new();
        for _ in 0..3 {
            let path = image(bench, count)?;
            let device =
                open_image(&path, &DeviceOptions { kind: Backend::Mmap, ..DeviceOptions::read_write() })?;
            own.push(ours(&fixture::open(device, false)?, &names)?);
        }
        own.sort_by_key(|times| times.iter().sum::<Duration>());
        all.push(("ours", own[1]));
        match mount::possible() {
            Ok(()) => {
                let path = image(bench, count)?;
                let times = with_mount(&path, Access::ReadWrite, |folder| system(folder, &names));
                all.push(("the kernel's loop mount", times?));
            }
            Err(why) => skip("the kernel's loop mount", why),
        }
        if count <= 20_000 {
            if tools::have("fuse2fs") && tools::have("fusermount3") {
                match fuse2fs(&image(bench, count)?, &names) {
                    Ok(times) => all.push(("fuse2fs", times)),
                    Err(error) => skip("fuse2fs", &error.to_string()),
                }
            }
            let device: Arc<dyn BlockDevice> = fixture::load(&image(bench, count)?)?;
            match rsext4(&device, &names) {
                Ok(times) => all.push(("rsext4", times)),
                Err(error) => skip("rsext4", &error.to_string()),
            }
        }
        rows(count, &all);
    }
    directories(bench)
}

/// A tree of directories, 100 in each.
fn directories(bench: &Bench) -> Result<()> {
    let (outer, inner) = (bench.scaled(100), 100);
    let count = outer * inner;
    let path = image(bench, 2 * count)?;
    let device = open_image(&path, &DeviceOptions { kind: Backend::Mmap, ..DeviceOptions::read_write() })?;
    let fs = fixture::open(device, false)?;
    let root = fs.root()?;
    let mut all = vec![(
        "ours",
        time(|| {
            for a in 0..outer {
                if let Ok(folder) = fixture::folder(&root, &a.to_string()) {
                    (0..inner).for_each(|b| drop(black_box(fixture::folder(&folder, &b.to_string()))));
                }
            }
        }),
    )];
    drop((root, fs));
    if mount::possible().is_ok() {
        let path = image(bench, 2 * count)?;
        let took = with_mount(&path, Access::ReadWrite, |folder| {
            time(|| {
                for a in 0..outer {
                    let folder = folder.join(a.to_string());
                    let _ = std::fs::create_dir(&folder);
                    (0..inner).for_each(|b| drop(black_box(std::fs::create_dir(folder.join(b.to_string())))));
                }
            })
        });
        all.push(("the kernel's loop mount", took));
    }
    row(&format!("make {count} directories"), Unit::Calls(count as f64), &all);
    Ok(())
}
