//! The states in which an interrupted ext2 operation may leave an image, made by debugfs: what `e2fsck -p` makes of
//! each, and that our mending makes the same.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use e2dax_tests::{Scratch, need_tools, tools, tree};
use ext2_core::{Ext2, FileBlock, FileKind, Follow, NewInode, OpenOptions};
use ext2_image::check::{Checker, Outcome};

const BLOCK: usize = 1024;

/// Name, and commands of debugfs. `{f}` is the inode of `d1/f` as debugfs wants it, and so on; `{f:0}` its first block.
/// A command that begins with `=` is a patch of bytes: `=BLOCK+OFFSET HEX`.
const STATES: [(&str, &str); 62] = [
    ("grow: a large file, and no feature large_file", "sif d1/f size 3221225472; feature -large_file"),
    ("create: inode with no links, dtime 0, no entry", "unlink d1/f; sif {f} links_count 0; sif {f} dtime 0"),
    (
        "create: inode with no links, dtime set, no entry",
        "unlink d1/f; sif {f} links_count 0; sif {f} dtime 20250101",
    ),
    ("create: empty file with a link, no entry", "unlink d1/e"),
    ("create: file with a link and bytes, no entry", "unlink d1/f"),
    ("create: fast symlink with a link, no entry", "unlink d1/sl"),
    ("create: entry for an inode of zeros", "clri {e}"),
    ("create: entry for an inode with no links", "sif {f} links_count 0"),
    ("bit of the inode bitmap not set", "freei {f}"),
    ("bits of the block bitmap not set", "freeb {f:0} 3"),
    ("links, but dtime set", "sif {f} dtime 20250101"),
    ("mkdir: directory with links, no entry", "unlink d1/dir"),
    ("mkdir: directory without links, no entry", "rm d1/dir/c; unlink d1/dir; sif {dir} links_count 0"),
    ("mkdir: entry for a directory without links", "rm d1/dir/c; sif {dir} links_count 0"),
    ("mkdir: links of the parent not raised", "sif d1 links_count 2"),
    (
        "mkdir: directory of size 0 without a block",
        "rm d1/dir/c; sif d1/dir block[0] 0; sif d1/dir size 0; sif d1/dir blocks 0; freeb {dir:0}",
    ),
    ("mkdir: block of zeros", "rm d1/dir/c; zap_block -f d1/dir 0"),
    ("directory grown by a block of zeros, size old", "setb 4000; sif d1/dir block[1] 4000; zap_block 4000"),
    (
        "directory grown by a good block, size old",
        "setb 4000; sif d1/dir block[1] 4000; =4000+0 0000000000040000",
    ),
    ("unlink: entry gone, still a link", "unlink d1/g"),
    ("unlink: no links, entry there", "sif {g} links_count 0; sif {g} dtime 20250101"),
    ("unlinked while open", "unlink d1/g; sif {g} links_count 0"),
    ("unlink of one of two: links still 2", "unlink d2/t2"),
    ("unlink of one of two: links lowered first", "sif d2/t links_count 1"),
    ("rmdir: no links, entry there", "rm d1/dir/c; sif {dir} links_count 0; sif {dir} dtime 20250101"),
    ("rmdir: entry gone first", "rm d1/dir/c; unlink d1/dir"),
    ("rename: both names, one link", "ln d1/f d2/f"),
    ("rename: both names, two links", "ln d1/f d2/f; sif d1/f links_count 2"),
    ("rename of a directory: both names", "ln d1/dir d1/dir2"),
    ("rename of a directory: no name", "unlink d1/dir"),
    ("rename of a directory across: '..' old", "ln d1/dir d2/dir; unlink d1/dir"),
    (
        "rename of a directory across: '..' old, counts right",
        "ln d1/dir d2/dir; unlink d1/dir; sif d1 links_count 2; sif d2 links_count 3",
    ),
    (
        "rename over: entry changed, old file without a name",
        "unlink d2/t; unlink d2/t2; sif {t} links_count 1; ln d1/f d2/t; sif d1/f links_count 2",
    ),
    ("rename over: old file without links first", "unlink d2/t2; sif {t} links_count 0"),
    (
        "rename over: old file in lost+found, entry changed",
        "unlink d2/t2; unlink d2/t; ln {t} lost+found/#20; sif {t} links_count 1; ln d1/f d2/t; sif d1/f links_count 2",
    ),
    (
        "rename over: old file in lost+found, before the change",
        "unlink d2/t2; ln {t} lost+found/#20; sif {t} links_count 1",
    ),
    ("truncate: size lowered, blocks there", "sif d1/g size 1500"),
    ("truncate: pointers gone, size old", "sif d1/g block[IND] 0; sif d1/g blocks 24"),
    ("truncate: pointers gone, i_blocks old", "sif d1/g block[IND] 0"),
    ("i_blocks wrong", "sif d1/g blocks 2"),
    ("grow: size raised, no pointer", "sif d1/f size 9000"),
    ("grow: pointers, size old", "setb 4000 2; sif d1/f block[5] 4000; sif d1/f block[6] 4001"),
    ("a block in two files", "sif d1/f block[0] {g:0}"),
    ("grow: pointers, nothing else", "sif d1/f block[5] 4000; sif d1/f block[6] 4001"),
    ("indirect block of garbage", "setb 4000; sif d1/f block[IND] 4000; =4000+0 deadbe7fdeadbe7f"),
    ("indirect block of zeros", "setb 4000; zap_block 4000; sif d1/f block[IND] 4000"),
    ("orphan: no links, no entry", "unlink d1/g; sif {g} links_count 0; ssv last_orphan {#g}"),
    ("orphan: to be truncated", "sif d1/g size 1500; ssv last_orphan {#g}"),
    ("orphan: untouched", "ssv last_orphan {#g}"),
    (
        "orphan: to be truncated, blocks free in the bitmap",
        "sif d1/g size 1500; ssv last_orphan {#g}; freeb {g:3} 4",
    ),
    ("orphan: truncated, and dying since", "sif d1/g dtime @0x6553f118; ssv last_orphan {#g}"),
    (
        "orphan: truncated, and dead since",
        "sif d1/g dtime @0x6553f118; sif d1/g links_count 0; ssv last_orphan {#g}",
    ),
    ("a high half of the block of attributes", "sif d1/f file_acl 0x100000000"),
    ("attribute block of zeros", "setb 4000; zap_block 4000; sif d1/f file_acl 4000; sif d1/f blocks 12"),
    (
        "all counts wrong",
        "ssv free_blocks_count 7; ssv free_inodes_count 7; set_bg 0 free_blocks_count 3; set_bg 0 used_dirs_count 9",
    ),
    ("block bitmap of zeros in its first bytes", "freeb 1 800"),
    ("type of an entry wrong", "={d1:0}+dir/7 07"),
    ("type of an entry unknown", "={d1:0}+dir/7 00"),
    ("a name torn", "={d1:0}+dir/9 0000"),
    ("a name twice", "ln d1/e d1/x; ln d1/f d1/y; ={d1:0}+y/8 78"),
    (
        "grow of a directory: a block and not the size, a name of what was not made",
        "setb 4000; sif d2 block[1] 4000; =4000+0 6400000000040101780000",
    ),
    ("nothing but the mark", ""),
];

