//! Exit codes of the verbs that check, mend and keep images.

use std::fs;
use std::process::Command;

use e2dax_tests::mount::{Access, with_mount};
use e2dax_tests::{need_mount, need_tools, tools};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::Folder;
use crate::repair::{break_counts, break_root};

/// An image with a name in the folder, changed.
fn with(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Folder {
    let folder = Folder::with(&["empty"]);
    let mut image = fs::read(folder.path("empty.img")).unwrap();
    change(&mut image);
    fs::write(folder.path(name), image).unwrap();
    folder
}

fn code(folder: &Folder, line: &str) -> i32 {
    folder.run(&line.split(' ').collect::<Vec<_>>()).code()
}

/// A verb that was stopped by SIGTERM with this code: its folder, and what it told.
///
/// The signal is sent from the moment on in which the verb listens, and ignored before that. A machine that is busy may
/// let the verb finish before it is sent; that has to be a success, and is then tried again in a folder of its own.
#[track_caller]
fn stopped(folder: impl Fn() -> Folder, line: &str, code: i32) -> (Folder, String) {
    for _ in 0..50 {
        let folder = folder();
        let (ended, told) = terminated(&folder, line);
        if ended == code {
            return (folder, told);
        }
        assert_eq!(ended, 0, "{line}: {told}");
    }
    panic!("{line}: finished before the signal, each time");
}

/// The code and the words of a verb that is sent SIGTERM until it ends. It runs at the lowest priority, so that who sends
/// comes first.
fn terminated(folder: &Folder, line: &str) -> (i32, String) {
    let told = fs::File::create(folder.path("told")).unwrap();
    let mut child = Command::new("sh")
        .args(["-c", "trap '' TERM; exec nice -n 19 \"$0\" \"$@\"", env!("CARGO_BIN_EXE_e2dax")])
        .args(line.split(' '))
        .current_dir(folder.root())
        .stderr(told)
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    // The shell does not ignore it yet in its first moments.
    let is_shell = || fs::read(format!("/proc/{}/comm", child.id())).is_ok_and(|name| name != b"e2dax\n");
    while is_shell() {
        std::thread::yield_now();
    }
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        let _ = kill_process(pid, Signal::TERM);
        std::thread::yield_now();
    };
    let code = status.code().expect("it ends by itself");
    (code, fs::read_to_string(folder.path("told")).unwrap())
}

/// `large.img`: sparse, and with so many groups that each verb takes a moment.
fn large() -> Folder {
    let folder = Folder::with(&[]);
    let path = folder.path("large.img");
    fs::File::create(&path).unwrap().set_len(2 << 30).unwrap();
    tools::mke2fs(&["-b", "1024", "-O", "^resize_inode", path.to_str().unwrap()]);
    folder
}

#[test]
fn check_says_0_of_a_clean_image_whichever_way_it_looks() {
    let folder = Folder::with(&["empty"]);
    for how in ["", "-n ", "-p ", "-y ", "-y --dry-run ", "-n --json ", "-n --quiet "] {
        assert_eq!(code(&folder, &format!("check {how}empty.img")), 0, "{how}");
    }
    folder.run(&["check", "--help"]).ok();
}

#[test]
fn check_says_1_of_what_it_mended() {
    for how in ["-p", "-y", "-y --dry-run"] {
        let folder = with("a.img", |image| break_counts(image));
        assert_eq!(code(&folder, &format!("check {how} a.img")), 1, "{how}");
        let after = if how.contains("dry") { 4 } else { 0 };
        assert_eq!(code(&folder, "check -n a.img"), after, "{how}");
    }
}

#[test]
fn check_never_says_2_or_128_since_it_mends_nothing_that_is_mounted() {
    need_mount!();
    let folder = with("a.img", |image| break_counts(image));
    let path = folder.path("a.img");
    let before = fs::read(&path).unwrap();
    with_mount(&path, Access::ReadOnly, |_| {
        for how in ["-p", "-y"] {
            let message = folder.run(&["check", how, "a.img"]).fails(8);
            assert!(message.contains("is mounted"), "{message}");
        }
        assert_eq!(code(&folder, "check -n a.img"), 4);
    });
    assert!(fs::read(&path).unwrap() == before);
    assert_eq!(code(&folder, "check -p a.img"), 1);
}

#[test]
fn check_says_4_of_what_it_leaves() {
    let folder = with("a.img", |image| break_root(image));
    for how in ["-n", "-p", "-n --quiet", "-n --json"] {
        assert_eq!(code(&folder, &format!("check {how} a.img")), 4, "{how}");
    }
}

