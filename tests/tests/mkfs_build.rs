//! Images built from trees: what is in them, that they are always the same, and how they are laid out.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use e2dax_tests::{Access, machine, need_mount, need_tools, tools, walk, with_mount};
use ext2_core::{Acl, AclEntry, AclTag, BlockSize, DeviceNr, Ext2, FileKind, OpenOptions, Timestamp};
use ext2_image::manifest::{ByteSpan, Kind, Manifest, Node, diff, from_image, parse};
use ext2_image::mkfs::source::{
    CheckedFolder, Folder, Times, Xattrs, find_holes, format_of_manifest, read_directory, tree_of_manifest,
};
use ext2_image::mkfs::{
    AlignChoice, Body, Contents, Error, FileOutput, Format, Fresh, LostAndFound, MemoryContents, NodeAttrs,
    NodeId, Options, Plan, Size, SourceFile, Tree,
};
use ext2_image::{Coverage, Walk};
use tempfile::{TempDir, tempdir};

const MIB: u64 = 1 << 20;

/// Writes a tree to `image`.
fn build(image: &Path, tree: Tree, format: &Format, options: &Options, contents: &mut dyn Contents) -> Plan {
    let plan = Plan::new(tree, format, options).unwrap();
    let file = File::create(image).unwrap();
    file.set_len(plan.bytes()).unwrap();
    let out = FileOutput::new(&file, 0, plan.bytes(), Fresh::Zeros);
    plan.write(contents, &out, &mut |_| ()).unwrap();
    plan
}

/// Builds an image of a directory as `e2dax mkfs --from` does.
fn build_directory(image: &Path, source: &Path, options: &Options) -> Plan {
    let mut tree = read_directory(source, Times::Modified, Xattrs::Keep, &mut |_| ()).unwrap();
    let created = Timestamp::from_secs(1_700_000_000);
    let format = Format { created, ..Format::default() }.identified(&mut tree, b"").unwrap();
    build(image, tree, &format, options, &mut Folder::new(source))
}

fn open(image: &Path) -> Ext2 {
    let device = blockdev::open_image(image, &blockdev::DeviceOptions::read_only()).unwrap();
    Ext2::open(device, &OpenOptions::read_only()).unwrap()
}

/// A tree of the machine's own files, and of what it may not have: holes, hard links, strange names.
fn source() -> TempDir {
    let folder = tempdir().unwrap();
    let root = folder.path().join("tree");
    fs::create_dir(&root).unwrap();
    machine::build_tree(&root, 2000, 80 * MIB);
    let big = File::create(root.join("big")).unwrap();
    for piece in 0..7 * MIB / 4096 {
        big.write_all_at(&piece.to_le_bytes(), piece * 4096).unwrap();
        big.write_all_at(&[1], piece * 4096 + 4095).unwrap();
    }
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(5 << 30).unwrap();
    sparse.write_all_at(&[5; 100_000], 3 << 30).unwrap();
    fs::write(root.join("one"), b"name").unwrap();
    fs::hard_link(root.join("one"), root.join("other name")).unwrap();
    fs::write(root.join("n".repeat(255)), b"long").unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"not \xff UTF-8 \n")), b"odd").unwrap();
    symlink("t".repeat(59), root.join("fast")).unwrap();
    symlink("t".repeat(60), root.join("slow")).unwrap();
    symlink("t".repeat(4000), root.join("slowest")).unwrap();
    fs::set_permissions(root.join("one"), fs::Permissions::from_mode(0o6751)).unwrap();
    folder
}

/// What a walk says of a source, without what a new file system has of its own.
fn comparable(found: &Manifest) -> Manifest {
    let lost = |path: &[u8]| path.starts_with(b"/lost+found");
    let entries = found.entries().iter().filter(|entry| !lost(&entry.path)).cloned();
    let entries = entries.map(|mut entry| {
        if let Node::Inode(inode) = &mut entry.node {
            (inode.atime, inode.ctime, inode.crtime) = (None, None, None);
            if inode.kind == Kind::Directory {
                (inode.size, inode.nlink) = (None, None);
            }
        }
        entry
    });
    Manifest::new(entries.collect()).unwrap()
}

#[track_caller]
fn assert_same(left: &Manifest, right: &Manifest) {
    let found: Vec<String> = diff(left, right).iter().map(|found| format!("  {found}\n")).collect();
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.concat());
}

