//! What another's fence loses between two stores of a change: the change builds nothing on it.

use std::sync::{Arc, LazyLock, atomic::Ordering};

use blockdev::{BlockDevice, RamDevice};
use e2dax_tests::{need_tools, small::create, tools};
use ext2_core::plumbing::Plumbing as _;
use ext2_core::{
    Acl, AclEntry, AclKind, AclTag, Ext2, FileKind, Follow, Inode, NewInode, OpenOptions, RenameFlags,
    Result, SetAttr, Wait, XattrSet,
};

use crate::host::Host;

const CAPABILITY: &[u8] = b"security.capability";
/// What a deleted file had in its blocks.
const GONE: u8 = 0xee;
/// Who had rights by the list of a deleted file.
const NOBODY: u32 = 77;

/// The files that are durable before each change, each of one block that says which it is.
const FILES: [&str; 6] = ["a", "b", "d/c", "d/victim", "tool", "d/e"];

fn list_for(user: u32) -> Acl {
    let tags = [AclTag::UserObj, AclTag::User(user), AclTag::GroupObj, AclTag::Mask, AclTag::Other];
    let entries = tags.map(|tag| AclEntry { tag, permissions: if tag == AclTag::Other { 0 } else { 6 } });
    Acl::new(entries.to_vec()).unwrap()
}

fn parents(fs: &Ext2, path: &str) -> (Inode, String) {
    match path.split_once('/') {
        Some((folder, name)) => (fs.resolve(folder, Follow::No).unwrap(), name.to_owned()),
        None => (fs.root().unwrap(), path.to_owned()),
    }
}

/// An image on which whatever is free was a deleted file's: bytes, attributes, and inodes with all rights.
static USED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let host = Host::formatted(2);
    let fs = Ext2::open(host.clone(), &OpenOptions::default()).unwrap();
    let root = fs.root().unwrap();
    root.create("d", &NewInode::new(FileKind::Directory, 0o755)).unwrap();
    let regular = NewInode::new(FileKind::Regular, 0o644);
    for (path, tag) in FILES.iter().zip(1..) {
        let (folder, name) = parents(&fs, path);
        folder.create(&*name, &regular).unwrap().write_at(0, &[tag; 1024]).unwrap();
    }
    create(&fs, "other");
    let tool = fs.resolve("tool", Follow::No).unwrap();
    tool.set_acl(AclKind::Access, Some(&list_for(8))).unwrap();
    tool.xattr_set(CAPABILITY, b"own", XattrSet::Any).unwrap();
    let olds: Vec<String> = (0..24).map(|nr| format!("old{nr}")).collect();
    for old in &olds {
        let old = root.create(old, &NewInode::new(FileKind::Regular, 0o4777)).unwrap();
        old.set_acl(AclKind::Access, Some(&list_for(NOBODY))).unwrap();
        old.xattr_set(CAPABILITY, b"another's", XattrSet::Any).unwrap();
        old.set_attr(&SetAttr { mode: Some(0o4777), ..SetAttr::default() }).unwrap();
    }
    let large = create(&fs, "large");
    let mut at = 0;
    while large.write_at(at, &[GONE; 64 << 10]).is_ok_and(|done| done == 64 << 10) {
        at += 64 << 10;
    }
    for old in olds.iter().map(String::as_str).chain(["large"]) {
        root.unlink(old).unwrap();
    }
    drop((large, tool, root));
    fs.close().unwrap();
    host.disk.to_vec()
});

fn rename(fs: &Ext2, old: &str, new: &str, flags: RenameFlags) -> Result<()> {
    let ((old_dir, old), (new_dir, new)) = (parents(fs, old), parents(fs, new));
    fs.rename(&old_dir, old.as_bytes(), &new_dir, new.as_bytes(), flags)
}

