//! `cp` out of images.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::process::Stdio;

use e2dax_tests::{need_tools, skip, tools, walk};
use ext2_image::manifest::{Kind, Manifest, Node, diff, parse};

use crate::common::Folder;

/// A manifest without what cannot be kept: sizes of directories, the times that the system sets itself, flags, and
/// the root, which is the caller's directory.
fn kept(mut manifest: Manifest) -> Manifest {
    let mut entries = manifest.entries().to_vec();
    for entry in &mut entries {
        if let Node::Inode(inode) = &mut entry.node {
            (inode.ctime, inode.crtime, inode.atime) = (None, None, None);
            inode.flags = ext2_image::manifest::AttributeFlags::default();
            if inode.kind == Kind::Directory {
                (inode.size, inode.nlink) = (None, None);
            }
            if entry.path == b"/" {
                (inode.mode, inode.uid, inode.gid, inode.mtime) = (0, 0, 0, None);
                inode.xattrs.clear();
            }
        }
    }
    manifest = Manifest::new(entries).unwrap();
    manifest
}

#[test]
fn a_tree_comes_out_as_it_is_in_the_image() {
    if !rustix::process::geteuid().is_root() {
        skip!("not root: owners and devices cannot be made");
    }
    // Blocks of 4 KiB, as the file system has below the temporary directory most of the time: holes are the same.
    for image in ["block-4k", "names", "specials", "times", "deleted"] {
        let folder = Folder::with(&[image]);
        let name = format!("{image}.img");
        folder.run(&["cp", "-r", &format!("{name}:/"), "out"]).ok();
        let expected = parse(&folder.run(&["manifest", &name]).ok()).unwrap();
        let found = walk(&folder.path("out")).unwrap();
        let differences = diff(&kept(expected), &kept(found));
        // Not every file system holds trusted.* and capabilities.
        let shown: Vec<String> =
            differences.iter().filter(|d| d.field != "xattr").map(ToString::to_string).collect();
        assert_eq!(shown, [""; 0], "{image}");
    }
}

#[test]
fn files_go_into_a_directory_under_their_names_and_elsewhere_under_the_new_one() {
    let folder = Folder::with(&["block-4k"]);
    fs::create_dir(folder.path("into")).unwrap();
    folder.run(&["cp", "block-4k.img:/README", "block-4k.img:/fast", "into"]).ok();
    folder.run(&["cp", "block-4k.img:/README", "new"]).ok();
    let readme = folder.run(&["cat", "block-4k.img:/README"]);
    for copy in ["into/README", "into/fast", "new"] {
        assert_eq!(fs::read(folder.path(copy)).unwrap(), readme.bytes(), "{copy}");
    }
    assert!(!fs::symlink_metadata(folder.path("into/fast")).unwrap().is_symlink());
    folder.run(&["cp", "-r", "block-4k.img:/dir", "into"]).ok();
    assert!(folder.path("into/dir/sub/dir/README").is_file());
    let message = folder.run(&["cp", "block-4k.img:/dir", "into"]).fails(1);
    assert!(message.contains("-r copies it"), "{message}");
}

#[test]
fn holes_stay_holes_and_names_of_one_file_stay_names_of_one_file() {
    let folder = Folder::with(&["block-4k", "sparse-huge"]);
    fs::create_dir(folder.path("out")).unwrap();
    folder.run(&["cp", "-r", "block-4k.img:/", "out"]).code();
    let meta = |name: &str| fs::symlink_metadata(folder.path(name)).unwrap();
    assert_eq!(meta("out/big").ino(), meta("out/big.again").ino());
    assert_eq!(meta("out/sparse").len(), 1 << 20);
    assert!(meta("out/sparse").blocks() * 512 < 1 << 19);
    assert_eq!(meta("out/sticky").permissions().mode() & 0o7777, 0o1777);
    assert!(meta("out/pipe").file_type().is_fifo());
    folder.run(&["cp", "sparse-huge.img:/over-4g", "out"]).ok();
    assert!(meta("out/over-4g").len() > 4 << 30 && meta("out/over-4g").blocks() < 1000);
}

