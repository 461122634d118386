//! One tree with everything in it, through every kind of source: it comes out equal, or what is lost is known to the file and
//! the attribute.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, lchown, symlink};
use std::path::Path;
use std::process::Stdio;

use e2dax_tests::{need_tools, skip, tools};
use ext2_image::manifest::quote;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, mknodat, utimensat,
};

use crate::common::Folder;

/// Sets the time of the last change of a file, or of a link itself.
fn set_time(path: &Path, sec: i64, nsec: i64) {
    let time = Timespec { tv_sec: sec, tv_nsec: nsec };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// An access control list as the kernel takes it: a user 1234 may read.
fn acl() -> Vec<u8> {
    let entry = |tag: u16, bits: u16, id: u32| {
        [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let entries =
        [entry(1, 6, none), entry(2, 4, 1234), entry(4, 4, none), entry(16, 4, none), entry(32, 4, none)];
    [&2_u32.to_le_bytes()[..], &entries.concat()].concat()
}

/// Names of all bytes that a name may have, 100 in each but the last.
fn odd_names() -> Vec<Vec<u8>> {
    let all: Vec<u8> = (1..=255).filter(|&byte| byte != b'/').collect();
    all.chunks(100).map(<[u8]>::to_vec).collect()
}

/// Makes the tree; false where the machine cannot have such files.
pub(crate) fn make(root: &Path) -> bool {
    fs::create_dir_all(root.join("deep/er/est")).unwrap();
    let device = |name: &str, kind, major, minor| {
        mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(0o620), rustix::fs::makedev(major, minor))
    };
    if device("char", FileType::CharacterDevice, 5, 1).is_err() {
        return false;
    }
    device("block", FileType::BlockDevice, 259, 7).unwrap();
    device("fifo", FileType::Fifo, 0, 0).unwrap();
    fs::write(root.join("small"), b"small").unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("big"), (0..3_u32 << 20).map(|at| (at >> 12) as u8 | 1).collect::<Vec<u8>>())
        .unwrap();
    fs::hard_link(root.join("small"), root.join("deep/link")).unwrap();
    symlink("deep/er", root.join("symlink")).unwrap();
    symlink("t".repeat(90), root.join("long symlink")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(6 << 20).unwrap();
    for piece in 0..30_u64 {
        sparse.write_all_at(&[7; 4096], piece * (128 << 10) + 65536).unwrap();
    }
    for name in odd_names() {
        fs::write(root.join(OsStr::from_bytes(&name)), b"bytes").unwrap();
    }
    let below = root.join("deep/er/est").join("n".repeat(200));
    fs::create_dir(&below).unwrap();
    fs::write(below.join("l".repeat(150)), b"long").unwrap();
    fs::write(root.join("rich"), b"rich").unwrap();
    let capability = [1, 0, 0, 2, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let attributes: [(&str, &str, &[u8]); 6] = [
        ("rich", "user.text", b"text"),
        ("rich", "user.empty", b""),
        ("rich", "user.lines", b"a\nb=\n12 c=d\n\0"),
        ("rich", "trusted.own", b"t"),
        ("rich", "security.capability", &capability),
        ("deep", "user.of_a_directory", b"d"),
    ];
    for (name, attribute, value) in attributes {
        if lsetxattr(root.join(name), attribute, value, XattrFlags::empty()).is_err() {
            return false;
        }
    }
    let lists = [
        ("rich", "system.posix_acl_access"),
        ("deep", "system.posix_acl_access"),
        ("deep", "system.posix_acl_default"),
    ];
    for (name, attribute) in lists {
        if lsetxattr(root.join(name), attribute, &acl(), XattrFlags::empty()).is_err() {
            return false;
        }
    }
    for (name, uid, gid) in
        [("empty", u32::MAX - 1, 70_000), ("big", 65_535, 65_536), ("symlink", 3, 4), ("fifo", 1, 2)]
    {
        lchown(root.join(name), Some(uid), Some(gid)).unwrap();
    }
    // Whole seconds, but where they are not.
    whole_seconds(root);
    for (name, sec, nsec) in [
        ("small", 1_600_000_000, 123_456_789),
        ("empty", -86_400, 0),
        ("big", -2_147_483_648, 0),
        ("sparse", -1, 500_000_000),
        ("rich", 4_294_967_296, 1),
        ("fifo", 15_000_000_000, 999_999_999),
        ("symlink", 5, 5),
        ("deep", 1_234_567_890, 0),
        (".", 1_500_000_000, 0),
    ] {
        set_time(&root.join(name), sec, nsec);
    }
    true
}

/// Gives all that is below a directory one time, links themselves.
fn whole_seconds(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            whole_seconds(&entry.path());
        }
        set_time(&entry.path(), 1_400_000_000, 0);
    }
}

/// What a manifest says of each path: its fields by name, without those that a new file system has of its own. Where files
/// were copied into an image that was there, only the time of the last change is theirs.
fn said(text: &str, are_copied: bool) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with('/') && !line.starts_with("/lost+found")) {
        let mut words = line.split(' ');
        let path = words.next().unwrap().to_owned();
        let mut fields = BTreeMap::new();
        for (nr, word) in words.enumerate() {
            let (key, value) = match word.split_once('=') {
                Some((key, value)) if nr > 3 => (key.to_owned(), value.to_owned()),
                _ => (format!("word {nr}"), word.to_owned()),
            };
            if !are_copied || !matches!(key.as_str(), "atime" | "ctime" | "crtime") {
                fields.insert(key, value);
            }
        }
        // The root's links and size count lost+found.
        if path == "/" {
            fields.retain(|key, _| !matches!(key.as_str(), "word 4" | "word 5"));
        }
        all.insert(path, fields);
    }
    all
}