type Work = (&'static str, fn(&Ext2) -> Result<()>);

fn at(fs: &Ext2, path: &str) -> Inode {
    fs.resolve(path, Follow::No).unwrap()
}

fn new(mode: u16) -> NewInode {
    NewInode::new(FileKind::Regular, mode)
}

/// Changes, each with all that it needs, and what a user does after some of them.
const WORKS: &[Work] = &[
    ("create", |fs| at(fs, "d").create("new", &new(0o600)).map(drop)),
    ("create and write", |fs| {
        let file = at(fs, "d").create("new", &new(0o666))?;
        file.strip_setid()?;
        file.write_at(0, &[40; 1024]).map(drop)
    }),
    ("mkdir", |fs| at(fs, "d").create("new", &NewInode::new(FileKind::Directory, 0o755)).map(drop)),
    ("many names", |fs| {
        let (folder, file) = (at(fs, "d"), at(fs, "a"));
        (0..40).try_for_each(|nr| folder.link(&file, format!("a name that is as long as this one {nr}")))
    }),
    ("tmpfile", |fs| {
        let file = at(fs, "d").tmpfile(&new(0o600))?;
        at(fs, "d").link(&file, "new")?;
        file.strip_setid()?;
        file.write_at(0, &[40; 1024]).map(drop)
    }),
    ("link", |fs| at(fs, "d").link(&at(fs, "a"), "new")),
    ("unlink", |fs| at(fs, "d").unlink("victim")),
    ("rename", |fs| rename(fs, "a", "d/new", RenameFlags::empty())),
    ("rename in place", |fs| rename(fs, "d/c", "d/new", RenameFlags::empty())),
    ("rename of a directory", |fs| rename(fs, "d", "a directory that is renamed", RenameFlags::empty())),
    ("replace", |fs| rename(fs, "a", "d/victim", RenameFlags::empty())),
    ("exchange", |fs| rename(fs, "a", "d/c", RenameFlags::EXCHANGE)),
    ("write", |fs| at(fs, "a").write_at(1024, &[40; 30 << 10]).map(drop)),
    ("sparse write", |fs| at(fs, "a").write_at(300 << 10, &[40; 700]).map(drop)),
    ("truncate", |fs| at(fs, "a").truncate(100, Wait::Yes)),
    ("punch and write", |fs| {
        at(fs, "a").punch_hole(0, 1024, Wait::Yes)?;
        at(fs, "b").write_at(1024, &[40; 2048]).map(drop)
    }),
    ("attribute", |fs| at(fs, "a").xattr_set(b"user.x", b"y", XattrSet::Any)),
    ("attribute beside others", |fs| {
        let tool = at(fs, "tool");
        tool.xattr_set(b"user.x", b"y", XattrSet::Any)?;
        tool.set_attr(&SetAttr { gid: Some(9), ..SetAttr::default() })
    }),
    ("list", |fs| at(fs, "a").set_acl(AclKind::Access, Some(&list_for(8)))),
    ("capability", |fs| {
        at(fs, "tool").take_xattr(CAPABILITY)?;
        at(fs, "tool").strip_setid()?;
        at(fs, "tool").write_at(0, &[5; 1024]).map(drop)
    }),
    ("owner", |fs| {
        let tool = at(fs, "tool");
        tool.set_attr(&SetAttr { uid: Some(5), gid: Some(70_000), ..SetAttr::default() })
    }),
];

/// What a power cut leaves is no other file's, and what was durable and not to go is there.
fn check(name: &str, nth: usize, host: &Host, is_done: bool) {
    let told = format!("{name}, store {nth}, {}", if is_done { "done" } else { "refused" });
    let shared = std::path::Path::new("/dev/shm");
    let folder = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
    let image = tempfile::NamedTempFile::new_in(folder).unwrap();
    std::fs::write(image.path(), host.disk.to_vec()).unwrap();
    tools::e2fsck_p(image.path()).unwrap_or_else(|said| panic!("{told}: {said}"));
    let bytes = std::fs::read(image.path()).unwrap();
    let left = Ext2::open(RamDevice::from_bytes(&bytes).unwrap(), &OpenOptions::default()).unwrap();
    let mut tags = Vec::new();
    let mut folders = vec![left.root().unwrap()];
    while let Some(folder) = folders.pop() {
        for entry in folder.entries(0).unwrap() {
            let entry = entry.unwrap();
            if [&b"."[..], b".."].contains(&entry.name.as_ref()) {
                continue;
            }
            let file = left.inode(entry.nr).unwrap();
            if file.kind() == FileKind::Directory {
                folders.push(file);
                continue;
            }
            let what = format!("{told}: {}", String::from_utf8_lossy(entry.name.as_ref()));
            let (bytes, mode) = (file.read_all().unwrap(), file.attr().mode);
            assert!(!bytes.contains(&GONE), "{what} shows what a deleted file had");
            assert_eq!(mode & 0o4000, 0, "{what} has the rights of a deleted file");
            let list = file.acl(AclKind::Access).unwrap();
            assert_ne!(list, Some(list_for(NOBODY)), "{what} has the list of a deleted file");
            let capability = file.xattr_get(CAPABILITY).ok();
            assert_ne!(capability.as_deref(), Some(&b"another's"[..]), "{what} has another's capability");
            assert!(
                capability.is_none() || bytes.first() != Some(&40),
                "{what} has a capability that was taken"
            );
            tags.extend(bytes.first().copied());
        }
    }
    for (path, tag) in FILES.iter().zip(1..) {
        let may_go = *path == "d/victim" && ["unlink", "replace"].contains(&name)
            || *path == "a" && name == "punch and write";
        assert!(may_go || tags.contains(&tag), "{told}: {path} is gone");
    }
}

#[test]
fn what_anothers_fence_loses_between_two_stores_of_a_change_is_never_built_on() {
    need_tools!("e2fsck");
    for (name, work) in WORKS {
        for nth in 0.. {
            let host = Arc::new(Host::of(&USED));
            let fs = Ext2::open(host.clone(), &OpenOptions::default()).unwrap();
            let other = at(&fs, "other");
            host.stores_before.store(nth, Ordering::SeqCst);
            host.at_store.set(host.loss_by_chmod(&other));
            let done = work(&fs);
            if host.at_store.is_set() {
                done.unwrap();
                assert!(nth > 0, "{name} stores nothing");
                break;
            }
            // Whatever the host has by now, and all of it.
            check(name, nth, &host, done.is_ok());
            host.fence().unwrap();
            check(name, nth, &host, done.is_ok());
        }
    }
}
