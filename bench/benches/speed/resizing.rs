//! Growing and shrinking an image, beside resize2fs, which is a process of its own.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bench::fixture;
use bench::measure::{Contestant, medians, time};
use bench::table::{Unit, head, row};
use blockdev::{Kind, OpenOptions, open_image};
use e2dax_tests::tools;
use ext2_core::{FileKind, NewInode};
use ext2_image::resize::Resize;
use ext2_image::rewrite::Options;

use crate::{Bench, Result};

/// An image half full: files of 1 MiB in many directories, with room among them.
fn image(path: &Path, size: u64, args: &[&str]) -> Result<()> {
    fixture::mke2fs(path, size, args)?;
    let device = open_image(path, &OpenOptions { kind: Kind::Mmap, ..OpenOptions::read_write() })?;
    let fs = fixture::open(device, false)?;
    let root = fs.root()?;
    let part = vec![7; 1 << 20];
    let mut gone = Vec::new();
    for nr in 0..size * 9 / 10 >> 20 {
        let name = format!("d{}", nr % 64);
        let dir = match fs.resolve(format!("/{name}").as_bytes(), ext2_core::Follow::No) {
            Ok(dir) => dir,
            Err(_) => root.create(name.as_bytes(), &NewInode::new(FileKind::Directory, 0o755))?,
        };
        let name = format!("f{nr}");
        let file = fixture::file(&dir, &name)?;
        if file.write_at(0, &part).is_err() {
            break;
        }
        if nr % 2 == 0 {
            gone.push((dir, name));
        }
    }
    for (dir, name) in gone {
        dir.unlink(name.as_bytes())?;
    }
    fs.close()?;
    Ok(())
}

fn ours(path: &Path, bytes: u64) -> Result<()> {
    let len = fs::metadata(path)?.len().max(bytes);
    fs::OpenOptions::new().write(true).open(path)?.set_len(len)?;
    let device = open_image(path, &OpenOptions { kind: Kind::Mmap, ..OpenOptions::read_write() })?;
    let plan = Resize::plan(&*device, bytes / 4096)?;
    plan.run(&*device, &Options::default())?;
    drop(device);
    fs::OpenOptions::new().write(true).open(path)?.set_len(plan.bytes())?;
    Ok(())
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    if !tools::have("resize2fs") {
        return Ok(());
    }
    head("Growing and shrinking an image");
    let gib = bench.scaled(1 << 30) / 4096 * 4096;
    for (what, args, from, to) in [
        ("grow 1 to 4 GiB", &["-N", "16384"][..], gib, 4 * gib),
        ("grow 1 to 300 GiB, no spare descriptors", &["-N", "16384", "-O", "^resize_inode"], gib, 300 * gib),
        ("shrink 2 to 1 GiB, 1 GiB of files", &["-N", "16384"], 2 * gib, gib * 11 / 10 / 4096 * 4096),
    ] {
        let base = bench.path("base.img");
        image(&base, from, args)?;
        let copy = bench.path("copy.img");
        let round = |work: &dyn Fn(&Path) -> Result<()>| -> Duration {
            if tools::run("cp", &["--sparse=always".as_ref(), base.as_os_str(), copy.as_os_str()]).is_err() {
                return Duration::ZERO;
            }
            time(|| {
                if let Err(error) = work(&copy) {
                    println!("{what}: {error}");
                }
            })
        };
        let mut contestants = vec![
            Contestant::timed("ours", || round(&|path| ours(path, to))),
            Contestant::timed("resize2fs", || {
                round(&|path| {
                    let size = format!("{}K", to / 1024);
                    tools::run("resize2fs", &["-f".as_ref(), path.as_os_str(), size.as_ref()])?;
                    Ok(())
                })
            }),
        ];
        let results = medians(5, &mut contestants);
        drop(contestants);
        row(what, Unit::Calls(1.0), &results);
        fs::remove_file(base)?;
        let _ = fs::remove_file(copy);
    }
    Ok(())
}
