//! Outputs that take the place of something: who may do what with them stays, what cannot be replaced is written to, and a run that
//! fails leaves what was there.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::process::{Command, Output};

use e2dax_tests::{need_mount, need_tools, skip, tools};

use crate::archives::shell;
use crate::common::Folder;

const E2DAX: &str = env!("CARGO_BIN_EXE_e2dax");

/// A user of no rights, a group of his, and one that is not his.
const USER: u32 = 1000;
const GROUP: u32 = 2000;
const OTHER: u32 = 3000;

/// A folder with an image.
fn with_image() -> Folder {
    let folder = Folder::with(&[]);
    fs::create_dir(folder.path("tree")).unwrap();
    fs::write(folder.path("tree/f"), vec![7; 100_000]).unwrap();
    folder.run(&["mkfs", "a.img", "--from", "tree"]).ok();
    folder
}

/// Runs the command as somebody of no rights, in two groups.
fn as_user(folder: &Folder, words: &[&str]) -> Output {
    let mut command = tools::command("setpriv");
    command.current_dir(folder.root());
    command.args(["--reuid=1000", "--regid=1000", "--groups=2000", E2DAX]).args(words).output().unwrap()
}

/// Whether somebody of no rights can run the command.
fn user_can_run() -> bool {
    let folder = Folder::with(&[]);
    fs::set_permissions(folder.root(), Permissions::from_mode(0o755)).unwrap();
    rustix::process::geteuid().is_root() && as_user(&folder, &["--version"]).status.success()
}

/// What makes each kind of output, over what is there.
const OUTPUTS: [&[&str]; 3] = [
    &["tar", "a.img", "--force", "-o", "old"],
    &["mkfs", "old", "--force", "--quiet", "--from", "tree"],
    &["seal", "a.img", "--force", "--hash-file", "old"],
];

#[test]
fn a_file_that_is_replaced_keeps_its_access_list_and_gets_none_from_its_folder() {
    need_tools!("setfacl", "getfacl");
    let folder = with_image();
    let list = || {
        let old = folder.path("old");
        String::from_utf8(tools::run("getfacl", &["-pnc", old.to_str().unwrap()]).unwrap()).unwrap()
    };
    fs::write(folder.path("old"), "old").unwrap();
    let set = tools::command("setfacl").args(["-m", "u:7:---"]).arg(folder.path("old")).output().unwrap();
    if !set.status.success() {
        skip!("no access lists here: {}", tools::words(&set));
    }
    for words in OUTPUTS {
        shell(&folder, "rm -f old; echo old >old; chmod 640 old; setfacl -m u:7:---,g:8:rw-,m:r-- old");
        let before = list();
        assert!(before.contains("user:7:---") && before.contains("mask::r--"), "{before}");
        assert_eq!(folder.run(words).code(), 0, "{words:?}");
        assert_eq!(list(), before, "{words:?}");
        // New files get one here, and what is replaced has none.
        shell(&folder, "setfacl -d -m u:9:rwx . ; setfacl -b old; chmod 660 old");
        assert_eq!(folder.run(words).code(), 0, "{words:?}");
        assert_eq!(list(), "user::rw-\ngroup::rw-\nother::---\n\n", "{words:?}");
        shell(&folder, "setfacl -b -k .");
    }
}