#[test]
fn an_image_of_real_files_holds_what_a_walk_of_the_source_says_and_mounts() {
    let folder = source();
    let (root, image) = (folder.path().join("tree"), folder.path().join("image"));
    build_directory(&image, &root, &Options::default());
    let said = comparable(&walk(&root).unwrap());
    assert!(said.entries().len() > 2000);
    assert_same(&said, &comparable(&from_image(&open(&image)).unwrap()));
    need_tools!("e2fsck");
    tools::e2fsck_fn(&image).unwrap();
    need_mount!();
    let mounted = with_mount(&image, Access::ReadOnly, |dir| walk(dir).unwrap());
    assert_same(&said, &comparable(&mounted));
}

#[test]
fn the_same_files_make_the_same_bytes_whatever_their_order() {
    let folder = tempdir().unwrap();
    let names: Vec<String> = (0..300).map(|nr| format!("file-{}", nr * 7919 % 300)).collect();
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1_600_000_000, 123_456_789);
    let make = |name: &str, names: &mut dyn Iterator<Item = &String>| -> PathBuf {
        let root = folder.path().join(name);
        fs::create_dir(&root).unwrap();
        for (nr, name) in names.enumerate() {
            fs::write(root.join(name), name.repeat(nr % 2 + 3 + name.len() * 100)).unwrap();
            // Both orders give each name the same bytes.
            fs::write(root.join(name), name.repeat(name.len() * 211)).unwrap();
        }
        fs::hard_link(root.join("file-5"), root.join("a link")).unwrap();
        for name in fs::read_dir(&root).unwrap().map(|item| item.unwrap().path()).collect::<Vec<_>>() {
            File::options().write(true).open(name).unwrap().set_modified(time).unwrap();
        }
        File::open(&root).unwrap().set_modified(time).unwrap();
        root
    };
    let forwards = make("forwards", &mut names.iter());
    let backwards = make("backwards", &mut names.iter().rev());
    let (left, right) = (folder.path().join("left"), folder.path().join("right"));
    build_directory(&left, &forwards, &Options::default());
    build_directory(&right, &backwards, &Options::default());
    assert!(fs::read(&left).unwrap() == fs::read(&right).unwrap(), "the images differ");
}

#[test]
fn the_automatic_size_is_the_smallest_and_a_smaller_one_is_refused_with_what_is_needed() {
    let folder = source();
    let root = folder.path().join("tree");
    let plan = |size, align| {
        let tree = read_directory(&root, Times::Modified, Xattrs::Keep, &mut |_| ()).unwrap();
        let inodes = ext2_image::mkfs::Inodes::Count(tree.len() as u64 + 20);
        let format = Format { inodes, ..Format::default() };
        Plan::new(tree, &format, &Options { size, align, ..Options::default() })
    };
    for align in [AlignChoice::Off, AlignChoice::Units] {
        let auto = plan(Size::Auto { slack: 0 }, align).unwrap().bytes();
        assert_eq!(auto % (2 * MIB), 0);
        assert_eq!(plan(Size::Bytes(auto), align).unwrap().bytes(), auto);
        match plan(Size::Bytes(auto - 2 * MIB), align) {
            Err(Error::TooSmall { needed, given }) => assert_eq!((needed, given), (auto, auto - 2 * MIB)),
            other => panic!("{align:?}: {other:?}"),
        }
        // What is reserved for root is nobody's slack.
        let plan = plan(Size::Auto { slack: 64 * MIB }, align).unwrap();
        let slack = plan.bytes() - u64::from(plan.layout().reserved_blocks()) * 4096;
        assert!((auto + 62 * MIB..auto + 70 * MIB).contains(&slack), "{auto} {slack}");
    }
}

/// Who can map the whole units of all files.
fn coverage(image: &Path, bias: u64) -> Coverage {
    let mut total = Coverage::default();
    for step in Walk::new(&open(image).root().unwrap(), b"/") {
        let found = step.unwrap();
        if found.inode.kind() == FileKind::Regular {
            total += Coverage::of(&found.inode, bias).unwrap();
        }
    }
    total
}