/// An image with some files of each kind.
fn base(folder: &Path) -> PathBuf {
    let path = folder.join("base.img");
    fs::File::create(&path).unwrap().set_len(8 << 20).unwrap();
    tools::mke2fs(&["-b", "1024", "-I", "256", "-N", "256", "-t", "ext2", path.to_str().unwrap()]);
    for (name, bytes) in
        [("f", vec![b'F'; 5000]), ("g", vec![b'G'; 40_000]), ("c", vec![b'C'; 100]), ("e", vec![])]
    {
        fs::write(folder.join(name), bytes).unwrap();
    }
    let write = |from: &str, to: &str| format!("write {}/{from} {to}", folder.display());
    let commands = [
        "mkdir d1".into(),
        "mkdir d2".into(),
        write("f", "d1/f"),
        write("g", "d1/g"),
        write("e", "d1/e"),
        "mkdir d1/dir".into(),
        write("c", "d1/dir/c"),
        "symlink d1/sl target".into(),
        write("c", "d2/t"),
        "ln d2/t d2/t2".into(),
        "sif d2/t links_count 2".into(),
    ];
    debugfs(&path, &commands);
    tools::e2fsck_fn(&path).unwrap();
    path
}

fn debugfs(path: &Path, commands: &[String]) {
    let mut command = tools::command("debugfs");
    command
        .args(["-w", "-f", "-"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all((commands.join("\n") + "\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// What stands for the inodes and blocks of the base in commands.
fn names(image: &[u8]) -> BTreeMap<String, String> {
    let fs = Ext2::open(Arc::new(Scratch::new(image.to_vec())), &OpenOptions::read_only()).unwrap();
    let mut names = BTreeMap::new();
    for path in ["d1", "d2", "d1/f", "d1/g", "d1/e", "d1/dir", "d1/sl", "d2/t"] {
        let inode = fs.resolve(format!("/{path}").as_bytes(), Follow::No).unwrap();
        let short = path.rsplit('/').next().unwrap();
        names.insert(format!("{{{short}}}"), format!("<{}>", inode.nr()));
        names.insert(format!("{{#{short}}}"), inode.nr().to_string());
        for nr in 0..5 {
            if short != "sl"
                && let Ok(mapping) = inode.map(FileBlock::new(nr), 1)
                && let Some(block) = mapping.target
            {
                names.insert(format!("{{{short}:{nr}}}"), block.to_string());
            }
        }
    }
    names
}

/// Carries out `=BLOCK+OFFSET HEX`; an offset `NAME/N` is N bytes into the entry of that name.
fn patch(path: &Path, command: &str) {
    let mut image = fs::read(path).unwrap();
    let (place, hex) = command.split_once(' ').unwrap();
    let (block, offset) = place.split_once('+').unwrap();
    let start = block.parse::<usize>().unwrap() * BLOCK;
    let at = match offset.split_once('/') {
        None => offset.parse().unwrap(),
        Some((name, within)) => {
            let mut at = 0;
            loop {
                let entry = &image[start + at..start + BLOCK];
                if entry[8..].starts_with(name.as_bytes()) && usize::from(entry[6]) == name.len() {
                    break at + within.parse::<usize>().unwrap();
                }
                at += usize::from(u16::from_le_bytes([entry[4], entry[5]]));
            }
        }
    };
    for (nr, pair) in hex.as_bytes().chunks(2).enumerate() {
        image[start + at + nr] = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    }
    fs::write(path, image).unwrap();
}

/// An image with the changes of a state, and not clean.
fn state_of(base: &Path, path: &Path, names: &BTreeMap<String, String>, commands: &str) {
    fs::copy(base, path).unwrap();
    let mut commands = commands.to_owned();
    names.iter().for_each(|(sign, value)| commands = commands.replace(sign, value));
    let commands: Vec<String> = commands.split("; ").map(str::to_owned).collect();
    let of_debugfs = commands.iter().filter(|command| !command.starts_with('=') && !command.is_empty());
    debugfs(path, &of_debugfs.cloned().chain(["ssv state 0".to_owned()]).collect::<Vec<_>>());
    commands.iter().filter_map(|command| command.strip_prefix('=')).for_each(|command| patch(path, command));
}

/// Calls `each` with every state: its name, and the file of its image.
fn each_state(mut each: impl FnMut(&str, &Path)) {
    let folder = tempfile::tempdir().unwrap();
    let base = base(folder.path());
    let names = names(&fs::read(&base).unwrap());
    let path = folder.path().join("state.img");
    for (name, commands) in STATES {
        state_of(&base, &path, &names, commands);
        each(name, &path);
    }
}

#[test]
fn interrupted_operations_are_mended_as_e2fsck_mends_them() {
    need_tools!("e2fsck", "debugfs", "mke2fs");
    let mut checker = Checker::new();
    let mut halting = 0;
    each_state(|name, path| {
        let ours = Arc::new(Scratch::new(fs::read(path).unwrap()));
        let outcome = checker.mend(&*ours, 1_700_000_000, &mut |_| {}).unwrap();
        let theirs = tools::e2fsck_p(path);
        let halts = matches!(outcome, Outcome::Halts(_));
        assert_eq!(halts, theirs.is_err(), "{name}: {outcome:?}, {theirs:?}");
        println!("{} {name}", if halts { "halts" } else { "mends" });
        halting += usize::from(halts);
        if !halts {
            let theirs = Arc::new(Scratch::new(fs::read(path).unwrap()));
            assert_eq!(tree::read(ours).unwrap(), tree::read(theirs).unwrap(), "{name}");
        }
    });
    println!("{} states, {halting} need a person", STATES.len());
    assert!(halting > 10, "{halting} of {} need a person", STATES.len());
}

/// Without e2fsck: what is made then gets numbers and blocks of what was not made whole, and no name of that comes back.
#[test]
fn interrupted_operations_are_opened_and_what_is_made_then_needs_no_person() {
    need_tools!("e2fsck", "debugfs", "mke2fs");
    let mut refused = Vec::new();
    each_state(|name, path| {
        let device = Arc::new(Scratch::new(fs::read(path).unwrap()));
        if tools::e2fsck_p(path).is_err() {
            return;
        }
        let fs = match Ext2::open(device.clone(), &OpenOptions::default()) {
            Ok(fs) => fs,
            Err(error) => return refused.push(format!("{name}: {error}")),
        };
        let root = fs.root().unwrap();
        for nr in 0..200 {
            let file = root.create(format!("new{nr}"), &NewInode::new(FileKind::Regular, 0o600)).unwrap();
            file.write_at(0, &[nr; 3]).unwrap();
        }
        drop(root);
        fs.close().unwrap();
        fs::write(path, device.to_vec()).unwrap();
        tools::e2fsck_p(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let tree = tree::read(Arc::new(Scratch::new(fs::read(path).unwrap()))).unwrap();
        for (nr, node) in (0..200).map(|nr| (nr, &tree[format!("/new{nr}").as_bytes()])) {
            assert_eq!((node.links, &node.content[..]), (1, &[nr; 3][..]), "{name}: new{nr}");
        }
    });
    assert_eq!(refused, [""; 0]);
}
