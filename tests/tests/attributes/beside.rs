//! Flags and rights that one thread changes while another changes the file: what has returned holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ext2_core::{
    Acl, AclEntry, AclKind, AclTag, Ext2, FileKind, Inode, InodeFlags, NewInode, OpenOptions, SetAttr, Wait,
    XattrSet,
};

/// How long each pair of threads is looked at.
const TIME: Duration = Duration::from_millis(700);

fn file() -> Inode {
    let device = ext2_image::mkfs::in_memory(8 << 20).unwrap();
    let fs = Ext2::open(device, &OpenOptions::default()).unwrap();
    fs.root().unwrap().create("f", &NewInode::new(FileKind::Regular, 0o755)).unwrap()
}

/// One thread does the one over and over, while this one does the other until it gives what is wrong.
fn beside(mut one: impl FnMut(u32) + Send, mut other: impl FnMut(u32) -> Option<String>) {
    let over = AtomicBool::new(false);
    let found = thread::scope(|scope| {
        let over = &over;
        scope.spawn(move || (0..).take_while(|_| !over.load(Ordering::Relaxed)).for_each(&mut one));
        let begin = Instant::now();
        let found = (0..).take_while(|_| begin.elapsed() < TIME).find_map(|nr| Some((nr, other(nr)?)));
        over.store(true, Ordering::Relaxed);
        found
    });
    assert_eq!(found, None);
}

fn list(user: u16) -> Acl {
    let entry = |tag, permissions| AclEntry { tag, permissions };
    let tags = [AclTag::UserObj, AclTag::User(1000), AclTag::GroupObj, AclTag::Mask, AclTag::Other];
    Acl::new(tags.into_iter().zip([7, user, 5, 5, 5]).map(|(tag, bits)| entry(tag, bits)).collect()).unwrap()
}

#[test]
fn set_id_bits_that_were_stripped_do_not_come_back_with_an_access_list() {
    let file = file();
    let lists = |nr: u32| file.set_acl(AclKind::Access, Some(&list(nr as u16 % 8))).unwrap();
    beside(lists, |nr| {
        file.set_attr(&SetAttr { mode: Some(0o4755), ..SetAttr::default() }).unwrap();
        (0..nr * 37 % 3000).for_each(|_| std::hint::spin_loop());
        file.strip_setid().unwrap();
        // Nobody gives the bit from here on.
        (0..50).find_map(|_| {
            thread::yield_now();
            let mode = file.attr().mode;
            (mode & 0o4000 != 0).then(|| format!("{mode:o}"))
        })
    });
}

/// Makes the file immutable while somebody changes it, and looks twice.
fn stays_as_it_is<L: PartialEq + std::fmt::Debug>(
    file: &Inode,
    changes: impl FnMut(u32) + Send,
    begin: impl Fn(),
    look: impl Fn() -> L,
) {
    beside(changes, |_| {
        begin();
        file.set_flags(InodeFlags::IMMUTABLE).unwrap();
        let before = look();
        thread::sleep(Duration::from_micros(300));
        let after = look();
        file.set_flags(InodeFlags::empty()).unwrap();
        thread::sleep(Duration::from_micros(100));
        (before != after).then(|| format!("{before:?}, then {after:?}"))
    });
}

#[test]
fn a_file_that_is_immutable_keeps_its_owner_and_attributes_beside_who_changes_them() {
    let file = file();
    let changes = |nr: u32| {
        let _ = file.set_attr(&SetAttr { uid: Some(nr % 1000), ..SetAttr::default() });
        let _ = file.xattr_set(b"user.n", &nr.to_le_bytes(), XattrSet::Any);
        let _ = file.set_acl(AclKind::Access, Some(&list(nr as u16 % 8)));
    };
    let look = || (file.attr().uid, file.xattr_get(b"user.n").ok(), file.acl(AclKind::Access).ok());
    stays_as_it_is(&file, changes, || {}, look);
}

#[test]
fn a_file_that_is_immutable_keeps_its_bytes_beside_who_cuts_it_off_or_punches_it() {
    let file = file();
    let changes = |_| {
        let _ = file.truncate(100, Wait::Yes);
        let _ = file.zero_range(0, 50);
        let _ = file.punch_hole(0, 60, Wait::Yes);
    };
    let look = || (file.size(), file.read_all().unwrap().iter().filter(|byte| **byte == 7).count());
    stays_as_it_is(&file, changes, || _ = file.write_at(0, &[7; 8192]).unwrap(), look);
}
