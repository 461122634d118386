//! Keeping images: resize, tune, align, sparsify, and what is made and marked in them.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use e2dax_tests::{need_tools, tools};
use ext2_image::resize::Resize;
use ext2_image::rewrite::Options;

use crate::common::Folder;

const MIB: u64 = 1 << 20;

/// A folder with an image of mke2fs, and files in it.
fn folder(args: &[&str], mib: u64) -> Folder {
    let folder = Folder::with(&[]);
    let path = folder.path("a.img");
    File::create(&path).unwrap().set_len(mib * MIB).unwrap();
    let all: Vec<&str> =
        ["-q", "-F", "-t", "ext2"].iter().chain(args).copied().chain([path.to_str().unwrap()]).collect();
    tools::run("mke2fs", &all).unwrap();
    folder.run(&["mkdir", "-p", "a.img:/x/y"]).ok();
    folder.run_with(&["write", "a.img:/x/y/file"], &vec![b'x'; 3 << 20]);
    folder
}

fn len(folder: &Folder) -> u64 {
    fs::metadata(folder.path("a.img")).unwrap().len()
}

#[test]
fn an_image_becomes_larger_and_smaller_with_its_file() {
    need_tools!("mke2fs", "e2fsck");
    let folder = folder(&["-b", "1024"], 24);
    let sum = folder.run(&["cat", "a.img:/x/y/file"]).bytes().to_vec();
    let sound = || tools::e2fsck_fn(&folder.path("a.img")).unwrap();
    folder.run(&["resize", "a.img", "+40M"]).ok();
    assert_eq!(len(&folder), 64 * MIB);
    sound();
    let told = folder.run(&["resize", "--json", "a.img", "20M"]).ok();
    assert!(told.contains("\"blocks_before\":65536,\"blocks\":20480"), "{told}");
    assert_eq!(len(&folder), 20 * MIB);
    sound();
    let dry = folder.run(&["resize", "--minimum", "--dry-run", "a.img"]).ok();
    assert_eq!(len(&folder), 20 * MIB);
    folder.run(&["resize", "-M", "a.img"]).ok();
    assert!(dry.contains(&format!(" {} bytes", len(&folder))), "{dry} {}", len(&folder));
    assert!(len(&folder) < 6 * MIB);
    sound();
    File::options().write(true).open(folder.path("a.img")).unwrap().set_len(30 * MIB).unwrap();
    folder.run(&["resize", "a.img", "auto"]).ok();
    folder.run(&["resize", "a.img", "auto"]).ok();
    assert_eq!(len(&folder), 30 * MIB);
    sound();
    assert_eq!(folder.run(&["cat", "a.img:/x/y/file"]).bytes(), sum);
}

#[test]
fn the_smallest_size_is_no_larger_than_that_of_resize2fs() {
    need_tools!("mke2fs", "e2fsck", "resize2fs");
    for args in [&["-b", "1024"][..], &["-b", "4096"], &["-b", "1024", "-O", "^resize_inode"]] {
        let folder = folder(args, 64);
        fs::copy(folder.path("a.img"), folder.path("theirs.img")).unwrap();
        folder.run(&["resize", "-M", "a.img"]).ok();
        tools::e2fsck_fn(&folder.path("a.img")).unwrap();
        tools::run("resize2fs", &["-f", "-M", folder.path("theirs.img").to_str().unwrap()]).unwrap();
        let theirs = fs::metadata(folder.path("theirs.img")).unwrap().len();
        println!("{args:?}: {} bytes, resize2fs {theirs}", len(&folder));
        assert!(len(&folder) <= theirs, "{args:?}: {} bytes, resize2fs {theirs}", len(&folder));
        // One block less is too little.
        let less = format!("{}", len(&folder) - 4096);
        folder.run(&["resize", "a.img", &less]).fails(1);
    }
}

#[test]
fn a_size_that_cannot_be_is_refused_and_nothing_changes() {
    need_tools!("mke2fs");
    let folder = folder(&["-b", "4096"], 32);
    let before = fs::read(folder.path("a.img")).unwrap();
    for size in ["1M", "0", "-40M"] {
        folder.run(&["resize", "a.img", size]).fails(1);
    }
    folder.run(&["resize", "a.img", "20T"]).fails(1);
    folder.run(&["resize", "a.img"]).fails(2);
    folder.run(&["resize", "a.img", "much"]).fails(2);
    assert!(fs::read(folder.path("a.img")).unwrap() == before);
    // Something behind the file system is somebody's.
    let mut sealed = before.clone();
    sealed.extend_from_slice(&[7; 4096]);
    fs::write(folder.path("a.img"), &sealed).unwrap();
    let message = folder.run(&["resize", "a.img", "64M"]).fails(1);
    assert!(message.contains("lies behind"), "{message}");
    assert!(fs::read(folder.path("a.img")).unwrap() == sealed);
}

