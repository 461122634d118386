//! Reading a file: in order, a megabyte a call, and single pages here and there.

use std::hint::black_box;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bench::fixture;
use bench::measure::{Contestant, medians};
use bench::table::{Unit, head, row, skip};
use blockdev::{Backend, BlockDevice, DeviceOptions, open_image};
use e2dax_tests::{Access, Rng, mount, with_mount};
use ext2_core::Follow;
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};

use crate::{Bench, Result, peers};

const CALL: usize = 1 << 20;

/// The file `big` of a device, by DAX.
pub(crate) fn dax_file(device: &Arc<dyn BlockDevice>, path: &str, open_for: OpenFor) -> Result<File> {
    let fs = fixture::open(Arc::clone(device), open_for == OpenFor::Reading)?;
    let inode = fs.resolve(path.as_bytes(), Follow::Yes)?;
    Ok(File::open(&DaxFs::new(fs, DaxOptions::default()), inode, open_for)?)
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    let size = bench.scaled(1 << 30) / CALL as u64 * CALL as u64;
    let image = bench.path("read.img");
    fixture::mke2fs(&image, size + (128 << 20), &["-m", "0"])?;
    {
        let device =
            open_image(&image, &DeviceOptions { kind: Backend::Mmap, ..DeviceOptions::read_write() })?;
        let fs = fixture::open(device, false)?;
        fixture::fill(&fixture::file(&fs.root()?, "big")?, size)?;
        fs.close()?;
    }
    let ram: Arc<dyn BlockDevice> = fixture::load(&image)?;
    let mmap: Arc<dyn BlockDevice> =
        open_image(&image, &DeviceOptions { kind: Backend::Mmap, ..DeviceOptions::read_only() })?;
    let plain = vec![1_u8; usize::try_from(size)?];
    let pages: Vec<u64> = {
        let mut rng = Rng::new(7);
        (0..bench.scaled(400_000)).map(|_| rng.below(size / 4096) * 4096).collect()
    };
    head(&format!("Reading a file of {} MiB", size >> 20));
    for (name, device) in [("RAM", &ram), ("mmap", &mmap)] {
        let file = dax_file(device, "/big", OpenFor::Reading)?;
        let inode = file.inode().clone();
        let places = fixture::places(&inode, (0..size).step_by(CALL))?;
        let page_places = fixture::places(&inode, pages.iter().copied())?;
        let buffers = || vec![0_u8; CALL];
        let (mut a, mut b, mut c, mut d) = (buffers(), buffers(), buffers(), buffers());
        let mut contestants = vec![
            Contestant::new("ours", || {
                (0..size).step_by(CALL).for_each(|at| {
                    black_box(file.read_at(at, &mut a).unwrap_or(0));
                });
            }),
            Contestant::new("the device's own copy of the same ranges", || {
                places.iter().for_each(|&at| drop(black_box(device.read_at(at, &mut b))));
            }),
            Contestant::new("memcpy of as much", || {
                plain.chunks_exact(CALL).for_each(|part| {
                    c.copy_from_slice(black_box(part));
                    black_box(&mut c);
                });
            }),
        ];
        if name == "RAM" {
            contestants.push(Contestant::new("by copying (ext2-core)", || {
                (0..size).step_by(CALL).for_each(|at| {
                    black_box(inode.read_at(at, &mut d).unwrap_or(0));
                });
            }));
        }
        row(
            &format!("{name}: in order, 1 MiB a call"),
            Unit::Bytes(size as f64),
            &medians(7, &mut contestants),
        );
        drop(contestants);
        let page = || vec![0_u8; 4096];
        let (mut a, mut b, mut c) = (page(), page(), page());
        let results = medians(
            7,
            &mut [
                Contestant::new("ours", || {
                    pages.iter().for_each(|&at| drop(black_box(file.read_at(at, &mut a))));
                }),
                Contestant::new("the device's own copy of the same pages", || {
                    page_places.iter().for_each(|&at| drop(black_box(device.read_at(at, &mut b))));
                }),
                Contestant::new("memcpy of as many", || {
                    pages.iter().for_each(|&at| {
                        // OK to cast: an offset into the vector.
                        c.copy_from_slice(black_box(&plain[at as usize..at as usize + 4096]));
                        black_box(&mut c);
                    });
                }),
            ],
        );
        row(&format!("{name}: random pages of 4 KiB"), Unit::Bytes(pages.len() as f64 * 4096.0), &results);
    }
    libraries(&ram, size, &pages)?;
    drop((ram, plain));
    kernel(&image, &mmap, size, &pages)?;
    drop(mmap);
    std::fs::remove_file(image)?;
    Ok(())
}

