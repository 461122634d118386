//! How a log begins and ends, and who else is there then: a close that fails and is done again, a journal of which only a part
//! is in use, a file system that another closes while it is opened, a log that gives way to who needs its blocks.

use std::sync::Arc;

use blockdev::{Calls, Fault, Faulty, RamDevice};
use e2dax_tests::{
    Claimed, need_tools,
    small::{batched, complaint, file, image_of, logged},
    tree,
};
use ext2_core::{Closed, Ext2, FileKind, Follow, NewInode, OpenOptions, XattrSet};
use ext2_image::check::{self, Outcome};

/// All calls that may change what is there.
const CHANGES: Calls = Calls::WRITE.union(Calls::ZERO).union(Calls::FENCE).union(Calls::FLUSH);

#[test]
fn a_close_that_fails_and_is_done_again_leaves_no_log_that_would_be_replayed_over_what_came_after() {
    need_tools!("mke2fs", "e2fsck");
    let own = image_of(&["-t", "ext3", "-J", "size=1", "-b", "1024"], "12M");
    let none = image_of(&["-t", "ext2", "-b", "1024"], "12M");
    for (base, options) in
        [(&none, logged()), (&own, logged()), (&none, batched()), (&own, OpenOptions::default())]
    {
        fails_to_close(base, &options);
    }
}

/// Lets each call of a close fail, goes on, and closes again.
fn fails_to_close(base: &[u8], options: &OpenOptions) {
    let (mut failed, mut wrong) = (0, Vec::new());
    for after in 0.. {
        let device = Arc::new(Faulty::new(RamDevice::from_bytes(base).unwrap()));
        let fs = Ext2::open(device.clone(), options).unwrap();
        assert_eq!(fs.has_log(), options.log || options.batch);
        let root = fs.root().unwrap();
        file(&root, "before", &[1; 3000]);
        fs.sync().unwrap();
        device.arm(Fault::once(CHANGES, after));
        let first = fs.clone().close();
        let has_fired = device.fired() > 0;
        device.disarm();
        if !has_fired {
            break;
        }
        failed += 1;
        let made = root.create("after", &NewInode::new(FileKind::Regular, 0o644));
        let made = made.and_then(|made| made.write_all_at(0, &[2; 3000]).and_then(|()| made.sync()));
        drop(root);
        let closed = fs.close();
        let told = |what: &str| format!("call {after}: {first:?}, then {made:?} and {closed:?}: {what}");
        let image = device.inner().to_vec();
        if closed == Ok(Closed::Clean)
            && let Some(complaint) = complaint(&image)
        {
            wrong.push(told(&complaint));
        }
        let again = Arc::new(RamDevice::from_bytes(&image).unwrap());
        ext2_core::replay(&*again).unwrap();
        match check::mend(&*again, 1_700_000_000, &mut |_| {}) {
            Ok(Outcome::Halts(why)) => wrong.push(told(&format!("needs a person: {why}"))),
            Err(error) => wrong.push(told(&error.to_string())),
            Ok(_) => {}
        }
        let there = tree::read(again).unwrap();
        if made.is_ok() && there.get(&b"/after"[..]).is_none_or(|after| after.content != [2; 3000]) {
            wrong.push(told("what was made durable after it is gone"));
        }
    }
    assert!(failed > 5 && wrong.is_empty(), "of {failed}: {}", wrong.join("\n"));
}

#[test]
fn a_log_in_a_part_of_its_journal_is_replayed_round_the_end_of_that_part() {
    need_tools!("mke2fs", "e2fsck");
    let mut base = image_of(&["-t", "ext3", "-b", "1024", "-J", "size=2", "-O", "^resize_inode"], "24M");
    // The journal's superblock says how many of the inode's 2048 blocks are in use.
    let magic = [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 4];
    let at = (0..base.len()).step_by(1024).find(|&at| base[at..at + 8] == magic).unwrap();
    assert_eq!(base[at + 16..at + 20], 2048_u32.to_be_bytes());
    base[at + 16..at + 20].copy_from_slice(&1024_u32.to_be_bytes());
    assert_eq!(complaint(&base), None);
    let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
    let fs = Ext2::open(device.clone(), &logged()).unwrap();
    assert!(fs.has_log());
    let root = fs.root().unwrap();
    for nr in 1..=200_u8 {
        let before = device.to_vec();
        let name = format!("{nr}");
        file(&root, &name, &[nr; 3000]).sync().unwrap();
        // The power fails when the commit is durable, and nothing of it is in its place: all but the journal is as before.
        let mut now = device.to_vec();
        for block in (0..now.len()).step_by(1024) {
            let is_journal = block >= at && block < at + 2060 * 1024;
            // Contents are in place before; they are blocks of one byte.
            let is_contents = now[block..block + 1024].iter().filter(|&&byte| byte == nr).count() > 900;
            if !is_journal && !is_contents {
                now[block..block + 1024].copy_from_slice(&before[block..block + 1024]);
            }
        }
        let there = Ext2::open(RamDevice::from_bytes(&now).unwrap(), &OpenOptions::read_only()).unwrap();
        let there = there.resolve(&name, Follow::No).and_then(|inode| inode.read_all());
        assert!(there == Ok(vec![nr; 3000]), "{nr}: {:?}", there.map(|bytes| bytes.len()));
    }
}

