//! Seals: the bytes of veritysetup, what was changed is found, and the same image gets the same root hash.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use e2dax_tests::{need_tools, tools};

use crate::common::Folder;

/// The root hash in what was printed.
fn root_hash(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("root hash: "));
    line.unwrap_or_else(|| panic!("{text}")).to_owned()
}

/// A folder with a tree of some files, and an image of it.
fn with_image(size: &str) -> Folder {
    let folder = Folder::with(&[]);
    fs::create_dir_all(folder.path("tree/sub")).unwrap();
    let bytes: Vec<u8> = (0..300_000_u32).map(|at| (at >> 7) as u8).collect();
    fs::write(folder.path("tree/sub/file"), bytes).unwrap();
    // What it says of sizes that virtio-pmem does not map is not asked here.
    assert_eq!(folder.run(&["mkfs", "a.img", "--from", "tree", "--size", size, "--seed", "seal"]).code(), 0);
    folder
}

const UUID: &str = "12345678-9abc-4def-8012-3456789abcde";

#[test]
fn a_seal_is_byte_for_byte_that_of_veritysetup() {
    need_tools!("veritysetup");
    let folder = with_image("3M");
    let salts = ["-", "00", "f1e2d3c4b5a69788", &"5a".repeat(256)];
    let sizes = [(4096, 4096), (512, 512), (1024, 4096), (4096, 1024), (4096, 65536), (8192, 512)];
    let mut runs = Vec::new();
    for salt in salts {
        runs.push(("sha256", salt, (4096, 4096), 3 << 20));
    }
    for size in sizes {
        runs.push(("sha256", salts[2], size, 3 << 20));
        runs.push(("sha512", salts[2], size, 3 << 20));
    }
    // One block, two, as many as a block of hashes holds, one more, and two levels.
    for blocks in [1, 2, 128, 129, 128 * 128, 128 * 128 + 1] {
        runs.push(("sha256", salts[2], (4096, 4096), blocks * 4096));
    }
    for (hash, salt, (data, tree), bytes) in runs {
        let file = File::create(folder.path("data")).unwrap();
        let image = fs::read(folder.path("a.img")).unwrap();
        // An image of the size that is wanted: the library takes any bytes.
        file.set_len(bytes).unwrap();
        let len = (bytes as usize).min(image.len());
        file.write_all_at(&image[..len], 0).unwrap();
        let _ = fs::remove_file(folder.path("theirs"));
        let output = tools::run(
            "veritysetup",
            &[
                "format",
                folder.path("data").to_str().unwrap(),
                folder.path("theirs").to_str().unwrap(),
                &format!("--hash={hash}"),
                &format!("--salt={salt}"),
                &format!("--uuid={UUID}"),
                &format!("--data-block-size={data}"),
                &format!("--hash-block-size={tree}"),
            ],
        );
        let output = String::from_utf8(output.unwrap()).unwrap();
        let root = output.lines().find_map(|line| line.strip_prefix("Root hash:")).unwrap().trim();
        let params = ext2_image::seal::Params {
            algorithm: ext2_image::seal::Algorithm::from_name(hash).unwrap(),
            data_block: data,
            hash_block: tree,
            salt: if salt == "-" { Vec::new() } else { ext2_image::seal::parse_hex(salt).unwrap() },
            uuid: ext2_image::seal::parse_hex(&UUID.replace('-', "")).unwrap().try_into().unwrap(),
        };
        let file = File::options().read(true).write(true).open(folder.path("data")).unwrap();
        let ours =
            File::options().read(true).write(true).create(true).truncate(true).open(folder.path("ours"));
        let ours = ours.unwrap();
        let sealed =
            ext2_image::seal::seal_file(&file, 0, bytes, None, Some(&ours), &params, &|_| ()).unwrap();
        let what = format!("{hash} {salt} {data} {tree} {bytes}");
        assert_eq!(ext2_image::seal::hex(&sealed.root), root, "{what}");
        assert!(fs::read(folder.path("ours")).unwrap() == fs::read(folder.path("theirs")).unwrap(), "{what}");
    }
}

