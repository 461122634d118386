//! Growing and shrinking beside resize2fs.

use std::fs;
use std::path::Path;

use e2dax_tests::{need_tools, tools};
use ext2_image::resize::{Resize, Resized};
use ext2_image::rewrite::Options;

use crate::common::{MIB, assert_sound, contents, field, image, open};

/// Resizes an image file as the command does.
fn resize(path: &Path, bytes: u64) -> Resized {
    let before = std::fs::metadata(path).unwrap().len();
    if bytes > before {
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
    }
    let device = open(path);
    let size = 1024 << field(&*device, 24);
    let plan = Resize::plan(&*device, bytes / size).unwrap();
    let done = plan.run(&*device, &Options::default()).unwrap();
    drop(device);
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(plan.bytes()).unwrap();
    done
}

/// What the two have to agree on.
fn numbers(path: &Path) -> Vec<u32> {
    let device = open(path);
    // Blocks, inodes, reserved blocks; first meta group, features, backups; free inodes and blocks.
    let mut all: Vec<u32> =
        [4, 0, 8, 260, 92, 96, 100, 588, 592, 16, 12].map(|at| field(&*device, at)).to_vec();
    all.insert(3, field(&*device, 204) >> 16);
    all
}

const CASES: &[(&str, u64, &[u64])] = &[
    ("-b 1024 -O resize_inode", 40, &[100, 33, 24, 700]),
    ("-b 1024 -O ^resize_inode", 40, &[300, 25, 41]),
    ("-b 1024 -O ^resize_inode,^sparse_super", 40, &[300, 25]),
    ("-b 1024 -O meta_bg,^resize_inode", 40, &[300, 25, 600]),
    ("-b 1024 -O meta_bg,^resize_inode", 300, &[200]),
    ("-b 1024 -O resize_inode -E resize=65536", 40, &[600, 25]),
    ("-b 1024 -O has_journal", 40, &[100, 30]),
    ("-b 1024 -O ^resize_inode,has_journal -J size=4", 40, &[400, 30]),
    ("-b 1024 -O ^resize_inode,^sparse_super,sparse_super2", 40, &[100, 20]),
    ("-b 1024 -N 700", 40, &[90, 30]),
    ("-b 2048", 64, &[200, 40]),
    ("-b 2048 -I 128 -O ^dir_index,^large_file", 64, &[66, 50]),
    ("-b 4096 -g 2048", 64, &[200, 40, 1500]),
    ("-b 4096 -g 2048 -O ^resize_inode", 64, &[1500, 40]),
    ("-b 4096", 200, &[300, 150, 90]),
    ("-b 1024 -r 0 -O none", 40, &[100, 30]),
];

/// Sizes in bytes that are no whole groups, and groups of other sizes than the usual one: the last group is short, has room for
/// nothing but what is its own, or is left out.
const ODD: &[(&str, u64, &[u64])] = &[
    ("-b 1024", 20483 << 10, &[16385 << 10, 16387 << 10, (33 << 20) + 513]),
    ("-b 1024 -g 256", 20483 << 10, &[14341 << 10, 24833 << 10]),
    ("-b 1024 -g 512 -O meta_bg,^resize_inode", 20483 << 10, &[14341 << 10, 40967 << 10]),
    ("-b 1024 -g 256 -O sparse_super2,^resize_inode", 20483 << 10, &[14341 << 10, 19713 << 10]),
    ("-b 4096 -g 256", 24580 << 10, &[18440 << 10, (33 << 20) + 2047]),
];

/// Resizes the image `base` both ways, and compares numbers and contents.
fn compare(base: &Path, args: &str, from: u64, bytes: u64) {
    let what = format!("{args}, {from} to {bytes} bytes");
    let before = contents(open(base));
    let (ours, theirs) = (base.with_extension("ours"), base.with_extension("theirs"));
    fs::copy(base, &ours).unwrap();
    fs::copy(base, &theirs).unwrap();
    let done = resize(&ours, bytes);
    println!("{what}: {done:?}");
    tools::e2fsck_fn(&ours).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_sound(&*open(&ours), &what);
    tools::e2fsck_p(&theirs).unwrap();
    let block = 1024 << field(&*open(base), 24);
    // In sectors, as far as they are whole blocks.
    let size = format!("{}s", bytes / block * (block / 512));
    tools::run("resize2fs", &["-f", theirs.to_str().unwrap(), &size]).unwrap();
    let (mut left, mut right) = (numbers(&ours), numbers(&theirs));
    if done.groups.0 != done.groups.1 || bytes < from {
        // Indirect blocks of what moved are as many, but resize2fs does not always give back what it frees.
        left.truncate(11);
        right.truncate(11);
    }
    assert_eq!(left, right, "{what}");
    let after = contents(open(&ours));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "{what}");
    assert!(before == after, "{what}: contents differ");
}

#[test]
fn images_come_to_the_same_numbers_as_under_resize2fs_with_the_same_contents() {
    need_tools!("mke2fs", "e2fsck", "resize2fs");
    let folder = tempfile::tempdir().unwrap();
    let only = std::env::var("E2DAX_CASE").ok();
    let whole =
        CASES.iter().map(|(args, from, to)| (args, from * MIB, to.iter().map(|to| to * MIB).collect()));
    let odd = ODD.iter().map(|(args, from, to)| (args, *from, to.to_vec()));
    let all: Vec<(&&str, u64, Vec<u64>)> = whole.chain(odd).collect();
    for (args, from, to) in all {
        if only.as_ref().is_some_and(|only| only != args) {
            continue;
        }
        let base = folder.path().join("base.img");
        image(&base, args, from);
        tools::e2fsck_fn(&base).unwrap();
        for bytes in to {
            compare(&base, args, from, bytes);
        }
    }
}

