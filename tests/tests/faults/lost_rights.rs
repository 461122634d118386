//! Rights that a fence has lost, on the way to the media: nothing that depends on them comes after, and they are stored again.

use std::sync::{Arc, Mutex, atomic::Ordering, mpsc};

use blockdev::{BlockDevice, RamDevice};
use e2dax_tests::{need_tools, small::create, tools};
use ext2_core::plumbing::Plumbing as _;
use ext2_core::{
    Acl, AclEntry, AclKind, AclTag, Errno, Ext2, Follow, Inode, OpenOptions, Result, SetAttr, XattrSet,
};

use crate::host::Host;

/// A file that anybody may write to as its owner, durably.
fn tool(fs: &Ext2) -> Inode {
    let tool = create(fs, "tool");
    tool.write_at(0, &[1; 1024]).unwrap();
    tool.set_attr(&SetAttr { mode: Some(0o4777), ..SetAttr::default() }).unwrap();
    fs.sync().unwrap();
    tool
}

/// Whether a power cut leaves no set-id bit with what a user wrote, now and after the host has written what it has.
fn is_safe(host: &Host) -> bool {
    let is_safe_now = || {
        let left = host.after_power_cut();
        let mode = left.resolve("tool", Follow::No).unwrap().attr().mode;
        mode & 0o4000 == 0 || left.read("tool").unwrap()[0] == 1
    };
    is_safe_now() && host.fence().is_ok() && is_safe_now()
}

#[test]
fn set_id_bits_whose_loss_failed_are_taken_again_before_anything_is_written() {
    for log in [true, false] {
        let (host, fs) = Host::opened_with(&OpenOptions { log, ..OpenOptions::default() });
        let tool = tool(&fs);
        host.fails.store(true, Ordering::SeqCst);
        tool.strip_setid().unwrap_err();
        let again = tool.strip_setid().and_then(|()| tool.write_at(0, &[2; 1024]));
        assert_eq!(again.is_ok(), !log, "{again:?}");
        drop(tool);
        let _ = fs.close();
        host.fence().unwrap();
        let left = host.after_power_cut();
        let mode = left.resolve("tool", Follow::No).unwrap().attr().mode;
        let is_new = left.read("tool").unwrap()[0] == 2;
        assert!(mode & 0o4000 == 0 || !is_new, "{mode:o}");
    }
}

#[test]
fn who_finds_set_id_bits_gone_waits_for_the_media_too() {
    let (host, fs) = Host::opened_with(&OpenOptions { log: true, ..OpenOptions::default() });
    let tool = tool(&fs);
    let (second, known, (tell, told)) = (tool.clone(), host.clone(), mpsc::channel());
    // In the middle of the first one's commit.
    host.at_flush.set(move || {
        std::thread::spawn(move || {
            second.strip_setid().unwrap();
            second.write_at(0, &[2; 1024]).unwrap();
            // As a process leaves it that is killed.
            let left = RamDevice::from_bytes(&known.cache.to_vec()).unwrap();
            let again = Ext2::open(left, &OpenOptions::default()).unwrap();
            let mode = again.resolve("tool", Follow::No).unwrap().attr().mode;
            tell.send((mode, again.read("tool").unwrap()[0])).unwrap();
        });
        std::thread::sleep(std::time::Duration::from_millis(200));
    });
    tool.strip_setid().unwrap();
    assert_eq!(told.recv().unwrap(), (0o777, 2));
}

#[test]
fn set_id_bits_that_are_taken_among_other_changes_are_waited_for_by_others() {
    let (host, fs) = Host::opened_with(&OpenOptions { log: true, ..OpenOptions::default() });
    let tool = tool(&fs);
    fs.together(|| tool.strip_setid()).unwrap();
    // Whoever is not within.
    tool.strip_setid().unwrap();
    tool.write_at(0, &[2; 1024]).unwrap();
    let left = RamDevice::from_bytes(&host.cache.to_vec()).unwrap();
    let again = Ext2::open(left, &OpenOptions::default()).unwrap();
    assert_eq!(again.resolve("tool", Follow::No).unwrap().attr().mode, 0o777);
}