#[test]
fn the_verb_seals_in_place_as_veritysetup_does_behind_the_data() {
    need_tools!("veritysetup");
    let folder = with_image("3M");
    fs::copy(folder.path("a.img"), folder.path("theirs.img")).unwrap();
    let text = folder.run(&["seal", "a.img", "--salt", "0102", "--hash-uuid", UUID]).ok();
    let path = folder.path("theirs.img");
    let path = path.to_str().unwrap();
    let offset = format!("--hash-offset={}", 3 << 20);
    let uuid = format!("--uuid={UUID}");
    tools::run(
        "veritysetup",
        &["format", path, path, "--data-blocks=768", &offset, "--salt=0102", uuid.as_str()],
    )
    .unwrap();
    assert!(fs::read(folder.path("a.img")).unwrap() == fs::read(path).unwrap());
    let root = root_hash(&text);
    let ours = folder.path("a.img");
    tools::run("veritysetup", &["verify", ours.to_str().unwrap(), ours.to_str().unwrap(), &root, &offset])
        .unwrap();
    tools::e2fsck_fn(&ours).unwrap();
    let line = format!(
        "kernel: dm-mod.create=\"root,,,ro,0 6144 verity 1 /dev/vda /dev/vda 4096 4096 768 769 sha256 {root} 0102\" \
         root=/dev/dm-0 ro"
    );
    assert!(text.lines().any(|found| found == line), "{text}\n{line}");
}

#[test]
fn a_sealed_image_is_reproducible_and_sealing_twice_changes_nothing() {
    let folder = with_image("auto");
    let made = folder.run(&["mkfs", "b.img", "--from", "tree", "--seed", "seal", "--seal"]).ok();
    let sealed = folder.run(&["seal", "a.img"]).ok();
    assert_eq!(root_hash(&made), root_hash(&sealed));
    let first = fs::read(folder.path("a.img")).unwrap();
    assert!(first == fs::read(folder.path("b.img")).unwrap());
    // A longer seal, then the first one again.
    folder.run(&["seal", "a.img", "--hash", "sha512", "--hash-block-size", "1024"]).ok();
    assert!(first != fs::read(folder.path("a.img")).unwrap());
    folder.run(&["seal", "a.img"]).ok();
    assert!(first == fs::read(folder.path("a.img")).unwrap());
    // Beside it.
    folder
        .run(&["mkfs", "c.img", "--from", "tree", "--seed", "seal", "--seal", "--hash-file", "c.tree"])
        .ok();
    let [image, tree] = ["c.img", "c.tree"].map(|name| fs::read(folder.path(name)).unwrap());
    assert_eq!(tree[..], first[first.len() - tree.len()..]);
    assert!(image.starts_with(&first[..first.len() - tree.len()]));
    folder.run(&["check", "--seal", &root_hash(&made), "--hash-file", "c.tree", "c.img"]).ok();
}

