//! Opening an image, up to the first byte of a file.

use std::hint::black_box;

use bench::fixture;
use bench::measure::{Contestant, medians};
use bench::table::{Unit, head, row};
use blockdev::{Backend, DeviceOptions, open_image};
use e2dax_tests::tools;
use ext2_core::Follow;
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};

use crate::{Bench, Result, peers, trees};

pub(crate) fn run(bench: &Bench) -> Result<()> {
    head("Opening an image and reading the first byte of a file");
    for full in [1_u64 << 30, 10 << 30, 100 << 30] {
        let size = bench.scaled(full);
        let path = bench.path("open.img");
        fixture::mke2fs(&path, size, &["-N", "16384"])?;
        {
            let device =
                open_image(&path, &DeviceOptions { kind: Backend::Mmap, ..DeviceOptions::read_write() })?;
            let fs = fixture::open(device, false)?;
            fixture::file(&fs.root()?, "file")?.write_at(0, b"first")?;
            fs.close()?;
        }
        let mut byte = [0];
        let mut contestants = vec![
            Contestant::new("ours", || {
                let Ok(device) = trees::read_only(&path) else { return };
                let Ok(fs) = fixture::open(device, true) else { return };
                let Ok(inode) = fs.resolve(b"/file", Follow::Yes) else { return };
                let file = File::open(&DaxFs::new(fs, DaxOptions::default()), inode, OpenFor::Reading);
                let _ = black_box(file.map(|file| file.read_at(0, &mut byte)));
            }),
            Contestant::new("ext4-view", || {
                let Ok(fs) = ext4_view::Ext4::load_from_path(&path) else { return };
                let mut byte = [0];
                let _ = black_box(fs.open("/file").map(|mut file| file.read_bytes(&mut byte)));
            }),
            Contestant::new("ext4-view, on our device", || {
                let Ok(device) = trees::read_only(&path) else { return };
                let Ok(fs) = peers::ext4_view(&device) else { return };
                let mut byte = [0];
                let _ = black_box(fs.open("/file").map(|mut file| file.read_bytes(&mut byte)));
            }),
        ];
        let mut results = medians(9, &mut contestants);
        drop(contestants);
        // On its own: whoever came next would find the caches full of a process that started and ended.
        if tools::have("debugfs") {
            results.extend(medians(
                9,
                &mut [Contestant::new("debugfs, the process", || {
                    let _ = black_box(tools::debugfs(&path, "cat /file"));
                })],
            ));
        }
        row(&format!("of {} GiB", size >> 30), Unit::Calls(1.0), &results);
        std::fs::remove_file(path)?;
    }
    Ok(())
}
