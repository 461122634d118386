//! What is lost of odd archives, and that somebody is told: by `mkfs`, and by `manifest` and `diff`, which read them otherwise.

use std::fs;
use std::time::Instant;

use e2dax_tests::{need_tools, tools};

use crate::archives::{python, shell};
use crate::common::Folder;

/// What `mkfs`, `manifest` and `diff` say of `a.tar`.
fn said_of(folder: &Folder) -> [String; 3] {
    let lines: [&[&str]; 3] = [
        &["mkfs", "a.img", "--force", "--quiet", "--from", "a.tar"],
        &["manifest", "a.tar"],
        &["diff", "a.tar", "a.tar"],
    ];
    lines.map(|line| {
        let run = folder.run(line);
        assert_eq!(run.code(), 0, "{line:?}: {}", run.err());
        run.err()
    })
}

#[test]
fn what_follows_a_lone_block_of_zeros_is_told_of_and_an_end_of_one_block_is_an_end() {
    need_tools!("tar");
    let folder = Folder::with(&[]);
    shell(&folder, "mkdir tree && echo x > tree/a && echo y > tree/b && tar -b 1 -C tree -cf whole.tar a b");
    let whole = fs::read(folder.path("whole.tar")).unwrap();
    assert_eq!(whole.len(), 6 * 512);
    // Behind the first member, in front of what is no header.
    fs::write(folder.path("a.tar"), [&whole[..1024], &[0; 512], &[b'?'; 512], &whole[1024..]].concat())
        .unwrap();
    for said in said_of(&folder) {
        assert!(said.contains("a lone block of zeros at byte 1024 is left out"), "{said}");
    }
    for len in [5 * 512, 6 * 512] {
        fs::write(folder.path("a.tar"), &whole[..len]).unwrap();
        assert_eq!(said_of(&folder), ["", "", ""], "{len}");
    }
}

#[test]
fn manifest_and_diff_tell_what_of_an_archive_they_leave_out() {
    need_tools!("python3");
    let folder = Folder::with(&[]);
    let write = r"
import tarfile
t = tarfile.open('a.tar', 'w', format=tarfile.PAX_FORMAT)
for name, headers in {'name': {'SCHILY.xattr.odd.name': 'v'}, 'list': {'SCHILY.xattr.system.posix_acl_access': 'v'},
                      'ace': {'SCHILY.acl.ace': 'owner@:r::allow'}, 'flag': {'SCHILY.fflags': 'nosuch'}}.items():
    m = tarfile.TarInfo(name)
    m.pax_headers = headers
    t.addfile(m)
    if name == 'name':
        m = tarfile.TarInfo('other')
        m.type, m.linkname, m.pax_headers = tarfile.LNKTYPE, name, headers
        t.addfile(m)
t.close()
whole = open('a.tar', 'rb').read().rstrip(b'\0')
open('a.tar', 'wb').write(whole + bytes(-len(whole) % 512))
";
    python(&folder, write, &[]);
    let [made, listed, compared] = said_of(&folder);
    for word in [
        "/name: attribute odd.name",
        "/list: attribute",
        "/ace: ",
        "/flag: the flag nosuch",
        "no mark at its end",
    ] {
        let word = word.trim_start_matches('/');
        assert!(made.contains(word), "{word}: {made}");
    }
    assert_eq!(listed.replace("warning: a.tar: ", "warning: "), made);
    // Both sides.
    assert_eq!(compared, format!("{listed}{listed}"));
}

#[test]
fn what_many_attributes_take_is_bounded_and_told() {
    need_tools!("python3");
    let folder = Folder::with(&[]);
    let write = r"
import tarfile
t = tarfile.open('a.tar', 'w', format=tarfile.PAX_FORMAT)
m = tarfile.TarInfo('f')
m.pax_headers = {'SCHILY.xattr.user.%05d' % nr: '%05d' % nr for nr in range(9000)}
t.addfile(m)
t.close()
";
    python(&folder, write, &[]);
    let begin = Instant::now();
    let run = folder.run(&["mkfs", "a.img", "--quiet", "--from", "a.tar"]);
    assert_eq!(run.code(), 0, "{}", run.err());
    assert!(run.err().contains("f: attributes beyond 131072 bytes are left out"), "{}", run.err());
    assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
    assert!(folder.run(&["check", "a.img"]).ok().contains("clean"));
    let kept = folder.run(&["xattr", "a.img:/f"]).ok();
    assert!(kept.lines().count() > 50, "{kept}");
}

