//! Every golden image, changed by a fixed script: e2fsck finds nothing, what we read back is what was written, and the
//! kernel mounts the image and sees the same.

use std::{fs::File, os::unix::fs::FileExt, path::Path, sync::Arc};

use blockdev::{BlockDevice, Locking, MmapDevice, Partition};
use e2dax_tests::{Access, Golden, golden, mount, need_mount, need_tools, tools};
use ext2_core::{
    AclKind, DeviceNr, Errno, Error, Ext2, FileKind, FixedClock, Follow, Inode, InodeFlags, NewInode,
    OpenOptions, Policy, RenameFlags, SetAttr, Timestamp, Wait, XattrSet,
};
use ext2_image::manifest::{Kind, Manifest, diff, from_image};
use tempfile::tempdir;

/// When the script runs.
const NOW: i64 = 1_800_000_000;

/// The file system of an image file, read-write.
fn open(image: &Golden, path: &Path, policy: Policy) -> Ext2 {
    // No lock: one that is gone lives on for a moment in a process that another test is just starting.
    let unlocked = blockdev::DeviceOptions { lock: Locking::Skip, ..blockdev::DeviceOptions::read_write() };
    let whole = MmapDevice::open(path, &unlocked).unwrap();
    let device: Arc<dyn BlockDevice> = match image.length {
        None => Arc::new(whole),
        Some(length) => Arc::new(Partition::new(whole, image.offset, length).unwrap()),
    };
    let clock = Arc::new(FixedClock(Timestamp::from_secs(NOW)));
    let options = OpenOptions { clock: Some(clock), policy, ..OpenOptions::default() };
    Ext2::open(device, &options).unwrap_or_else(|error| panic!("{}: {error}", image.name))
}

/// The script: what it does depends on the image alone.
struct Script<'a> {
    fs: &'a Ext2,
    before: &'a Manifest,
    done: usize,
}