#[test]
fn check_finds_every_change_to_data_and_tree() {
    let folder = with_image("3M");
    let root = root_hash(&folder.run(&["seal", "a.img"]).ok());
    let check = |expected: i32| {
        let run = folder.run(&["check", "--seal", &root, "a.img"]);
        assert_eq!(run.code(), expected, "{}{}", run.out(), run.err());
        run.out()
    };
    assert!(check(0).contains(&format!("a.img: sealed, 3145728 bytes are of root hash {root}")));
    let file = File::options().read(true).write(true).open(folder.path("a.img")).unwrap();
    let flip = |at: u64| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    };
    let end = 3 << 20;
    // Free blocks at the end of the image, which no check of a file system looks at.
    for (at, message) in [
        (end - 1, format!("seal: the data was changed in the block at byte {}\n", end - 4096)),
        (end + 4096, "seal: the root hash is another one\n".into()),
        (end + 8192, "seal: the hash tree was changed in the block at byte 8192 of it\n".into()),
        (end + 100, "seal: the root hash is another one\n".into()),
    ] {
        flip(at);
        let said = check(4);
        assert!(said.contains(&message), "{at}: {said}");
        flip(at);
        check(0);
    }
    let other = root.replace('a', "b");
    assert_eq!(folder.run(&["check", "--seal", &other, "a.img"]).code(), 4);
    assert_eq!(folder.run(&["check", "--seal", "xyz", "a.img"]).code(), 16);
    // An image that is not sealed, and one whose seal says what no seal has.
    folder.run(&["mkfs", "plain.img", "--size", "2M"]).ok();
    let said = folder.run(&["check", "--seal", &root, "plain.img"]).fails(8);
    assert_eq!(said, "e2dax: plain.img: no seal: none lies behind the file system\n");
    file.write_all_at(&[0xff; 4], end + 64).unwrap();
    let said = folder.run(&["check", "--seal", &root, "a.img"]).fails(8);
    assert!(said.contains("a.img: no seal: data blocks of 4294967295 bytes"), "{said}");
}

#[test]
fn what_lies_behind_a_file_system_is_not_overwritten() {
    let folder = with_image("1M");
    let file = File::options().write(true).open(folder.path("a.img")).unwrap();
    file.write_all_at(b"precious", (1 << 20) + 5000).unwrap();
    let said = folder.run(&["seal", "a.img"]).fails(1);
    assert_eq!(said, "e2dax: a.img: something lies behind the file system: --force overwrites it\n");
    folder.run(&["seal", "--force", "a.img"]).ok();
    folder.run(&["mkfs", "b.img", "--size", "1M", "--salt", "00"]).fails(2);
    fs::write(folder.path("there"), b"x").unwrap();
    folder.run(&["seal", "a.img", "--hash-file", "there"]).fails(1);
    assert_eq!(fs::read(folder.path("there")).unwrap(), b"x");
    folder.run(&["mkfs", "b.img", "--size", "1M", "--seal", "--data-block-size", "1000"]).fails(1);
    assert!(!folder.path("b.img").exists());
}

#[test]
fn what_follows_a_seal_stays_when_it_is_made_again() {
    let folder = with_image("3M");
    folder.run(&["seal", "a.img"]).ok();
    let mut file = File::options().append(true).open(folder.path("a.img")).unwrap();
    std::io::Write::write_all(&mut file, b"behind").unwrap();
    let with_tail = fs::read(folder.path("a.img")).unwrap();
    folder.run(&["seal", "a.img"]).ok();
    assert!(fs::read(folder.path("a.img")).unwrap() == with_tail);
    let said = folder.run(&["seal", "a.img", "--hash", "sha512"]).fails(1);
    assert!(said.contains("something lies behind"), "{said}");
    assert!(fs::read(folder.path("a.img")).unwrap() == with_tail);
    // A shorter seal leaves no rest of the longer one, whatever follows.
    let long = ["seal", "a.img", "--force", "--hash", "sha512", "--hash-block-size", "1024"];
    folder.run(&long).ok();
    let mut file = File::options().append(true).open(folder.path("a.img")).unwrap();
    std::io::Write::write_all(&mut file, b"behind").unwrap();
    let long_with_tail = fs::read(folder.path("a.img")).unwrap();
    folder.run(&["seal", "a.img"]).ok();
    let short = fs::read(folder.path("a.img")).unwrap();
    assert_eq!(short.len(), long_with_tail.len());
    assert!(short.starts_with(&with_tail[..with_tail.len() - 6]) && short.ends_with(b"behind"));
    let rest = &short[with_tail.len() - 6..short.len() - 6];
    assert!(rest.len() > 4096 && rest.iter().all(|&byte| byte == 0));
    folder.run(&["seal", "a.img", "--hash", "sha512", "--hash-block-size", "1024"]).ok();
    assert!(fs::read(folder.path("a.img")).unwrap() == long_with_tail);
}