#[test]
fn what_was_interrupted_is_refused_for_reading_and_carried_out_by_the_next_change() {
    need_tools!("mke2fs", "e2fsck");
    let folder = folder(&["-b", "4096"], 32);
    let path = folder.path("a.img");
    // As it is when the machine dies after the step: the log is there, and nothing was carried out.
    {
        use blockdev::{RamDevice, Recorder, Stored};
        let mut bytes = fs::read(&path).unwrap();
        bytes.resize(48 << 20, 0);
        let device = Recorder::new(RamDevice::from_bytes(&bytes).unwrap());
        let plan = Resize::plan(&device, 48 * MIB / 4096).unwrap();
        plan.run(&device, &Options::default()).unwrap();
        for op in device.take() {
            let blockdev::Op::Store { offset, data, .. } = op else { continue };
            let place = &mut bytes[offset as usize..(offset + data.len()) as usize];
            match data {
                Stored::Bytes(data) => place.copy_from_slice(&data),
                Stored::Zeros(_) => place.fill(0),
            }
            if bytes[1024 + 99] & 0x40 != 0 {
                break;
            }
        }
        fs::write(&path, bytes).unwrap();
    }
    let message = folder.run(&["ls", "a.img"]).fails(8);
    assert!(message.contains("was interrupted"), "{message}");
    assert!(tools::e2fsck_fn(&path).is_err());
    let run = folder.run(&["touch", "-c", "a.img:/none"]);
    assert_eq!(run.code(), 0);
    assert!(run.err().contains("was carried out"), "{}", run.err());
    tools::e2fsck_fn(&path).unwrap();
    assert!(folder.run(&["df", "--json", "a.img"]).ok().contains("\"inodes\""));
    assert_eq!(folder.run(&["cat", "a.img:/x/y/file"]).bytes().len(), 3 << 20);
}

#[test]
fn ctrl_c_leaves_an_image_that_is_whole_and_says_so() {
    need_tools!("mke2fs", "e2fsck");
    let folder = folder(&["-b", "1024"], 200);
    for nr in 0..4 {
        let name = format!("a.img:/big{nr}");
        folder.run_with(&["write", &name], &vec![b'x'; 40 << 20]);
    }
    // Room in front, so that what is behind moves.
    for nr in 0..3 {
        folder.run(&["rm", &format!("a.img:/big{nr}")]).ok();
    }
    let before = folder.run(&["manifest", "a.img"]).ok();
    let begin = Instant::now();
    let mut stopped = 0;
    for wait in [0, 5, 15, 30, 60] {
        let child = folder
            .command(&["resize", "a.img", "90M"])
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        let pid = child.id().to_string();
        let _ = tools::run("kill", &["-INT", &pid]);
        let output = child.wait_with_output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        tools::e2fsck_fn(&folder.path("a.img")).unwrap_or_else(|error| panic!("{wait}: {error}"));
        match output.status.code() {
            Some(0) => break,
            Some(130) => {
                assert!(message.contains("as it was") && message.contains("run it again"), "{message}");
                assert_eq!(len(&folder), 200 * MIB);
                stopped += 1;
            }
            // Before it could catch the signal.
            None => {}
            code => panic!("{code:?}: {message}"),
        }
    }
    println!("stopped {stopped} times in {:?}", begin.elapsed());
    folder.run(&["resize", "a.img", "90M"]);
    tools::e2fsck_fn(&folder.path("a.img")).unwrap();
    assert_eq!(folder.run(&["manifest", "a.img"]).ok().lines().count(), before.lines().count());
    assert_eq!(len(&folder), 90 * MIB);
}

#[test]
fn the_superblock_is_tuned() {
    need_tools!("mke2fs", "e2fsck");
    let folder = folder(&["-b", "1024"], 24);
    let uuid = "7d4f3c4a-0c4b-4f0e-9a59-3f6a2f1f8a10";
    folder
        .run(&["tune", "-L", "name", "-U", uuid, "-m", "2", "-e", "remount-ro", "-O", "^dir_index", "a.img"])
        .ok();
    let info = folder.run(&["info", "a.img"]).ok();
    assert!(info.contains(uuid) && info.contains("name") && !info.contains("dir_index"), "{info}");
    assert_eq!(
        folder.run(&["tune", "--json", "-L", "name", "a.img"]).ok(),
        "{\"image\":\"a.img\",\"changed\":false}\n"
    );
    folder.run(&["tune", "-L", "a name that is too long", "a.img"]).fails(1);
    folder.run(&["tune", "-O", "nonsense", "a.img"]).fails(2);
    folder.run(&["tune", "-O", "^filetype", "a.img"]).fails(8);
    folder.run(&["tune", "-m", "51", "a.img"]).fails(2);
    folder.run(&["tune", "-U", "random", "-T", "now", "-o", "^acl", "a.img"]).ok();
    assert!(!folder.run(&["info", "a.img"]).ok().contains(uuid));
    tools::e2fsck_fn(&folder.path("a.img")).unwrap();
}