/// Files of many sizes around units, in memory.
fn large_files() -> (Tree, MemoryContents) {
    let attrs = || NodeAttrs::new(0o644, (0, 0), Timestamp::from_secs(1));
    let (mut tree, mut contents) =
        (Tree::new(NodeAttrs::new(0o755, (0, 0), Timestamp::from_secs(1))), MemoryContents::default());
    let sizes = [
        4 * MIB,
        2 * MIB,
        2 * MIB - 1,
        100,
        7 * MIB + 5,
        9 * MIB,
        2 * MIB + 4096,
        3 * MIB,
        48 << 10,
        12 * MIB,
    ];
    for (nr, size) in sizes.into_iter().enumerate() {
        let bytes: Vec<u8> = (0..size).map(|at| (at / 4096 + 1) as u8 | 1).collect();
        let handle = contents.push(bytes);
        let data = (nr == 5).then(|| {
            vec![ByteSpan { offset: 0, length: 2 * MIB }, ByteSpan { offset: 3 * MIB, length: 6 * MIB }]
                .into()
        });
        tree.add(NodeId::ROOT, format!("f{nr}").as_bytes(), attrs(), Body::File { size, data, handle })
            .unwrap();
    }
    (tree, contents)
}

#[test]
fn every_whole_unit_is_mappable_at_every_device_offset_and_the_bytes_are_right() {
    let folder = tempdir().unwrap();
    let image = folder.path().join("image");
    let mut sizes = Vec::new();
    for device_offset in [0, MIB, 2 * MIB, 3 * MIB + 4096] {
        let (tree, mut contents) = large_files();
        let options = Options { align: AlignChoice::Units, device_offset, ..Options::default() };
        let plan = build(&image, tree, &Format::default(), &options, &mut contents);
        let found = coverage(&image, device_offset % (2 * MIB));
        assert_eq!(found.units.with_data(), found.full() + found.units.hole, "{device_offset}: {found:?}");
        assert_eq!(found.full(), 2 + 1 + 1 + 3 + 3 + 1 + 1 + 6, "{device_offset}: {found:?}");
        assert_eq!(found.ext4_driver, found.ext4_ceiling, "{device_offset}: {found:?}");
        let said = from_image(&open(&image)).unwrap();
        let (_, contents) = large_files();
        for nr in 0..10u64 {
            let path = format!("/f{nr}");
            let Some(inode) = said.inode(path.as_bytes()) else { panic!("{path} is missing") };
            let mut bytes = contents.bytes(nr).unwrap().to_vec();
            if nr == 5 {
                bytes[2 * MIB as usize..3 * MIB as usize].fill(0);
            }
            let Kind::File { crc, .. } = inode.kind else { panic!("{path} is no file") };
            assert_eq!(crc, Some(crc32fast::hash(&bytes)), "{path}");
        }
        sizes.push(plan.bytes());
        if tools::have("e2fsck") {
            tools::e2fsck_fn(&image).unwrap();
        }
    }
    let (tree, mut contents) = large_files();
    let options = Options { align: AlignChoice::Off, ..Options::default() };
    let packed = build(&image, tree, &Format::default(), &options, &mut contents);
    assert!(sizes.iter().all(|&size| size <= packed.bytes() + 2 * MIB), "{sizes:?} {}", packed.bytes());
}