#[test]
fn set_id_bits_whose_loss_failed_are_taken_again_by_who_opens_the_file_anew() {
    let (host, fs) = Host::opened();
    let tool = tool(&fs);
    host.fails.store(true, Ordering::SeqCst);
    tool.strip_setid().unwrap_err();
    drop(tool);
    let again = fs.resolve("tool", Follow::No).unwrap();
    again.strip_setid().unwrap();
    again.write_at(0, &[2; 1024]).unwrap();
    assert!(is_safe(&host));
}

#[test]
fn set_id_bits_whose_loss_failed_are_taken_again_after_a_change_of_the_group_alone() {
    let (host, fs) = Host::opened();
    let tool = tool(&fs);
    host.fails.store(true, Ordering::SeqCst);
    tool.strip_setid().unwrap_err();
    tool.set_attr(&SetAttr { gid: Some(5), ..SetAttr::default() }).unwrap();
    tool.strip_setid().unwrap();
    tool.write_at(0, &[2; 1024]).unwrap();
    assert!(is_safe(&host));
}

#[test]
fn set_id_bits_that_anothers_fence_has_lost_are_not_called_gone() {
    let (host, fs) = Host::opened();
    let b = create(&fs, "b");
    let tool = tool(&fs);
    // i_mode is a store of two bytes.
    host.store_len.store(2, Ordering::SeqCst);
    host.at_store.set(host.loss_by(&b));
    tool.strip_setid().unwrap_err();
    assert!(!host.at_store.is_set());
    tool.strip_setid().unwrap();
    tool.write_at(0, &[2; 1024]).unwrap();
    assert!(is_safe(&host));
}

/// What of a file's rights a power cut leaves.
type Rights = (u16, u32, u32, Option<Acl>);

/// A change of them.
type Work = Box<dyn Fn(&Inode) -> Result<()>>;

fn rights_of(fs: &Ext2) -> Rights {
    let file = fs.resolve("tool", Follow::No).unwrap();
    let attr = file.attr();
    (attr.mode, attr.uid, attr.gid, file.acl(AclKind::Access).unwrap())
}

#[test]
fn rights_that_anothers_fence_loses_anywhere_in_a_change_are_an_error_and_are_stored_again() {
    let set = |mode: u16, uid: u32, gid: u32| SetAttr {
        mode: Some(mode),
        uid: Some(uid),
        gid: Some(gid),
        ..SetAttr::default()
    };
    let entry = |tag, permissions| AclEntry { tag, permissions };
    let list = Acl::new(vec![
        entry(AclTag::UserObj, 7),
        entry(AclTag::User(9), 6),
        entry(AclTag::GroupObj, 5),
        entry(AclTag::Mask, 7),
        entry(AclTag::Other, 0),
    ])
    .unwrap();
    let chmod = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    let chgrp = SetAttr { gid: Some(77), ..SetAttr::default() };
    let works: [(&str, Work); 7] = [
        ("strip", Box::new(Inode::strip_setid)),
        ("chmod", Box::new(move |file| file.set_attr(&chmod))),
        ("chgrp", Box::new(move |file| file.set_attr(&chgrp))),
        ("all", Box::new(move |file| file.set_attr(&set(0o640, 70_000, 80_000)))),
        ("owners", Box::new(move |file| file.set_attr(&set(0o4777, 70_000, 80_000)))),
        ("list", Box::new(move |file| file.set_acl(AclKind::Access, Some(&list)))),
        ("no list", Box::new(|file| file.set_acl(AclKind::Access, None))),
    ];
    for (name, work) in works {
        for nth in 0.. {
            let (host, fs) = Host::opened();
            let b = create(&fs, "b");
            let tool = tool(&fs);
            if name == "no list" {
                let entries = [(AclTag::UserObj, 7), (AclTag::User(8), 7), (AclTag::GroupObj, 7)];
                let rest = [(AclTag::Mask, 7), (AclTag::Other, 7)];
                let entries =
                    entries.iter().chain(&rest).map(|(tag, permissions)| entry(*tag, *permissions)).collect();
                tool.set_acl(AclKind::Access, Some(&Acl::new(entries).unwrap())).unwrap();
            }
            fs.sync().unwrap();
            host.stores_before.store(nth, Ordering::SeqCst);
            host.at_store.set(host.loss_by_chmod(&b));
            let done = work(&tool);
            if host.at_store.is_set() {
                done.unwrap();
                assert!(nth > 0, "{name} stores nothing");
                break;
            }
            if done.is_ok() {
                assert_eq!(rights_of(&host.after_power_cut()), rights_of(&fs), "{name}, store {nth}");
            }
            work(&tool).unwrap();
            assert_eq!(rights_of(&host.after_power_cut()), rights_of(&fs), "{name} again, store {nth}");
        }
    }
}