impl Script<'_> {
    /// A step that works, or that finds the disk full; small images soon are.
    #[track_caller]
    fn step<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => {
                self.done += 1;
                Some(value)
            }
            Err(error) if error.is(Errno::NOSPC) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// A new inode with an owner that needs more than 16 bits.
    fn inode(kind: FileKind, mode: u16) -> NewInode {
        NewInode { kind, mode, uid: 70_000, gid: 100_000, umask: 0o022, device: None }
    }

    fn run(&mut self) {
        let root = self.fs.root().unwrap();
        self.change_what_is_there();
        let Some(dir) = self.step(root.create(b"script", &Self::inode(FileKind::Directory, 0o777))) else {
            return;
        };
        self.write_files(&dir);
        self.make_specials(&dir);
        self.move_names(&root, &dir);
        self.attributes(&dir);
    }

    /// Contents: small, over several levels, sparse, cut, punched.
    fn write_files(&mut self, dir: &Inode) {
        for (name, offset, length) in
            [("small", 0, 10), ("pages", 100, 9000), ("levels", 0, 50_000), ("sparse", 1 << 20, 3000)]
        {
            let new = Self::inode(FileKind::Regular, 0o666);
            let Some(file) = self.step(dir.create(name.as_bytes(), &new)) else { continue };
            let data: Vec<u8> = (0..length).map(|i: u32| (i % 251) as u8).collect();
            self.step(file.write_at(offset, &data));
            if name == "levels" {
                self.step(file.truncate(20_001, Wait::Yes));
                self.step(file.punch_hole(4096, 8192, Wait::Yes));
                self.step(file.truncate(300_000, Wait::Yes));
            }
            self.step(file.sync());
        }
    }

    /// Everything that has no contents.
    fn make_specials(&mut self, dir: &Inode) {
        let device = |kind, major, minor| NewInode {
            device: Some(DeviceNr { major, minor }),
            ..Self::inode(kind, 0o660)
        };
        self.step(dir.create(b"null", &device(FileKind::CharDevice, 1, 3)));
        self.step(dir.create(b"disk", &device(FileKind::BlockDevice, 259, 70_000)));
        self.step(dir.create(b"fifo", &Self::inode(FileKind::Fifo, 0o600)));
        self.step(dir.create(b"socket", &Self::inode(FileKind::Socket, 0o700)));
        let link = Self::inode(FileKind::Symlink, 0o777);
        self.step(dir.symlink(b"fast", b"../script/small", &link));
        self.step(dir.symlink(b"slow", [b'x'; 200], &link));
        // e2fsck finds a target that ends before its size invalid.
        assert!(dir.symlink(b"zero", b"a\0b", &link).is_err_and(|error| error.is(Errno::INVAL)));
    }

    /// Links, renames and removals.
    fn move_names(&mut self, root: &Inode, dir: &Inode) {
        if let Ok(small) = dir.lookup(b"small") {
            self.step(root.link(&small, b"small.link"));
            self.step(dir.link(&small, [b'n'; 255]));
        }
        let Some(sub) = self.step(dir.create(b"sub", &Self::inode(FileKind::Directory, 0o700))) else {
            return;
        };
        let none = RenameFlags::empty();
        if self.step(sub.create(b"one", &Self::inode(FileKind::Regular, 0o644))).is_some() {
            self.step(self.fs.rename(&sub, b"one", dir, b"moved", none));
        }
        if dir.lookup(b"moved").is_ok() && dir.lookup(b"pages").is_ok() {
            self.step(self.fs.rename(dir, b"moved", dir, b"pages", none));
        }
        if dir.lookup(b"fifo").is_ok() && root.lookup(b"small.link").is_ok() {
            self.step(self.fs.rename(dir, b"fifo", root, b"small.link", RenameFlags::EXCHANGE));
        }
        if self.step(sub.create(b"inner", &Self::inode(FileKind::Directory, 0o755))).is_some() {
            self.step(self.fs.rename(&sub, b"inner", root, b"directory moved", none));
        }
        if dir.lookup(b"null").is_ok() {
            self.step(dir.unlink(b"null"));
        }
        self.step(dir.rmdir(b"sub"));
    }

    /// Modes, owners, times, xattrs, flags.
    fn attributes(&mut self, dir: &Inode) {
        let Ok(file) = dir.lookup(b"levels") else { return };
        self.step(file.set_attr(&SetAttr {
            mode: Some(0o4751),
            uid: Some(4_000_000_000),
            atime: Some(Timestamp { sec: -5, nsec: 0 }),
            mtime: Some(Timestamp { sec: 1_000_000_000, nsec: 999_999_999 }),
            ..SetAttr::default()
        }));
        self.step(file.set_flags(file.attr().flags | InodeFlags::NODUMP));
        for (name, length) in [("user.small", 5), ("user.large", 600), ("trusted.t", 0), ("security.s", 40)] {
            let value = vec![b'v'; length];
            self.step(file.xattr_set(name.as_bytes(), &value, XattrSet::Any));
        }
        self.step(file.xattr_set(b"user.small", b"other", XattrSet::Replace));
        if file.xattr_get(b"security.s").is_ok() {
            self.step(file.xattr_remove(b"security.s"));
        }
        if let Ok(Some(acl)) = self.some_acl() {
            self.step(file.set_acl(AclKind::Access, Some(&acl)));
            self.step(dir.set_acl(AclKind::Default, Some(&acl)));
            self.step(dir.create(b"inherits", &Self::inode(FileKind::Regular, 0o666)));
        }
    }

    /// The first ACL of the image, if it has any.
    fn some_acl(&self) -> Result<Option<ext2_core::Acl>, Error> {
        for entry in self.before.entries() {
            if let Some(acl) = self.fs.resolve(&entry.path, Follow::No)?.acl(AclKind::Access)? {
                return Ok(Some(acl));
            }
        }
        Ok(None)
    }

    /// Files that others made: every third is removed, of the rest some are cut, grown and written.
    fn change_what_is_there(&mut self) {
        let frozen = InodeFlags::IMMUTABLE | InodeFlags::APPEND;
        for (index, entry) in self.before.entries().iter().enumerate() {
            let Ok((parent, name)) = self.fs.resolve_parent(&entry.path) else { continue };
            let inode = self.fs.resolve(&entry.path, Follow::No).unwrap();
            let flags = inode.attr().flags | parent.attr().flags;
            if flags.intersects(frozen) || name == b"lost+found" {
                continue;
            }
            match (inode.kind(), index % 6) {
                (FileKind::Directory, _) => {}
                (_, 0 | 3) => {
                    self.step(parent.unlink(name));
                }
                (FileKind::Regular, 1) => {
                    self.step(inode.truncate(inode.size() / 2, Wait::Yes));
                }
                (FileKind::Regular, 2) => {
                    self.step(inode.write_at(inode.size().saturating_sub(700), &[b'+'; 1400]));
                }
                (FileKind::Regular, 4) => {
                    self.step(inode.xattr_set(b"user.script", b"was here", XattrSet::Any));
                }
                _ => {
                    self.step(inode.set_attr(&SetAttr { gid: Some(65_536), ..SetAttr::default() }));
                }
            }
        }
    }
}

/// What the script wrote, read back: it does not take a second opinion to know that it is wrong.
fn check_contents(name: &str, fs: &Ext2) {
    let Ok(file) = fs.resolve(b"/script/small", Follow::No) else { return };
    let mut buffer = [0; 20];
    assert_eq!(file.read_at(0, &mut buffer), Ok(10), "{name}");
    assert_eq!(buffer[..11], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0], "{name}");
    assert!(fs.resolve(b"/script/sub", Follow::No).unwrap_err().is(Errno::NOENT), "{name}");
    let Ok(file) = fs.resolve(b"/script/levels", Follow::No) else { return };
    if file.size() == 300_000 {
        let mut bytes = vec![1; 300_000];
        assert_eq!(file.read_at(0, &mut bytes), Ok(300_000), "{name}");
        let expected =
            |i: usize| if i < 20_001 && !(4096..12_288).contains(&i) { (i % 251) as u8 } else { 0 };
        assert!(bytes.iter().enumerate().all(|(i, byte)| *byte == expected(i)), "{name}");
    }
}