/// The kernel's loop mount of the very image, warm, beside ours on a map of it.
fn kernel(image: &std::path::Path, mmap: &Arc<dyn BlockDevice>, size: u64, pages: &[u64]) -> Result<()> {
    if let Err(why) = mount::possible() {
        skip("the kernel's loop mount", why);
        return Ok(());
    }
    let ours = dax_file(mmap, "/big", OpenFor::Reading)?;
    with_mount(image, Access::ReadOnly, |folder| -> Result<()> {
        let theirs = std::fs::File::open(folder.join("big"))?;
        let (mut a, mut b) = (vec![0; CALL], vec![0; CALL]);
        let plain = vec![1_u8; usize::try_from(size)?];
        let results = medians(
            5,
            &mut [
                Contestant::new("ours", || {
                    (0..size).step_by(CALL).for_each(|at| drop(black_box(ours.read_at(at, &mut a))));
                }),
                Contestant::new("loads of as much plain memory, without a copy", || {
                    black_box(loads(&plain));
                }),
                Contestant::new("the kernel's loop mount, cached", || {
                    (0..size).step_by(CALL).for_each(|at| drop(black_box(theirs.read_at(&mut b, at))));
                }),
            ],
        );
        row("mmap: in order, 1 MiB a call", Unit::Bytes(size as f64), &results);
        let results = medians(
            5,
            &mut [
                Contestant::new("ours", || {
                    pages.iter().for_each(|&at| drop(black_box(ours.read_at(at, &mut a[..4096]))));
                }),
                Contestant::new("the kernel's loop mount, cached", || {
                    pages.iter().for_each(|&at| drop(black_box(theirs.read_at(&mut b[..4096], at))));
                }),
            ],
        );
        row("mmap: random pages of 4 KiB", Unit::Bytes(pages.len() as f64 * 4096.0), &results);
        Ok(())
    })
}

/// Loads all of it and stores nothing: about what a copy would take whose stores cost nothing.
fn loads(bytes: &[u8]) -> [u64; 16] {
    bytes.chunks_exact(128).fold([0; 16], |mut sums, part| {
        for (sum, word) in sums.iter_mut().zip(part.chunks_exact(8)) {
            *sum ^= word.try_into().map_or(0, u64::from_le_bytes);
        }
        sums
    })
}

/// Other libraries on the same memory.
fn libraries(ram: &Arc<dyn BlockDevice>, size: u64, pages: &[u64]) -> Result<()> {
    let ours = dax_file(ram, "/big", OpenFor::Reading)?;
    let size = size.min(256 << 20);
    let pages: Vec<u64> = pages.iter().copied().filter(|&at| at < size).take(5000).collect();
    let view = peers::ext4_view(ram)?;
    let mut view_file = view.open("/big")?;
    let ext2 = ext2::open_ext2_drive(peers::Disk::new(ram)).and_then(|mut fs| fs.open("/big"));
    let mut ext2_file = ext2.inspect_err(|error| skip("the ext2 crate", &error.to_string())).ok();
    let mut rsext4 = peers::rsext4(ram, rsext4::MountOptions::read_only_no_journal_replay());
    let rs_file = match &mut rsext4 {
        Ok(fs) => {
            let root = fs.root_inode();
            peers::rsext4_child(fs, root, "big")
        }
        Err(error) => {
            skip("rsext4", &format!("{error:?}"));
            None
        }
    };
    for (what, places, call) in [
        ("RAM: in order, 1 MiB a call", (0..size).step_by(CALL).collect::<Vec<u64>>(), CALL),
        ("RAM: random pages of 4 KiB", pages, 4096),
    ] {
        let buffers = || vec![0_u8; call];
        let (mut a, mut b, mut c, mut d) = (buffers(), buffers(), buffers(), buffers());
        let places = &places;
        let mut contestants = vec![
            Contestant::new("ours", || {
                places.iter().for_each(|&at| drop(black_box(ours.read_at(at, &mut a))));
            }),
            Contestant::new("ext4-view", || {
                for &at in places {
                    let mut done = 0;
                    let _ = view_file.seek_to(at);
                    while let Ok(more @ 1..) = view_file.read_bytes(&mut b[done..]) {
                        done += more;
                    }
                }
            }),
        ];
        if let Some(file) = &mut ext2_file {
            contestants.push(Contestant::new("the ext2 crate", || {
                for &at in places {
                    let _ = file.seek(SeekFrom::Start(at));
                    let _ = black_box(file.read(&mut c));
                }
            }));
        }
        if let (Ok(fs), Some(file)) = (&mut rsext4, rs_file) {
            contestants.push(Contestant::new("rsext4", move || {
                places.iter().for_each(|&at| {
                    let _ = black_box(fs.read_inode(file, at, &mut d));
                });
            }));
        }
        row(what, Unit::Bytes((places.len() * call) as f64), &medians(3, &mut contestants));
    }
    Ok(())
}