#[test]
fn images_of_every_block_size_hold_deep_and_wide_trees_and_every_kind_of_file() {
    let folder = tempdir().unwrap();
    let image = folder.path().join("image");
    for (log, inode_size) in (10..=16).zip([128, 256, 256, 512, 128, 256, 1024]) {
        let attrs = |uid| {
            let time = Timestamp { sec: -5, nsec: 999_999_999 };
            NodeAttrs {
                ctime: Timestamp { sec: 1 << 33, nsec: 1 },
                ..NodeAttrs::new(0o4711, (uid, uid + 1), time)
            }
        };
        let mut tree = Tree::new(attrs(0));
        let mut contents = MemoryContents::default();
        let device = DeviceNr { major: 259, minor: 70_000 };
        let kinds = [Body::CharDevice(device), Body::BlockDevice(device), Body::Fifo, Body::Socket];
        for (nr, body) in kinds.into_iter().enumerate() {
            tree.add(NodeId::ROOT, &[b'k', b'0' + nr as u8], attrs(70_000), body).unwrap();
        }
        for len in [1, 59, 60, 1000] {
            let target = vec![b'x'; len].into();
            tree.add(NodeId::ROOT, format!("link{len}").as_bytes(), attrs(1), Body::Symlink(target)).unwrap();
        }
        // Far apart, so that pointers of all levels are there; the last byte is past 2 GiB.
        let size = 3 << 30;
        let span = |offset, length| ByteSpan { offset, length };
        let mut bytes = MemoryContents::sparse(size);
        bytes.set(0, &[1; 5000]);
        bytes.set(200 << 20, &[2; 70_000]);
        bytes.set(size - 3, &[3; 3]);
        let handle = contents.push_sparse(bytes);
        let data = Some(vec![span(0, 5000), span(200 << 20, 70_000), span(size - 3, 3)].into());
        tree.add(NodeId::ROOT, b"sparse", attrs(u32::MAX - 1), Body::File { size, data, handle }).unwrap();
        let mut below = NodeId::ROOT;
        for _ in 0..40 {
            below = tree.add(below, b"deeper", attrs(3), Body::Directory).unwrap();
        }
        let wide = tree.add(NodeId::ROOT, b"wide", attrs(3), Body::Directory).unwrap();
        for nr in 0..3000 {
            tree.add(wide, format!("{nr:x<200}").as_bytes(), attrs(nr), Body::Fifo).unwrap();
        }
        let mut rich = attrs(5);
        rich.xattrs = vec![
            (b"user.empty".to_vec(), Vec::new()),
            (b"user.binary".to_vec(), (0..=255).collect()),
            (b"security.capability".to_vec(), b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec()),
            (
                b"system.posix_acl_access".to_vec(),
                ext2_core::Acl::new(vec![
                    ext2_core::AclEntry { tag: ext2_core::AclTag::UserObj, permissions: 7 },
                    ext2_core::AclEntry { tag: ext2_core::AclTag::User(77), permissions: 5 },
                    ext2_core::AclEntry { tag: ext2_core::AclTag::GroupObj, permissions: 5 },
                    ext2_core::AclEntry { tag: ext2_core::AclTag::Mask, permissions: 5 },
                    ext2_core::AclEntry { tag: ext2_core::AclTag::Other, permissions: 1 },
                ])
                .unwrap()
                .to_user(),
            ),
        ]
        .into();
        tree.add(NodeId::ROOT, b"rich", rich.clone(), Body::Fifo).unwrap();
        let format = Format { block_size: BlockSize::new(1 << log), inode_size, ..Format::default() };
        let options = Options { align: AlignChoice::Off, ..Options::default() };
        build(&image, tree, &format, &options, &mut contents);
        let fs = open(&image);
        let said = from_image(&fs).unwrap();
        let inode = said.inode(b"/rich").unwrap();
        let mut expected = rich.xattrs.to_vec();
        expected.sort();
        let found: Vec<_> =
            inode.xattrs.iter().map(|xattr| (xattr.name.clone(), xattr.value.clone())).collect();
        assert_eq!(found, expected);
        let ctime = inode.ctime.unwrap();
        assert_eq!(ctime.seconds, if inode_size == 128 { i64::from(i32::MAX) } else { 1 << 33 });
        assert_eq!(said.inode(b"/wide").unwrap().nlink, Some(2));
        assert_eq!(said.inode(b"/k0").unwrap().uid, 70_000);
        assert_eq!(said.entries().iter().filter(|entry| entry.path.starts_with(b"/wide/")).count(), 3000);
        let sparse = fs.resolve(b"/sparse", ext2_core::Follow::No).unwrap();
        let mut end = [0; 5];
        assert_eq!(sparse.read_at(size - 5, &mut end).unwrap(), 5);
        assert_eq!(end, [0, 0, 3, 3, 3]);
        drop((sparse, fs));
        if tools::have("e2fsck") {
            tools::e2fsck_fn(&image).unwrap_or_else(|error| panic!("blocks of {}: {error}", 1 << log));
        }
    }
    need_tools!("e2fsck");
}

