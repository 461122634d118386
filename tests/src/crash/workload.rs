//! Sequences of operations: systematic ones over a small vocabulary, and seeded ones over many files and numbers.

use super::Action;
use crate::Rng;

/// The vocabulary of the systematic workloads, over the files of [`Base`](super::Base): each kind of operation, with
/// the cases of it that take another way through the code.
pub fn vocabulary() -> Vec<Action> {
    use Action::*;
    vec![
        Create("/n"),
        Create("/d/a-name-that-needs-more-room-than-most-others-do"),
        Mkdir("/e"),
        Rmdir("/x"),
        Symlink("/s", 20),
        Symlink("/s", 300),
        Mknod("/p"),
        Link("/a", "/l"),
        Link("/a", "/d/l"),
        Unlink("/a"),
        Unlink("/d/b"),
        Unlink("/d/b2"),
        Rename("/a", "/n"),
        Rename("/a", "/d/n"),
        Rename("/a", "/d/b"),
        Rename("/d/b", "/a"),
        Rename("/fifo", "/a"),
        Rename("/x", "/y"),
        Exchange("/a", "/d/b"),
        Write { path: "/a", offset: 500, len: 1000, seed: 1 },
        Write { path: "/a", offset: 2500, len: 1700, seed: 2 },
        Write { path: "/a", offset: 9000, len: 7000, seed: 3 },
        Write { path: "/h", offset: 3000, len: 100, seed: 4 },
        Write { path: "/h", offset: 15_000, len: 2000, seed: 5 },
        Truncate { path: "/a", size: 0 },
        Truncate { path: "/a", size: 700 },
        Truncate { path: "/a", size: 5000 },
        Truncate { path: "/h", size: 13_500 },
        Punch { path: "/a", offset: 600, len: 1500 },
        Punch { path: "/h", offset: 12_000, len: 6000 },
        Zero { path: "/a", offset: 100, len: 2000 },
        SetXattr { path: "/a", len: 20, seed: 6 },
        SetXattr { path: "/d/b", len: 500, seed: 7 },
        SetXattr { path: "/h", len: 300, seed: 8 },
        RemoveXattr("/h"),
        Chmod("/a", 0o4755),
        Create("/f/a-name-that-needs-another-block-since-this-one-is-full-of-names"),
        Mkdir("/f/a-name-that-needs-another-block-since-this-one-is-full-of-names"),
        Truncate { path: "/t", size: 900 },
        Truncate { path: "/h", size: 400 },
        Write { path: "/t", offset: 600, len: 200, seed: 9 },
    ]
}

/// Words about who may do what: each case of how mode, owners and access list lie in an inode.
pub fn rights() -> Vec<Action> {
    use Action::*;
    const BOTH: (u32, u32) = (0x1_0000, 0x2_0007);
    vec![
        Chown { path: "/a", uid: 5, gid: 0 },
        Chown { path: "/a", uid: 0, gid: 6 },
        Chown { path: "/a", uid: 5, gid: 6 },
        Chown { path: "/a", uid: BOTH.0, gid: BOTH.1 },
        Chown { path: "/d", uid: 0xffff, gid: 0xffff },
        Chmod("/a", 0o6755),
        Chmod("/d", 0o2775),
        SetRights { path: "/a", mode: 0o4711, uid: BOTH.0, gid: 9 },
        SetRights { path: "/a", mode: 0o2770, uid: 0, gid: 6 },
        SetRights { path: "/a", mode: 0o600, uid: 5, gid: 0 },
        SetRights { path: "/d", mode: 0o2750, uid: 7, gid: 7 },
        SetAcl("/a", 0o660),
        SetAcl("/a", 0o604),
        SetAcl("/h", 0o470),
        RemoveAcl("/a"),
        Chmod("/h", 0o4750),
        SetTimes("/a", [(1_000_000_000, 5), (1_100_000_000, 500_000_000)]),
        SetTimes("/a", [(5_000_000_000, 0), (-5, 999_999_999)]),
        SetTimes("/d", [(1, 0), (2, 7)]),
        WriteByUser { path: "/a", offset: 500, len: 1000, seed: 41 },
        WriteByUser { path: "/a", offset: 2400, len: 3000, seed: 42 },
        Unlink("/a"),
        Rename("/d/b", "/a"),
    ]
}

