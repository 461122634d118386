use std::fs;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use blockdev::{BlockDevice as _, RamDevice};
use ext2_core::BlockSize;

use super::*;
use crate::mkfs::source::{Folder, Times, Xattrs, read_directory};
use crate::mkfs::{AlignChoice, DeviceOutput, Format, Fresh, Options};

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    (seed..).take(len).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// A tree with a file of every kind that an ordinary user can make, and of every shape of map.
fn tree(root: &Path) {
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    for nr in 0..200_usize {
        fs::write(root.join(format!("a/{nr}")), bytes(nr as u64, nr * 37 % 9000)).unwrap();
    }
    fs::write(root.join("large"), bytes(5, 3_000_001)).unwrap();
    fs::write(root.join("unit"), bytes(6, 4 << 20)).unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    symlink("short", root.join("a/fast")).unwrap();
    symlink("long/".repeat(40), root.join("a/slow")).unwrap();
    fs::hard_link(root.join("large"), root.join("a/b/linked")).unwrap();
    // Holes at the front, in the middle and at the end; with blocks of 1 KiB its map has three levels.
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(80 << 20).unwrap();
    sparse.write_all_at(&bytes(7, 5000), 65536).unwrap();
    sparse.write_all_at(&bytes(8, 70_000), 70 << 20).unwrap();
    for nr in 0..300 {
        fs::write(root.join(format!("a/b/c/a name that fills blocks of the directory {nr}")), b"x").unwrap();
    }
}

fn plan(root: &Path, block_size: u64, align: AlignChoice) -> Plan {
    let tree = read_directory(root, Times::Modified, Xattrs::Keep, &mut |_| ()).unwrap();
    let format = Format { block_size: BlockSize::new(block_size), ..Format::default() };
    Plan::new(tree, &format, &Options { align, ..Options::default() }).unwrap()
}

fn image(root: &Path, plan: &Plan) -> Vec<u8> {
    let ram = RamDevice::new(plan.bytes()).unwrap();
    plan.write(&mut Folder::new(root), &DeviceOutput::new(&ram, Fresh::Zeros), &mut |_| ()).unwrap();
    let mut image = vec![0; plan.bytes() as usize];
    ram.read_at(0, &mut image).unwrap();
    image
}

fn whole(disk: &Synthetic) -> Vec<u8> {
    let mut found = vec![0xaa; disk.size() as usize];
    // In pieces that agree with nothing.
    for (piece, at) in found.chunks_mut(77_777).zip((0..).step_by(77_777)) {
        disk.read_at(at, piece).unwrap();
    }
    found
}

#[test]
fn the_disk_is_the_image_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    tree(folder.path());
    for (block_size, align) in [
        (1024, AlignChoice::Off),
        (4096, AlignChoice::Off),
        (4096, AlignChoice::Units),
        (65536, AlignChoice::Auto),
    ] {
        let made = image(folder.path(), &plan(folder.path(), block_size, align));
        let planned = plan(folder.path(), block_size, align);
        let disk = Synthetic::new(planned, &Folder::new(folder.path())).unwrap();
        assert!(whole(&disk) == made, "blocks of {block_size}, {align:?}");
        assert_eq!(disk.report().copied, 0);
        assert!(disk.held() < 3 << 20, "{} bytes of structures are held", disk.held());
    }
}

#[test]
fn segments_are_the_whole_disk_and_files_are_where_they_say() {
    let folder = tempfile::tempdir().unwrap();
    tree(folder.path());
    let planned = plan(folder.path(), 4096, AlignChoice::Units);
    let disk = Synthetic::new(planned, &Folder::new(folder.path())).unwrap();
    let made = whole(&disk);
    let (mut at, mut in_files) = (0, 0);
    for segment in disk.segments() {
        assert!(segment.offset == at && segment.len > 0, "{segment:?} at {at}");
        let there = &made[at as usize..(at + segment.len) as usize];
        match segment.kind {
            SegmentKind::Zeros => assert!(there.iter().all(|&byte| byte == 0)),
            SegmentKind::Structures => {}
            SegmentKind::File { node, from } => {
                let (file, base) = disk.host_file(node).unwrap();
                let mut found = vec![0; segment.len as usize];
                file.read_exact_at(&mut found, base + from).unwrap();
                assert!(found == there, "{}", String::from_utf8_lossy(&disk.path(node)));
                in_files += segment.len;
            }
        }
        // The kind agrees with what a client is told of holes.
        let (extent, run) = disk.extent(at, segment.len).unwrap();
        assert_eq!((extent == Extent::Hole, run), (segment.kind == SegmentKind::Zeros, segment.len));
        at += segment.len;
    }
    assert_eq!(at, disk.size());
    // All that is no hole.
    assert!(in_files >= 3_000_001 + (4 << 20) + 75_000, "{in_files}");
}

