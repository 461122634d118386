//! Peak memory of jobs, each in a process of its own.

use std::process::Command;

use bench::fixture;
use bench::table::{head, note, skip};
use blockdev::{Backend, BlockDevice, DeviceOptions, open_image};
use e2dax_tests::memory;
use ext2_image::{Walk, check};

use crate::{Bench, Result};

/// The first argument of a process that only does one job and says what it took.
pub(crate) const CHILD: &str = "measure-memory";

/// Does the job named by the second argument on the image of the third.
pub(crate) fn child(_: &str) -> Result<()> {
    let words: Vec<String> = std::env::args().collect();
    let (Some(job), Some(image)) = (words.get(2), words.get(3)) else { return Err("two more words".into()) };
    let device = open_image(
        image.as_ref(),
        &DeviceOptions { kind: Backend::File, read_only: job != "create", ..DeviceOptions::read_write() },
    )?;
    match job.as_str() {
        "check" => drop(check::check(&*device, &check::Options::default(), &mut |_| ())?),
        "open" => drop(fixture::open(device, true)?),
        "walk" => {
            let fs = fixture::open(device, true)?;
            Walk::new(&fs.root()?, b"/").flatten().for_each(|found| {
                std::hint::black_box(found.inode.attr());
            });
        }
        _ => {
            let fs = fixture::open(device, false)?;
            let dir = fixture::folder(&fs.root()?, "of many")?;
            for nr in 0..20_000 {
                fixture::file(&dir, &format!("file{nr}"))?;
            }
        }
    }
    println!("{}", memory::of(std::process::id(), "VmHWM").unwrap_or(0));
    Ok(())
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    head("Peak memory of a process, in KiB, the image in a file that is read by system calls");
    let image = bench.path("memory.img");
    fixture::mke2fs(&image, bench.scaled(8 << 30), &["-N", "200000"])?;
    {
        let device: std::sync::Arc<dyn BlockDevice> =
            open_image(&image, &DeviceOptions { kind: Backend::Mmap, ..DeviceOptions::read_write() })?;
        let fs = fixture::open(device, false)?;
        let root = fs.root()?;
        for folder in 0..bench.scaled(1000) {
            let dir = fixture::folder(&root, &format!("folder{folder}"))?;
            for nr in 0..100 {
                fixture::file(&dir, &format!("file{nr}"))?;
            }
        }
        drop(root);
        fs.close()?;
    }
    for (job, what) in [
        ("open", "open an image of 8 GiB"),
        ("walk", "walk 100,000 files with their attributes"),
        ("check", "check it"),
        ("create", "create 20,000 files in one directory"),
    ] {
        let program = std::env::current_exe()?;
        let output = Command::new(program).args([CHILD, job]).arg(&image).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        match text.trim().parse::<u64>() {
            Ok(kilobytes) if output.status.success() => note(what, &format!("{kilobytes} KiB")),
            _ => skip(what, &String::from_utf8_lossy(&output.stderr)),
        }
    }
    std::fs::remove_file(image)?;
    Ok(())
}