/// Workloads on the files that share a block of attributes in [`Base::shared`](super::Base::shared).
pub fn sharing() -> Vec<Vec<Action>> {
    use Action::*;
    let ends = |actions: &[Action]| [actions, &[Sync]].concat();
    let set = |path, seed| SetXattr { path, len: 30, seed };
    vec![
        ends(&[set("/h", 51)]),
        ends(&[RemoveXattr("/h")]),
        ends(&[SetAcl("/t", 0o640)]),
        ends(&[Unlink("/h")]),
        ends(&[Rename("/a", "/h")]),
        ends(&[Unlink("/d/b"), Unlink("/d/b2")]),
        ends(&[Unlink("/h"), Create("/n"), set("/n", 52), Sync, Unlink("/t")]),
        // Removed while it is open; another is truncated meanwhile.
        ends(&[Hold("/h"), Unlink("/h"), Sync, Truncate { path: "/a", size: 700 }, Sync, LetGo]),
        ends(&[
            Hold("/h"),
            Unlink("/h"),
            LetGo,
            Hold("/t"),
            Unlink("/t"),
            Sync,
            LetGo,
            Create("/n"),
            Create("/m"),
        ]),
        ends(&[Hold("/t"), Unlink("/t"), set("/h", 53), Sync, LetGo]),
        ends(&[Hold("/t"), Rename("/a", "/t"), Create("/n"), LetGo]),
        ends(&[Exchange("/t", "/h"), RemoveAcl("/t"), Chmod("/h", 0o640), Unlink("/t")]),
        // Two that are removed while they are open.
        ends(&[Hold("/h"), Hold("/t"), Unlink("/h"), Unlink("/t"), Sync, LetGo]),
        ends(&[Link("/h", "/l"), Unlink("/h"), Sync, Unlink("/l")]),
    ]
}

/// Workloads on the files whose attributes lie in the inodes of [`Base::in_inodes`](super::Base::in_inodes).
pub fn in_inodes() -> Vec<Vec<Action>> {
    use Action::*;
    let set = |path, seed| SetXattr { path, len: 30, seed };
    vec![
        vec![set("/h", 51), Sync],
        vec![set("/h", 51), RemoveXattr("/h"), Sync],
        vec![RemoveXattr("/h"), set("/h", 52), Sync],
        vec![SetAcl("/h", 0o640), set("/h", 53), Sync, RemoveAcl("/h"), RemoveXattr("/h")],
        vec![SetAcl("/h", 0o640), RemoveXattr("/h"), RemoveAcl("/h"), Sync],
        vec![set("/a", 54), Rename("/h", "/a"), RemoveXattr("/a"), Sync],
        vec![Link("/h", "/l"), set("/l", 55), Unlink("/h"), Sync],
    ]
}

/// The same for what goes through the DAX layer, which needs blocks as large as a page.
pub fn dax_vocabulary() -> Vec<Action> {
    use Action::*;
    vec![
        DaxWrite { path: "/a", offset: 500, len: 1000, seed: 21 },
        DaxWrite { path: "/a", offset: 2500, len: 9000, seed: 22 },
        DaxWrite { path: "/h", offset: 5000, len: 3000, seed: 23 },
        Store { path: "/a", offset: 100, len: 300, seed: 24 },
        Store { path: "/h", offset: 6000, len: 200, seed: 25 },
        StoreSynced { path: "/a", offset: 2000, len: 400, seed: 26 },
        StoreSynced { path: "/h", offset: 4000, len: 5000, seed: 27 },
        StoreLeased { path: "/a", offset: 900, len: 400, seed: 28 },
        StoreLeased { path: "/h", offset: 100, len: 14_000, seed: 32 },
        StoreLeasedSynced { path: "/a", offset: 200, len: 2000, seed: 33 },
        Truncate { path: "/a", size: 700 },
        Truncate { path: "/a", size: 12_000 },
        Punch { path: "/h", offset: 0, len: 14_100 },
        Rename("/a", "/d/b"),
        Unlink("/h"),
    ]
}

/// The operation, and an fsync of what it is about; a sync where that is gone.
fn synced(action: Action) -> Vec<Action> {
    let last = action.target().map_or(Action::Sync, Action::Fsync);
    vec![action, last]
}

/// Each operation alone: with an fsync, and with a sync (seq-1 of ACE).
pub fn singles(words: &[Action]) -> Vec<Vec<Action>> {
    words.iter().flat_map(|action| [synced(action.clone()), vec![action.clone(), Action::Sync]]).collect()
}

/// All pairs, with nothing and with an fsync between them (seq-2 of ACE), so mixed that any part of them has some of
/// everything.
pub fn pairs(words: &[Action]) -> Vec<Vec<Action>> {
    let count = words.len();
    let mut all = Vec::new();
    for shift in 0..count {
        for (first, a) in words.iter().enumerate() {
            let b = words[(first + shift) % count].clone();
            let mut apart = synced(a.clone());
            apart.extend([b.clone(), Action::Sync]);
            all.extend([apart, vec![a.clone(), b, Action::Sync]]);
        }
    }
    all
}

/// Directories that change their parents: alone, over an empty one, in exchange for one and for a file.
pub fn moves() -> Vec<Vec<Action>> {
    use Action::{Exchange, Mkdir, Rename, Sync};
    let there = [Mkdir("/d/e"), Sync];
    let after = |action: Action| [&there[..], &[action, Sync]].concat();
    vec![
        vec![Rename("/x", "/d/y"), Sync],
        vec![Rename("/f", "/d/y"), Sync],
        // Into a directory that has to grow for it.
        vec![Rename("/x", "/f/a-name-that-needs-another-block-since-this-one-is-full-of-names"), Sync],
        after(Rename("/d/e", "/f/a-name-that-needs-another-block-since-this-one-is-full-of-names")),
        after(Rename("/d/e", "/y")),
        after(Rename("/f", "/d/e")),
        after(Exchange("/f", "/d/e")),
        after(Exchange("/d/e", "/a")),
    ]
}