#[test]
fn who_may_give_the_group_and_not_the_owner_gives_it_and_no_rights_that_nobody_had() {
    need_tools!("setpriv");
    if !user_can_run() {
        skip!("nobody else can run the command here");
    }
    let folder = with_image();
    chown(folder.root(), Some(USER), None).unwrap();
    let old = folder.path("old");
    for (group, mode, expected) in [
        (GROUP, 0o660, (GROUP, 0o660)),
        (GROUP, 0o6770, (GROUP, 0o2770)),
        // A group that is not his gives him no more than all others have, and he gives nobody what it had.
        (OTHER, 0o2676, (USER, 0o666)),
        (OTHER, 0o606, (USER, 0o600)),
    ] {
        for words in OUTPUTS {
            let _ = fs::remove_file(&old);
            fs::write(&old, "old").unwrap();
            chown(&old, Some(0), Some(group)).unwrap();
            fs::set_permissions(&old, Permissions::from_mode(mode)).unwrap();
            // The image is written to by whoever seals it.
            fs::set_permissions(folder.path("a.img"), Permissions::from_mode(0o666)).unwrap();
            let output = as_user(&folder, words);
            assert!(output.status.success(), "{words:?}: {}", tools::words(&output));
            let found = fs::metadata(&old).unwrap();
            assert_eq!(
                (found.uid(), found.gid(), found.mode() & 0o7777),
                (USER, expected.0, expected.1),
                "{words:?}"
            );
        }
    }
    // Root gives all of it, set-id bits too.
    for words in OUTPUTS {
        chown(&old, Some(USER), Some(OTHER)).unwrap();
        fs::set_permissions(&old, Permissions::from_mode(0o6755)).unwrap();
        assert_eq!(folder.run(words).code(), 0, "{words:?}");
        let found = fs::metadata(&old).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (USER, OTHER, 0o6755), "{words:?}");
    }
}

/// Runs each kind of output in a script, where `$e` runs the command, and compares what it made with what is made elsewhere.
fn each_makes(folder: &Folder, run: impl Fn(&str) -> Output) {
    for words in OUTPUTS {
        let _ = fs::remove_file(folder.path("new"));
        let elsewhere: Vec<&str> =
            words.iter().map(|&word| if word == "old" { "new" } else { word }).collect();
        assert_eq!(folder.run(&elsewhere).code(), 0, "{words:?}");
        let output = run(&words.join(" "));
        assert!(output.status.success(), "{words:?}: {}", tools::words(&output));
        assert!(fs::read(folder.path("old")).unwrap() == fs::read(folder.path("new")).unwrap(), "{words:?}");
    }
}

