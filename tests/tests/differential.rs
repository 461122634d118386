//! The same image seen twice: mounted by the kernel, and read by us. Every answer is equal.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, PermissionsExt},
        },
    },
    path::Path,
    sync::Arc,
};

use blockdev::{Backend as DeviceKind, BlockDevice, RamDevice, open_image};
use e2dax_tests::{Access, Golden, Rng, Verdict, golden, machine, mount, need_mount, need_tools, tools};
use ext2_core::{Error, Ext2, FileKind, Follow, Inode, OpenOptions};
use ext2_image::manifest::{Kind, Manifest, Node, diff, from_image, quote};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, SeekFrom},
    io::Errno,
};
use tempfile::tempdir;

/// Every golden image that the kernel mounts, mounted, beside what we make of the same bytes.
fn with_each(work: impl Fn(&Golden, &Path, &Ext2)) {
    let folder = tempdir().unwrap();
    for image in golden::readable().iter().filter(|image| image.kernel_mounts()) {
        let device = RamDevice::from_bytes(&image.file_system()).unwrap();
        let fs = Ext2::open(Arc::new(device), &OpenOptions::read_only()).unwrap();
        let path = image.unpack(folder.path());
        mount::with_mount_of(&path, "ext2", Access::ReadOnly, image.offset, |dir| work(image, dir, &fs));
        fs::remove_file(path).unwrap();
    }
}

/// The host's path of a file of the mounted image.
fn place(dir: &Path, path: &[u8]) -> std::path::PathBuf {
    dir.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap()))
}

/// The paths that have attributes, with their type.
fn first_names(manifest: &Manifest) -> impl Iterator<Item = (&[u8], &Kind)> {
    manifest.entries().iter().filter_map(|entry| match &entry.node {
        Node::Inode(inode) => Some((&entry.path[..], &inode.kind)),
        Node::HardLink(_) => None,
    })
}

/// Every regular file of every image: on the kernel's side and on ours.
fn with_each_file(work: impl Fn(&str, &Path, &File, &Inode)) {
    with_each(|image, dir, fs| {
        for (path, kind) in first_names(&image.manifest()) {
            if matches!(kind, Kind::File { .. }) {
                let host = place(dir, path);
                let name = format!("{}:{}", image.name, quote(path));
                work(&name, &host, &File::open(&host).unwrap(), &fs.resolve(path, Follow::No).unwrap());
            }
        }
    });
}