#[test]
fn the_smallest_size_holds_what_is_in_the_image_and_nothing_smaller_does() {
    need_tools!("mke2fs", "e2fsck");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.img");
    // With much metadata and little else: files go where descriptors and tables were.
    for (args, mib) in [
        ("-b 1024 -O ^resize_inode", 2048),
        ("-b 1024 -O resize_inode", 512),
        ("-b 1024 -O meta_bg,^resize_inode -I 128", 700),
        ("-b 4096 -O ^resize_inode,^sparse_super -N 90000", 600),
    ] {
        fs::File::create(&path).unwrap().set_len(mib * MIB).unwrap();
        let mut words: Vec<&str> = args.split(' ').collect();
        words.extend(["-q", "-F", path.to_str().unwrap()]);
        tools::mke2fs(&words);
        let before = contents(open(&path));
        let least = Resize::minimum(&*open(&path)).unwrap();
        let size = 1024 << field(&*open(&path), 24);
        assert!(Resize::plan(&*open(&path), u64::from(least) - 1).is_err(), "{args}");
        let done = resize(&path, u64::from(least) * size);
        println!("{args}: {done:?}");
        assert_eq!(field(&*open(&path), 4), least, "{args}");
        tools::e2fsck_fn(&path).unwrap_or_else(|error| panic!("{args}: {error}"));
        assert!(before == contents(open(&path)), "{args}");
        // And grows again.
        resize(&path, 64 * MIB);
        tools::e2fsck_fn(&path).unwrap_or_else(|error| panic!("{args}, grown: {error}"));
        assert!(before == contents(open(&path)), "{args}, grown");
    }
}

/// Asks for a resize that is refused, and gives why; nothing of the image is another by then.
fn refused(path: &Path, bytes: u64) -> ext2_core::Error {
    let before = fs::read(path).unwrap();
    let len = before.len() as u64;
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(bytes.max(len)).unwrap();
    let device = open(path);
    let done = Resize::plan(&*device, bytes / 1024).and_then(|plan| plan.run(&*device, &Options::default()));
    let error = done.expect_err("the resize is refused");
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
    assert!(fs::read(path).unwrap() == before, "{bytes}: {error}, and the image is another");
    error
}

#[test]
fn an_image_whose_bitmap_calls_blocks_of_a_file_free_is_refused_before_anything_is_stored() {
    need_tools!("mke2fs", "debugfs");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.img");
    image(&path, "-b 1024 -O ^resize_inode", 40 * MIB);
    for file in ["/d1/large", "/d4/large"] {
        let said = tools::debugfs(&path, &format!("blocks {file}")).unwrap();
        let said = String::from_utf8(said).unwrap();
        let mut blocks = said.split_whitespace().map(|nr| nr.parse::<u32>().unwrap()).collect::<Vec<_>>();
        blocks.sort_unstable();
        for runs in blocks.chunk_by(|a, b| a + 1 == *b) {
            tools::run(
                "debugfs",
                &["-w", "-R", &format!("freeb {} {}", runs[0], runs.len()), path.to_str().unwrap()],
            )
            .unwrap();
        }
    }
    // Where blocks of files move, and where only descriptors, bitmaps and tables do.
    for mib in [25, 39, 41, 600] {
        let error = refused(&path, mib * MIB);
        assert!(error.to_string().contains("marked free"), "{mib} MiB: {error}");
    }
}

#[test]
fn spare_descriptors_beside_meta_bg_are_written_over_no_file() {
    need_tools!("mke2fs");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.img");
    image(&path, "-b 1024 -O resize_inode", 40 * MIB);
    let mut bytes = fs::read(&path).unwrap();
    bytes[1024 + 96] |= 0x10;
    fs::write(&path, bytes).unwrap();
    let error = refused(&path, 60 * MIB);
    assert!(error.to_string().contains("exclude each other"), "{error}");
}

#[test]
fn bad_blocks_in_the_way_are_no_fault_of_the_image() {
    need_tools!("mke2fs", "e2fsck");
    let folder = tempfile::tempdir().unwrap();
    let (path, list) = (folder.path().join("a.img"), folder.path().join("list"));
    fs::write(&list, "30000\n").unwrap();
    image(&path, &format!("-b 1024 -l {}", list.display()), 40 * MIB);
    tools::e2fsck_fn(&path).unwrap();
    // Free blocks were written to by then, which is nobody's matter.
    let before = contents(open(&path));
    let device = open(&path);
    let plan = Resize::plan(&*device, 25 << 10).unwrap();
    let error = plan.run(&*device, &Options::default()).unwrap_err();
    drop(device);
    assert!(before == contents(open(&path)));
    tools::e2fsck_fn(&path).unwrap();
    assert!(error.to_string().contains("bad blocks"), "{error}");
    assert_eq!(error.errno(), ext2_core::Errno::OPNOTSUPP);
}