#[test]
fn a_log_that_another_has_ended_while_an_image_is_opened_is_not_replayed() {
    need_tools!("mke2fs", "e2fsck");
    let base = image_of(&["-t", "ext2", "-b", "1024"], "12M");
    let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
    let fs = Ext2::open(device.clone(), &logged()).unwrap();
    file(&fs.root().unwrap(), "before", &[1; 3000]);
    fs.sync().unwrap();
    let close = move || {
        file(&fs.root().unwrap(), "after", &[2; 3000]);
        assert_eq!(fs.close().unwrap(), Closed::Clean);
    };
    let claimed = Claimed::new(device.clone(), close);
    let opened = Ext2::open(claimed, &OpenOptions::default());
    println!("{:?}", opened.as_ref().map(drop));
    drop(opened);
    let image = device.to_vec();
    assert_eq!(complaint(&image), None);
    assert_eq!(tree::read(device).unwrap()[&b"/after"[..]].content, [2; 3000]);
}

#[test]
fn what_another_has_changed_while_an_image_is_opened_is_known() {
    need_tools!("mke2fs", "e2fsck");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-O", "none,filetype,sparse_super"], "12M");
    let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
    let other = device.clone();
    let change = move || {
        let fs = Ext2::open(other, &OpenOptions::default()).unwrap();
        file(&fs.root().unwrap(), "f", &[2; 3000]).xattr_set(b"user.a", b"kept", XattrSet::Any).unwrap();
        assert_eq!(fs.close().unwrap(), Closed::Clean);
    };
    let claimed = Claimed::new(device.clone(), change);
    match Ext2::open(claimed, &logged()) {
        Ok(fs) => drop(fs.close().unwrap()),
        Err(error) => println!("{error}"),
    }
    assert_eq!(complaint(&device.to_vec()), None);
}

