//! Listings that go on while entries come, go, and change their length.

use std::collections::BTreeMap;

use e2dax_tests::{
    Rng, need_tools,
    small::{image, is_clean, open, ram},
};
use ext2_core::{DirEntry, Ext2, FileKind, Inode, RenameFlags};

use super::{DIR, FIFO, listed};

/// A directory of two blocks, with a directory `sub` in the first, which has less room in one piece than in all.
fn crowded(fs: &Ext2) -> Inode {
    let dir = fs.root().expect("root").create(b"dir", &DIR).expect("created");
    (0..6).for_each(|nr| drop(dir.create(format!("a{nr}").as_bytes(), &FIFO).expect("created")));
    dir.create(b"sub", &DIR).expect("created");
    for nr in 0.. {
        dir.create(format!("file{nr:03}").as_bytes(), &FIFO).expect("created");
        if dir.size() > 1024 {
            break;
        }
    }
    ["a0", "a2", "a4"].iter().for_each(|name| dir.unlink(name.as_bytes()).expect("unlinked"));
    dir
}

#[test]
fn a_listing_goes_on_where_it_was_when_a_rename_packs_its_block() {
    need_tools!("mke2fs", "e2fsck");
    let base = image(&["-t", "ext2", "-N", "256"]);
    let count = listed(&crowded(&open(&ram(&base))), 0).len();
    for seen in 0..count {
        let device = ram(&base);
        let fs = open(&device);
        let dir = crowded(&fs);
        let all = listed(&dir, 0);
        let cookie = seen.checked_sub(1).map_or(0, |last| all[last].next_cookie);
        let mut names = vec![b"sub".to_vec()];
        // Twice, so that a cookie of the first order is followed through two.
        for new in [&b"sub-with-long-name"[..], b"sub-with-a-much-longer-name-than-before"] {
            let old = names.last().expect("one");
            fs.rename(&dir, old, &dir, new, RenameFlags::empty()).expect("renamed");
            names.push(new.to_vec());
            let rest = listed(&dir, cookie);
            let mut times: BTreeMap<&[u8], u32> = BTreeMap::new();
            all[..seen].iter().chain(&rest).for_each(|entry| *times.entry(&entry.name).or_default() += 1);
            for entry in all.iter().filter(|entry| !names.iter().any(|name| entry.name == *name)) {
                let name = String::from_utf8_lossy(&entry.name);
                assert_eq!(
                    times.get(&entry.name[..]),
                    Some(&1),
                    "{name} after {seen} and {} renames",
                    names.len() - 1
                );
            }
            assert_eq!(listed(&dir, 0).len(), count);
        }
        drop(dir);
        fs.close().expect("closed");
        assert!(seen % 16 != 0 || is_clean(&device.to_vec()));
    }
}

#[test]
fn entries_that_stay_are_listed_once_whatever_others_do_meanwhile() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext2", "-N", "1024"]));
    let fs = open(&device);
    let dir = fs.root().expect("root").create(b"dir", &DIR).expect("created");
    let stays: Vec<String> = (0..60).map(|nr| format!("stays{nr:02}-{}", "x".repeat(nr % 23))).collect();
    stays.iter().for_each(|name| drop(dir.create(name.as_bytes(), &FIFO).expect("created")));
    let mut rng = Rng::new(7);
    let mut others: Vec<Vec<u8>> = Vec::new();
    let mut next = 0;
    for round in 0..200 {
        let mut times: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        let mut cookie = 0;
        loop {
            let part: Vec<DirEntry> =
                listed(&dir, cookie).into_iter().take(1 + rng.below(9) as usize).collect();
            let Some(last) = part.last() else { break };
            cookie = last.next_cookie;
            part.into_iter().for_each(|entry| *times.entry(entry.name.into_bytes()).or_default() += 1);
            next += 1;
            let name = format!("n{next}{}", "y".repeat(rng.below(40) as usize)).into_bytes();
            match rng.below(3) {
                0 if others.len() < 30 => {
                    dir.create(&name, if rng.below(2) == 0 { &DIR } else { &FIFO }).expect("created");
                    others.push(name);
                }
                1 if !others.is_empty() => {
                    let old = others.swap_remove(rng.below(others.len() as u64) as usize);
                    let is_dir = dir.lookup(&old).expect("there").kind() == FileKind::Directory;
                    if is_dir { dir.rmdir(&old) } else { dir.unlink(&old) }.expect("removed");
                }
                _ if !others.is_empty() => {
                    let old = rng.below(others.len() as u64) as usize;
                    fs.rename(&dir, &others[old], &dir, &name, RenameFlags::empty()).expect("renamed");
                    others[old] = name;
                }
                _ => {}
            }
        }
        for name in &stays {
            assert_eq!(times.get(name.as_bytes()), Some(&1), "{name} in round {round}");
        }
    }
    drop(dir);
    fs.close().expect("closed");
    assert!(is_clean(&device.to_vec()));
}