/// A longer workload that grows from a seed: operations of a vocabulary, some with an fsync or a sync after them.
pub fn seeded(words: &[Action], seed: u64, len: u64) -> Vec<Action> {
    let mut rng = Rng::new(seed);
    let mut workload = Vec::new();
    for _ in 0..2 + rng.below(len) {
        let action = rng.pick(words).clone();
        let target = action.target();
        workload.push(action);
        match target {
            Some(target) if rng.one_in(3) => workload.push(Action::Fsync(target)),
            _ if rng.one_in(8) => workload.push(Action::Sync),
            _ => {}
        }
    }
    workload
}

/// Names of files, of which the [`Base`](super::Base) has some.
const FILES: [&str; 10] =
    ["/a", "/h", "/d/b", "/d/b2", "/n", "/d/n", "/x/n", "/l", "/fifo", "/d/a-longer-name-than-others"];
/// Names of directories, of which the [`Base`](super::Base) has some.
const DIRECTORIES: [&str; 5] = ["/x", "/y", "/e", "/d/y", "/d/e"];

/// A workload of `len` operations at most that grows from a seed: of every kind, on many files, at any place and of any
/// length that stays within the blocks reached by one indirect block.
pub fn wild(seed: u64, len: u64) -> Vec<Action> {
    let mut rng = Rng::named(seed, "wild");
    let mut workload = Vec::new();
    for _ in 0..2 + rng.below(len.saturating_sub(1)) {
        let action = wild_action(&mut rng);
        let target = action.target();
        workload.push(action);
        match target {
            Some(target) if rng.one_in(4) => workload.push(Action::Fsync(target)),
            _ if rng.one_in(10) => workload.push(Action::Sync),
            _ => {}
        }
    }
    workload
}

fn wild_action(rng: &mut Rng) -> Action {
    use Action::{
        Chmod, Chown, Create, Exchange, Link, Mkdir, Mknod, Punch, RemoveAcl, RemoveXattr, Rename, Rmdir,
        SetAcl, SetRights, SetTimes, SetXattr, Symlink, Truncate, Unlink, Write, WriteByUser, Zero,
    };
    let path = *rng.pick(&FILES);
    let other = *rng.pick(&FILES);
    let (dir, to) = (*rng.pick(&DIRECTORIES), *rng.pick(&DIRECTORIES));
    // Most are short, and many end at the edge of a block.
    let mut place = |most: u64| {
        let at = rng.below(most);
        if rng.one_in(3) { at / 1024 * 1024 } else { at }
    };
    let (offset, len) = (place(18_000), 1 + place(4000));
    let seed = 1 + (offset % 250) as u8;
    let bytes = usize::try_from(len).expect("a few thousand");
    let id = *rng.pick(&[0, 5, 0xffff, 0x1_0000, 0x2_0005]);
    match rng.below(31) {
        0 | 1 => Create(path),
        2 => Mkdir(dir),
        3 => Rmdir(dir),
        4 => Symlink(path, if rng.one_in(2) { 20 } else { 300 }),
        5 => Mknod(path),
        6 => Link(path, other),
        7 | 8 => Unlink(path),
        9 | 10 => Rename(path, other),
        11 => Rename(dir, to),
        12 => Exchange(path, other),
        13..=16 => Write { path, offset, len: bytes, seed },
        17 | 18 => Truncate { path, size: if rng.one_in(3) { 0 } else { offset } },
        19 => Punch { path, offset, len: 2 * len },
        20 => Zero { path, offset, len },
        21 => SetXattr { path, len: bytes % 600, seed },
        22 => RemoveXattr(path),
        23 => Chmod(path, if rng.one_in(2) { 0o4755 } else { 0o600 }),
        24 | 25 => Chown { path, uid: id, gid: *rng.pick(&[0, 5, 0x1_0000]) },
        26 => SetRights { path, mode: *rng.pick(&[0o6755, 0o640, 0o2710]), uid: id, gid: 5 },
        27 => SetAcl(path, *rng.pick(&[0o660, 0o640, 0o707])),
        28 => RemoveAcl(path),
        29 => WriteByUser { path, offset, len: bytes, seed },
        _ => SetTimes(path, [(i64::from(id), id % 1000), (i64::from(id) + 7, 1)]),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn neighbouring_seeds_give_different_workloads_and_the_same_seed_the_same() {
        let all: BTreeSet<String> = (0..500).map(|seed| format!("{:?}", wild(seed, 8))).collect();
        assert_eq!(all.len(), 500);
        assert_eq!(wild(77, 8), wild(77, 8));
        assert!((0..500).all(|seed| (2..=20).contains(&wild(seed, 8).len())));
    }

    #[test]
    fn pairs_are_all_there_apart_and_together() {
        let words = vocabulary();
        let all: BTreeSet<String> = pairs(&words).iter().map(|pair| format!("{pair:?}")).collect();
        assert_eq!(all.len(), 2 * words.len() * words.len());
    }
}