#[test]
fn a_link_that_is_in_the_way_is_replaced_and_never_followed() {
    let folder = Folder::with(&["block-4k"]);
    fs::create_dir_all(folder.path("out")).unwrap();
    fs::create_dir(folder.path("victim")).unwrap();
    fs::write(folder.path("victim/file"), "safe").unwrap();
    std::os::unix::fs::symlink("../victim/file", folder.path("out/README")).unwrap();
    std::os::unix::fs::symlink("../victim", folder.path("out/dir")).unwrap();
    let run = folder.run(&["cp", "-r", "block-4k.img:/", "out"]);
    assert_eq!(run.code(), 1, "a link cannot become a directory");
    assert!(run.err().contains("out/dir: "), "{}", run.err());
    assert_eq!(fs::read(folder.path("victim/file")).unwrap(), b"safe");
    assert_eq!(fs::read_dir(folder.path("victim")).unwrap().count(), 1);
    assert!(fs::symlink_metadata(folder.path("out/README")).unwrap().is_file());
    assert!(folder.path("out/sparse").is_file(), "the rest goes on");
}

#[test]
fn hostile_names_are_refused_and_the_rest_goes_on() {
    need_tools!("mke2fs", "debugfs");
    let folder = Folder::with(&[]);
    let image = folder.path("hostile.img");
    tools::mke2fs(&["-q".as_ref(), "-t".as_ref(), "ext2".as_ref(), image.as_os_str(), "1M".as_ref()]);
    fs::write(folder.path("content"), "content").unwrap();
    let content = folder.path("content").to_str().unwrap().to_owned();
    for request in [
        format!("write {content} good"),
        format!("write {content} xxxvictim"),
        "mkdir yy".into(),
        "ln good zz".into(),
    ] {
        tools::run("debugfs", &["-w".as_ref(), "-R".as_ref(), OsStr::new(&request), image.as_os_str()])
            .unwrap();
    }
    // No tool writes such names: patch them into the directory.
    let mut bytes = fs::read(&image).unwrap();
    for (have, want) in [(&b"xxxvictim"[..], &b"../victim"[..]), (b"yy", b".."), (b"zz", b"z\0")] {
        let len = u8::try_from(have.len()).unwrap();
        let at = bytes
            .windows(have.len() + 2)
            .position(|window| window[0] == len && &window[2..] == have)
            .unwrap_or_else(|| panic!("{have:?} is in the image"));
        bytes[at + 2..at + 2 + want.len()].copy_from_slice(want);
    }
    fs::write(&image, bytes).unwrap();
    fs::create_dir(folder.path("out")).unwrap();
    let run = folder.run(&["cp", "-r", "hostile.img:/", "out"]);
    assert_eq!(run.code(), 8, "{}", run.err());
    for name in ["../victim", "..", "z\\x00"] {
        assert!(run.err().contains(&format!("the name {name} is none")), "{name}: {}", run.err());
    }
    let mut found: Vec<_> =
        fs::read_dir(folder.path("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    found.sort();
    assert_eq!(found, ["good", "lost+found"]);
    assert!(!folder.path("victim").exists());
    assert_eq!(fs::read_dir(folder.root()).unwrap().count(), 3);
}

#[test]
fn a_device_or_pipe_that_is_named_gets_the_bytes_and_stays() {
    if !rustix::process::geteuid().is_root() {
        skip!("not root: devices cannot be made");
    }
    need_tools!("mknod", "mkfifo", "cat");
    let folder = Folder::with(&["block-4k"]);
    let readme = folder.run(&["cat", "block-4k.img:/README"]);
    // What `/dev/null`, `/dev/full` and `/dev/stdout` are, without a risk for those.
    fs::create_dir(folder.path("dev")).unwrap();
    for (name, minor) in [("README", "3"), ("full", "7")] {
        let path = folder.path("dev").join(name);
        tools::run("mknod", &[path.as_os_str(), "c".as_ref(), "1".as_ref(), minor.as_ref()]).unwrap();
    }
    std::os::unix::fs::symlink("/proc/self/fd/1", folder.path("dev/stdout")).unwrap();
    folder.run(&["cp", "block-4k.img:/README", "dev/README"]).ok();
    // Into a folder, by its own name.
    folder.run(&["cp", "block-4k.img:/README", "dev"]).ok();
    let said = folder.run(&["cp", "block-4k.img:/README", "dev/full"]).fails(1);
    assert_eq!(said, "e2dax: dev/full: No space left on device\n");
    assert_eq!(folder.run(&["cp", "block-4k.img:/README", "dev/stdout"]).bytes(), readme.bytes());
    for name in ["README", "full"] {
        let kind = fs::symlink_metadata(folder.path("dev").join(name)).unwrap().file_type();
        assert!(kind.is_char_device(), "{name}");
    }
    assert!(fs::symlink_metadata(folder.path("dev/stdout")).unwrap().is_symlink());
    tools::run("mkfifo", &[folder.path("pipe").as_os_str()]).unwrap();
    let reader = tools::command("cat").arg(folder.path("pipe")).stdout(Stdio::piped()).spawn().unwrap();
    folder.run(&["cp", "block-4k.img:/README", "pipe"]).ok();
    assert_eq!(reader.wait_with_output().unwrap().stdout, readme.bytes());
    assert!(fs::symlink_metadata(folder.path("pipe")).unwrap().file_type().is_fifo());
}

#[test]
fn an_image_is_not_replaced_by_what_comes_out_of_it() {
    let folder = Folder::with(&["block-4k"]);
    let before = fs::read(folder.path("block-4k.img")).unwrap();
    folder.run(&["cp", "block-4k.img:/README", "block-4k.img:/block-4k.img"]).ok();
    // And deeper down, as seen from the directory that the folder is in.
    let own = folder.root().canonicalize().unwrap();
    let own = own.file_name().unwrap().to_str().unwrap();
    folder.run(&["mkdir", &format!("block-4k.img:/{own}")]).ok();
    folder.run(&["cp", "block-4k.img:/README", &format!("block-4k.img:/{own}/block-4k.img")]).ok();
    let image = fs::read(folder.path("block-4k.img")).unwrap();
    std::os::unix::fs::symlink("block-4k.img", folder.path("link")).unwrap();
    for line in [
        "cp block-4k.img:/README block-4k.img",
        "cp block-4k.img:/README link",
        "cp block-4k.img:/block-4k.img .",
        "cp -r block-4k.img:/ .",
        "cp -r block-4k.img:/ ..",
    ] {
        let said = folder.run(&line.split(' ').collect::<Vec<_>>()).fails(1);
        assert!(said.contains("is the image itself"), "{line}: {said}");
        assert_eq!(fs::read(folder.path("block-4k.img")).unwrap(), image, "{line}");
    }
    assert_ne!(before, image);
}

#[test]
fn what_comes_out_of_a_pipe_is_copied_into_an_image() {
    need_tools!("bash");
    let folder = Folder::with(&["block-4k"]);
    let e2dax = env!("CARGO_BIN_EXE_e2dax");
    // As a shell names what a command prints; and the standard input.
    let script = format!(
        "{e2dax} cp <(seq 5000) block-4k.img:/counted && seq 7 | {e2dax} cp /dev/stdin block-4k.img:/seven"
    );
    tools::run("bash", &["-c", &format!("cd {} && {script}", folder.root().display())]).unwrap();
    let counted: String = (1..=5000).map(|nr| format!("{nr}\n")).collect();
    assert_eq!(folder.run(&["cat", "block-4k.img:/counted"]).ok(), counted);
    assert_eq!(folder.run(&["cat", "block-4k.img:/seven"]).ok(), "1\n2\n3\n4\n5\n6\n7\n");
}

#[test]
fn a_name_with_a_slash_at_its_end_is_a_directory_or_becomes_one() {
    let folder = Folder::with(&["block-4k"]);
    fs::write(folder.path("file"), b"x").unwrap();
    fs::create_dir(folder.path("dir")).unwrap();
    folder.run(&["mkdir", "block-4k.img:/made"]).ok();
    for words in [
        ["block-4k.img:/README", "name/"],
        ["block-4k.img:/README", "file/"],
        ["block-4k.img:/README", "block-4k.img:/name/"],
        ["block-4k.img:/README", "block-4k.img:/made/name//"],
        ["file", "block-4k.img:/name/"],
    ] {
        let said = folder.run(&["cp", words[0], words[1]]).fails(1);
        assert!(said.contains("ot a directory"), "{words:?}: {said}");
        assert!(!folder.path("name").exists(), "{words:?}");
        folder.run(&["stat", "block-4k.img:/name"]).fails(1);
    }
    assert_eq!(fs::read(folder.path("file")).unwrap(), b"x");
    // Nor is anything else that is no directory made or moved by such a name.
    for words in [
        &["mv", "block-4k.img:/README", "block-4k.img:/name/"][..],
        &["mv", "--exchange", "block-4k.img:/README", "block-4k.img:/made/"],
        &["ln", "block-4k.img:/README", "block-4k.img:/name/"],
        &["ln", "-s", "README", "block-4k.img:/name/"],
        &["mkfifo", "block-4k.img:/name/"],
        &["mknod", "block-4k.img:/name//", "c", "1", "3"],
        &["touch", "block-4k.img:/name/"],
        &["truncate", "-s", "1", "block-4k.img:/name/"],
        &["write", "block-4k.img:/name/"],
    ] {
        let said = folder.run(words).fails(1);
        assert!(said.contains("ot a directory"), "{words:?}: {said}");
        folder.run(&["stat", "block-4k.img:/name"]).fails(1);
    }
    folder.run(&["stat", "block-4k.img:/README"]).ok();
    // As coreutils do.
    folder.run(&["cp", "block-4k.img:/README", "dir/"]).ok();
    assert!(folder.path("dir/README").is_file());
    folder.run(&["cp", "-r", "block-4k.img:/made", "new/"]).ok();
    assert!(folder.path("new").is_dir());
    folder.run(&["cp", "file", "block-4k.img:/made/"]).ok();
    folder.run(&["cp", "-r", "dir", "block-4k.img:/other/"]).ok();
    folder.run(&["stat", "block-4k.img:/made/file", "block-4k.img:/other/README"]).ok();
}

#[test]
fn an_image_is_never_copied_into_itself() {
    let folder = Folder::with(&[]);
    fs::create_dir(folder.path("deep")).unwrap();
    fs::write(folder.path("file"), "text").unwrap();
    folder.run(&["mkfs", "deep/a.img", "--size", "8M", "--quiet"]).ok();
    fs::hard_link(folder.path("deep/a.img"), folder.path("other")).unwrap();
    std::os::unix::fs::symlink("deep/a.img", folder.path("link")).unwrap();
    let run = folder.run(&["cp", "-r", ".", "deep/a.img:/"]);
    assert_eq!(run.code(), 0, "{}", run.err());
    for left_out in ["./deep/a.img", "./other"] {
        let told = format!("{left_out}: is the image that is copied into, and is left out");
        assert!(run.err().contains(&told), "{}", run.err());
    }
    assert_eq!(folder.run(&["cat", "deep/a.img:/file"]).ok(), "text");
    assert_eq!(folder.run(&["find", "deep/a.img", "--name", "*.img"]).ok(), "");
    assert!(folder.run(&["stat", "deep/a.img:/link"]).ok().contains("deep/a.img"));
    for words in [["cp", "deep/a.img", "deep/a.img:/x"], ["cp", "link", "deep/a.img:/x"]] {
        let said = folder.run(&words).fails(1);
        assert!(said.contains("is the image itself"), "{said}");
    }
    assert!(folder.run(&["check", "deep/a.img"]).ok().contains("clean"));
}
