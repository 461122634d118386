//! The shell, by scripts.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use e2dax_tests::need_tools;

use crate::common::Folder;

fn image() -> Folder {
    let folder = Folder::with(&[]);
    folder.run(&["mkfs", "--size", "8M", "a.img"]).code();
    folder
}

#[test]
fn a_script_changes_an_image_that_is_opened_once() {
    need_tools!("e2fsck");
    let folder = image();
    let mut script = String::from("# comments and empty lines\n\nmkdir /d\ncd /d\n");
    for nr in 0..100 {
        writeln!(script, "touch file{nr}").unwrap();
    }
    script
        .push_str("pwd\ncd ..\nmv d/file0 'with space'\nrm d/file1\nls\nstat with\\ space\ncheck -q\nls d\n");
    fs::write(folder.path("script"), script).unwrap();
    let out = folder.run(&["shell", "a.img", "-f", "script"]).ok();
    assert!(out.starts_with("/d\nd\nlost+found\nwith space\npath:"), "{out}");
    assert_eq!(folder.run(&["ls", "a.img:/d"]).ok().lines().count(), 98);
    let checked = Command::new("e2fsck").args(["-fn", "a.img"]).current_dir(folder.root()).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[test]
fn a_script_ends_at_the_first_command_that_fails_and_names_its_line() {
    let folder = image();
    let script = "mkdir /a\n- rm /nothing\nmkdir /a\nmkdir /b\n";
    let run = folder.run_with(&["shell", "a.img", "-f", "-"], script.as_bytes());
    let message = run.fails(1);
    assert!(message.contains("standard input: line 3: mkdir /a: failed"), "{message}");
    assert_eq!(folder.run(&["ls", "a.img"]).ok(), "a\nlost+found\n", "what was done stays");
    for (line, code) in
        [("nonsense", 2), ("ls 'x", 2), ("mkfs b.img", 1), ("ls --nonsense", 2), ("cd /a/b", 1)]
    {
        folder.run(&["shell", "a.img", "-c", line]).fails(code);
    }
    assert_eq!(folder.run(&["shell", "a.img", "-c", "quit", "-c", "mkdir /never"]).code(), 0);
    let message = folder.run_with(&["shell", "a.img", "-f", "-"], b"mkdir /c\nls /\xff\n").fails(1);
    assert!(message.contains("standard input: line 2: is not UTF-8"), "{message}");
    assert_eq!(folder.run(&["ls", "a.img"]).ok(), "a\nc\nlost+found\n", "what was done stays");
}

#[test]
fn files_of_this_machine_go_in_and_out_with_a_colon_before_the_other_side() {
    let folder = image();
    fs::write(folder.path("notes"), b"notes\n").unwrap();
    let commands = ["mkdir /d", "cd d", "cp notes :", "cp :notes back", "cat notes", "cat :/d/notes"];
    let mut arguments = vec!["shell", "a.img"];
    commands.iter().for_each(|command| arguments.extend(["-c", command]));
    assert_eq!(folder.run(&arguments).ok(), "notes\nnotes\n");
    assert_eq!(fs::read(folder.path("back")).unwrap(), b"notes\n");
}

#[test]
fn the_names_of_debugfs_do_what_they_do_there() {
    need_tools!("mke2fs", "debugfs");
    let folder = Folder::with(&[]);
    fs::write(folder.path("small"), b"hi\n").unwrap();
    let script = "mkdir d\nwrite small d/x\nln d/x y\nset_inode_field d/x mode 0100600\nsymlink l d/x\n\
                  set_inode_field <12> mtime 20231114221320\nset_super_value volume_name lesson\nunlink y\n";
    fs::write(folder.path("script"), script).unwrap();
    for (image, ours) in [("a.img", true), ("b.img", false)] {
        let made = Command::new("mke2fs")
            .args(["-q", "-t", "ext2", "-b", "1024", image, "4M"])
            .current_dir(folder.root())
            .status();
        assert!(made.unwrap().success());
        if ours {
            assert_eq!(folder.run_with(&["shell", image], script.as_bytes()).code(), 0);
        } else {
            Command::new("debugfs")
                .args(["-w", "-f", "script", image])
                .current_dir(folder.root())
                .output()
                .unwrap();
        }
    }
    let shown = |image: &str| {
        let tree = folder.run(&["tree", image]).ok();
        let stat = folder.run(&["stat", &format!("{image}:/d/x")]).ok();
        let kept = |line: &&str| ["mode:", "size:"].iter().any(|key| line.starts_with(key));
        let label = folder.run(&["info", image]).ok();
        let label = label.lines().find(|line| line.starts_with("label:")).unwrap().to_owned();
        let mtime = folder.run(&["stat", &format!("{image}:<12>")]).ok();
        // The field is the one of seconds.
        let mtime = mtime.lines().find(|line| line.starts_with("modified:")).unwrap();
        let mtime = mtime.split('.').next().unwrap().to_owned();
        let tree = tree.lines().skip(1).collect::<Vec<_>>().join("\n");
        (tree, stat.lines().filter(kept).collect::<Vec<_>>().join("\n"), label, mtime)
    };
    assert_eq!(shown("a.img"), shown("b.img"));
    let commands = [
        "icheck 1",
        "ncheck 12",
        "bmap d/x 0",
        "blocks d/x",
        "dump d/x out",
        "lsdel",
        "stats",
        "testb 1",
        "imap d/x",
        "bd 1",
        "ea_set d/x user.a b",
        "ea_list d/x",
        "ea_get d/x user.a",
        "ea_rm d/x user.a",
        "ffb",
        "params",
        "features",
        "idump <12>",
        "rdump d dir",
        "freeb 4000",
        "setb 4000",
        "freeb 4000",
        "rmdir lost+found",
    ];
    let mut arguments = vec!["shell", "a.img"];
    commands.iter().for_each(|command| arguments.extend(["-c", command]));
    let out = folder.run(&arguments);
    assert_eq!((out.code(), out.err().as_str()), (0, ""), "{}", out.out());
    assert_eq!(fs::read(folder.path("out")).unwrap(), b"hi\n");
}

#[test]
fn every_verb_and_name_has_help() {
    let folder = image();
    let help = folder.run(&["shell", "a.img", "-c", "help", "-c", "help debugfs", "-c", "help ls"]).ok();
    for word in ["ls ", "poke ", "cd ", "icheck", "set_inode_field", "Usage: e2dax ls"] {
        assert!(help.contains(word), "{word}: {help}");
    }
}