/// Offsets where an answer may change: around the ends of every run of data, of every level of the tree, and by chance.
fn offsets(inode: &Inode) -> Vec<u64> {
    let size = inode.size();
    let block = inode.fs().geometry().block_size.bytes();
    let pointers = block / 4;
    let mut marks = vec![0, size, block, 1 << 31, 1 << 32, 1 << 40, 1 << 62];
    marks.extend([12, 12 + pointers, 12 + pointers + pointers * pointers].map(|level| level * block));
    for run in inode.extents().take(50) {
        let run = run.unwrap();
        marks.extend([run.start.get() * block, run.end().get() * block]);
    }
    let mut rng = Rng::new(size);
    marks.extend((0..20).map(|_| rng.below(size + 10)));
    let mut all: Vec<u64> = marks.iter().flat_map(|mark| [mark.saturating_sub(1), *mark, mark + 1]).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// An answer of ours with the number that the kernel would give instead of an error.
fn number<T>(answer: Result<T, Error>) -> Result<T, Errno> {
    answer.map_err(|error| Errno::from_raw_os_error(error.errno().get()))
}

#[test]
fn seek_hole_and_seek_data_answer_as_the_kernel_does() {
    need_mount!();
    with_each_file(|name, _, file, inode| {
        for offset in offsets(inode) {
            let hole = rustix::fs::seek(file, SeekFrom::Hole(offset));
            assert_eq!(number(inode.seek_hole(offset)), hole, "{name}: SEEK_HOLE {offset}");
            let data = rustix::fs::seek(file, SeekFrom::Data(offset));
            assert_eq!(number(inode.seek_data(offset)), data, "{name}: SEEK_DATA {offset}");
        }
    });
}

#[test]
fn any_range_reads_as_the_kernel_reads_it() {
    need_mount!();
    with_each_file(|name, _, file, inode| {
        let (mut ours, mut kernels) = ([1; 3000], [2; 3000]);
        let past_everything = i64::MAX as u64 - 3000;
        for offset in offsets(inode).into_iter().filter(|offset| *offset < past_everything) {
            let read = file.read_at(&mut kernels, offset).unwrap();
            assert_eq!(inode.read_at(offset, &mut ours), Ok(read), "{name}: length at {offset}");
            assert_eq!(ours[..read], kernels[..read], "{name}: bytes at {offset}");
        }
    });
}

/// The runs of a file as `filefrag -v` prints them: logical block, physical block, length.
fn filefrag(path: &Path, block_size: u64) -> Vec<(u64, u64, u64)> {
    let arguments =
        [OsStr::new("-v"), OsStr::new(&format!("-b{block_size}")), path.as_os_str()].map(OsStr::to_owned);
    let text = String::from_utf8_lossy(&tools::run("filefrag", &arguments).unwrap()).into_owned();
    let mut runs = Vec::new();
    for line in text.lines() {
        // "   1:       12..     267:         41..       296:    256:  …"
        let fields: Vec<&str> = line.split(':').map(str::trim).collect();
        if let [index, logical, physical, length, ..] = &fields[..]
            && index.parse::<u32>().is_ok()
        {
            let first = |range: &str| range.split("..").next().unwrap().trim().parse::<u64>().unwrap();
            runs.push((first(logical), first(physical), length.parse().unwrap()));
        }
    }
    runs
}

/// Runs that touch, in the file and on the device, as one.
fn joined(runs: impl IntoIterator<Item = (u64, u64, u64)>) -> Vec<(u64, u64, u64)> {
    let mut out: Vec<(u64, u64, u64)> = Vec::new();
    for (logical, physical, length) in runs {
        match out.last_mut() {
            Some(last) if last.0 + last.2 == logical && last.1 + last.2 == physical => last.2 += length,
            _ => out.push((logical, physical, length)),
        }
    }
    out
}

#[test]
fn fiemap_gives_our_extents() {
    need_mount!();
    need_tools!("filefrag");
    with_each_file(|name, path, _, inode| {
        let block_size = inode.fs().geometry().block_size.bytes();
        let ours: Vec<_> = inode
            .extents()
            .map(|run| run.unwrap())
            .map(|run| (run.start.get(), u64::from(run.target.unwrap().get()), run.count))
            .collect();
        assert_eq!(joined(ours.clone()), ours, "{name}: our extents are as long as they can be");
        assert_eq!(ours, joined(filefrag(path, block_size)), "{name}");
    });
}

#[test]
fn stat_and_statfs_agree_in_what_a_manifest_leaves_out() {
    need_mount!();
    with_each(|image, dir, fs| {
        for (path, _) in first_names(&image.manifest()) {
            use std::os::unix::fs::MetadataExt;
            let kernels = fs::symlink_metadata(place(dir, path)).unwrap();
            let ours = fs.resolve(path, Follow::No).unwrap().attr();
            let name = format!("{}:{}", image.name, quote(path));
            assert_eq!(u64::from(ours.nr.get()), kernels.ino(), "{name}: inode number");
            assert_eq!(u64::from(ours.blocks_512), kernels.blocks(), "{name}: blocks");
        }
        if image.verdict == Verdict::Unclean {
            // What the counts should be is not known before a check.
            return;
        }
        let kernels = rustix::fs::statvfs(dir).unwrap();
        let ours = fs.statfs().unwrap();
        let theirs = (kernels.f_bsize, kernels.f_bfree, kernels.f_bavail, kernels.f_files, kernels.f_ffree);
        let own = (ours.block_size, ours.blocks_free, ours.blocks_available, ours.files, ours.files_free);
        // The ext4 driver takes the journal for overhead; ext2's does not know that there is one.
        if fs.superblock().journal_inode.is_none() {
            assert_eq!(ours.blocks, kernels.f_blocks, "{}: blocks", image.name);
        }
        assert_eq!(own, theirs, "{}: block size, free, available, files, free files", image.name);
        assert_eq!(u64::from(ours.name_max), kernels.f_namemax);
    });
}

#[test]
fn directories_list_the_same_names_with_the_same_types() {
    need_mount!();
    with_each(|image, dir, fs| {
        for (path, kind) in first_names(&image.manifest()) {
            if *kind != Kind::Directory {
                continue;
            }
            let handle: OwnedFd = File::open(place(dir, path)).unwrap().into();
            let mut kernels: Vec<_> = rustix::fs::Dir::new(handle)
                .unwrap()
                .map(|entry| entry.unwrap())
                .map(|entry| (entry.file_name().to_bytes().to_vec(), entry.ino(), entry.file_type()))
                .collect();
            let mut ours: Vec<_> = fs
                .resolve(path, Follow::No)
                .unwrap()
                .entries(0)
                .unwrap()
                .map(|entry| entry.unwrap())
                .map(|entry| (entry.name.into_bytes(), u64::from(entry.nr.get()), file_type(entry.kind)))
                .collect();
            kernels.sort_by(|a, b| a.0.cmp(&b.0));
            ours.sort_by(|a, b| a.0.cmp(&b.0));
            assert_eq!(ours, kernels, "{}:{}", image.name, quote(path));
        }
    });
}

/// A kind of ours in the kernel's words.
fn file_type(kind: Option<FileKind>) -> rustix::fs::FileType {
    use rustix::fs::FileType;
    match kind {
        None => FileType::Unknown,
        Some(FileKind::Regular) => FileType::RegularFile,
        Some(FileKind::Directory) => FileType::Directory,
        Some(FileKind::Symlink) => FileType::Symlink,
        Some(FileKind::CharDevice) => FileType::CharacterDevice,
        Some(FileKind::BlockDevice) => FileType::BlockDevice,
        Some(FileKind::Fifo) => FileType::Fifo,
        Some(FileKind::Socket) => FileType::Socket,
    }
}

#[test]
fn paths_lead_where_the_kernel_is_led() {
    need_mount!();
    let tails: [&[u8]; 8] =
        [b"", b"/", b"/.", b"/..", b"/../README", b"/nothing", b"/nothing/more", b"//lost+found/../."];
    with_each(|image, dir, fs| {
        let root = rustix::fs::openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let kernels = |path: &[u8], flags: OFlags| -> Result<u64, Errno> {
            let flags = OFlags::PATH | OFlags::CLOEXEC | flags;
            // EAGAIN: somebody else mounts or renames while `..` is followed.
            let handle = loop {
                match rustix::fs::openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
                    Err(Errno::AGAIN) => std::thread::yield_now(),
                    answer => break answer?,
                }
            };
            Ok(rustix::fs::fstat(&handle)?.st_ino)
        };
        let ours =
            |path: &[u8], follow| number(fs.resolve(path, follow).map(|inode| inode.nr().get().into()));
        for entry in image.manifest().entries() {
            for tail in tails {
                let path = [&entry.path[..], tail].concat();
                let name = format!("{}:{}", image.name, quote(&path));
                assert_eq!(ours(&path, Follow::Yes), kernels(&path, OFlags::empty()), "{name}, followed");
                assert_eq!(ours(&path, Follow::No), kernels(&path, OFlags::NOFOLLOW), "{name}, not followed");
            }
        }
        let long = [&b"/"[..], &[b'x'; 256]].concat();
        assert_eq!(ours(&long, Follow::Yes), kernels(&long, OFlags::empty()), "a name of 256 bytes");
    });
}

