//! The power goes: atomic snapshots of the image's file while a mount of it is busy.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use blockdev::{DeviceOptions, FileDevice};
use e2dax_tests::{Rng, need_mount, tools};
use ext2_core::{Ext2, OpenOptions};

use crate::common::{Mount, need_fuse, run};

/// A file system that clones files at once, on a loop device.
struct Xfs {
    folder: tempfile::TempDir,
}

impl Xfs {
    /// `None` where there is none.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        File::create(&path).unwrap().set_len(2 << 30).unwrap();
        let dir = folder.path().join("xfs");
        fs::create_dir(&dir).unwrap();
        tools::run("mkfs.xfs", &["-q", "-m", "reflink=1", path.to_str().unwrap()]).ok()?;
        tools::run("mount", &["-o", "loop", path.to_str().unwrap(), dir.to_str().unwrap()]).ok()?;
        Some(Self { folder })
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("xfs")
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        // A test that failed may leave something open there.
        let _ = tools::run("umount", &["-l", self.dir().to_str().unwrap()]);
    }
}

type Durable = Mutex<BTreeMap<String, Vec<u8>>>;

/// Makes, fills, cuts, moves and removes files and directories; some are made durable, and noted, and stay.
fn load(dir: &Path, seed: u64, durable: &Durable, stop: &AtomicBool) {
    let mut rng = Rng::new(seed);
    let own = dir.join(format!("of-{seed}"));
    let (left, right) = (own.join("left"), own.join("right"));
    fs::create_dir_all(&left).unwrap();
    fs::create_dir_all(&right).unwrap();
    for n in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let bytes = vec![u8::try_from(n % 250 + 1).unwrap(); usize::try_from(1 + rng.below(60_000)).unwrap()];
        // The image may be full for a moment: removing comes again.
        let _ = (|| -> std::io::Result<()> {
            match rng.below(8) {
                0 => {
                    let name = format!("durable-{seed}-{n}");
                    let mut file = File::create(dir.join(&name))?;
                    file.write_all(&bytes)?;
                    file.sync_all()?;
                    let mut durable = durable.lock().unwrap();
                    durable.insert(name, bytes);
                    // Not all of them for ever.
                    if durable.len() > 60
                        && let Some(old) = durable.keys().nth(3).cloned()
                    {
                        durable.remove(&old);
                        drop(durable);
                        fs::remove_file(dir.join(old))?;
                    }
                }
                1 => {
                    let tree = left.join(format!("tree-{}", rng.below(4)));
                    fs::create_dir_all(tree.join("a/b"))?;
                    fs::write(tree.join("a/f"), &bytes)?;
                    let to = right.join(format!("tree-{}", rng.below(4)));
                    let _ = fs::remove_dir_all(&to);
                    fs::rename(&tree, to)?;
                }
                2 => {
                    let path = left.join(format!("cut-{}", rng.below(5)));
                    fs::write(&path, &bytes)?;
                    File::options().write(true).open(&path)?.set_len(rng.below(bytes.len() as u64))?;
                    fs::rename(path, right.join(format!("over-{}", rng.below(5))))?;
                }
                3 => {
                    let path = left.join(format!("link-{}", rng.below(5)));
                    let _ = fs::remove_file(&path);
                    let _ = fs::hard_link(right.join(format!("over-{}", rng.below(5))), &path);
                    let _ = fs::remove_file(left.join("symbolic"));
                    std::os::unix::fs::symlink("x".repeat(200), left.join("symbolic"))?;
                }
                _ => {
                    for k in 0..20 {
                        fs::write(left.join(format!("small-{k}")), &bytes[..bytes.len().min(3000)])?;
                    }
                    for k in 0..20 {
                        fs::remove_file(left.join(format!("small-{k}")))?;
                    }
                }
            }
            Ok(())
        })();
    }
}

/// Takes snapshots of a busy image, and gives how many `e2fsck -p` could not mend alone. No durable file may be missing.
fn torture(options: &str, snapshots: u64) -> u64 {
    let xfs = Xfs::new().expect("asked before");
    let path = xfs.dir().join("image");
    tools::mke2fs(&["-t", "ext2", "-b", "4096", path.to_str().unwrap(), "128M"]);
    let mount = Mount::new(&path, options);
    let (durable, stop) = (Arc::new(Durable::default()), Arc::new(AtomicBool::new(false)));
    let threads: Vec<_> = (1..4)
        .map(|seed| {
            let (dir, durable, stop) = (mount.dir().to_path_buf(), durable.clone(), stop.clone());
            thread::spawn(move || load(&dir, seed, &durable, &stop))
        })
        .collect();
    let begin = Instant::now();
    while durable.lock().unwrap().len() < 10 && begin.elapsed() < Duration::from_secs(30) {
        thread::sleep(Duration::from_millis(20));
    }
    let mut stopped = 0;
    let mut rng = Rng::new(7);
    for n in 0..snapshots {
        thread::sleep(Duration::from_millis(rng.below(120)));
        let copy = xfs.dir().join("snapshot");
        // Held, so that none of them is removed before the snapshot is taken.
        let known = {
            let durable = durable.lock().unwrap();
            run("cp", &["--reflink=always", path.to_str().unwrap(), copy.to_str().unwrap()], Path::new("/"));
            durable.clone()
        };
        if let Err(error) = tools::e2fsck_p(&copy) {
            println!("{options}: snapshot {n}: {error}");
            stopped += 1;
            continue;
        }
        tools::e2fsck_fn(&copy).unwrap_or_else(|error| panic!("{options}: snapshot {n}: {error}"));
        let device = FileDevice::open(&copy, &DeviceOptions::read_only()).unwrap();
        let fs = Ext2::open(device, &OpenOptions::read_only()).unwrap();
        for (name, bytes) in known {
            let found = fs.read(format!("/{name}"));
            assert!(found.is_ok_and(|found| found == bytes), "{options}: snapshot {n}: {name}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    mount.unmount();
    tools::e2fsck_fn(&path).unwrap_or_else(|error| panic!("{options}: {error}"));
    stopped
}

/// Snapshots of a run; more by `E2DAX_SNAPSHOTS`.
fn snapshots(least: u64) -> u64 {
    std::env::var("E2DAX_SNAPSHOTS").ok().and_then(|text| text.parse().ok()).unwrap_or(least)
}

#[test]
fn snapshots_of_a_busy_image_are_mended_without_a_question() {
    need_fuse!();
    need_mount!();
    if Xfs::new().is_none() {
        e2dax_tests::skip!("no XFS with clones on a loop device");
    }
    for options in ["defaults", "durability=strict"] {
        let count = snapshots(8);
        let stopped = torture(options, count);
        println!("{options}: {stopped} of {count} snapshots needed a person");
        assert_eq!(stopped, 0, "{options}");
    }
}