#[test]
fn headers_for_all_members_are_no_way_to_fill_memory() {
    need_tools!("python3");
    let folder = Folder::with(&[]);
    let write = r"
import sys, tarfile
t = tarfile.open('a.tar', 'w', format=tarfile.PAX_FORMAT, pax_headers={sys.argv[1]: 'x' * int(sys.argv[2])})
for nr in range(3):
    t.addfile(tarfile.TarInfo('f%d' % nr))
t.close()
";
    // A remark is about the archive: no member gets it.
    for (key, len) in [("comment", "60000"), ("comment", "1000000"), ("gname", "4000")] {
        python(&folder, write, &[key, len]);
        assert_eq!(said_of(&folder), ["", "", ""], "{key}");
    }
    for key in ["gname", "linkpath", "SCHILY.acl.access"] {
        python(&folder, write, &[key, "5000"]);
        let said = folder.run(&["mkfs", "b.img", "--from", "a.tar"]).fails(1);
        assert!(said.contains("says 5000 bytes of all members that follow"), "{said}");
    }
}

#[test]
fn a_deep_path_takes_memory_for_its_names_and_not_for_all_paths_above() {
    need_tools!("python3", "prlimit");
    let folder = Folder::with(&[]);
    let write = r"
import tarfile
t = tarfile.open('a.tar', 'w', format=tarfile.GNU_FORMAT)
t.addfile(tarfile.TarInfo('a/' * 15000 + 'f'))
t.close()
";
    python(&folder, write, &[]);
    let e2dax = env!("CARGO_BIN_EXE_e2dax");
    for verb in ["manifest a.tar", "diff a.tar a.tar"] {
        // The paths of all directories together are 225 MB.
        let script = format!("prlimit --as=200000000 {e2dax} {verb} | wc -c");
        let output = tools::command("sh").current_dir(folder.root()).args(["-c", &script]).output().unwrap();
        let words = tools::words(&output);
        assert!(output.stderr.is_empty(), "{verb}: {words}");
        let bytes: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        assert!(if verb.starts_with("diff") { bytes == 0 } else { bytes > 225_000_000 }, "{verb}: {bytes}");
    }
}

#[test]
fn a_link_to_a_later_member_takes_the_place_of_an_earlier_one_of_its_name() {
    need_tools!("python3");
    let folder = Folder::with(&[]);
    let write = r"
import io, sys, tarfile
t = tarfile.open('a.tar', 'w')
def file(name, text):
    m = tarfile.TarInfo(name)
    m.size = len(text)
    t.addfile(m, io.BytesIO(text))
def link(name, target):
    m = tarfile.TarInfo(name)
    m.type, m.linkname = tarfile.LNKTYPE, target
    t.addfile(m)
file('x', b'first')
link('x', 'later')
if 'again' in sys.argv:
    file('x', b'last')
file('later', b'second')
t.close()
";
    for (words, text) in [(&[][..], "second"), (&["again"], "last")] {
        python(&folder, write, words);
        folder.run(&["mkfs", "a.img", "--force", "--quiet", "--from", "a.tar"]).ok();
        assert_eq!(folder.run(&["cat", "a.img:/x"]).ok(), text);
        assert_eq!(folder.run(&["cat", "a.img:/later"]).ok(), "second");
        let same = |side: &str| {
            let run = folder.run(&["diff", "--without", "times", "a.tar", side]);
            assert_eq!(run.code(), 0, "{}", run.out());
        };
        folder.run(&["rm", "-r", "a.img:/lost+found"]).ok();
        same("a.img");
    }
}

