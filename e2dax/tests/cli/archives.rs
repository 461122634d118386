//! Odd archives, as tools in use write them and as they break: read as `tar` reads them, or refused with a reason.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use e2dax_tests::{need_tools, skip, tools};

use crate::common::Folder;

/// Runs a script with arguments, in a folder.
pub(crate) fn python(folder: &Folder, script: &str, words: &[&str]) {
    let mut command = tools::command("python3");
    let output = command.current_dir(folder.root()).args(["-c", script]).args(words).output().unwrap();
    assert!(output.status.success(), "{}", tools::words(&output));
}

pub(crate) fn shell(folder: &Folder, script: &str) {
    let output = tools::command("sh").current_dir(folder.root()).args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", tools::words(&output));
}

/// What a manifest says of files, without the times that unpacking sets.
fn files(folder: &Folder, image: &str) -> Vec<String> {
    let text = folder.run(&["manifest", image]).ok();
    let lines = text
        .lines()
        .filter(|line| line.starts_with('/') && !line.starts_with("/ ") && !line.starts_with("/lost+found"));
    let without_times = |line: &str| -> String {
        let words = line.split(' ').filter(|word| !word.contains("time="));
        words.collect::<Vec<_>>().join(" ")
    };
    lines.map(without_times).collect()
}

const AGAIN: &str = "
import sys, tarfile, io
out = tarfile.open('a.tar', 'w', format=tarfile.PAX_FORMAT)
def add(kind, name, text):
    t = tarfile.TarInfo(name)
    t.mode = 0o644 if kind != 'dir' and kind != 'full' else 0o755
    if kind == 'file':
        t.size = len(text)
        out.addfile(t, io.BytesIO(text))
        return
    t.type = {'dir': tarfile.DIRTYPE, 'full': tarfile.DIRTYPE, 'link': tarfile.SYMTYPE, 'folder': tarfile.SYMTYPE,
              'hard': tarfile.LNKTYPE, 'fifo': tarfile.FIFOTYPE}[kind]
    t.linkname = {'link': 'target', 'folder': 'place', 'hard': 'target'}.get(kind, '')
    if kind in ('link', 'folder'):
        t.mode = 0o777
    out.addfile(t)
    if kind == 'full':
        add('file', name + '/in', b'in')
add('file', 'target', b'target')
add('dir', 'place', b'')
add(sys.argv[1], 'x', b'first')
add(sys.argv[2], 'x', b'second one')
out.close()
";

