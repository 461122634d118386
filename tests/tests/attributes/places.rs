//! Attributes in the inode and in a block: one of a name, wherever it lies, and blocks that hold none.

use blockdev::{BlockDevice, Calls, Fault, RamDevice};
use e2dax_tests::{
    need_tools,
    small::{image, is_clean, mended, open, open_faulty, ram},
};
use ext2_core::{Errno, Ext2, FileBlock, Follow, GroupNr, Inode, XattrSet};

use super::{FILE, refused};

/// Where inode `of` lies on the device, in bytes.
fn place(fs: &Ext2, of: &Inode) -> u64 {
    let table = fs.descriptor(GroupNr::new(0)).expect("read").bg_inode_table.get();
    u64::from(table) * 1024 + u64::from(of.nr().get() - 1) * u64::from(fs.geometry().inode_size)
}

/// An image with a file `f` that has `user.a` and as many more in the inode itself, as e2fsprogs puts them there.
fn in_inode(more: &[u8]) -> Vec<u8> {
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let file = fs.root().expect("root").create("f", &FILE).expect("created");
    let at = place(&fs, &file) + 128 + 32;
    drop(file);
    fs.close().expect("closed");
    let mut list = 0xea02_0000_u32.to_le_bytes().to_vec();
    let mut end = 92_u16;
    for name in [b"a", more].concat() {
        end -= 4;
        list.extend([1, 1]);
        list.extend(end.to_le_bytes());
        list.extend([0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, name, 0, 0, 0]);
        device.write_at(at + 4 + u64::from(end), b"old").expect("written");
    }
    device.write_at(at, &list).expect("written");
    assert!(is_clean(&device.to_vec()));
    device.to_vec()
}

fn file(fs: &Ext2) -> Inode {
    fs.resolve("f", Follow::No).expect("there")
}

/// The change that moves it to a block fails at each of its stores, so that one of them leaves it in both places.
#[test]
fn an_attribute_that_is_left_in_the_inode_and_in_a_block_is_one_and_goes_as_one() {
    need_tools!("mke2fs", "e2fsck");
    let mut halves = 0;
    for more in [&b""[..], b"b"] {
        let base = in_inode(more);
        for full in [false, true] {
            for nth in 0..9 {
                let (device, fs) = open_faulty(&base);
                device.arm(Fault::once(Calls::WRITE, nth));
                let set = file(&fs).xattr_set(b"user.a", b"new", XattrSet::Any);
                device.disarm();
                drop(fs.close());
                // As whoever comes next finds it.
                let device = ram(&device.inner().to_vec());
                let fs = open(&device);
                let own = file(&fs);
                let names = own.xattr_list().expect("read");
                assert_eq!(names.len(), 1 + more.len(), "{nth}: {names:?}");
                let value = own.xattr_get(b"user.a").expect("read");
                assert!(value == b"new" || set.is_err() && value == b"old", "{nth}: {value:?}");
                halves += u32::from(set.is_err());
                if full {
                    let fill = fs.root().expect("root").create("fill", &FILE).expect("created");
                    while fill.append(&[1; 1024]).is_ok() {}
                }
                own.xattr_remove(b"user.a").expect("removed");
                refused(own.xattr_get(b"user.a"), Errno::NODATA);
                assert_eq!(own.xattr_list().expect("read").len(), more.len(), "{nth}");
                drop(own);
                fs.close().expect("closed");
                mended(&device.to_vec(), "an attribute that went");
            }
        }
    }
    assert!(halves > 8, "{halves}");
}

/// An inode whose attributes are said to lie in the first block of another file.
#[test]
fn a_block_that_holds_no_attributes_is_not_given_back_nor_changed() {
    need_tools!("mke2fs");
    for byte in [0, 1, 7] {
        let device: std::sync::Arc<RamDevice> = ram(&image(&["-t", "ext2"]));
        let fs = open(&device);
        fs.write("victim", [byte; 1024]).expect("written");
        fs.write("f", "").expect("written");
        let victim = fs.resolve("victim", Follow::No).expect("there");
        let block = victim.map(FileBlock::ZERO, 1).expect("read").target.expect("written");
        let pointer = place(&fs, &file(&fs)) + 104;
        drop(victim);
        fs.close().expect("closed");
        device.write_u32(pointer, block.get()).expect("written");
        let fs = open(&device);
        fs.remove_file("f").expect("removed");
        let other = fs.root().expect("root").create("other", &FILE).expect("created");
        while other.append(&[0xee; 1024]).is_ok() {}
        assert_eq!(fs.read("victim").expect("read"), [byte; 1024], "{byte}");
    }
}