/// What is lost: the path and the attribute of each.
fn losses(expected: &str, found: &str, are_copied: bool) -> BTreeSet<String> {
    let (expected, found) = (said(expected, are_copied), said(found, are_copied));
    let mut all = BTreeSet::new();
    for (path, fields) in &expected {
        let Some(there) = found.get(path) else {
            all.insert(format!("{path} missing"));
            continue;
        };
        let keys: BTreeSet<&String> = fields.keys().chain(there.keys()).collect();
        let differing = keys.into_iter().filter(|key| fields.get(*key) != there.get(*key));
        all.extend(differing.map(|key| match key.as_str() {
            "word 0" => format!("{path} kind"),
            "word 1" => format!("{path} mode"),
            "word 2" | "word 3" => format!("{path} owner"),
            "word 4" => format!("{path} size"),
            "word 5" => format!("{path} links"),
            "atime" | "mtime" | "ctime" | "crtime" => format!("{path} times"),
            key => format!("{path} {key}"),
        }));
    }
    all.extend(found.keys().filter(|path| !expected.contains_key(*path)).map(|path| format!("{path} extra")));
    all
}

/// What archives without sparse files lose.
const HOLES: &[&str] = &["/sparse holes"];
/// What archives without attributes lose.
const ATTRIBUTES: &[&str] = &["/deep xattr", "/rich xattr"];
/// What archives lose that know whole seconds only.
const FRACTIONS: &[&str] =
    &["/deep/link times", "/fifo times", "/rich times", "/sparse times", "/symlink times"];

const PYTHON: &str = "
import sys, tarfile
kind = {'gnu': tarfile.GNU_FORMAT, 'pax': tarfile.PAX_FORMAT}[sys.argv[1]]
with tarfile.open(sys.argv[2], 'w', format=kind, encoding='utf-8', errors='surrogateescape') as archive:
    archive.add(sys.argv[3], arcname='.')
";