#[test]
fn an_image_survives_being_a_manifest_and_contents_bit_for_bit() {
    let folder = source();
    let (root, first) = (folder.path().join("tree"), folder.path().join("first"));
    build_directory(&first, &root, &Options::default());
    let said = from_image(&open(&first)).unwrap();
    let text = said.to_string();
    let manifest = parse(&text).unwrap();
    let mut format = Format::default();
    let size = format_of_manifest(&manifest, &mut format).unwrap().unwrap();
    let built = tree_of_manifest(&manifest, &root, format.created).unwrap();
    let options =
        Options { size: Size::Bytes(size), lost_and_found: LostAndFound::AsInTree, ..Options::default() };
    let second = folder.path().join("second");
    let mut contents = CheckedFolder::new(&root, built.sums);
    build(&second, built.tree, &format, &options, &mut contents);
    let found = ext2_image::mkfs::first_difference(&open(&first), &open(&second)).unwrap();
    assert_eq!(found.map(|found| found.to_string()), None);
    assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap(), "the images differ");

    // A file that is no longer what the manifest says is named.
    fs::write(root.join("one"), b"NAME").unwrap();
    let built = tree_of_manifest(&manifest, &root, format.created).unwrap();
    let mut contents = CheckedFolder::new(&root, built.sums);
    let plan = Plan::new(built.tree, &format, &options).unwrap();
    let file = File::options().write(true).open(&second).unwrap();
    let out = FileOutput::new(&file, 0, plan.bytes(), Fresh::Unknown);
    let error = plan.write(&mut contents, &out, &mut |_| ()).unwrap_err().to_string();
    assert!(error.starts_with("/one: its CRC-32 is "), "{error}");
}

/// Files of a folder that only one thread can have.
struct Alone(Folder);

impl Contents for Alone {
    fn open(&mut self, file: &SourceFile<'_>) -> ext2_image::mkfs::Result<()> {
        self.0.open(file)
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> ext2_image::mkfs::Result<()> {
        self.0.read_at(offset, buf)
    }

    fn close(&mut self) -> ext2_image::mkfs::Result<()> {
        self.0.close()
    }
}

#[test]
fn one_thread_and_several_write_the_same_bytes() {
    let folder = source();
    let root = folder.path().join("tree");
    let made = [folder.path().join("alone"), folder.path().join("several")];
    let readers: [Box<dyn Contents>; 2] = [Box::new(Alone(Folder::new(&root))), Box::new(Folder::new(&root))];
    for (image, mut contents) in made.iter().zip(readers) {
        let tree = read_directory(&root, Times::Modified, Xattrs::Keep, &mut |_| ()).unwrap();
        build(image, tree, &Format::default(), &Options::default(), &mut *contents);
    }
    assert!(fs::read(&made[0]).unwrap() == fs::read(&made[1]).unwrap(), "the images differ");
}

#[test]
fn progress_is_told_in_the_middle_of_a_large_file_by_one_thread_and_by_several() {
    const SIZE: u64 = 96 * MIB;
    let folder = tempdir().unwrap();
    let root = folder.path().join("tree");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("large"), vec![1; SIZE as usize]).unwrap();
    let readers: [Box<dyn Contents>; 2] = [Box::new(Alone(Folder::new(&root))), Box::new(Folder::new(&root))];
    for mut contents in readers {
        let tree = read_directory(&root, Times::Modified, Xattrs::Keep, &mut |_| ()).unwrap();
        let plan = Plan::new(tree, &Format::default(), &Options::default()).unwrap();
        let image = File::create(folder.path().join("image")).unwrap();
        image.set_len(plan.bytes()).unwrap();
        let out = FileOutput::new(&image, 0, plan.bytes(), Fresh::Zeros);
        let mut told = Vec::new();
        let report = plan.write(&mut *contents, &out, &mut |copied| told.push(copied)).unwrap();
        assert!(told.is_sorted(), "{told:?}");
        assert!(told.iter().any(|&copied| copied > 0 && copied < SIZE), "{told:?}");
        assert_eq!((told.last(), report.copied), (Some(&SIZE), SIZE));
    }
}

#[test]
fn the_first_file_that_has_changed_since_it_was_looked_at_is_named() {
    let folder = tempdir().unwrap();
    let root = folder.path().join("tree");
    for nr in 0..400 {
        let below = root.join(format!("folder{:02}", nr / 20));
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join(format!("file{nr:03}")), vec![1; if nr % 7 == 0 { 700_000 } else { 5000 }])
            .unwrap();
    }
    let tree = read_directory(&root, Times::Modified, Xattrs::Keep, &mut |_| ()).unwrap();
    let plan = Plan::new(tree, &Format::default(), &Options::default()).unwrap();
    let image = File::create(folder.path().join("image")).unwrap();
    // The later ones of two are changed first, so that each is in turn the first that fails.
    for nr in [399, 301, 300, 210, 203, 100, 1] {
        let path = root.join(format!("folder{:02}/file{nr:03}", nr / 20));
        if nr % 2 == 0 {
            fs::remove_file(path).unwrap();
        } else {
            File::options().append(true).open(path).unwrap().set_len(10).unwrap();
        }
        for _ in 0..5 {
            let out = FileOutput::new(&image, 0, plan.bytes(), Fresh::Zeros);
            let error = plan.write(&mut Folder::new(&root), &out, &mut |_| ()).unwrap_err().to_string();
            let expected = format!("/folder{:02}/file{nr:03}: ", nr / 20);
            assert!(error.starts_with(&expected), "{error}, not {expected}");
        }
    }
}