#[test]
fn check_says_5_where_it_mended_some_and_left_the_rest() {
    need_tools!("debugfs");
    let folder = Folder::with(&["ext3-recover"]);
    let path = folder.path("ext3-recover.img");
    // The replay of the journal needs no question; a block of lost+found that is not in the journal does.
    let block = tools::run("debugfs", &["-c", "-R", "bmap <11> 3", path.to_str().unwrap()]).unwrap();
    let block: usize = String::from_utf8(block).unwrap().trim().parse().unwrap();
    let mut image = fs::read(&path).unwrap();
    image[block * 1024..(block + 1) * 1024].fill(0xff);
    fs::write(&path, &image).unwrap();
    let run = folder.run(&["check", "-p", "ext3-recover.img"]);
    assert_eq!(run.code(), 5, "{}{}", run.out(), run.err());
    assert_eq!(code(&folder, "check -y ext3-recover.img"), 1);
    assert_eq!(code(&folder, "check -n ext3-recover.img"), 0);
}

#[test]
fn check_says_8_where_there_is_nothing_to_check() {
    let folder = Folder::with(&["empty"]);
    fs::write(folder.path("zeros.img"), vec![0; 1 << 20]).unwrap();
    fs::write(folder.path("short.img"), b"short").unwrap();
    fs::create_dir(folder.path("directory")).unwrap();
    for image in ["missing.img", "zeros.img", "short.img", "directory"] {
        for how in ["-n", "-p", "-y"] {
            assert_eq!(code(&folder, &format!("check {how} {image}")), 8, "{how} {image}");
        }
    }
    // A file for the undo that is there already.
    let folder = with("a.img", |image| break_counts(image));
    fs::write(folder.path("u"), b"").unwrap();
    assert_eq!(code(&folder, "check -y --undo u a.img"), 8);
    assert_eq!(code(&folder, "check --superblock 99 a.img"), 8);
}

#[test]
fn check_says_16_of_a_command_line_that_makes_no_sense() {
    let folder = Folder::with(&["empty"]);
    for line in [
        "check",
        "check --nonsense empty.img",
        "check -p -y empty.img",
        "check -n --undo u empty.img",
        "check empty.img:/x",
    ] {
        assert_eq!(code(&folder, line), 16, "{line}");
    }
}

#[test]
fn check_says_32_where_it_is_stopped() {
    need_tools!("mke2fs", "sh");
    for how in ["-p", "-y"] {
        let (_folder, told) = stopped(large, &format!("check {how} large.img"), 32);
        assert!(told.contains("nothing of large.img was mended; run it again"), "{told}");
    }
}

#[test]
fn resize_has_a_code_for_each_end() {
    need_tools!("mke2fs", "e2fsck", "sh");
    let folder = Folder::with(&["empty"]);
    assert_eq!(code(&folder, "resize empty.img 1M"), 0);
    assert_eq!(code(&folder, "resize --dry-run --minimum empty.img"), 0);
    tools::e2fsck_fn(&folder.path("empty.img")).unwrap();
    let before = fs::read(folder.path("empty.img")).unwrap();
    for line in ["resize empty.img 4K", "resize missing.img 1M", "resize empty.img 1000T"] {
        assert_eq!(code(&folder, line), 1, "{line}");
    }
    for line in [
        "resize empty.img",
        "resize empty.img many",
        "resize --minimum empty.img 1M",
        "resize empty.img:/x 1M",
    ] {
        assert_eq!(code(&folder, line), 2, "{line}");
    }
    assert!(fs::read(folder.path("empty.img")).unwrap() == before);
    broken_says_8("resize a.img 1M");
    let (folder, told) = stopped(large, "resize large.img 1G", 130);
    assert!(told.contains("the image is as it was; run it again"), "{told}");
    assert_eq!(fs::metadata(folder.path("large.img")).unwrap().len(), 2 << 30);
    tools::e2fsck_fn(&folder.path("large.img")).unwrap();
}

#[test]
fn tune_has_a_code_for_each_end() {
    need_tools!("mke2fs", "e2fsck", "sh");
    let folder = Folder::with(&["empty"]);
    assert_eq!(code(&folder, "tune -L name empty.img"), 0);
    assert_eq!(code(&folder, "tune empty.img"), 0);
    tools::e2fsck_fn(&folder.path("empty.img")).unwrap();
    let before = fs::read(folder.path("empty.img")).unwrap();
    for line in [
        "tune -L a_name_of_more_than_16_bytes empty.img",
        "tune -L x missing.img",
        "tune -O has_journal empty.img",
    ] {
        assert_eq!(code(&folder, line), 1, "{line}");
    }
    for line in
        ["tune -O nonsense empty.img", "tune -m 90 empty.img", "tune -U 12 empty.img", "tune -o x empty.img"]
    {
        assert_eq!(code(&folder, line), 2, "{line}");
    }
    assert!(fs::read(folder.path("empty.img")).unwrap() == before);
    broken_says_8("tune -L x a.img");
    let (folder, told) = stopped(large, "tune -O ^sparse_super large.img", 130);
    assert!(told.contains("the image is as it was; run it again"), "{told}");
    tools::e2fsck_fn(&folder.path("large.img")).unwrap();
}