#[test]
fn warnings_name_the_same_files_in_every_run() {
    need_tools!("python3");
    let folder = Folder::with(&[]);
    let write = r"
import tarfile
t = tarfile.open('a.tar', 'w', format=tarfile.PAX_FORMAT)
for nr in range(40):
    m = tarfile.TarInfo('f%d' % nr)
    m.mtime = 1 << 40
    t.addfile(m)
t.close()
";
    python(&folder, write, &[]);
    let said = || folder.run(&["mkfs", "a.img", "--force", "--quiet", "--from", "a.tar"]).err();
    let first = said();
    assert!(first.contains("/f0, /f1, /f10 and 37 more: a time is not from 1901 to 2446"), "{first}");
    for _ in 0..4 {
        assert_eq!(said(), first);
    }
}

#[test]
fn a_member_may_be_called_as_other_things_begin() {
    need_tools!("python3");
    let folder = Folder::with(&[]);
    let write = r"
import io, os, sys, tarfile
m = tarfile.TarInfo(os.fsdecode(bytes.fromhex(sys.argv[1])))
m.size = 1
t = tarfile.open('a.tar', 'w', errors='surrogateescape')
t.addfile(m, io.BytesIO(b'x'))
t.close()
";
    let marks = [
        "425a6839",
        "4c5a4950",
        "504b0304",
        "303730373031",
        "213c617263683e",
        "68737173",
        "7f454c46",
        "1f8b08",
        "28b52ffd",
    ];
    for mark in marks {
        python(&folder, write, &[&format!("{mark}78")]);
        assert_eq!(said_of(&folder), ["", "", ""], "{mark}");
        folder
            .run_with(
                &["mkfs", "b.img", "--force", "--quiet", "--from", "-"],
                &fs::read(folder.path("a.tar")).unwrap(),
            )
            .ok();
        assert!(fs::read(folder.path("a.img")).unwrap() == fs::read(folder.path("b.img")).unwrap(), "{mark}");
        // Packed, too.
        shell(&folder, "gzip -c a.tar > a.tar.gz");
        folder.run(&["mkfs", "b.img", "--force", "--quiet", "--from", "a.tar.gz"]).ok();
        assert!(fs::read(folder.path("a.img")).unwrap() == fs::read(folder.path("b.img")).unwrap(), "{mark}");
    }
}

#[test]
fn times_are_read_as_python_writes_them() {
    need_tools!("python3");
    let folder = Folder::with(&[]);
    let write = r"
import tarfile
t = tarfile.open('a.tar', 'w', format=tarfile.PAX_FORMAT)
for nr, time in enumerate([1e-09, 2.5e-07, -1e-09, 5e-324, 1.5]):
    m = tarfile.TarInfo('f%d' % nr)
    m.mtime = time
    t.addfile(m)
t.close()
";
    python(&folder, write, &[]);
    assert_eq!(said_of(&folder), ["", "", ""]);
    let times: Vec<String> = (0..5)
        .map(|nr| {
            let lines = folder.run(&["manifest", "a.img"]).ok();
            let line = lines.lines().find(|line| line.starts_with(&format!("/f{nr} "))).unwrap();
            line.split(' ').find_map(|word| word.strip_prefix("mtime=")).unwrap().to_owned()
        })
        .collect();
    assert_eq!(times, ["0.000000001", "0.000000250", "-1.999999999", "0", "1.500000000"]);
}

#[test]
fn what_follows_a_packed_archive_is_no_part_of_it_and_is_told() {
    need_tools!("tar", "xz");
    let folder = Folder::with(&[]);
    fs::write(folder.path("f"), vec![7; 5000]).unwrap();
    shell(
        &folder,
        "tar -cf a.tar f && xz --format=lzma -k a.tar && xz --format=lzma -c < a.tar > sized.lzma",
    );
    shell(&folder, "cat a.tar.lzma a.tar.lzma > twice && (cat a.tar.lzma; echo garbage) > behind");
    for name in ["a.tar.lzma", "sized.lzma"] {
        folder.run(&["mkfs", "a.img", "--force", "--quiet", "--from", name]).ok();
    }
    for name in ["twice", "behind"] {
        let said = folder.run(&["mkfs", "b.img", "--from", name]).fails(1);
        assert!(said.contains("something else follows it"), "{said}");
    }
}