#[test]
fn a_name_that_comes_again_becomes_what_tar_makes_of_it_whatever_both_are() {
    need_tools!("tar", "python3");
    if !rustix::process::geteuid().is_root() {
        skip!("owners are unpacked for root only");
    }
    let folder = Folder::with(&[]);
    let kinds = ["file", "dir", "full", "link", "folder", "hard", "fifo"];
    let mut wrong = Vec::new();
    for first in kinds {
        for second in kinds {
            python(&folder, AGAIN, &[first, second]);
            let _ = fs::remove_dir_all(folder.path("out"));
            fs::create_dir(folder.path("out")).unwrap();
            let out = tools::command("tar")
                .current_dir(folder.root())
                .args(["-xpf", "a.tar", "-C", "out"])
                .output()
                .unwrap();
            let run = folder.run(&["mkfs", "a.img", "--force", "--quiet", "--size", "1M", "--from", "a.tar"]);
            if out.status.success() != (run.code() == 0) {
                wrong.push(format!("{first}, {second}: tar {}, ours {}", tools::words(&out), run.err()));
                continue;
            }
            if run.code() == 0 {
                folder.run(&["mkfs", "b.img", "--force", "--quiet", "--size", "1M", "--from", "out"]).ok();
                let (ours, theirs) = (files(&folder, "a.img"), files(&folder, "b.img"));
                if ours != theirs {
                    wrong.push(format!("{first}, {second}: tar {theirs:#?}, ours {ours:#?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_archive_that_is_cut_off_says_so_wherever_it_ends() {
    need_tools!("tar", "gzip", "bzip2", "xz", "lz4", "lzip");
    let folder = Folder::with(&[]);
    fs::create_dir(folder.path("tree")).unwrap();
    let mut state = 1_u32;
    let noise: Vec<u8> = (0..200_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    fs::write(folder.path("tree/a"), &noise).unwrap();
    fs::write(folder.path("tree/b"), b"b").unwrap();
    shell(&folder, "tar -C tree -cf a.tar a b");
    for packer in ["gzip", "bzip2", "xz", "lz4", "lzip"] {
        shell(&folder, &format!("{packer} -c < a.tar > a.{packer}"));
    }
    fs::write(
        folder.path("a.zstd"),
        zstd::encode_all(&fs::read(folder.path("a.tar")).unwrap()[..], 3).unwrap(),
    )
    .unwrap();
    for name in ["a.tar", "a.gzip", "a.bzip2", "a.xz", "a.lz4", "a.lzip", "a.zstd"] {
        let whole = fs::read(folder.path(name)).unwrap();
        folder.run(&["mkfs", "x.img", "--force", "--quiet", "--from", name]).ok();
        fs::remove_file(folder.path("x.img")).unwrap();
        // In the data of a file, whose padding and the end mark are missing too.
        for len in [100_000, 1000] {
            fs::write(folder.path("cut"), &whole[..len]).unwrap();
            let said = folder.run(&["mkfs", "x.img", "--from", "cut"]).fails(1);
            assert!(said.contains("cut off") || said.contains("broken"), "{name} {len}: {said}");
            assert!(!folder.path("x.img").exists());
            // The same through a pipe.
            let said = folder.run_with(&["mkfs", "x.img", "--from", "-"], &whole[..len]).fails(1);
            assert!(said.contains("cut off") || said.contains("broken"), "{name} {len}: {said}");
        }
    }
    // In a header.
    let whole = fs::read(folder.path("a.tar")).unwrap();
    let second = 512 + 200_000_usize.next_multiple_of(512);
    fs::write(folder.path("cut"), &whole[..second + 100]).unwrap();
    let said = folder.run(&["mkfs", "x.img", "--from", "cut"]).fails(1);
    assert!(said.contains("cut off"), "{said}");
    // Between two members nobody can know; that there is no end mark is said.
    fs::write(folder.path("cut"), &whole[..second]).unwrap();
    let run = folder.run(&["mkfs", "x.img", "--from", "cut"]);
    assert_eq!(run.code(), 0);
    assert!(run.err().contains("no mark at its end"), "{}", run.err());
}

#[test]
fn volumes_and_labels_are_no_files_and_a_part_of_an_archive_is_no_archive() {
    need_tools!("tar");
    let folder = Folder::with(&[]);
    fs::create_dir(folder.path("tree")).unwrap();
    fs::write(folder.path("tree/big"), vec![5; 300_000]).unwrap();
    fs::write(folder.path("tree/small"), b"s").unwrap();
    shell(&folder, "tar -C tree -V 'a label' -cf label.tar big small");
    folder.run(&["mkfs", "label.img", "--quiet", "--from", "label.tar"]).ok();
    assert_eq!(files(&folder, "label.img").len(), 2);
    // Two volumes of 200 KiB.
    shell(&folder, "printf 'n two.tar\\n' | tar -C tree -M -L 200 -cf one.tar big small");
    for volume in ["one.tar", "two.tar"] {
        let path =
            [folder.path(volume), folder.path("tree").join(volume)].into_iter().find(|path| path.exists());
        let path = path.unwrap_or_else(|| panic!("tar wrote no {volume}"));
        let said = folder.run(&["mkfs", "x.img", "--from", path.to_str().unwrap()]).fails(1);
        assert!(said.contains("volume") || said.contains("cut off"), "{volume}: {said}");
        assert!(!folder.path("x.img").exists());
    }
}

#[test]
fn what_is_said_of_a_member_that_is_left_out_is_not_said_of_the_next() {
    need_tools!("python3");
    let folder = Folder::with(&[]);
    python(&folder, LEFT_OUT, &[]);
    let run = folder.run(&["mkfs", "a.img", "--quiet", "--from", "a.tar"]);
    assert_eq!(run.code(), 0, "{}", run.err());
    for side in ["a.img", "a.tar"] {
        let said = folder.run(&["manifest", side]);
        let lines: Vec<String> =
            said.out().lines().filter(|line| line.starts_with("/after-")).map(str::to_owned).collect();
        assert_eq!(lines.len(), 3, "{side}: {}", said.out());
        assert!(lines.iter().all(|line| line.contains("mtime=5") && !line.contains("xattr")), "{lines:?}");
        assert!(!said.out().contains("wrong"), "{}", said.out());
    }
}

#[test]
fn a_link_has_no_access_list() {
    need_tools!("python3");
    let folder = Folder::with(&[]);
    let write = "
import tarfile
t = tarfile.open('a.tar', 'w', format=tarfile.PAX_FORMAT)
for record in ['SCHILY.acl.access', 'SCHILY.acl.default']:
    m = tarfile.TarInfo(record)
    m.type, m.linkname, m.mode = tarfile.SYMTYPE, 'to', 0o777
    m.pax_headers = {record: 'user::rw-,user:5:r--,group::r--,mask::r--,other::---'}
    t.addfile(m)
t.close()
";
    python(&folder, write, &[]);
    folder.run(&["mkfs", "a.img", "--quiet", "--from", "a.tar"]).ok();
    for line in files(&folder, "a.img") {
        assert!(line.contains(" l 0777 ") && !line.contains("xattr"), "{line}");
    }
}

/// A label, and attributes in the form of Solaris, each behind a header and a long name of its own, and before a file.
const LEFT_OUT: &str = r"
import tarfile
def member(name, kind, data=b''):
    m = tarfile.TarInfo(name)
    m.type, m.size, m.mtime = kind, len(data), 5
    return m.tobuf(tarfile.GNU_FORMAT) + data.ljust(-len(data) % 512 + len(data), b'\0')
out = b''
for kind in b'VAE':
    out += member('x', b'x', b'12 mtime=77\n' + b'32 SCHILY.xattr.user.of=another\n')
    out += member('././@LongLink', b'L', b'wrong\0')
    out += member('left-out', bytes([kind])) + member('after-' + chr(kind), b'0')
open('a.tar', 'wb').write(out + bytes(1024))
";

#[test]
fn what_is_no_tar_archive_is_called_by_its_name() {
    need_tools!("cpio", "tar", "python3");
    let folder = Folder::with(&[]);
    fs::create_dir(folder.path("tree")).unwrap();
    fs::write(folder.path("tree/file"), vec![5; 3000]).unwrap();
    for form in ["newc", "odc", "bin", "crc"] {
        shell(&folder, &format!("cd tree && echo file | cpio -o -H {form} --quiet > ../a.cpio"));
        let said = folder.run(&["mkfs", "x.img", "--from", "a.cpio"]).fails(1);
        assert!(said.contains("cpio"), "{form}: {said}");
        shell(&folder, "gzip -c a.cpio > a.cpio.gz");
        let said = folder.run(&["mkfs", "x.img", "--from", "a.cpio.gz"]).fails(1);
        assert!(said.contains("cpio"), "{form}: {said}");
    }
    python(&folder, "import zipfile; zipfile.ZipFile('a.zip', 'w').write('tree/file')", &[]);
    assert!(folder.run(&["mkfs", "x.img", "--from", "a.zip"]).fails(1).contains("zip"));
    fs::write(folder.path("empty"), b"").unwrap();
    fs::write(folder.path("noise"), vec![0x55; 4096]).unwrap();
    assert!(folder.run(&["mkfs", "x.img", "--from", "empty"]).fails(1).contains("empty"));
    assert!(folder.run(&["mkfs", "x.img", "--from", "noise"]).fails(1).contains("no tar archive"));
    // A pipe that a shell gives a name.
    shell(&folder, "tar -C tree -cf a.tar . && mkfifo pipe");
    let path = folder.path("pipe");
    let bytes = fs::read(folder.path("a.tar")).unwrap();
    let writer = std::thread::spawn(move || fs::write(path, bytes));
    folder.run(&["mkfs", "pipe.img", "--quiet", "--from", "pipe"]).ok();
    writer.join().unwrap().unwrap();
    assert_eq!(files(&folder, "pipe.img").len(), 1);
}

const NUMBERS: &str = "
import sys, tarfile, io
form = {'gnu': tarfile.GNU_FORMAT, 'pax': tarfile.PAX_FORMAT}[sys.argv[1]]
out = tarfile.open('a.tar', 'w', format=form)
for nr, (uid, mtime) in enumerate([(4294967294, -2147483648), (2097152, -1), (70000, 15032385535), (0, 8589934592)]):
    t = tarfile.TarInfo('f%d' % nr)
    t.uid = t.gid = uid
    t.mtime = mtime
    out.addfile(t)
out.close()
";

#[test]
fn large_and_negative_numbers_are_the_same_in_every_spelling() {
    need_tools!("python3");
    let folder = Folder::with(&[]);
    let mut images = Vec::new();
    for form in ["gnu", "pax"] {
        python(&folder, NUMBERS, &[form]);
        folder.run(&["mkfs", "a.img", "--force", "--quiet", "--from", "a.tar"]).ok();
        images.push(fs::read(folder.path("a.img")).unwrap());
        let text = folder.run(&["manifest", "a.img"]).ok();
        for (name, uid, mtime) in [
            ("/f0", "4294967294", "mtime=-2147483648"),
            ("/f1", "2097152", "mtime=-1"),
            ("/f2", "70000", "mtime=15032385535"),
            ("/f3", "0", "mtime=8589934592"),
        ] {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!((words[3], words[4]), (uid, uid), "{form}: {line}");
            assert!(words.contains(&mtime), "{form}: {line}");
        }
    }
    assert!(images[0] == images[1]);
}

#[test]
fn sparse_files_of_many_pieces_are_the_same_in_every_form() {
    need_tools!("tar");
    let folder = Folder::with(&[]);
    fs::create_dir(folder.path("tree")).unwrap();
    // More than a header and one block behind it hold; an end that is a hole, and one that is not.
    for (name, pieces, end) in [("many", 60_u64, 32 << 20), ("odd", 5, 5 * 131_072 + 7), ("hole", 0, 1 << 20)]
    {
        let file = fs::File::create(folder.path("tree").join(name)).unwrap();
        file.set_len(end).unwrap();
        for piece in 0..pieces {
            std::os::unix::fs::FileExt::write_all_at(&file, &[piece as u8 + 1; 8192], piece * 131_072)
                .unwrap();
        }
        file.set_len(end).unwrap();
    }
    shell(&folder, "touch -d @1500000000 tree/* tree");
    folder.run(&["mkfs", "dir.img", "--quiet", "--from", "tree"]).ok();
    let expected = files(&folder, "dir.img");
    assert!(expected.iter().all(|line| line.contains("holes=")), "{expected:#?}");
    for words in [
        "--format=oldgnu",
        "--format=gnu",
        "--format=posix --sparse-version=0.0",
        "--format=posix --sparse-version=0.1",
        "--format=posix --sparse-version=1.0",
    ] {
        shell(&folder, &format!("tar --sparse {words} -C tree -cf a.tar ."));
        assert!(fs::metadata(folder.path("a.tar")).unwrap().len() < 2 << 20, "{words}");
        folder.run(&["mkfs", "a.img", "--force", "--quiet", "--from", "a.tar"]).ok();
        assert_eq!(files(&folder, "a.img"), expected, "{words}");
    }
}

#[test]
fn members_below_links_stay_inside_whatever_the_links_say() {
    need_tools!("tar");
    let folder = Folder::with(&[]);
    let tree = folder.path("tree");
    fs::create_dir_all(tree.join("real/deep")).unwrap();
    for (name, target) in
        [("link", "real"), ("rooted", "/real/deep"), ("up", "../../../real"), ("chain", "link/deep")]
    {
        symlink(target, tree.join(name)).unwrap();
    }
    shell(&folder, "tar -C tree -cf a.tar real link rooted up chain");
    for (nr, name) in ["link", "rooted", "up", "chain"].iter().enumerate() {
        let other = folder.path("other");
        fs::create_dir_all(other.join(name)).unwrap();
        fs::write(other.join(name).join(format!("f{nr}")), name).unwrap();
        shell(&folder, &format!("tar -C other -rf a.tar {name}/f{nr}"));
    }
    folder.run(&["mkfs", "a.img", "--quiet", "--from", "a.tar"]).ok();
    let paths: Vec<String> =
        files(&folder, "a.img").iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    for path in ["/real/f0", "/real/deep/f1", "/real/f2", "/real/deep/f3"] {
        assert!(paths.iter().any(|found| found == path), "{path}: {paths:?}");
    }
    assert!(!Path::new("/real").exists());
}

#[test]
fn permissions_and_lists_of_access_control_say_the_same_whoever_packed_them() {
    need_tools!("tar", "bsdtar", "setfacl", "python3");
    let folder = Folder::with(&[]);
    fs::create_dir_all(folder.path("tree/dir")).unwrap();
    fs::write(folder.path("tree/file"), b"x").unwrap();
    let set = "setfacl -m u:31000:rwx,g:32000:r tree/dir && setfacl -d -m u:31007:r tree/dir && setfacl -m u:31005:rw tree/file";
    if !tools::command("sh").current_dir(folder.root()).args(["-c", set]).output().unwrap().status.success() {
        skip!("no access control lists here");
    }
    shell(&folder, "touch -d @1500000000 tree/dir tree/file tree");
    folder.run(&["mkfs", "dir.img", "--quiet", "--from", "tree"]).ok();
    let expected = files(&folder, "dir.img");
    assert!(expected.iter().all(|line| line.contains("posix_acl_access")), "{expected:#?}");
    assert!(expected.iter().any(|line| line.starts_with("/dir d 0775 ")), "{expected:#?}");
    // bsdtar writes the permissions of the owning group into the header, and not the mask.
    for pack in [
        "tar --format=posix --acls --numeric-owner -C tree -cf a.tar .",
        "tar --format=posix --xattrs --xattrs-include='*' -C tree -cf a.tar .",
        "bsdtar --format=pax --acls --numeric-owner -C tree -cf a.tar .",
    ] {
        shell(&folder, pack);
        folder.run(&["mkfs", "a.img", "--force", "--quiet", "--from", "a.tar"]).ok();
        assert_eq!(files(&folder, "a.img"), expected, "{pack}");
    }
    // A list of three entries is the permissions; one for what is made in a directory is no file's.
    let script = "
import tarfile
out = tarfile.open('a.tar', 'w', format=tarfile.PAX_FORMAT)
t = tarfile.TarInfo('f')
t.mode = 0o600
e = lambda tag, bits: bytes([tag, 0, bits, 0]) + b'\\xff' * 4
t.pax_headers = {'SCHILY.xattr.system.posix_acl_access':
    (b'\\2\\0\\0\\0' + e(1, 6) + e(4, 4) + e(32, 0)).decode('utf-8', 'surrogateescape'),
    'SCHILY.acl.default': 'user::rwx,group::r-x,other::r-x'}
out.addfile(t)
out.close()
";
    python(&folder, &script.replace("'w', format", "'w', errors='surrogateescape', format"), &[]);
    let run = folder.run(&["mkfs", "a.img", "--force", "--quiet", "--from", "a.tar"]);
    assert_eq!(run.code(), 0, "{}", run.err());
    assert!(run.err().contains("posix_acl_default is left out: it is no directory"), "{}", run.err());
    let line = files(&folder, "a.img");
    assert!(line[0].starts_with("/f f 0640 ") && !line[0].contains("xattr"), "{line:?}");
}

#[test]
fn names_of_attributes_and_permissions_of_links_are_those_that_tar_unpacks() {
    need_tools!("tar", "bsdtar", "setfattr", "python3");
    let folder = Folder::with(&[]);
    fs::create_dir(folder.path("tree")).unwrap();
    fs::write(folder.path("tree/f"), b"x").unwrap();
    let set = "setfattr -n 'user.a=b' -v 1 tree/f && setfattr -n 'user.50% of%41' -v 2 tree/f && setfattr -n user.empty tree/f";
    if !tools::command("sh").current_dir(folder.root()).args(["-c", set]).output().unwrap().status.success() {
        skip!("no extended attributes here");
    }
    folder.run(&["mkfs", "dir.img", "--quiet", "--from", "tree"]).ok();
    let expected = files(&folder, "dir.img");
    assert!(expected[0].contains("user.50%\\x20of%41:32,user.a=b:31,user.empty:"), "{expected:?}");
    for pack in [
        "tar --format=posix --xattrs -C tree -cf a.tar .",
        "bsdtar --format=pax --xattrs -C tree -cf a.tar .",
        "\"$0\" tar --force dir.img -o a.tar",
    ] {
        let pack = pack.replace("$0", env!("CARGO_BIN_EXE_e2dax"));
        shell(&folder, &pack);
        folder.run(&["mkfs", "a.img", "--force", "--quiet", "--from", "a.tar"]).ok();
        assert_eq!(files(&folder, "a.img"), expected, "{pack}");
    }
    // Python gives links the permissions of files, if nobody tells it others; Linux has one kind for links.
    let script = "
import tarfile
out = tarfile.open('a.tar', 'w')
t = tarfile.TarInfo('l')
t.type, t.linkname = tarfile.SYMTYPE, 'f'
out.addfile(t)
out.close()
";
    python(&folder, script, &[]);
    folder.run(&["mkfs", "a.img", "--force", "--quiet", "--from", "a.tar"]).ok();
    assert!(files(&folder, "a.img")[0].starts_with("/l l 0777 "), "{:?}", files(&folder, "a.img"));
}
