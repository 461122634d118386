//! The verbs that change an image. After each the image is clean for e2fsck.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use e2dax_tests::{need_tools, tools};
use ext2_image::manifest::{diff, parse};

use crate::common::{Folder, Run};

/// An image by mke2fs in a folder, and the command run on it.
struct Image {
    folder: Folder,
}

impl Image {
    fn new(size: &str) -> Self {
        let folder = Folder::with(&[]);
        let path = folder.path("i.img");
        tools::mke2fs(&[
            "-t".as_ref(),
            "ext2".as_ref(),
            "-b".as_ref(),
            "4096".as_ref(),
            path.as_os_str(),
            size.as_ref(),
        ]);
        Self { folder }
    }

    #[track_caller]
    fn check(&self) {
        tools::e2fsck_fn(&self.folder.path("i.img")).unwrap();
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Run {
        let run = self.folder.run(arguments);
        self.check();
        run
    }

    #[track_caller]
    fn run_with(&self, arguments: &[&str], input: &[u8]) -> Run {
        let run = self.folder.run_with(arguments, input);
        self.check();
        run
    }
}

#[test]
fn bytes_are_written_at_offsets_appended_and_replaced() {
    need_tools!("mke2fs", "e2fsck");
    let image = Image::new("16M");
    image.run_with(&["write", "i.img:/file"], b"hello").ok();
    image.run_with(&["write", "-a", "i.img:/file"], b" there").ok();
    image.run_with(&["write", "--at", "1", "i.img:/file"], b"E").ok();
    assert_eq!(image.run(&["cat", "i.img:/file"]).bytes(), b"hEllo there");
    image.run_with(&["write", "--at", "8K", "i.img:/file"], b"end").ok();
    assert_eq!(image.run(&["stat", "--json", "i.img:/file"]).ok().matches(r#""allocated":8192"#).count(), 1);
    image.run_with(&["write", "--replace", "i.img:/file"], b"short").ok();
    assert_eq!(image.run(&["cat", "i.img:/file"]).bytes(), b"short");
    let large: Vec<u8> = (0..3_000_000_u32).map(|nr| ((nr * 7) >> 3) as u8).collect();
    image.run_with(&["write", "i.img:/large"], &large).ok();
    assert!(image.run(&["cat", "i.img:/large"]).bytes() == large);
    image.run(&["punch", "--at", "4096", "--len", "1M", "i.img:/large"]).ok();
    assert!(
        image
            .run(&["cat", "--at", "4096", "--len", "1M", "i.img:/large"])
            .bytes()
            .iter()
            .all(|&byte| byte == 0)
    );
    image.run(&["truncate", "-s", "5000", "i.img:/large"]).ok();
    assert_eq!(image.run(&["cat", "i.img:/large"]).bytes().len(), 5000);
}

#[test]
fn names_are_made_moved_and_removed() {
    need_tools!("mke2fs", "e2fsck");
    let image = Image::new("16M");
    image.run(&["mkdir", "-p", "-m", "700", "i.img:/a/b/c"]).ok();
    image.run(&["mkdir", "-p", "i.img:/a/b/c"]).ok();
    image.run(&["mkdir", "i.img:/a"]).fails(1);
    image.run(&["touch", "i.img:/a/file", "i.img:/a/other"]).ok();
    image.run(&["ln", "i.img:/a/file", "i.img:/hard"]).ok();
    image.run(&["ln", "-s", "a/file", "i.img:/soft"]).ok();
    image.run(&["ln", "-s", "x", "i.img:/soft"]).fails(1);
    image.run(&["ln", "-sf", "a/other", "i.img:/soft"]).ok();
    image.run(&["mv", "i.img:/hard", "i.img:/soft", "i.img:/a/b"]).ok();
    image.run(&["mv", "-n", "i.img:/a/file", "i.img:/a/other"]).fails(1);
    image.run(&["mv", "--exchange", "i.img:/a/file", "i.img:/a/b"]).ok();
    image.run(&["mv", "i.img:/a", "i.img:/a/file/c"]).fails(1);
    let found = image.run(&["find", "i.img", "-path", "/a*"]).ok();
    assert_eq!(found, "/a\n/a/b\n/a/file\n/a/file/c\n/a/file/hard\n/a/file/soft\n/a/other\n");
    assert!(image.run(&["ls", "-l", "i.img:/a/file"]).ok().contains("soft -> a/other\n"));
    image.run(&["rm", "i.img:/a"]).fails(1);
    image.run(&["rm", "i.img:/nothing"]).fails(1);
    image.run(&["rm", "-f", "i.img:/nothing"]).ok();
    image.run(&["rm", "-d", "i.img:/a/file/c"]).ok();
    image.run(&["rm", "-r", "i.img:/a"]).ok();
    assert_eq!(image.run(&["ls", "i.img"]).ok(), "lost+found\n");
}

#[test]
fn attributes_are_changed_below_a_directory_or_in_it_alone() {
    need_tools!("mke2fs", "e2fsck");
    let image = Image::new("16M");
    image.run(&["mkdir", "-p", "i.img:/d/e"]).ok();
    image.run(&["touch", "-t", "1700000000.5", "i.img:/d/e/f"]).ok();
    image.run(&["chmod", "-R", "go-rx,u+X", "i.img:/d"]).ok();
    image.run(&["chown", "-R", "70000:80000", "i.img:/d/e"]).ok();
    let shown = image.run(&["ls", "-lR", "i.img:/d"]).ok();
    assert!(shown.contains("drwx------ 2 70000 80000"), "{shown}");
    assert!(shown.contains("-rw------- 1 70000 80000 0 2023-11-14 22:13:20 f"), "{shown}");
    assert!(
        image.run(&["stat", "--json", "i.img:/d/e/f"]).ok().contains(r#""mtime":"1700000000.500000000""#)
    );
    image.run(&["setfattr", "-n", "user.a", "-v", "0x00ff", "i.img:/d/e/f", "i.img:/d"]).ok();
    image.run(&["setfattr", "--acl", "u::rw-,u:7:r--,g::---,m::r--,o::---", "i.img:/d/e/f"]).ok();
    let shown = image.run(&["xattr", "i.img:/d/e/f"]).ok();
    assert_eq!(shown, "system.posix_acl_access=u::rw-,u:7:r--,g::---,m::r--,o::---\nuser.a=0x00ff\n");
    image.run(&["setfattr", "-x", "user.a", "i.img:/d"]).ok();
    assert_eq!(image.run(&["xattr", "i.img:/d"]).ok(), "");
}

#[test]
fn a_tree_of_this_machine_goes_in_and_comes_out_the_same() {
    need_tools!("mke2fs", "e2fsck");
    let image = Image::new("32M");
    let folder = &image.folder;
    fs::create_dir_all(folder.path("tree/sub")).unwrap();
    fs::write(folder.path("tree/file"), vec![7; 3 << 20]).unwrap();
    fs::hard_link(folder.path("tree/file"), folder.path("tree/sub/again")).unwrap();
    fs::set_permissions(folder.path("tree/file"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::File::create(folder.path("tree/hole")).unwrap().set_len(10 << 20).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path("tree/link")).unwrap();
    let owner = fs::metadata(folder.path("tree")).unwrap();
    let modified = fs::metadata(folder.path("tree/file")).unwrap().mtime();
    image.run(&["cp", "-r", "tree", "i.img:"]).ok();
    let shown = image.run(&["stat", "--json", "i.img:/tree/file"]).ok();
    let expected = format!(
        r#""mode":"0640","uid":{},"gid":{},"links":2,"size":3145728,"allocated":31"#,
        owner.uid(),
        owner.gid()
    );
    assert!(shown.contains(&expected) && shown.contains(&format!(r#""mtime":"{modified}."#)), "{shown}");
    assert!(
        image.run(&["stat", "--json", "i.img:/tree/hole"]).ok().contains(r#""size":10485760,"allocated":0"#)
    );
    folder.run(&["cp", "-r", "i.img:/tree", "out"]).ok();
    for name in ["file", "sub/again", "hole"] {
        let (a, b) = (folder.path(&format!("tree/{name}")), folder.path(&format!("out/{name}")));
        assert!(fs::read(a).unwrap() == fs::read(b).unwrap(), "{name}");
    }
    // Without its last name, what is in the directory; and once more over what is there.
    image.run(&["cp", "-r", "--owner", "1:2", "tree/.", "i.img:"]).ok();
    image.run(&["cp", "-r", "tree/.", "i.img:/"]).ok();
    assert_eq!(image.run(&["ls", "i.img"]).ok(), "file\nhole\nlink\nlost+found\nsub\ntree\n");
    image.run(&["cp", "tree/file", "i.img:/tree/sub/new"]).ok();
    assert!(image.run(&["cat", "i.img:/tree/sub/new"]).bytes().len() == 3 << 20);
}

#[test]
fn a_golden_image_goes_into_another_image_and_is_the_same_there() {
    need_tools!("mke2fs", "e2fsck");
    let image = Image::new("32M");
    let golden = Folder::with(&["xattr-256"]);
    let source = golden.path("xattr-256.img");
    image.run(&["cp", "-r", &format!("{}:", source.display()), "i.img:"]).ok();
    let manifest = |name: &str| {
        let text = image.folder.run(&["manifest", name]).ok();
        parse(&text).unwrap()
    };
    let differences = diff(&manifest(source.to_str().unwrap()), &manifest("i.img"));
    // Sizes of directories are the block size's, and the root is not replaced.
    let found: Vec<String> = differences
        .iter()
        .filter(|found| {
            !found.path.is_empty() && found.path != b"/" && !found.path.starts_with(b"/lost+found")
        })
        .filter(|found| !["ctime", "crtime", "size"].contains(&found.field.as_str()))
        .map(ToString::to_string)
        .collect();
    assert_eq!(found, [""; 0]);
}

#[test]
fn copies_in_one_image_do_not_harm_their_sources() {
    need_tools!("mke2fs", "e2fsck");
    let image = Image::new("16M");
    image.run(&["mkdir", "-p", "i.img:/d/e"]).ok();
    image.run_with(&["write", "i.img:/d/f"], b"content").ok();
    image.run(&["cp", "i.img:/d/f", "i.img:/d/f"]).fails(1);
    image.run(&["cp", "-r", "i.img:/d", "i.img:/d/e"]).fails(1);
    image.run(&["cp", "-r", "i.img:/d", "i.img:/copy"]).ok();
    image.run(&["mv", "i.img:/copy/f", "i.img:/copy/g"]).ok();
    let found = image.run(&["find", "i.img", "-type", "f"]).ok();
    assert_eq!(found, "/copy/g\n/d/f\n");
    assert_eq!(image.run(&["cat", "i.img:/copy/g"]).bytes(), b"content");
}

#[test]
fn a_full_image_is_said_to_be_full_and_stays_clean() {
    need_tools!("mke2fs", "e2fsck");
    let image = Image::new("1M");
    let message = image.run_with(&["write", "i.img:/large"], &vec![1; 2 << 20]).fails(1);
    assert!(message.contains("i.img:/large: ") && message.contains("no space left"), "{message}");
    image.run(&["rm", "i.img:/large"]).ok();
    image.run_with(&["write", "i.img:/small"], &[1; 1000]).ok();
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_changes() {
    let folder = Folder::with(&["block-1k"]);
    let before = fs::read(folder.path("block-1k.img")).unwrap();
    folder.run_with(&["write", "--device", "ram", "block-1k.img:/README"], b"lost").ok();
    assert!(fs::read(folder.path("block-1k.img")).unwrap() == before, "a copy in RAM was written");
}

#[test]
fn a_directory_inside_itself_ends_every_walk_with_a_message() {
    need_tools!("mke2fs", "debugfs");
    let image = Image::new("4M");
    image.run(&["mkdir", "-p", "i.img:/d/e"]).ok();
    image.run(&["touch", "i.img:/d/e/file"]).ok();
    let path = image.folder.path("i.img");
    tools::run("debugfs", &["-w".as_ref(), "-R".as_ref(), "ln /d /d/e/again".as_ref(), path.as_os_str()])
        .unwrap();
    for arguments in [
        &["ls", "-R", "i.img"][..],
        &["find", "i.img"],
        &["tree", "i.img"],
        &["du", "i.img"],
        &["manifest", "i.img"],
        &["cp", "-r", "i.img:/d", "out"],
        &["cp", "-r", "i.img:/d", "i.img:/copy"],
        &["rm", "-r", "i.img:/d"],
    ] {
        let message = image.folder.run(arguments).fails(8);
        assert!(
            message.contains("i.img:/d/e/again") || arguments[0] == "manifest",
            "{arguments:?}: {message}"
        );
    }
}

#[test]
fn what_the_file_system_keeps_in_inodes_of_its_own_is_read_and_not_changed() {
    need_tools!("mke2fs", "e2fsck");
    let folder = Folder::with(&[]);
    let image = folder.path("a.img");
    tools::mke2fs(&["-q", "-t", "ext2", "-j", image.to_str().unwrap(), "32M"]);
    let before = std::fs::read(&image).unwrap();
    // What the spare descriptors have, and the journal.
    for nr in [7, 8] {
        for line in [
            format!("truncate --size 0 a.img:<{nr}>"),
            format!("write a.img:<{nr}>"),
            format!("touch a.img:<{nr}>"),
            format!("chmod 777 a.img:<{nr}>"),
            format!("chown 5 a.img:<{nr}>"),
            format!("setfattr -n user.a -v b a.img:<{nr}>"),
            format!("chattr +i a.img:<{nr}>"),
            format!("ln a.img:<{nr}> a.img:/name"),
        ] {
            let said = folder.run(&line.split(' ').collect::<Vec<_>>()).fails(1);
            assert!(said.contains("the file system's own"), "{line}: {said}");
        }
        folder.run(&["stat", &format!("a.img:<{nr}>")]).ok();
    }
    assert!(std::fs::read(&image).unwrap() == before);
    tools::e2fsck_fn(&image).unwrap();
}

#[test]
fn devices_pipes_and_sockets_are_made_as_they_were_asked_for() {
    need_tools!("mke2fs", "e2fsck", "debugfs");
    let image = Image::new("4M");
    image.run(&["mknod", "i.img:/console", "c", "5", "1"]).ok();
    image.run(&["mknod", "-m", "660", "i.img:/big", "b", "4095", "1048575"]).ok();
    image.run(&["mknod", "i.img:/socket", "s"]).ok();
    image.run(&["mkfifo", "-m", "600", "i.img:/one", "i.img:/two"]).ok();
    let stat = |path: &str| {
        let said = tools::debugfs(&image.folder.path("i.img"), &format!("stat {path}")).unwrap();
        String::from_utf8(said).unwrap()
    };
    assert!(stat("/console").contains("character special") && stat("/console").contains("Mode:  0644"));
    assert!(stat("/console").contains("05:01"), "{}", stat("/console"));
    assert!(
        stat("/big").contains("block special") && stat("/big").contains("4095:1048575"),
        "{}",
        stat("/big")
    );
    assert!(stat("/socket").contains("socket"));
    for path in ["/one", "/two"] {
        assert!(stat(path).contains("FIFO") && stat(path).contains("Mode:  0600"), "{}", stat(path));
    }
    for words in [
        &["i.img:/n", "c"][..],
        &["i.img:/n", "p", "1", "1"],
        &["i.img:/n", "c", "4096", "1"],
        &["i.img:/n", "x"],
    ] {
        assert_eq!(image.run(&[&["mknod"], words].concat()).code(), 2, "{words:?}");
    }
    assert_eq!(image.run(&["mkfifo", "i.img:/one", "i.img:/three"]).code(), 1);
    assert!(stat("/three").contains("FIFO"), "what can be made is");
}