#[test]
fn a_tree_with_everything_comes_out_of_every_source_equal_or_with_known_losses() {
    need_tools!("tar", "bsdtar", "python3", "setfacl");
    let folder = Folder::with(&[]);
    let tree = folder.path("tree");
    if !make(&tree) {
        skip!("no devices or attributes here");
    }
    folder.run(&["mkfs", "dir.img", "--from", "tree"]).ok();
    let expected = folder.run(&["manifest", "dir.img"]).ok();
    let root = tree.to_str().unwrap();
    let archive = folder.path("a.tar");
    let archive = archive.to_str().unwrap();
    let gnu = |format: &str, more: &[&str]| {
        let format = format!("--format={format}");
        let mut words = vec![format.as_str(), "--numeric-owner", "-C", root, "-cf", archive];
        words.extend(more);
        words.push(".");
        // tar says what it cannot put into old formats, and ends with 2.
        let _ = tools::command("tar").args(&words).output().unwrap();
    };
    let all = ["--xattrs", "--xattrs-include=*", "--acls", "--sparse"];
    type Make<'a> = Box<dyn Fn() + 'a>;
    let python = |format: &'static str| -> Make<'_> {
        Box::new(move || {
            tools::run("python3", &["-c", PYTHON, format, archive, root]).unwrap();
        })
    };
    // The fields of the old formats are short: tar leaves out what does not fit, says so, and ends with 2.
    let long = format!("/deep/er/est/{}", "n".repeat(200));
    let long_name = format!("{long} missing");
    let long_below = format!("{long}/{} missing", "l".repeat(150));
    let no_long_names = [long_name.as_str(), &long_below, "/deep/er/est links"];
    // An owner past 2^21, times before 1970, a time past 2^33.
    let no_large_numbers = ["/empty missing", "/big missing", "/sparse missing", "/fifo missing"];
    let short_times = ["/deep/link times", "/rich times", "/symlink times"];
    let ustar = [&no_long_names[..], &no_large_numbers, &short_times, ATTRIBUTES].concat();
    // V7 has no devices, and no place for a name of 100 bytes with a directory in front.
    let odd = odd_names();
    let odd: Vec<String> = odd[..2].iter().map(|name| format!("/{} missing", quote(name))).collect();
    let v7 = [&ustar[..], &["/block missing", "/char missing", &odd[0], &odd[1]]].concat();
    // A fraction as a binary number of 64 bits has no nine digits behind ten.
    let floats = ["/deep/link times", "/fifo times", "/rich times"];
    let sources: Vec<(&str, Make<'_>, Vec<&str>)> = vec![
        ("GNU tar, pax, all", Box::new(|| gnu("posix", &all)), vec![]),
        ("GNU tar, pax", Box::new(|| gnu("posix", &[])), [HOLES, ATTRIBUTES].concat()),
        (
            "GNU tar, pax, sparse 0.0",
            Box::new(|| gnu("posix", &["--sparse", "--sparse-version=0.0"])),
            ATTRIBUTES.to_vec(),
        ),
        (
            "GNU tar, pax, sparse 0.1",
            Box::new(|| gnu("posix", &["--sparse", "--sparse-version=0.1"])),
            ATTRIBUTES.to_vec(),
        ),
        ("GNU tar, gnu, sparse", Box::new(|| gnu("gnu", &["--sparse"])), [FRACTIONS, ATTRIBUTES].concat()),
        ("GNU tar, oldgnu", Box::new(|| gnu("oldgnu", &[])), [HOLES, FRACTIONS, ATTRIBUTES].concat()),
        (
            "bsdtar, pax",
            Box::new(|| {
                let words =
                    ["--format=pax", "--xattrs", "--acls", "--no-fflags", "-C", root, "-cf", archive, "."];
                // It says which names are no text, and may end with 1.
                let _ = tools::command("bsdtar").args(words).output().unwrap();
            }),
            // It writes the fraction of a time before 1970 forwards: -1 and a half second as -1.5, which is another time.
            vec!["/sparse times"],
        ),
        ("GNU tar, ustar", Box::new(|| gnu("ustar", &[])), ustar),
        ("GNU tar, V7", Box::new(|| gnu("v7", &[])), v7),
        ("Python, gnu", python("gnu"), [HOLES, FRACTIONS, ATTRIBUTES].concat()),
        ("Python, pax", python("pax"), [HOLES, &floats[..], ATTRIBUTES].concat()),
    ];
    let mut table = String::new();
    let mut wrong = String::new();
    let mut judge = |name: &str, image: &str, known: &[&str], are_copied: bool| {
        let found = folder.run(&["manifest", image]).ok();
        let lost = losses(&expected, &found, are_copied);
        let shown: Vec<&str> = lost.iter().map(String::as_str).collect();
        table +=
            &format!("{name:<28} {}\n", if shown.is_empty() { "equal".into() } else { shown.join(", ") });
        let known: BTreeSet<String> = known.iter().map(|&loss| loss.to_owned()).collect();
        if lost != known {
            let more: Vec<&String> = lost.difference(&known).collect();
            let fewer: Vec<&String> = known.difference(&lost).collect();
            wrong += &format!("{name}: lost besides {more:?}, not lost {fewer:?}\n");
        }
        if tools::have("e2fsck") {
            tools::e2fsck_fn(&folder.path(image)).unwrap();
        }
    };
    for (name, make, known) in &sources {
        let _ = fs::remove_file(archive);
        make();
        let run = folder.run(&["mkfs", "tar.img", "--force", "--quiet", "--from", "a.tar"]);
        assert_eq!(run.code(), 0, "{name}: {}", run.err());
        judge(name, "tar.img", known, false);
    }
    fs::write(folder.path("tree.manifest"), &expected).unwrap();
    folder.run(&["mkfs", "manifest.img", "--quiet", "--from", "tree.manifest", "--contents", "tree"]).ok();
    judge("manifest", "manifest.img", &[], false);
    // The image itself as an archive.
    folder.run(&["tar", "dir.img", "-o", "dir.tar"]).ok();
    folder.run(&["mkfs", "tar.img", "--force", "--quiet", "--from", "dir.tar"]).ok();
    judge("e2dax tar", "tar.img", &[], false);
    // Into an image that is there, by the command and through a mount; what the root itself is like stays the image's.
    let mut copied = vec!["cp -r"];
    folder.run(&["mkfs", "cp.img", "--quiet", "--size", "64M", "--no-lost-and-found"]).ok();
    folder.run(&["cp", "-r", "tree/.", "cp.img:/"]).ok();
    if Path::new("/dev/fuse").exists() {
        copied.push("mount, cp -a");
        folder.run(&["mkfs", "mount.img", "--quiet", "--size", "64M", "--no-lost-and-found"]).ok();
        fs::create_dir(folder.path("mounted")).unwrap();
        let mut child = folder.command(&["mount", "mount.img", "mounted", "-f", "--tell-when-ready"]);
        let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
        let mut told = Vec::new();
        child.stdout.take().unwrap().take(6).read_to_end(&mut told).unwrap();
        assert_eq!(told, b"ready\n");
        let words = ["-a", &format!("{root}/."), folder.path("mounted").to_str().unwrap()].map(str::to_owned);
        let cp = tools::run("cp", &words);
        tools::run("umount", &[folder.path("mounted").to_str().unwrap()]).unwrap();
        assert!(child.wait().unwrap().success());
        cp.unwrap();
    }
    let roots: [&[&str]; 2] = [&["/ times"], &[]];
    for ((name, image), root_of_image) in copied.into_iter().zip(["cp.img", "mount.img"]).zip(roots) {
        judge(name, image, root_of_image, true);
    }
    println!("{table}");
    assert!(wrong.is_empty(), "{wrong}\n{table}");
}