#[test]
fn runs_of_zero_blocks_become_holes_where_that_is_asked() {
    let folder = tempdir().unwrap();
    let root = folder.path().join("tree");
    fs::create_dir(&root).unwrap();
    let mut bytes = vec![0; 5 * MIB as usize];
    bytes[4096 * 3] = 1;
    bytes[4 * MIB as usize..].fill(7);
    fs::write(root.join("zeros"), &bytes).unwrap();
    let mut tree = read_directory(&root, Times::Modified, Xattrs::Keep, &mut |_| ()).unwrap();
    find_holes(&mut tree, &mut Folder::new(&root), 4096, &mut |_| ()).unwrap();
    let image = folder.path().join("image");
    build(&image, tree, &Format::default(), &Options::default(), &mut Folder::new(&root));
    let said = from_image(&open(&image)).unwrap();
    let Kind::File { holes, crc } = &said.inode(b"/zeros").unwrap().kind else { panic!("no file") };
    let hole = |offset, length| ByteSpan { offset, length };
    assert_eq!(holes, &[hole(0, 3 * 4096), hole(4 * 4096, 4 * MIB - 4 * 4096)]);
    assert_eq!(*crc, Some(crc32fast::hash(&bytes)));
}

#[test]
fn a_device_that_held_something_else_is_overwritten_where_it_matters() {
    let device = blockdev::RamDevice::new(24 * MIB).unwrap();
    let noise: Vec<u8> = (0..MIB).map(|at| ((at * 7919) >> 3) as u8 | 1).collect();
    for piece in 0..24 {
        blockdev::BlockDevice::write_at(&device, piece * MIB, &noise).unwrap();
    }
    let format = Format { block_size: BlockSize::new(4096), ..Format::default() };
    ext2_image::mkfs::format(&device, &format, Fresh::Unknown).unwrap();
    let mut bytes = vec![0; 24 * MIB as usize];
    blockdev::BlockDevice::read_at(&device, 0, &mut bytes).unwrap();
    let fs = Ext2::open(Arc::new(device), &OpenOptions::read_only()).unwrap();
    assert_eq!(from_image(&fs).unwrap().entries().len(), 2);
    need_tools!("e2fsck");
    let folder = tempdir().unwrap();
    let image = folder.path().join("image");
    fs::write(&image, bytes).unwrap();
    tools::e2fsck_fn(&image).unwrap();
}