#[test]
fn a_file_that_something_is_mounted_on_is_written_to() {
    need_mount!();
    need_tools!("unshare", "mount");
    let folder = with_image();
    // Longer than what is made, so that a rest would show.
    let fresh = || fs::write(folder.path("old"), vec![b'o'; 5 << 20]).unwrap();
    each_makes(&folder, |line| {
        fresh();
        fs::write(folder.path("place"), "").unwrap();
        let script = format!("mount --bind old place && exec {E2DAX} {}", line.replace("old", "place"));
        let mut command = tools::command("unshare");
        command.current_dir(folder.root()).args(["-m", "sh", "-ec", &script]).output().unwrap()
    });
    let names = folder.names();
    assert!(names.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{names:?}");
}

#[test]
fn a_file_in_a_folder_that_cannot_be_written_to_is_written_to() {
    need_tools!("setpriv");
    if !user_can_run() {
        skip!("nobody else can run the command here");
    }
    let folder = with_image();
    fs::write(folder.path("old"), vec![b'o'; 5 << 20]).unwrap();
    fs::set_permissions(folder.root(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(folder.path("a.img"), Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(folder.path("old"), Permissions::from_mode(0o666)).unwrap();
    let number = fs::metadata(folder.path("old")).unwrap().ino();
    each_makes(&folder, |line| as_user(&folder, &line.split(' ').collect::<Vec<_>>()));
    let found = fs::metadata(folder.path("old")).unwrap();
    assert_eq!((found.ino(), found.uid(), found.mode() & 0o7777), (number, 0, 0o666));
    // In a folder of everybody's nobody takes away what is another's.
    fs::set_permissions(folder.root(), Permissions::from_mode(0o1777)).unwrap();
    each_makes(&folder, |line| as_user(&folder, &line.split(' ').collect::<Vec<_>>()));
    // What cannot be written to either is named.
    fs::set_permissions(folder.path("old"), Permissions::from_mode(0o644)).unwrap();
    for words in OUTPUTS {
        let output = as_user(&folder, words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(tools::words(&output).ends_with("/old: Permission denied\n"), "{}", tools::words(&output));
    }
}

#[test]
fn what_is_behind_the_standard_output_gets_the_bytes_with_and_without_a_name() {
    let folder = with_image();
    // (What a seal prints would be in its tree.)
    for words in &OUTPUTS[..2] {
        let line = words.join(" ");
        shell(&folder, &format!("rm -f old; {E2DAX} {} >/dev/null", line.replace("--force ", "")));
        let line = line.replace("old", "/dev/stdout");
        shell(&folder, &format!("exec 3>got; {E2DAX} {line} 1>&3; cmp /proc/self/fd/3 old; cmp got old"));
        shell(&folder, &format!("exec 3>got; rm got; {E2DAX} {line} 1>&3; cmp /proc/self/fd/3 old"));
    }
}

#[test]
fn what_is_no_file_is_named_or_takes_an_archive() {
    need_tools!("mkfifo");
    let folder = with_image();
    shell(&folder, "mkfifo fifo");
    for words in [OUTPUTS[1], OUTPUTS[2]] {
        for place in ["fifo", "/dev/null"] {
            let words: Vec<&str> =
                words.iter().map(|&word| if word == "old" { place } else { word }).collect();
            let said = folder.run(&words).fails(1);
            assert!(said.ends_with(&format!("{place}: is no file and no block device\n")), "{said}");
        }
    }
    assert!(fs::symlink_metadata(folder.path("fifo")).unwrap().file_type().is_fifo());
    shell(
        &folder,
        &format!("cat fifo >got & {E2DAX} tar a.img -fo fifo; wait; {E2DAX} tar a.img | cmp - got"),
    );
    let said = folder.run(&["tar", "a.img", "-o", "/dev/full"]).fails(1);
    assert!(said.starts_with("e2dax: /dev/full: No space left"), "{said}");
}

#[test]
fn a_hash_tree_that_fails_leaves_the_one_that_was_there() {
    need_tools!("prlimit");
    let folder = with_image();
    fs::write(folder.path("old"), "old").unwrap();
    let before = folder.names();
    for old in ["old", "new"] {
        let script =
            format!("trap '' XFSZ; exec prlimit --fsize=1000 {E2DAX} seal a.img --force --hash-file {old}");
        let output = tools::command("sh").current_dir(folder.root()).args(["-c", &script]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", tools::words(&output));
        assert_eq!(fs::read(folder.path("old")).unwrap(), b"old");
        assert_eq!(folder.names(), before);
    }
    // The name of a partition is that of a file here, and what is named like its disk is left alone.
    let made = folder.run(&["seal", "a.img", "--hash-file", "old@p1"]);
    assert_eq!((made.code(), made.err().as_str()), (0, ""));
    assert!(fs::read(folder.path("old@p1")).unwrap().starts_with(b"verity"));
    let image = ["mkfs", "b.img", "--quiet", "--from", "tree", "--seal", "--hash-file", "old@64"];
    assert_eq!(folder.run(&image).code(), 0);
    assert_eq!(fs::read(folder.path("old")).unwrap(), b"old");
}

#[test]
fn a_temporary_file_that_was_left_over_is_in_nobodys_way() {
    let folder = with_image();
    fs::write(folder.path("old"), "old").unwrap();
    for words in OUTPUTS {
        // The name that the next process would give its own.
        let script = "touch .old.$$; exec \"$@\"";
        let mut command = Command::new("sh");
        command.current_dir(folder.root()).args(["-c", script, "sh", E2DAX]).args(words);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", tools::words(&output));
    }
    File::open(folder.path("old")).unwrap();
    let left = folder.names().into_iter().filter(|name| name.to_string_lossy().starts_with(".old."));
    assert_eq!(left.count(), OUTPUTS.len());
}
