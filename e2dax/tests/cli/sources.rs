//! What the command takes from a directory: all of it, also what a preloaded library only pretends.

use std::fs;
use std::process::Command;

use e2dax_tests::{need_tools, skip, tools};

use crate::common::Folder;

/// A folder with a tree `tree` that has one file.
fn with_file() -> Folder {
    let folder = Folder::with(&[]);
    fs::create_dir(folder.path("tree")).unwrap();
    fs::write(folder.path("tree/f"), b"x").unwrap();
    folder
}

#[test]
fn flags_that_chattr_sets_on_files_of_a_directory_are_in_the_image() {
    need_tools!("chattr");
    let folder = with_file();
    for (name, flag) in [("immutable", "+i"), ("append", "+a"), ("nodump", "+d"), ("dir", "+d")] {
        let path = folder.path("tree").join(name);
        if name == "dir" {
            fs::create_dir(&path).unwrap()
        } else {
            fs::write(&path, b"x").unwrap()
        }
        if !tools::command("chattr").arg(flag).arg(&path).output().unwrap().status.success() {
            skip!("no flags here");
        }
    }
    let run = folder.run(&["mkfs", "a.img", "--from", "tree"]);
    for name in ["immutable", "append"] {
        let path = folder.path("tree").join(name);
        assert!(tools::command("chattr").arg("-ia").arg(&path).output().unwrap().status.success());
    }
    run.ok();
    let text = folder.run(&["manifest", "a.img"]).ok();
    for (name, letter) in [("immutable", "i"), ("append", "a"), ("nodump", "d"), ("dir", "d")] {
        let line = text.lines().find(|line| line.starts_with(&format!("/{name} "))).unwrap();
        assert!(line.split(' ').any(|word| word == format!("flags={letter}")), "{line}");
    }
    assert!(!text.lines().any(|line| line.starts_with("/f ") && line.contains("flags=")), "{text}");
}

#[test]
fn attributes_of_a_directory_are_in_the_image_those_of_links_and_of_the_root_too() {
    let folder = with_file();
    let set = |name: &str, attribute: &str, value: &[u8]| {
        rustix::fs::lsetxattr(folder.path(name), attribute, value, rustix::fs::XattrFlags::empty())
    };
    if set("tree/f", "user.foo", b"bar").is_err() {
        skip!("no attributes of users here");
    }
    set("tree", "user.root", b"r").unwrap();
    // More names than a first, small buffer holds.
    for nr in 0..20 {
        set("tree/f", &format!("user.a_name_of_some_length_{nr}"), b"").unwrap();
    }
    folder.run(&["mkfs", "i.img", "--from", "tree"]).ok();
    let text = folder.run(&["manifest", "i.img"]).ok();
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap();
    assert!(line("/f ").contains("user.foo:626172"), "{text}");
    assert_eq!(line("/f ").matches("user.a_name").count(), 20, "{text}");
    assert!(line("/ ").contains("xattr=user.root:72"), "{text}");
}

#[test]
fn what_fakeroot_tells_of_a_tree_goes_in_and_comes_out() {
    need_tools!("fakeroot", "setfattr", "tar");
    pretended(&mut Command::new("fakeroot"));
}

#[test]
fn what_pseudo_tells_of_a_tree_goes_in_and_comes_out() {
    need_tools!("pseudo", "setfattr", "tar");
    let state = tempfile::tempdir().unwrap();
    pretended(Command::new("pseudo").env("PSEUDO_PREFIX", "/usr").env("PSEUDO_LOCALSTATEDIR", state.path()));
}