#[test]
fn flags_and_special_files_are_made_and_shown() {
    need_tools!("mke2fs", "e2fsck", "debugfs");
    let folder = folder(&["-b", "1024"], 24);
    folder.run(&["chattr", "+iA", "a.img:/x/y/file"]).ok();
    folder.run(&["rm", "a.img:/x/y/file"]).fails(1);
    assert_eq!(folder.run(&["lsattr", "a.img:/x/y"]).ok(), "----i--A----- /x/y/file\n");
    folder.run(&["chattr", "-R", "=d", "a.img:/x"]).ok();
    assert_eq!(
        folder.run(&["lsattr", "-R", "a.img:/x"]).ok(),
        "------d------ /x\n------d------ /x/y\n------d------ /x/y/file\n"
    );
    assert_eq!(
        folder.run(&["lsattr", "-d", "--json", "a.img:/x"]).ok(),
        "{\"path\":\"/x\",\"flags\":\"d\",\"bits\":64}\n"
    );
    folder.run(&["chattr", "+q", "a.img:/x"]).fails(2);
    folder.run(&["mknod", "-m", "600", "a.img:/null", "c", "1", "3"]).ok();
    folder.run(&["mknod", "a.img:/disk", "b", "259", "70000"]).ok();
    folder.run(&["mknod", "a.img:/socket", "s"]).ok();
    folder.run(&["mkfifo", "-m", "622", "a.img:/pipe", "a.img:/pipe2"]).ok();
    folder.run(&["mknod", "a.img:/null2", "c"]).fails(2);
    folder.run(&["mknod", "a.img:/pipe3", "p", "1", "2"]).fails(2);
    folder.run(&["mkfifo", "a.img:/pipe"]).fails(1);
    let listed = folder.run(&["ls", "-l", "a.img"]).ok();
    for part in ["crw-------", "1, 3", "brw-r--r--", "259, 70000", "srw-r--r--", "prw--w--w-"] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let path = folder.path("a.img");
    let theirs = String::from_utf8(tools::debugfs(&path, "stat null").unwrap()).unwrap();
    assert!(theirs.contains("Type: character special") && theirs.contains("01:03"), "{theirs}");
    tools::e2fsck_fn(&path).unwrap();
}

#[test]
fn an_image_is_aligned_and_made_sparse() {
    need_tools!("mke2fs", "e2fsck");
    let folder = folder(&["-b", "4096"], 32);
    let path = folder.path("a.img");
    // Blocks of the file are put elsewhere by debugfs' own hands: mke2fs -d does not align.
    let tree = folder.path("tree");
    fs::create_dir(&tree).unwrap();
    for nr in 0..3_u8 {
        fs::write(tree.join(format!("f{nr}")), vec![nr + 1; 5 << 20]).unwrap();
    }
    tools::run("mke2fs", &["-q", "-F", "-t", "ext2", "-d", tree.to_str().unwrap(), path.to_str().unwrap()])
        .unwrap();
    let before = folder.run(&["dax-report", "--summary", "a.img"]).ok();
    assert!(!before.contains("6 mappable by us"), "{before}");
    let told = folder.run(&["align", "a.img"]).ok();
    assert!(told.contains("6 of 6"), "{told}");
    let after = folder.run(&["dax-report", "--summary", "a.img"]).ok();
    assert!(after.contains("6 mappable by us (100"), "{after}");
    folder.run(&["defrag", "--json", "a.img"]).ok();
    tools::e2fsck_fn(&path).unwrap();
    fs::copy(&path, folder.path("copy.img")).unwrap();
    // What the files left behind is given back.
    let took = fs::metadata(&path).unwrap().blocks();
    folder.run(&["sparsify", "a.img"]).ok();
    assert!(fs::metadata(&path).unwrap().blocks() + 8000 < took, "{took}");
    assert_eq!(folder.run(&["manifest", "a.img"]).ok(), folder.run(&["manifest", "copy.img"]).ok());
    tools::e2fsck_fn(&path).unwrap();
}
