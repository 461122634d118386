//! Attributes of inodes at their edges: what Linux answers, and counts that an image lies about.

#[path = "attributes/apart.rs"]
mod apart;
#[path = "attributes/beside.rs"]
mod beside;
#[path = "attributes/places.rs"]
mod places;
#[path = "attributes/shared.rs"]
mod shared;

use blockdev::BlockDevice;
use e2dax_tests::{
    need_tools,
    small::{image, inode_at, open, ram},
};
use ext2_core::{
    AclKind, Errno, Error, Ext2, FileKind, Follow, GroupNr, InodeFlags, NewInode, SetAttr, Timestamp, Wait,
    XattrSet,
};

const DIR: NewInode = NewInode::new(FileKind::Directory, 0o755);
const FILE: NewInode = NewInode::new(FileKind::Regular, 0o644);
const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

#[track_caller]
fn refused<T>(done: Result<T, Error>, errno: Errno) {
    match done {
        Ok(_) => panic!("it is not refused"),
        Err(error) => assert!(error.is(errno), "{error}"),
    }
}

#[test]
fn an_access_list_that_is_not_there_is_removed_without_an_error() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&["-t", "ext2"])));
    let root = fs.root().expect("root");
    let (file, dir) = (root.create(b"f", &FILE).expect("created"), root.create(b"d", &DIR).expect("created"));
    let then = Timestamp { sec: 1000, nsec: 0 };
    file.set_attr(&SetAttr { ctime: Some(then), ..SetAttr::default() }).expect("set");
    for name in [ACCESS, DEFAULT] {
        file.xattr_remove(name).expect("nothing to do");
        dir.xattr_remove(name).expect("nothing to do");
    }
    assert_eq!(file.attr().ctime, then);
    let link = root.symlink(b"l", b"to", &NewInode::new(FileKind::Symlink, 0o777)).expect("made");
    refused(link.xattr_remove(ACCESS), Errno::OPNOTSUPP);
    refused(file.xattr_remove(b"user.none"), Errno::NODATA);
    // One that is there goes.
    let list =
        [&2_u32.to_le_bytes()[..], &entry(1, 6), &entry(2, 6), &entry(4, 4), &entry(16, 6), &entry(32, 4)];
    dir.xattr_set(DEFAULT, &list.concat(), XattrSet::Any).expect("set");
    dir.xattr_remove(DEFAULT).expect("removed");
    assert!(dir.acl(AclKind::Default).expect("read").is_none());
}

/// An entry of an access control list as programs have it: a tag, permissions, and who (1000 for a user).
fn entry(tag: u16, permissions: u16) -> Vec<u8> {
    let who: u32 = if tag == 2 { 1000 } else { u32::MAX };
    [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &who.to_le_bytes()].concat()
}

#[test]
fn names_of_the_system_that_are_no_access_lists_are_not_supported() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&["-t", "ext2"])));
    let file = fs.root().expect("root").create(b"f", &FILE).expect("created");
    for name in [&b"system.data"[..], b"system.richacl", b"system.", b"system.posix_acl_accessory"] {
        refused(file.xattr_set(name, b"value", XattrSet::Any), Errno::OPNOTSUPP);
        refused(file.xattr_get(name), Errno::OPNOTSUPP);
        refused(file.xattr_remove(name), Errno::OPNOTSUPP);
    }
}

#[test]
fn an_access_list_of_another_version_is_not_supported_and_half_of_one_is_invalid() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&["-t", "ext2"])));
    let file = fs.root().expect("root").create(b"f", &FILE).expect("created");
    for version in [0_u32, 1, 3, u32::MAX] {
        refused(file.xattr_set(ACCESS, &version.to_le_bytes(), XattrSet::Any), Errno::OPNOTSUPP);
    }
    for broken in [&[2][..], &[2, 0, 0], &[2, 0, 0, 0, 1]] {
        refused(file.xattr_set(ACCESS, broken, XattrSet::Any), Errno::INVAL);
    }
}

#[test]
fn a_file_that_only_grows_may_be_touched_but_given_no_other_time() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&["-t", "ext2"])));
    let file = fs.root().expect("root").create(b"f", &FILE).expect("created");
    let then = Timestamp { sec: 1000, nsec: 0 };
    let past = SetAttr { atime: Some(then), mtime: Some(then), ..SetAttr::default() };
    file.set_attr(&past).expect("set");
    file.set_flags(InodeFlags::APPEND).expect("set");
    refused(file.set_attr(&past), Errno::PERM);
    file.touch().expect("touched");
    let attr = file.attr();
    assert!(attr.mtime > then && attr.atime == attr.mtime && attr.ctime == attr.mtime);
    file.set_flags(InodeFlags::IMMUTABLE).expect("set");
    refused(file.touch(), Errno::PERM);
}

/// Where the count of blocks of an inode in the first group lies.
fn blocks_offset(fs: &Ext2, nr: u32) -> u64 {
    let table = fs.descriptor(GroupNr::new(0)).expect("descriptor").bg_inode_table.get();
    let geometry = fs.geometry();
    u64::from(table) * geometry.block_size.bytes() + u64::from(nr - 1) * u64::from(geometry.inode_size) + 28
}