/// A tree as whoever builds a root without root makes it, and all that takes it in and out again.
const PRETENDED: &str = "
set -e
# Made anew: pseudo ends every program that asks for a file with several names of which it has seen but one.
cp tree/f f && rm -r tree && mkdir tree && mv f tree/f
mkdir tree/d && echo g > tree/d/g && ln tree/f tree/h && ln -s f tree/s && mkfifo tree/p
mknod tree/c c 5 1 && mknod tree/b b 259 70000
chown 7:8 tree/c && chown 9:10 tree/f && chown -h 11:12 tree/s && chown 100000:200000 tree/d
chmod 4755 tree/f && chmod 1777 tree/d && chmod 2711 tree/d/g && chmod 640 tree/c
setfattr -n user.x -v y tree/f
setfattr -n security.capability -v 0sAQAAAgAgAAAAAAAAAAAAAAAAAAA= tree/d/g
\"$0\" mkfs dir.img --quiet --from tree
tar --xattrs --xattrs-include='*' --numeric-owner --format=posix -C tree -cf t.tar .
\"$0\" mkfs tar.img --quiet --from t.tar
\"$0\" mkfs in.img --quiet --size 4M
\"$0\" cp -r tree in.img:/x
\"$0\" cp -r in.img:/x out
\"$0\" mkfs out.img --quiet --from out
stat -c '%n %a %u %g %h %t %T' out/* out/d/g > said
";

/// Owners, devices, permissions and attributes that are only pretended, by what `preload` starts programs with.
fn pretended(preload: &mut Command) {
    let folder = with_file();
    let run = preload
        .args(["sh", "-c", PRETENDED, env!("CARGO_BIN_EXE_e2dax")])
        .current_dir(folder.root())
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", tools::words(&run));
    let said = |image: &str, root: &str| -> Vec<String> {
        let text = folder.run(&["manifest", &format!("{image}:{root}")]).ok();
        let lines = text.lines().filter(|line| {
            line.starts_with('/') && !line.starts_with("/ ") && !line.starts_with("/lost+found")
        });
        let without_times = |line: &str| -> String {
            let words = line.split(' ').filter(|word| !word.contains("time="));
            words.collect::<Vec<_>>().join(" ")
        };
        lines.map(without_times).collect()
    };
    let capability = "xattr=security.capability:0100000200200000000000000000000000000000";
    let expected = said("dir.img", "");
    let begins = [
        "/b b 0644 0 0 0 1 dev=259:70000",
        "/c c 0640 7 8 0 1 dev=5:1",
        "/d d 1777 100000 200000 ",
        &format!("/d/g f 2711 0 0 2 1 {capability}"),
        "/f f 4755 9 10 ",
        "/h h hardlink=/f",
        "/p p 0644 0 0 ",
        "/s l 0777 11 12 1 1 target=f",
    ];
    assert_eq!(expected.len(), begins.len(), "{expected:#?}");
    for (line, begin) in expected.iter().zip(begins) {
        assert!(line.starts_with(begin), "{line}: {begin}");
    }
    assert_eq!(said("tar.img", ""), expected, "by tar");
    let mut copied = said("in.img", "/x");
    copied.iter_mut().for_each(|line| *line = line.replace("hardlink=/x/", "hardlink=/"));
    assert_eq!(copied, expected, "copied in");
    assert_eq!(said("out.img", ""), expected, "copied out");
    // And so say the tools.
    let stat = std::fs::read_to_string(folder.path("said")).unwrap();
    for line in [
        "out/c 640 7 8 1 5 1",
        "out/d 1777 100000 200000 2 0 0",
        "out/d/g 2711 0 0 1 0 0",
        "out/f 4755 9 10 2 0 0",
    ] {
        assert!(stat.lines().any(|said| said == line), "{line}: {stat}");
    }
}

#[test]
fn the_root_gets_the_owner_that_was_asked_for_whatever_goes_in() {
    let folder = with_file();
    let options = ["mkfs", "i.img", "--from", "tree", "--owner", "5:6", "--root-owner", "1000:1001"];
    folder.run(&options).ok();
    let text = folder.run(&["manifest", "i.img"]).ok();
    assert!(text.lines().any(|line| line.starts_with("/ d ") && line.contains(" 1000 1001 ")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("/lost+found d 0700 1000 1001 ")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("/f ") && line.contains(" 5 6 ")), "{text}");
}

#[test]
fn an_empty_tree_makes_an_image_with_and_without_lost_and_found() {
    let folder = Folder::with(&[]);
    fs::create_dir(folder.path("tree")).unwrap();
    for options in [&[][..], &["--no-lost-and-found"], &["--no-lost-and-found", "--size", "auto+1M"]] {
        folder.run(&[&["mkfs", "i.img", "-f", "--from", "tree"], options].concat()).ok();
        if tools::have("e2fsck") {
            tools::e2fsck_fn(&folder.path("i.img")).unwrap();
        }
    }
}

#[test]
fn a_link_to_a_directory_is_that_directory() {
    let folder = with_file();
    std::os::unix::fs::symlink("tree", folder.path("link")).unwrap();
    folder.run(&["mkfs", "i.img", "--from", "link"]).ok();
    assert_eq!(folder.run(&["cat", "i.img:/f"]).ok(), "x");
}

#[test]
fn the_sum_of_a_file_without_data_has_to_be_right_too() {
    let folder = Folder::with(&[]);
    fs::create_dir(folder.path("tree")).unwrap();
    fs::write(folder.path("tree/empty"), b"").unwrap();
    fs::File::create(folder.path("tree/hole")).unwrap().set_len(1 << 20).unwrap();
    folder.run(&["mkfs", "a.img", "--from", "tree", "--size", "2M"]).ok();
    let right = folder.run(&["manifest", "a.img"]).ok();
    let make = |text: &str| {
        fs::write(folder.path("m"), text).unwrap();
        folder.run(&["mkfs", "b.img", "--force", "--from", "m", "--contents", "tree"])
    };
    make(&right).ok();
    for name in ["/empty ", "/hole "] {
        let line = right.lines().find(|line| line.starts_with(name)).unwrap();
        let at = line.find("crc=").unwrap() + 4;
        let wrong = line.replace(&line[at..at + 8], "12345678");
        assert_ne!(line, wrong);
        let said = make(&right.replace(line, &wrong)).fails(1);
        assert!(said.contains(name.trim()) && said.contains("the manifest says 12345678"), "{said}");
    }
}

#[test]
fn a_file_of_the_future_does_not_make_an_image_of_the_future() {
    need_tools!("touch", "e2fsck");
    let folder = with_file();
    let made = |name: &str| {
        folder.run(&["mkfs", name, "--force", "--from", "tree", "--size", "2M"]).ok();
        fs::read(folder.path(name)).unwrap()
    };
    tools::run("touch", &["-d", "2024-01-01", folder.path("tree").to_str().unwrap()]).unwrap();
    for time in ["2036-01-01", "2100-01-01"] {
        tools::run("touch", &["-d", time, folder.path("tree/late").to_str().unwrap()]).unwrap();
        let image = made("a.img");
        let checked = tools::command("e2fsck").arg("-fn").arg(folder.path("a.img")).output().unwrap();
        let words = tools::words(&checked);
        assert!(checked.status.success() && !words.contains("is in the future"), "{time}: {words}");
        // The same each time still.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert!(image == made("b.img"), "{time}");
    }
}