/// The fence behind the mark fails, and the owners are settled later.
#[test]
fn owners_whose_mark_a_fence_has_lost_are_marked_again_before_they_are_settled() {
    let (host, fs) = Host::opened();
    let file = create(&fs, "tool");
    file.write_at(0, &[1; 1024]).unwrap();
    fs.sync().unwrap();
    // The mark is a store of eight bytes.
    host.store_len.store(8, Ordering::SeqCst);
    let known = host.clone();
    host.at_store.set(move || known.fails.store(true, Ordering::SeqCst));
    let owners = SetAttr { uid: Some(70_000), gid: Some(80_000), ..SetAttr::default() };
    file.set_attr(&owners).unwrap_err();
    assert!(!host.at_store.is_set() && !host.fails.load(Ordering::SeqCst));
    // What is on the disk at each such store from now on.
    let left = Arc::new(Mutex::new(Vec::new()));
    fn keep(host: &Arc<Host>, left: &Arc<Mutex<Vec<Vec<u8>>>>) {
        let (known, kept) = (host.clone(), left.clone());
        host.at_store.set(move || {
            kept.lock().unwrap().push(known.disk.to_vec());
            keep(&known, &kept);
        });
    }
    keep(&host, &left);
    fs.sync().unwrap_err();
    let left = std::mem::take(&mut *left.lock().unwrap());
    assert!(left.len() > 1, "{}", left.len());
    for image in left {
        let fs = Ext2::open(RamDevice::from_bytes(&image).unwrap(), &OpenOptions::default()).unwrap();
        let attr = fs.resolve("tool", Follow::No).unwrap().attr();
        assert!([(0, 0), (70_000, 80_000)].contains(&(attr.uid, attr.gid)), "{} {}", attr.uid, attr.gid);
    }
    host.at_store.set(|| ());
    fs.sync().unwrap();
    let attr = host.after_power_cut().resolve("tool", Follow::No).unwrap().attr();
    assert_eq!((attr.uid, attr.gid), (70_000, 80_000));
}

/// A file with an access list, durably.
fn with_list() -> (Arc<Host>, Ext2, Inode) {
    let (host, fs) = Host::opened();
    let tool = create(&fs, "tool");
    tool.set_attr(&SetAttr { mode: Some(0o660), ..SetAttr::default() }).unwrap();
    let tags = [AclTag::UserObj, AclTag::User(8), AclTag::GroupObj, AclTag::Mask, AclTag::Other];
    let entries = tags.map(|tag| AclEntry { tag, permissions: if tag == AclTag::Other { 0 } else { 6 } });
    tool.set_acl(AclKind::Access, Some(&Acl::new(entries.to_vec()).unwrap())).unwrap();
    fs.sync().unwrap();
    (host, fs, tool)
}