#[track_caller]
fn assert_same(name: &str, left: &Manifest, right: &Manifest) {
    // The superblock may change too: revision 0 becomes 1 with the first extended attribute.
    let files = diff(left, right).into_iter().filter(|found| !found.path.is_empty());
    let found: Vec<String> = files.take(20).map(|found| format!("  {found}\n")).collect();
    assert!(found.is_empty(), "{name}: the manifests differ:\n{:.3000}", found.concat());
}

/// Changes each image with a policy, closes it, and calls `look` with the path and what we read afterwards.
fn modify_all(policy: Policy, look: impl Fn(&Golden, &Path, &Manifest)) {
    let folder = tempdir().unwrap();
    for image in golden::readable() {
        let path = image.unpack(folder.path());
        let fs = open(&image, &path, policy);
        let mut script = Script { fs: &fs, before: &image.manifest(), done: 0 };
        script.run();
        assert!(script.done > 0, "{}: the script did nothing", image.name);
        let inside = from_image(&fs).unwrap_or_else(|error| panic!("{}: {error}", image.name));
        fs.close().unwrap();
        let fs = open(&image, &path, policy);
        check_contents(&image.name, &fs);
        let after = from_image(&fs).unwrap_or_else(|error| panic!("{}, again: {error}", image.name));
        fs.close().unwrap();
        assert_same(&image.name, &inside, &after);
        look(&image, &path, &after);
        std::fs::remove_file(path).unwrap();
    }
}

/// The file system of an image as a file that e2fsck takes.
fn fsck(image: &Golden, path: &Path) -> Result<(), String> {
    let Some(length) = image.length else { return tools::e2fsck_fn(path) };
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    File::open(path).unwrap().read_exact_at(&mut bytes, image.offset).unwrap();
    let part = path.with_extension("part");
    golden::write_sparse(&part, &bytes).unwrap();
    tools::e2fsck_fn(&part)
}

#[test]
fn a_modified_image_is_clean_for_e2fsck_under_both_policies() {
    need_tools!("e2fsck");
    for policy in [Policy::Aligned, Policy::Goal] {
        modify_all(policy, |image, path, _| {
            fsck(image, path).unwrap_or_else(|error| panic!("{}, {policy:?}: {error}", image.name));
        });
    }
}

#[test]
fn the_kernel_sees_a_modified_image_as_we_do() {
    need_mount!();
    modify_all(Policy::Aligned, |image, path, after| {
        if image.kernel_mounts() {
            let seen = mount::with_mount_of(path, "ext2", Access::ReadOnly, image.offset, |dir| {
                e2dax_tests::walk(dir).unwrap()
            });
            assert_same(&image.name, after, &seen);
        }
    });
}

#[test]
fn an_image_modified_by_both_in_turn_stays_one_file_system() {
    need_mount!();
    let folder = tempdir().unwrap();
    for name in ["block-1k", "htree", "xattr-256", "ext3-clean", "deleted"] {
        let image = golden::image(name);
        let path = image.unpack(folder.path());
        for round in 0..3 {
            mount::with_mount(&path, Access::ReadWrite, |dir| {
                let _ = std::fs::remove_file(dir.join(format!("ours{}", round - 1)));
                std::fs::write(dir.join(format!("kernels{round}")), vec![b'k'; 3000]).unwrap();
                std::fs::create_dir_all(dir.join(format!("tree{round}/of/the/kernel"))).unwrap();
            });
            let fs = open(&image, &path, Policy::Aligned);
            let root = fs.root().unwrap();
            let theirs = root.lookup(format!("kernels{round}").as_bytes()).unwrap();
            theirs.write_at(2990, &[b'o'; 20]).unwrap();
            let ours = format!("ours{round}");
            let new =
                NewInode { kind: FileKind::Regular, mode: 0o600, uid: 0, gid: 0, umask: 0, device: None };
            root.create(ours.as_bytes(), &new).unwrap().write_at(5000, b"ours").unwrap();
            fs.resolve(format!("/tree{round}/of/the").as_bytes(), Follow::No)
                .unwrap()
                .rmdir(b"kernel")
                .unwrap();
            let seen = from_image(&fs).unwrap();
            assert!(seen.entry(format!("/ours{}", round - 1).as_bytes()).is_none(), "{name}");
            fs.close().unwrap();
            tools::e2fsck_fn(&path).unwrap_or_else(|error| panic!("{name}, round {round}: {error}"));
            let kernels = mount::with_mount(&path, Access::ReadOnly, |dir| e2dax_tests::walk(dir).unwrap());
            assert_same(name, &seen, &kernels);
            let made = kernels.inode(format!("/{ours}").as_bytes()).unwrap();
            assert_eq!(made.size, Some(5004), "{name}");
            assert!(matches!(&made.kind, Kind::File { holes, .. } if !holes.is_empty()), "{name}: {made}");
        }
    }
}