/// Makes an image of a tree by `mke2fs -d`.
fn mke2fs_from(tree: &Path, image: &Path, block_size: u32, size: &str) {
    tools::run(
        "mke2fs",
        &[
            "-q".as_ref(),
            "-F".as_ref(),
            "-t".as_ref(),
            "ext2".as_ref(),
            "-b".as_ref(),
            block_size.to_string().as_ref(),
            "-d".as_ref(),
            tree.as_os_str(),
            image.as_os_str(),
            size.as_ref(),
        ],
    )
    .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn an_image_of_thousands_of_the_machines_files_reads_as_it_mounts() {
    need_mount!();
    let folder = tempdir().unwrap();
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let made = machine::build_tree(&tree, 4000, 96 << 20);
    assert!(made.files >= 1000, "a machine has thousands of files: {made:?}");
    for block_size in [1024, 4096] {
        let image = folder.path().join(format!("{block_size}.img"));
        mke2fs_from(&tree, &image, block_size, "256M");
        let mounted = mount::with_mount(&image, Access::ReadOnly, e2dax_tests::walk).unwrap();
        for kind in [DeviceKind::Mmap, DeviceKind::File] {
            let options = blockdev::DeviceOptions { kind, ..blockdev::DeviceOptions::read_only() };
            let device = open_image(&image, &options).unwrap();
            let found = read_all(device).unwrap();
            assert!(found.entries().len() > made.files);
            let differences = diff(&found, &mounted);
            assert!(
                differences.is_empty(),
                "{block_size}, {kind:?}: {:?}",
                &differences[..differences.len().min(10)]
            );
        }
    }
}

/// The manifest of a device.
fn read_all(device: Arc<dyn BlockDevice>) -> io::Result<Manifest> {
    Ok(from_image(&Ext2::open(device, &OpenOptions::read_only())?)?)
}

#[test]
fn debugfs_takes_the_same_bytes_out_of_every_block_size() {
    need_tools!("debugfs");
    let folder = tempdir().unwrap();
    let images = golden::readable().into_iter().filter(|image| image.name.starts_with("block-"));
    let mut compared = 0;
    for image in images {
        let path = image.unpack(folder.path());
        let target = folder.path().join(&image.name);
        fs::create_dir(&target).unwrap();
        tools::debugfs(&path, &format!("rdump / {}", target.display())).unwrap();
        let device = RamDevice::from_bytes(&image.file_system()).unwrap();
        let manifest = read_all(Arc::new(device)).unwrap();
        for (path, kind) in first_names(&manifest) {
            let host = place(&target, path);
            let name = format!("{}:{}", image.name, quote(path));
            match kind {
                Kind::File { crc, .. } => {
                    // One has no permission at all, which stops everybody but root.
                    fs::set_permissions(&host, fs::Permissions::from_mode(0o600)).unwrap();
                    let bytes = fs::read(&host).unwrap_or_else(|error| panic!("{name}: {error}"));
                    assert_eq!(Some(crc32fast::hash(&bytes)), *crc, "{name}: CRC-32");
                }
                Kind::Symlink { target } => {
                    assert_eq!(fs::read_link(&host).unwrap().as_os_str().as_bytes(), target, "{name}");
                }
                // debugfs passes over devices.
                Kind::Directory => assert!(host.is_dir(), "{name}"),
                _ => continue,
            }
            compared += 1;
        }
    }
    assert!(compared >= 7 * 15, "only {compared} files were compared");
}