#[test]
fn what_ext2_cannot_hold_is_refused_by_name() {
    let attrs = || NodeAttrs::new(0o644, (0, 0), Timestamp::default());
    let refused = |name: &[u8], attrs: NodeAttrs, body: Body| {
        let mut tree = Tree::new(NodeAttrs::default());
        let added = tree.add(NodeId::ROOT, name, attrs, body);
        let error = added
            .and_then(|_| Plan::new(tree, &Format::default(), &Options::default()).map(|_| NodeId::ROOT));
        error.unwrap_err().to_string()
    };
    let file = |size| Body::File { size, data: Some([].into()), handle: 0 };
    assert!(refused(b"huge", attrs(), file(3 << 40)).starts_with("/huge: is larger"));
    assert!(refused(&[b'n'; 256], attrs(), Body::Fifo).contains("longer than 255"));
    assert!(refused(b"a/b", attrs(), Body::Fifo).contains("no name"));
    assert!(refused(b"..", attrs(), Body::Fifo).contains("no name"));
    assert!(refused(b"l", attrs(), Body::Symlink([].into())).starts_with("/l: the target"));
    assert!(refused(b"l", attrs(), Body::Symlink((*b"a\0b").into())).contains("has a 0"));
    // In 12 bits the first would be 1, and the device the memory of the machine.
    for (major, minor) in [(4097, 1), (1, 1 << 20)] {
        let device = DeviceNr { major, minor };
        assert!(refused(b"d", attrs(), Body::CharDevice(device)).starts_with("/d: has a device number"));
        assert!(refused(b"d", attrs(), Body::BlockDevice(device)).starts_with("/d: has a device number"));
    }
    let mut rich = attrs();
    rich.xattrs = vec![(b"btrfs.x".to_vec(), Vec::new())].into();
    assert!(refused(b"x", rich, Body::Fifo).starts_with("/x: attribute btrfs.x"));
    let mut tree = Tree::new(NodeAttrs::default());
    let node = tree.add(NodeId::ROOT, b"twice", attrs(), Body::Fifo).unwrap();
    tree.link(NodeId::ROOT, b"twice", node).unwrap();
    let error = Plan::new(tree, &Format::default(), &Options::default()).unwrap_err().to_string();
    assert_eq!(error, "/twice: this name is there twice");
    for slack in [1 << 45, u64::MAX] {
        let options = Options { size: Size::Auto { slack }, ..Options::default() };
        let error = Plan::new(Tree::new(NodeAttrs::default()), &Format::default(), &options).unwrap_err();
        assert!(error.to_string().contains("left free"), "{error}");
    }
}

#[test]
fn a_group_gets_no_rights_by_an_access_list_that_is_left_out() {
    let entry = |tag, permissions| AclEntry { tag, permissions };
    let users = (1000..1600).map(|user| entry(AclTag::User(user), 6));
    let mut list = vec![entry(AclTag::UserObj, 6)];
    list.extend(users);
    list.extend([entry(AclTag::GroupObj, 4), entry(AclTag::Mask, 6), entry(AclTag::Other, 0)]);
    let list = Acl::new(list).unwrap();
    // Beside the list the group's place in the mode has the mask.
    let mut attrs = NodeAttrs::new(0o660, (0, 7), Timestamp::default());
    attrs.xattrs = vec![(b"system.posix_acl_access".to_vec(), list.to_user())].into();
    let mut tree = Tree::new(NodeAttrs::new(0o755, (0, 0), Timestamp::default()));
    let file = tree.add(NodeId::ROOT, b"f", attrs, Body::Fifo).unwrap();
    let plan = Plan::new(tree, &Format::default(), &Options::default()).unwrap();
    assert_eq!(plan.tree().attrs(file).mode, 0o640);
    assert!(plan.tree().attrs(file).xattrs.is_empty());
}

#[test]
fn what_is_no_file_has_no_flags_that_e2fsck_wants_away() {
    need_tools!("e2fsck");
    let work = tempdir().unwrap();
    let mut tree = Tree::new(NodeAttrs::new(0o755, (0, 0), Timestamp::default()));
    let bodies = [
        Body::File { size: 0, data: None, handle: 0 },
        Body::Directory,
        Body::Fifo,
        Body::Socket,
        Body::Symlink((*b"target").into()),
        Body::CharDevice(DeviceNr { major: 1, minor: 3 }),
    ];
    for (nr, body) in bodies.into_iter().enumerate() {
        // Immutable, append-only, and not to be dumped.
        let attrs = NodeAttrs { flags: 0x70, ..NodeAttrs::new(0o755, (0, 0), Timestamp::default()) };
        tree.add(NodeId::ROOT, format!("{nr}").as_bytes(), attrs, body).unwrap();
    }
    let image = work.path().join("image");
    let contents = &mut MemoryContents::default();
    let plan = build(&image, tree, &Format::default(), &Options::default(), contents);
    tools::e2fsck_fn(&image).unwrap();
    let said = tools::run("e2fsck", &["-fn", image.to_str().unwrap()]).unwrap();
    assert!(!String::from_utf8_lossy(&said).contains("immutable"), "{}", said.escape_ascii());
    let fs = open(&image);
    let flags =
        (0..6).map(|nr| fs.resolve(format!("{nr}"), ext2_core::Follow::No).unwrap().attr().flags.bits());
    assert_eq!(flags.collect::<Vec<_>>(), [0x70, 0x70, 0x40, 0x40, 0x40, 0x40]);
    assert_eq!(plan.tree().warnings().iter().map(|warning| warning.count).collect::<Vec<_>>(), [4]);
}