/// Their last block reaches into what the smaller ones were followed by.
#[test]
fn a_seal_with_larger_blocks_of_data_than_the_one_before_is_good() {
    let folder = with_image("1001K");
    folder.run(&["seal", "a.img", "--data-block-size", "1024", "--hash-block-size", "1024"]).ok();
    for larger in ["4096", "65536"] {
        let root = root_hash(&folder.run(&["seal", "a.img", "--data-block-size", larger]).ok());
        folder.run(&["check", "--seal", &root, "a.img"]).ok();
    }
}

#[test]
fn a_seal_within_a_disk_leaves_the_rest_of_the_disk() {
    let folder = with_image("3M");
    let words = ["mkfs", "disk.img", "--from", "tree", "--seed", "seal", "--disk", "gpt", "--seal"];
    let root = root_hash(&folder.run(&words).ok());
    let disk = fs::read(folder.path("disk.img")).unwrap();
    for place in ["disk.img@2M", "disk.img@p1"] {
        assert_eq!(root_hash(&folder.run(&["seal", place]).ok()), root);
        assert!(fs::read(folder.path("disk.img")).unwrap() == disk, "{place}");
    }
}

#[test]
fn the_file_of_a_hash_tree_is_never_what_goes_into_the_image() {
    let folder = with_image("1M");
    folder.run(&["tar", "a.img", "-o", "a.tar"]).ok();
    let archive = fs::read(folder.path("a.tar")).unwrap();
    std::os::unix::fs::symlink("a.tar", folder.path("other")).unwrap();
    for tree in ["a.tar", "./a.tar", "other"] {
        let words = ["mkfs", "b.img", "--from", "a.tar", "--seal", "--force", "--hash-file", tree];
        let said = folder.run(&words).fails(1);
        assert!(said.contains("is what goes in and what comes out"), "{said}");
    }
    let words = ["mkfs", "b.img", "--from", "tree", "--disk", "gpt", "--partition", "X=a.tar"];
    let said = folder.run(&[&words[..], &["--seal", "--force", "--hash-file", "a.tar"]].concat()).fails(1);
    assert!(said.contains("is what goes in and what comes out"), "{said}");
    assert!(fs::read(folder.path("a.tar")).unwrap() == archive && !folder.path("b.img").exists());
}

#[test]
fn the_file_of_a_hash_tree_is_there_when_the_image_is_and_is_never_the_image() {
    let folder = with_image("1M");
    let before = fs::read(folder.path("a.img")).unwrap();
    // Too small for anything: neither is made.
    folder.run(&["mkfs", "b.img", "--size", "8K", "--seal", "--hash-file", "b.tree"]).fails(1);
    fs::create_dir(folder.path("source")).unwrap();
    fs::write(folder.path("source/f"), vec![1; 1 << 20]).unwrap();
    folder
        .run(&["mkfs", "b.img", "--from", "source", "--size", "512K", "--seal", "--hash-file", "b.tree"])
        .fails(1);
    assert!(!folder.path("b.img").exists() && !folder.path("b.tree").exists());
    fs::write(folder.path("old.tree"), b"old").unwrap();
    let words = [
        "mkfs",
        "a.img",
        "--force",
        "--from",
        "source",
        "--size",
        "512K",
        "--seal",
        "--hash-file",
        "old.tree",
    ];
    folder.run(&words).fails(1);
    assert_eq!(fs::read(folder.path("old.tree")).unwrap(), b"old");
    std::os::unix::fs::symlink("a.img", folder.path("other")).unwrap();
    for name in ["a.img", "./a.img", "other"] {
        let said = folder.run(&["seal", "a.img", "--force", "--hash-file", name]).fails(1);
        assert!(said.contains("is the image"), "{said}");
        let words = ["mkfs", "a.img", "--force", "--size", "1M", "--seal", "--hash-file", name];
        let said = folder.run(&words).fails(1);
        assert!(said.contains("is the image"), "{said}");
    }
    assert!(before == fs::read(folder.path("a.img")).unwrap());
}