#[test]
fn sparsify_has_a_code_for_each_end() {
    need_tools!("mke2fs", "e2fsck", "sh");
    let folder = Folder::with(&["empty"]);
    assert_eq!(code(&folder, "sparsify empty.img"), 0);
    assert_eq!(code(&folder, "sparsify missing.img"), 1);
    // A copy in memory has no file to make holes in.
    assert_eq!(code(&folder, "sparsify --device ram empty.img"), 1);
    for line in ["sparsify", "sparsify --nonsense empty.img", "sparsify empty.img:/x"] {
        assert_eq!(code(&folder, line), 2, "{line}");
    }
    broken_says_8("sparsify a.img");
    let (folder, told) = stopped(large, "sparsify large.img", 130);
    assert!(told.contains("run it again to go on"), "{told}");
    tools::e2fsck_fn(&folder.path("large.img")).unwrap();
}

#[test]
fn align_has_a_code_for_each_end() {
    need_tools!("mke2fs", "e2fsck", "sh");
    let folder = Folder::with(&["empty"]);
    assert_eq!(code(&folder, "align empty.img"), 0);
    assert_eq!(code(&folder, "align missing.img"), 1);
    for line in ["align", "align --nonsense empty.img", "align empty.img:/x"] {
        assert_eq!(code(&folder, line), 2, "{line}");
    }
    broken_says_8("align a.img");
    let folder = || {
        let folder = Folder::with(&[]);
        let path = folder.path("a.img");
        fs::create_dir(folder.path("from")).unwrap();
        fs::write(folder.path("from/file"), vec![7; 24 << 20]).unwrap();
        fs::File::create(&path).unwrap().set_len(96 << 20).unwrap();
        let from = folder.path("from");
        tools::mke2fs(&["-b", "4096", "-d", from.to_str().unwrap(), path.to_str().unwrap()]);
        folder
    };
    let (folder, told) = stopped(folder, "align a.img", 130);
    assert!(told.contains("what was aligned before stays so; run it again"), "{told}");
    tools::e2fsck_fn(&folder.path("a.img")).unwrap();
}

#[test]
fn undo_has_a_code_for_each_end() {
    let folder = with("a.img", |image| break_counts(image));
    let before = fs::read(folder.path("a.img")).unwrap();
    assert_eq!(code(&folder, "check -y --undo u a.img"), 1);
    let mended = fs::read(folder.path("a.img")).unwrap();
    fs::write(folder.path("no.undo"), b"no undo file").unwrap();
    fs::write(folder.path("other.img"), vec![0; 1 << 18]).unwrap();
    for line in ["undo missing a.img", "undo no.undo a.img", "undo u missing.img", "undo u other.img"] {
        assert_eq!(code(&folder, line), 1, "{line}");
    }
    for line in ["undo", "undo u", "undo --nonsense u a.img", "undo u a.img:/x"] {
        assert_eq!(code(&folder, line), 2, "{line}");
    }
    assert!(fs::read(folder.path("a.img")).unwrap() == mended);
    assert_eq!(code(&folder, "undo u a.img"), 0);
    assert!(fs::read(folder.path("a.img")).unwrap() == before);
}

/// What has no superblock, or one that contradicts itself, is broken and stays as it is.
#[track_caller]
fn broken_says_8(line: &str) {
    let breaks: [fn(&mut Vec<u8>); 3] = [
        |image| image.fill(0),
        // Inodes of a group; an incompatible feature that nobody knows.
        |image| image[1024 + 40..1024 + 44].fill(0),
        |image| image[1024 + 96..1024 + 100].fill(0x80),
    ];
    for (nr, change) in breaks.into_iter().enumerate() {
        let folder = with("a.img", change);
        let before = fs::read(folder.path("a.img")).unwrap();
        assert_eq!(code(&folder, line), 8, "{line}, {nr}");
        assert!(fs::read(folder.path("a.img")).unwrap() == before, "{line}, {nr}");
    }
}