#[test]
fn a_file_that_changed_is_an_error_for_its_own_bytes_and_for_no_others() {
    let folder = tempfile::tempdir().unwrap();
    tree(folder.path());
    let root = folder.path();
    let disk = Synthetic::new(plan(root, 4096, AlignChoice::Off), &Folder::new(root)).unwrap();
    let made = whole(&disk);
    assert!(disk.changed().is_empty());
    // Longer, replaced by another of the same size, rewritten in place, and gone.
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::File::options().append(true).open(root.join("a/50")).unwrap().set_len(9_999).unwrap();
    fs::remove_file(root.join("a/60")).unwrap();
    fs::write(root.join("a/60"), bytes(1, 60 * 37)).unwrap();
    fs::File::options().write(true).open(root.join("a/70")).unwrap().write_all_at(b"!", 9).unwrap();
    fs::remove_file(root.join("a/80")).unwrap();
    let mut failed = std::collections::BTreeSet::new();
    for segment in disk.segments() {
        let mut found = vec![0; segment.len as usize];
        match (disk.read_at(segment.offset, &mut found), segment.kind) {
            (Ok(()), _) => {
                let there = &made[segment.offset as usize..(segment.offset + segment.len) as usize];
                assert!(found == there, "{segment:?}");
            }
            (Err(error), SegmentKind::File { node, .. }) => {
                let path = String::from_utf8(disk.path(node)).unwrap();
                assert!(error.to_string().contains(&path), "{error}");
                failed.insert(path);
            }
            (Err(error), _) => panic!("{segment:?}: {error}"),
        }
    }
    let expected = ["/a/50", "/a/60", "/a/70", "/a/80"].map(String::from);
    assert!(failed.iter().eq(&expected), "{failed:?}");
    assert_eq!(disk.changed().len(), 4);
}

/// Files of a folder, and how often one was opened.
struct Counted {
    folder: Folder,
    root: PathBuf,
    opened: Arc<AtomicUsize>,
}

impl Counted {
    fn new(root: &Path, opened: &Arc<AtomicUsize>) -> Self {
        Self { folder: Folder::new(root), root: root.into(), opened: Arc::clone(opened) }
    }
}

impl Contents for Counted {
    fn open(&mut self, file: &SourceFile<'_>) -> Result<()> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.folder.open(file)
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.folder.read_at(offset, buf)
    }

    fn another(&self) -> Option<Box<dyn Contents + Send>> {
        Some(Box::new(Self::new(&self.root, &self.opened)))
    }

    fn lies_in(&self) -> Option<&std::fs::File> {
        self.folder.lies_in()
    }

    fn stamp(&self, file: &SourceFile<'_>) -> Option<Stamp> {
        self.folder.stamp(file)
    }
}

#[test]
fn a_disk_is_ready_before_any_file_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    tree(root);
    let opened = Arc::default();
    let disk = Synthetic::new(plan(root, 4096, AlignChoice::Off), &Counted::new(root, &opened)).unwrap();
    assert_eq!(opened.load(Ordering::Relaxed), 0);
    assert!(whole(&disk) == image(root, &plan(root, 4096, AlignChoice::Off)));
    assert!(opened.load(Ordering::Relaxed) > 400);
}

#[test]
fn a_file_that_changed_after_it_was_looked_at_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::write(root.join("kept"), bytes(1, 5000)).unwrap();
    fs::write(root.join("replaced"), bytes(2, 5000)).unwrap();
    let planned = plan(root, 4096, AlignChoice::Off);
    // Another file of the same size, in its place before there is a disk.
    fs::write(root.join("new"), bytes(3, 5000)).unwrap();
    fs::rename(root.join("new"), root.join("replaced")).unwrap();
    let disk = Synthetic::new(planned, &Folder::new(root)).unwrap();
    assert_eq!(disk.changed(), [b"/replaced"]);
    for segment in disk.segments() {
        let read = disk.read_at(segment.offset, &mut vec![0; segment.len as usize]);
        let is_replaced =
            matches!(segment.kind, SegmentKind::File { node, .. } if disk.path(node) == b"/replaced");
        assert_eq!(read.is_err(), is_replaced, "{segment:?}");
    }
}

/// Files of a folder that are read by two at once: who comes first waits for the other, for ten seconds.
struct Together {
    folder: Folder,
    root: PathBuf,
    reading: Arc<AtomicUsize>,
}

impl Contents for Together {
    fn open(&mut self, file: &SourceFile<'_>) -> Result<()> {
        self.folder.open(file)
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.reading.fetch_add(1, Ordering::SeqCst);
        for _ in 0..10_000 {
            if self.reading.load(Ordering::SeqCst) >= 2 {
                return self.folder.read_at(offset, buf);
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("nobody else reads");
    }

    fn another(&self) -> Option<Box<dyn Contents + Send>> {
        let (folder, root) = (Folder::new(&self.root), self.root.clone());
        Some(Box::new(Self { folder, root, reading: Arc::clone(&self.reading) }))
    }

    fn lies_in(&self) -> Option<&std::fs::File> {
        self.folder.lies_in()
    }
}

#[test]
fn one_file_is_read_by_several_at_once_whoever_has_it_open() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::write(root.join("only"), bytes(1, 9000)).unwrap();
    let contents = Together { folder: Folder::new(root), root: root.into(), reading: Arc::default() };
    // The one reader that there is after this has the file open, since nobody else knows what it was.
    let disk = Synthetic::new(plan(root, 4096, AlignChoice::Off), &contents).unwrap();
    let is_file = |segment: &Segment| matches!(segment.kind, SegmentKind::File { .. });
    let segment = disk.segments().find(is_file).unwrap();
    let read = || {
        let mut found = vec![0; segment.len as usize];
        disk.read_at(segment.offset, &mut found).map(|()| found)
    };
    let found =
        std::thread::scope(|scope| [scope.spawn(read), scope.spawn(read)].map(|one| one.join().unwrap()));
    for found in found {
        assert!(found.unwrap() == bytes(1, 9000)[..segment.len as usize]);
    }
}