#[test]
fn an_access_list_whose_removal_failed_is_removed_again() {
    let (host, _fs, tool) = with_list();
    host.fails.store(true, Ordering::SeqCst);
    tool.set_acl(AclKind::Access, None).unwrap_err();
    assert!(!host.fails.load(Ordering::SeqCst));
    tool.set_acl(AclKind::Access, None).unwrap();
    assert_eq!(rights_of(&host.after_power_cut()).3, None);
}

#[test]
fn an_access_list_whose_removal_is_lost_is_removed_again_also_after_a_write_by_a_user() {
    let (host, fs, tool) = with_list();
    let other = create(&fs, "other");
    fs.sync().unwrap();
    host.store_len.store(4, Ordering::SeqCst);
    host.at_store.set(host.loss_by(&other));
    tool.set_acl(AclKind::Access, None).unwrap_err();
    assert!(!host.at_store.is_set());
    tool.strip_setid().unwrap();
    tool.set_acl(AclKind::Access, None).unwrap();
    assert_eq!(rights_of(&host.after_power_cut()).3, None);
}

#[test]
fn capabilities_whose_removal_is_lost_are_removed_again_whoever_was_told() {
    const CAPABILITY: &[u8] = b"security.capability";
    for is_told in [false, true] {
        let (host, fs) = Host::opened();
        let (other, tool) = (create(&fs, "other"), create(&fs, "tool"));
        tool.xattr_set(CAPABILITY, b"cap", XattrSet::Any).unwrap();
        fs.sync().unwrap();
        host.store_len.store(4, Ordering::SeqCst);
        host.at_store.set(host.loss_by(&other));
        tool.take_xattr(CAPABILITY).unwrap_err();
        assert!(!host.at_store.is_set());
        if is_told {
            // Somebody who syncs the same file.
            tool.sync().unwrap_err();
        }
        assert!(tool.take_xattr(CAPABILITY).unwrap_err().is(Errno::NODATA));
        let left = host.after_power_cut().resolve("tool", Follow::No).unwrap();
        left.xattr_get(CAPABILITY).unwrap_err();
    }
}

#[test]
fn capabilities_in_the_inode_whose_removal_is_lost_are_removed_again() {
    need_tools!("debugfs");
    const CAPABILITY: &[u8] = b"security.capability";
    let (host, fs) = Host::opened();
    create(&fs, "tool").write_at(0, &[1; 1024]).unwrap();
    fs.close().unwrap();
    let image = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(image.path(), host.cache.to_vec()).unwrap();
    let set = "ea_set /tool security.capability cap";
    tools::run("debugfs", &["-w".as_ref(), "-R".as_ref(), set.as_ref(), image.path().as_os_str()]).unwrap();
    let bytes = std::fs::read(image.path()).unwrap();
    for device in [&host.cache, &host.disk] {
        device.write_at(0, &bytes).unwrap();
    }
    let fs = Ext2::open(host.clone(), &OpenOptions::default()).unwrap();
    let other = create(&fs, "other");
    let tool = fs.resolve("tool", Follow::No).unwrap();
    assert_eq!(tool.xattr_get(CAPABILITY).unwrap(), b"cap");
    fs.sync().unwrap();
    host.store_len.store(4, Ordering::SeqCst);
    host.at_store.set(host.loss_by(&other));
    tool.take_xattr(CAPABILITY).unwrap_err();
    assert!(!host.at_store.is_set());
    // It is let go of, and somebody else takes it.
    drop(tool);
    let tool = fs.resolve("tool", Follow::No).unwrap();
    assert!(tool.may_have_lost_rights());
    assert!(tool.take_xattr(CAPABILITY).unwrap_err().is(Errno::NODATA));
    assert!(!tool.may_have_lost_rights());
    let left = host.after_power_cut().resolve("tool", Follow::No).unwrap();
    left.xattr_get(CAPABILITY).unwrap_err();
}