/// An archive of members whose header for all of them says attributes: how many of each.
const FOR_ALL: &str = r"
import sys, tarfile
members, attributes = map(int, sys.argv[1:])
said = {'SCHILY.xattr.user.%04d' % nr: 'value' for nr in range(attributes)}
t = tarfile.open('a.tar', 'w', format=tarfile.PAX_FORMAT, pax_headers=said)
for nr in range(members):
    t.addfile(tarfile.TarInfo('f%05d' % nr))
t.close()
";

#[test]
fn what_an_archive_says_of_all_members_is_in_memory_once() {
    need_tools!("python3", "prlimit");
    let folder = Folder::with(&[]);
    python(&folder, FOR_ALL, &["20000", "1700"]);
    // Each with a list of its own would take gigabytes, and hours.
    let e2dax = env!("CARGO_BIN_EXE_e2dax");
    for line in ["mkfs a.img --quiet --from a.tar", "manifest a.tar"] {
        let script = format!("exec prlimit --data=600000000 --cpu=60 {e2dax} {line} >out");
        let output = tools::command("sh").current_dir(folder.root()).args(["-c", &script]).output().unwrap();
        let said = tools::words(&output);
        assert!(output.status.success(), "{line}: {said}");
        assert!(said.contains("f00002 and 19997 more: attributes beyond 16384 bytes are left out"), "{said}");
    }
    let kept = folder.run(&["xattr", "a.img:/f19999"]).ok();
    assert!(kept.lines().count() > 50 && kept == folder.run(&["xattr", "a.img:/f00000"]).ok());
}

#[test]
fn archives_packed_in_any_way_are_read_by_all_who_read_archives() {
    need_tools!("tar");
    let folder = Folder::with(&[]);
    shell(&folder, "mkdir tree; seq 1 5000 >tree/f; tar -C tree -cf a.tar f; tar -H v7 -C tree -cf v7.tar f");
    let expected = folder.run(&["manifest", "a.tar"]).ok();
    let ways = [
        ("gzip", "gzip -c"),
        ("zstd", "zstd -qc"),
        ("xz", "xz -c"),
        ("xz", "xz --format=lzma -c"),
        ("bzip2", "bzip2 -c"),
        ("lz4", "lz4 -qc"),
        ("lz4", "lz4 -qlc"),
        ("lz4", "(head -c 4096 | lz4 -qc; lz4 -qc -B4)"),
        ("lz4", "(head -c 4096 | lz4 -qc -B4; lz4 -qc -BD)"),
        ("lzip", "lzip -c"),
        ("cat", "cat v7.tar"),
    ];
    for (tool, way) in ways.into_iter().filter(|(tool, _)| tools::have(tool)) {
        shell(&folder, &format!("{way} <a.tar >packed"));
        assert_eq!(folder.run(&["manifest", "packed"]).ok(), expected, "{tool}: {way}");
        assert_eq!(folder.run(&["diff", "a.tar", "packed"]).ok(), "", "{tool}: {way}");
        folder.run(&["mkfs", "a.img", "--force", "--quiet", "--from", "packed"]).ok();
    }
}

#[test]
fn a_packed_archive_that_is_cut_off_anywhere_is_refused() {
    need_tools!("tar", "lz4");
    let folder = Folder::with(&[]);
    shell(&folder, "mkdir tree; seq 1 5000 >tree/f; tar -C tree -cf a.tar f");
    for (way, whole_end) in [("lz4 -qc --no-frame-crc", 4), ("lz4 -qc", 8), ("lz4 -qlc", 0)] {
        shell(&folder, &format!("{way} <a.tar >whole"));
        let whole = fs::read(folder.path("whole")).unwrap();
        // The mark at the end, and what is in front of it.
        for cut in [1, 2, 3, whole_end, 9].into_iter().filter(|&cut| cut > 0) {
            fs::write(folder.path("cut"), &whole[..whole.len() - cut]).unwrap();
            let said = folder.run(&["mkfs", "a.img", "--quiet", "--from", "cut"]).fails(1);
            assert!(said.contains("its lz4 data"), "{way} without {cut}: {said}");
        }
        // One behind the other, and the first of them cut.
        fs::write(folder.path("two"), [&whole[..], &whole].concat()).unwrap();
        folder.run(&["mkfs", "b.img", "--force", "--quiet", "--from", "two"]).code();
    }
}