#[test]
fn shared_attributes_change_together_also_where_a_log_gives_way_to_the_block_that_they_need() {
    need_tools!("mke2fs", "e2fsck");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-m", "10", "-I", "128"], "20M");
    let options =
        OpenOptions { batch: true, share_xattrs: true, keep_reserved: true, ..OpenOptions::default() };
    let begin = |blocks: u64| {
        let device = Arc::new(Faulty::new(RamDevice::from_bytes(&base).unwrap()));
        let fs = Ext2::open(device.clone(), &options).unwrap();
        let root = fs.root().unwrap();
        for name in ["a", "b"] {
            file(&root, name, b"").xattr_set(b"user.a", &[1; 300], XattrSet::Any).unwrap();
        }
        let filler = file(&root, "filler", b"");
        let mut written = 0;
        while written < blocks && fs.has_log() {
            filler.write_all_at(written * 1024, &[3; 1024]).unwrap();
            written += 1;
        }
        (device, fs, written)
    };
    let most = begin(u64::MAX).2;
    let mut wrong = Vec::new();
    for after in 0.. {
        let (device, fs, _) = begin(most - 1);
        fs.sync().unwrap();
        assert!(fs.has_log());
        let a = fs.resolve("a", Follow::No).unwrap();
        device.arm(Fault { repeat: blockdev::Repeat::FromThenOn, ..Fault::once(CHANGES, after) });
        let done = a.xattr_set(b"user.b", &[2; 300], XattrSet::Any);
        let has_fired = device.fired() > 0;
        let image = device.inner().to_vec();
        if !has_fired {
            println!("{after} calls, {done:?}, log: {}", fs.has_log());
            break;
        }
        let image = RamDevice::from_bytes(&image).unwrap();
        ext2_core::replay(&image).unwrap();
        if let Outcome::Halts(why) = check::mend(&image, 1_700_000_000, &mut |_| {}).unwrap() {
            wrong.push(format!("call {after}: {why}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_walk_enters_a_directory_that_got_the_number_of_one_that_went() {
    need_tools!("mke2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024"], "2M");
    let fs = Ext2::open(RamDevice::from_bytes(&base).unwrap(), &OpenOptions::default()).unwrap();
    fs.create_dir_all("t/a").unwrap();
    fs.create_dir_all("t/m").unwrap();
    fs.create_dir_all("t/z").unwrap();
    let mut numbers = Vec::new();
    for found in fs.walk("t").unwrap() {
        let found = found.unwrap();
        let (name, nr) = (found.name().to_vec(), found.inode.nr());
        numbers.push(nr);
        drop(found);
        if name == b"m" {
            fs.remove_dir("t/z").unwrap();
            fs.remove_dir("t/a").unwrap();
            fs.create_dir("t/z").unwrap();
        }
    }
    assert_eq!(numbers.len(), 4);
    assert_eq!(numbers[3], numbers[1], "the number is used again");
}

#[test]
fn a_log_of_a_file_system_that_an_error_made_read_only_is_closed_and_says_so() {
    need_tools!("mke2fs", "e2fsck");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-e", "remount-ro"], "12M");
    let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
    let fs = Ext2::open(device.clone(), &logged()).unwrap();
    let before = file(&fs.root().unwrap(), "before", &[1; 3000]);
    fs.note_broken(&before.lookup(b"x").unwrap_err());
    drop(before);
    assert!(fs.is_read_only());
    assert!(matches!(fs.close(), Ok(Closed::Unclean(_))));
    ext2_core::replay(&*device).unwrap();
    assert_eq!(tree::read(device).unwrap()[&b"/before"[..]].content, [1; 3000]);
}

#[test]
fn an_opening_that_fails_is_done_again_and_leaves_what_can_be_mended() {
    need_tools!("mke2fs", "e2fsck");
    let own = image_of(&["-t", "ext3", "-J", "size=1", "-b", "1024"], "12M");
    let none = image_of(&["-t", "ext2", "-b", "1024"], "12M");
    // A crash left something in the log.
    let left = |base: &Vec<u8>| {
        let device = Arc::new(RamDevice::from_bytes(base).unwrap());
        let fs = Ext2::open(device.clone(), &logged()).unwrap();
        for nr in 0..20 {
            file(&fs.root().unwrap(), &format!("f{nr}"), &[1; 3000]);
            fs.sync().unwrap();
        }
        fs.shut_down();
        device.to_vec()
    };
    let crashed = [left(&none), left(&own)];
    let mut wrong = Vec::new();
    for (nr, base) in [&none, &own, &crashed[0], &crashed[1]].into_iter().enumerate() {
        for options in [logged(), batched(), OpenOptions::default()] {
            for then in [logged(), OpenOptions::default()] {
                for after in 0.. {
                    let device = Arc::new(Faulty::new(RamDevice::from_bytes(base).unwrap()));
                    device.arm(Fault::once(CHANGES, after));
                    let first = Ext2::open(device.clone(), &options);
                    let has_fired = device.fired() > 0;
                    device.disarm();
                    if !has_fired {
                        break;
                    }
                    let words = format!("image {nr}, call {after}: {:?}", first.as_ref().err());
                    drop(first);
                    let told = |what: String| format!("{words}: {what}");
                    let fs = match Ext2::open(device.clone(), &then) {
                        Ok(fs) => fs,
                        Err(error) => {
                            wrong.push(told(format!("cannot be opened: {error}")));
                            continue;
                        }
                    };
                    file(&fs.root().unwrap(), "after", &[2; 300_000]);
                    let closed = fs.close().unwrap();
                    let image = device.inner().to_vec();
                    if closed == Closed::Clean
                        && let Some(complaint) = complaint(&image)
                    {
                        wrong.push(told(complaint));
                    }
                    let again = Arc::new(RamDevice::from_bytes(&image).unwrap());
                    ext2_core::replay(&*again).unwrap();
                    let mended = check::mend(&*again, 1_700_000_000, &mut |_| {});
                    if !matches!(mended, Ok(Outcome::Clean | Outcome::Mended(_))) {
                        wrong.push(told(format!("{mended:?}")));
                    }
                    let there = tree::read(again).unwrap();
                    assert_eq!(there[&b"/after"[..]].content, [2; 300_000]);
                    if nr >= 2 {
                        assert_eq!(there[&b"/f19"[..]].content, [1; 3000], "{words}");
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}: {}", wrong.len(), wrong.join("\n"));
}
