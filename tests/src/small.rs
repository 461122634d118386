//! Small images made by mke2fs, on memory: how they are opened, files in them, and what e2fsck says.

use std::{path::Path, sync::Arc};

use blockdev::{BlockDevice, Faulty, RamDevice};
use ext2_core::{Ext2, FileKind, Inode, InodeNr, NewInode, OpenOptions};

use crate::{golden, tools};

/// A device in memory.
pub type Ram = Arc<RamDevice>;

/// An image of 4 MiB, made by mke2fs with these arguments besides.
pub fn image(more: &[&str]) -> Vec<u8> {
    image_of(&[&["-b", "1024", "-I", "256", "-N", "64"], more].concat(), "4m")
}

/// An image of this size, made by mke2fs with these arguments.
pub fn image_of(arguments: &[&str], size: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    tools::mke2fs(&[arguments, &[path.to_str().expect("a path of ours"), size]].concat());
    std::fs::read(&path).expect("read")
}

/// A device with these bytes.
pub fn ram(bytes: &[u8]) -> Ram {
    Arc::new(RamDevice::from_bytes(bytes).expect("memory"))
}

/// Opens it for writing.
pub fn open(device: &Ram) -> Ext2 {
    let shared: Arc<dyn BlockDevice> = device.clone();
    Ext2::open(shared, &OpenOptions::default()).expect("open")
}

/// Opens an image for writing on a device that can be told to fail.
pub fn open_faulty(bytes: &[u8]) -> (Arc<Faulty<RamDevice>>, Ext2) {
    let faulty = Arc::new(Faulty::new(RamDevice::from_bytes(bytes).expect("memory")));
    let fs = Ext2::open(faulty.clone(), &OpenOptions::default()).expect("open");
    (faulty, fs)
}

/// To open with a log.
pub fn logged() -> OpenOptions {
    OpenOptions { log: true, ..OpenOptions::default() }
}

/// To open with a log that is there for one commit at a time.
pub fn batched() -> OpenOptions {
    OpenOptions { batch: true, ..OpenOptions::default() }
}

/// Opens it with these options. Where they ask for a log there is room for one: without it a test would test nothing of it.
pub fn open_as(device: impl BlockDevice + 'static, options: &OpenOptions) -> Ext2 {
    let fs = Ext2::open(device, options).expect("open");
    assert_eq!(fs.has_log(), options.log || options.batch, "the image is too small for a log");
    fs
}

/// A new file in the root.
pub fn create(fs: &Ext2, name: &str) -> Inode {
    let new = NewInode::new(FileKind::Regular, 0o644);
    fs.root().expect("root").create(name, &new).expect("created")
}

/// A new file in a directory, with these bytes.
pub fn file(dir: &Inode, name: &str, bytes: &[u8]) -> Inode {
    let inode = dir.create(name, &NewInode::new(FileKind::Regular, 0o644)).expect("created");
    assert_eq!(inode.write_at(0, bytes).expect("written"), bytes.len());
    inode
}

/// Where an inode lies on the device.
pub fn inode_at(fs: &Ext2, nr: InodeNr) -> u64 {
    let (group, index) = fs.geometry().group_of_inode(nr).expect("a group");
    let table = u64::from(fs.descriptor(group).expect("a descriptor").bg_inode_table.get());
    table * fs.geometry().block_size.bytes() + u64::from(index) * u64::from(fs.geometry().inode_size)
}

/// Asks e2fsck to mend an image without a question.
pub fn mended(bytes: &[u8], what: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    golden::write_sparse(&path, bytes).expect("written");
    if let Err(said) = tools::e2fsck_p(Path::new(&path)) {
        panic!("{what} needs a human: {said}");
    }
}

/// Whether e2fsck has nothing to say.
pub fn is_clean(bytes: &[u8]) -> bool {
    complaint(bytes).is_none()
}

/// What `e2fsck -fn` has to say about an image; nothing where it is sound.
pub fn complaint(bytes: &[u8]) -> Option<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    golden::write_sparse(&path, bytes).expect("written");
    tools::e2fsck_fn(&path).err().map(|error| format!("{error:?}"))
}