#[test]
fn a_count_of_blocks_that_is_a_lie_stays_at_its_limits() {
    need_tools!("mke2fs");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let file = fs.root().expect("root").create(b"f", &FILE).expect("created");
    file.write_at(0, &[1; 4096]).expect("written");
    let at = blocks_offset(&fs, file.nr().get());
    drop(file);
    fs.sync().expect("synced");
    assert_eq!(device.read_u32(at).expect("read"), 8);
    device.write_u32(at, u32::MAX - 1).expect("written");
    let file = fs.resolve(b"f", Follow::No).expect("there");
    file.write_at(4096, &[1; 4096]).expect("written");
    assert_eq!(file.attr().blocks_512, u32::MAX);
    drop(file);
    device.write_u32(at, 2).expect("written");
    let file = fs.resolve(b"f", Follow::No).expect("there");
    file.truncate(0, Wait::Yes).expect("cut");
    assert_eq!(file.attr().blocks_512, 0);
}

/// The names of a file's attributes, sorted.
fn names(file: &ext2_core::Inode) -> Vec<Vec<u8>> {
    let mut names = file.xattr_list().expect("listed");
    names.sort();
    names
}

/// Whether Linux finds all of a block of attributes: it ends its search at the first that sorts past the name.
fn is_searched_to_its_end(image: &[u8], inode: u64) -> bool {
    let word = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().expect("four bytes"));
    let block = word(inode as usize + 104) as usize * 1024;
    let (mut at, mut keys) = (block + 32, Vec::new());
    while block > 0 && word(at) != 0 {
        let (len, index) = (usize::from(image[at]), image[at + 1]);
        keys.push((index, len, image[at + 16..at + 16 + len].to_vec()));
        at += 16 + len.next_multiple_of(4);
    }
    keys.is_sorted()
}

#[test]
fn an_attribute_is_removed_from_a_full_disk_and_beside_a_block_without_room() {
    need_tools!("mke2fs", "e2fsck", "debugfs");
    let base = ram(&image(&["-t", "ext2"]));
    let fs = open(&base);
    let root = fs.root().expect("root");
    for name in [b"inside", b"block."] {
        root.create(name, &FILE).expect("created");
    }
    // Nothing of what lies in a block can be written anew once the disk is full.
    let block = root.lookup(b"block.").expect("there");
    for name in [&b"user.a"[..], b"user.bb", b"trusted.c", b"user.dd"] {
        block.xattr_set(name, b"a value", XattrSet::Any).expect("set");
    }
    drop((block, root));
    fs.close().expect("closed");
    // Attributes in the inode, as others put them there; they leave no room for more, nor has the block.
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    std::fs::write(&path, base.to_vec()).expect("written");
    let value = folder.path().join("value");
    std::fs::write(&value, [b'x'; 900]).expect("written");
    let value = value.to_str().expect("a path of ours");
    for request in [
        "ea_set inside user.one 11111111".to_string(),
        "ea_set inside user.two 22222222".to_string(),
        format!("ea_set -f {value} inside user.large"),
    ] {
        e2dax_tests::tools::run("debugfs", &["-w", "-R", &request, path.to_str().expect("ours")])
            .expect("set");
    }
    let base = std::fs::read(&path).expect("read");
    assert!(e2dax_tests::small::is_clean(&base));
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
        let device = ram(&base);
        let fs = open(&device);
        let root = fs.root().expect("root");
        let inside = root.lookup(b"inside").expect("there");
        assert_eq!(names(&inside), [&b"user.large"[..], b"user.one", b"user.two"]);
        let first = if order[0] == 0 { &b"user.one"[..] } else { b"user.two" };
        inside.xattr_remove(first).expect("removed beside a full block");
        refused(inside.xattr_get(first), Errno::NODATA);
        assert_eq!(names(&inside).len(), 2);
        assert_eq!(inside.xattr_get(b"user.large").expect("there"), [b'x'; 900]);
        let hog = root.create(b"hog", &FILE).expect("created");
        for at in 0.. {
            match hog.write_at(at * 1024, &[1; 1024]) {
                Ok(_) => {}
                Err(error) => {
                    assert!(error.is(Errno::NOSPC), "{error}");
                    break;
                }
            }
        }
        let block = root.lookup(b"block.").expect("there");
        let mut left = names(&block);
        let all = left.clone();
        for nr in order {
            block.xattr_remove(&all[nr]).expect("removed from a full disk");
            left.retain(|name| *name != all[nr]);
            assert_eq!(names(&block), left);
            for name in &left {
                assert_eq!(block.xattr_get(name).expect("there"), b"a value");
            }
            refused(block.xattr_remove(&all[nr]), Errno::NODATA);
            fs.sync().expect("synced");
            let mut image = device.to_vec();
            assert!(is_searched_to_its_end(&image, inode_at(&fs, block.nr())));
            image[1024 + 58] |= 1;
            assert!(e2dax_tests::small::is_clean(&image), "after {:?}", String::from_utf8_lossy(&all[nr]));
        }
        // With room again, all is as ever.
        root.unlink(b"hog").expect("unlinked");
        drop(hog);
        block.xattr_set(b"user.new", b"1", XattrSet::Create).expect("set");
        assert_eq!(names(&block), [b"user.new"]);
        inside.xattr_remove(b"user.large").expect("removed");
        inside.xattr_set(first, b"again", XattrSet::Create).expect("set");
        assert_eq!(names(&inside), [&b"user.one"[..], b"user.two"]);
        drop((block, inside, root));
        fs.close().expect("closed");
        assert!(e2dax_tests::small::is_clean(&device.to_vec()));
    }
}
