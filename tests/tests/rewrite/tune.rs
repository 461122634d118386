//! What the superblock says, beside tune2fs and dumpe2fs; holes in the image's file.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use e2dax_tests::small::file;
use e2dax_tests::{Claimed, need_tools, tools};
use ext2_core::{Closed, CompatFeatures, Ext2, Features, IncompatFeatures, OpenOptions, RoCompatFeatures};
use ext2_image::check::{self, Checker, Finding};
use ext2_image::mkfs;
use ext2_image::rewrite::{Options, Watch};
use ext2_image::sparsify::sparsify;
use ext2_image::tune::Tune;

use crate::common::{MIB, assert_sound, contents, image, open};

fn dumped(path: &Path) -> BTreeMap<String, String> {
    let text = String::from_utf8(tools::run("dumpe2fs", &["-h", path.to_str().unwrap()]).unwrap()).unwrap();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    let fields = fields.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
    fields.filter(|(key, _)| !key.contains("write time") && !key.contains("Last checked")).collect()
}

#[test]
fn images_are_tuned_as_tune2fs_tunes_them() {
    need_tools!("mke2fs", "e2fsck", "tune2fs", "dumpe2fs");
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base.img");
    image(&base, "-b 1024 -O resize_inode", 32 * MIB);
    let uuid: [u8; 16] = core::array::from_fn(|nr| nr as u8 * 17);
    let cases: [(&[&str], Tune); 9] = [
        (&["-L", "a name"], Tune { label: Some(b"a name".to_vec()), ..Tune::default() }),
        (&["-U", "00112233-4455-6677-8899-aabbccddeeff"], Tune { uuid: Some(uuid), ..Tune::default() }),
        (&["-r", "1234"], Tune { reserved_blocks: Some(1234), ..Tune::default() }),
        (&["-u", "7", "-g", "9"], Tune { reserved_uid: Some(7), reserved_gid: Some(9), ..Tune::default() }),
        (&["-e", "panic"], Tune { errors: Some(3), ..Tune::default() }),
        (&["-M", "/srv/there"], Tune { last_mounted: Some(b"/srv/there".to_vec()), ..Tune::default() }),
        (
            &["-C", "5", "-c", "20", "-i", "2d"],
            Tune {
                mount_count: Some(5),
                max_mount_count: Some(20),
                check_interval: Some(172_800),
                ..Tune::default()
            },
        ),
        (&["-o", "^acl,journal_data"], Tune { default_mount_options: Some(0x24), ..Tune::default() }),
        (&["-T", "20240102"], Tune { checked: Some(1_704_153_600), ..Tune::default() }),
    ];
    for (args, tune) in cases {
        let (ours, theirs) = (folder.path().join("ours.img"), folder.path().join("theirs.img"));
        std::fs::copy(&base, &ours).unwrap();
        std::fs::copy(&base, &theirs).unwrap();
        assert!(tune.apply(&*open(&ours), &Options::default()).unwrap(), "{args:?}");
        assert!(!tune.apply(&*open(&ours), &Options::default()).unwrap(), "{args:?}: again");
        let all: Vec<&str> = args.iter().copied().chain([theirs.to_str().unwrap()]).collect();
        tools::run("tune2fs", &all).unwrap();
        assert_eq!(dumped(&ours), dumped(&theirs), "{args:?}");
        assert_sound(&*open(&ours), &format!("{args:?}"));
        tools::e2fsck_fn(&ours).unwrap_or_else(|error| panic!("{args:?}: {error}"));
        // The backups say the same.
        let backup = String::from_utf8(
            tools::run(
                "dumpe2fs",
                &["-h", "-o", "superblock=8193", "-o", "blocksize=1024", ours.to_str().unwrap()],
            )
            .unwrap(),
        )
        .unwrap();
        if let Some(label) = &tune.label {
            assert!(backup.contains(std::str::from_utf8(label).unwrap()), "{backup}");
        }
    }
}

/// The bytes of an image, without the time of writing and without the copies of the superblock; and these.
fn parts(path: &Path) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut bytes = std::fs::read(path).unwrap();
    let fs = Ext2::open(open(path), &OpenOptions::read_only()).unwrap();
    let geo = fs.geometry();
    let mut copies = vec![bytes[1024..2048].to_vec()];
    bytes[1024 + 48..1024 + 52].fill(0);
    for group in geo.group_numbers().skip(1).filter(|&group| geo.has_super(group)) {
        let at = geo.group_start(group) as usize * geo.block_size.len();
        let mut copy = bytes[at..at + 1024].to_vec();
        assert_eq!(u32::from(u16::from_le_bytes([copy[90], copy[91]])), group.get());
        copy[90..92].fill(0);
        copies.push(copy);
        bytes[at..at + 1024].fill(0);
    }
    (bytes, copies)
}

/// Groups of odd lengths, blocks and inodes of other sizes, descriptors and copies elsewhere, or none: not a byte differs but in
/// the copies, of which tune2fs writes some, and here all say what the first superblock says.
#[test]
fn images_of_every_format_are_tuned_as_tune2fs_tunes_them() {
    need_tools!("mke2fs", "e2fsck", "tune2fs");
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("ours.img"), folder.path().join("theirs.img"));
    let formats = [
        ("-b 1024", 8210),
        ("-b 1024 -g 1000", 8 << 10),
        ("-b 1024 -I 128 -N 9000", 9 << 10),
        ("-b 2048", 17 << 10),
        ("-b 4096 -I 1024", 16 << 10),
        ("-b 1024 -g 256 -N 640 -O meta_bg,^resize_inode", 8 << 10),
        ("-b 1024 -O ^resize_inode,^sparse_super", 17 << 10),
        ("-b 1024 -g 2048 -O sparse_super2,^resize_inode", 8 << 10),
        ("-b 1024 -g 2048 -O sparse_super2,^resize_inode -E num_backup_sb=1", 8 << 10),
        ("-b 1024 -g 2048 -O sparse_super2,^resize_inode -E num_backup_sb=0", 8 << 10),
        ("-b 1024 -g 2048 -E resize=4000000 -L before -M /before", 8 << 10),
        ("-b 1024 -O none", 9 << 10),
        ("-b 1024 -r 0", 9 << 10),
    ];
    let uuid: [u8; 16] = core::array::from_fn(|nr| nr as u8 * 17);
    let args = "-L name -U 00112233-4455-6677-8899-aabbccddeeff -r 77 -u 7 -g 9 -e panic -M /m -C 5 -c 20 -i 2 \
                -o debug -T 20240102";
    for (format, kib) in formats {
        std::fs::File::create(&theirs).unwrap().set_len(kib << 10).unwrap();
        let all: Vec<&str> = ["-q", "-F", "-t", "ext2"].into_iter().chain(format.split(' ')).collect();
        tools::run("mke2fs", &[&all[..], &[theirs.to_str().unwrap()]].concat()).unwrap();
        std::fs::copy(&theirs, &ours).unwrap();
        let all: Vec<&str> = args.split_whitespace().chain([theirs.to_str().unwrap()]).collect();
        tools::run("tune2fs", &all).unwrap();
        let before = Ext2::open(open(&ours), &OpenOptions::read_only()).unwrap();
        let tune = Tune {
            label: Some(b"name".to_vec()),
            uuid: Some(uuid),
            reserved_blocks: Some(77),
            reserved_uid: Some(7),
            reserved_gid: Some(9),
            errors: Some(3),
            last_mounted: Some(b"/m".to_vec()),
            mount_count: Some(5),
            max_mount_count: Some(20),
            check_interval: Some(172_800),
            default_mount_options: Some(before.superblock().default_mount_options | 1),
            checked: Some(1_704_153_600),
            ..Tune::default()
        };
        drop(before);
        assert!(tune.apply(&*open(&ours), &Options::default()).unwrap(), "{format}");
        tools::e2fsck_fn(&ours).unwrap_or_else(|error| panic!("{format}: {error}"));
        let ((found, copies), (expected, _)) = (parts(&ours), parts(&theirs));
        let differs = found.iter().zip(&expected).position(|(found, expected)| found != expected);
        assert_eq!((found.len(), differs), (expected.len(), None), "{format}");
        let (first, rest) = copies.split_first().unwrap();
        assert!(rest.iter().all(|copy| copy == first), "{format}");
    }
}

#[test]
fn features_come_and_go_where_nothing_needs_them() {
    need_tools!("mke2fs", "e2fsck");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.img");
    image(&path, "-b 1024 -O ^resize_inode,^large_file", 32 * MIB);
    let before = contents(open(&path));
    let change = |change: &dyn Fn(&mut Features)| {
        let mut features = Ext2::open(open(&path), &OpenOptions::read_only()).unwrap().superblock().features;
        change(&mut features);
        Tune { features: Some(features), ..Tune::default() }.apply(&*open(&path), &Options::default())
    };
    let steps: [&dyn Fn(&mut Features); 6] = [
        &|features| features.compat.remove(CompatFeatures::DIR_INDEX),
        &|features| features.ro_compat.remove(RoCompatFeatures::SPARSE_SUPER),
        &|features| features.ro_compat.insert(RoCompatFeatures::LARGE_FILE),
        &|features| features.ro_compat.insert(RoCompatFeatures::SPARSE_SUPER),
        &|features| features.ro_compat.remove(RoCompatFeatures::LARGE_FILE),
        &|features| features.compat.insert(CompatFeatures::DIR_INDEX),
    ];
    for (nr, step) in steps.into_iter().enumerate() {
        assert!(change(step).unwrap(), "step {nr}");
        tools::e2fsck_fn(&path).unwrap_or_else(|error| panic!("step {nr}: {error}"));
        assert!(contents(open(&path)) == before, "step {nr}");
    }
    // Files have attributes; and what is not known how to make is not made.
    assert!(change(&|features| features.compat.remove(CompatFeatures::EXT_ATTR)).is_err());
    assert!(change(&|features| features.incompat.insert(IncompatFeatures::META_BG)).is_err());
    assert!(change(&|features| features.incompat.remove(IncompatFeatures::FILETYPE)).is_err());
    tools::e2fsck_fn(&path).unwrap();
}

#[test]
fn what_holds_nothing_is_given_back_and_nothing_else_changes() {
    need_tools!("mke2fs", "e2fsck");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.img");
    image(&path, "-b 1024", 32 * MIB);
    // A copy without holes, its free blocks full of something.
    let mut bytes = std::fs::read(&path).unwrap();
    let free = {
        let fs = Ext2::open(open(&path), &OpenOptions::read_only()).unwrap();
        fs.statfs().unwrap().blocks_free * 1024
    };
    for byte in &mut bytes[30 << 20..] {
        *byte |= u8::from(*byte == 0) * 0xee;
    }
    let (last, full) =
        (Ext2::open(open(&path), &OpenOptions::read_only()).unwrap(), folder.path().join("full.img"));
    drop(last);
    std::fs::write(&full, std::fs::read(&path).unwrap()).unwrap();
    let before = contents(open(&full));
    let room = |path: &Path| std::fs::metadata(path).unwrap().blocks() * 512;
    let took = room(&full);
    let done = sparsify(&*open(&full), &Watch::default()).unwrap();
    println!("{done:?}: {took} to {} bytes, {free} free", room(&full));
    assert!(done.free > free / 2 && done.free <= free, "{done:?}, {free} free");
    assert!(done.zero > 0);
    assert_eq!(took - room(&full), done.free + done.zero);
    assert!(contents(open(&full)) == before);
    tools::e2fsck_fn(&full).unwrap();
}

#[test]
fn what_another_wrote_until_an_image_is_claimed_to_be_tuned_stays() {
    let device = Arc::new(mkfs::in_memory(64 * MIB).unwrap());
    let other = Arc::clone(&device);
    let names = || (0..20).map(|nr| format!("f{nr}"));
    let write = move || {
        let fs = Ext2::open(other, &OpenOptions::default()).unwrap();
        let root = fs.root().unwrap();
        names().for_each(|name| drop(file(&root, &name, &[7; 300_000])));
        assert_eq!(fs.close().unwrap(), Closed::Clean);
    };
    let claimed = Claimed::new(Arc::clone(&device), write);
    let tune = Tune { label: Some(b"rootfs".to_vec()), ..Tune::default() };
    assert!(tune.apply(&claimed, &Options::default()).unwrap());
    let mut findings = Vec::new();
    let mut sink = |finding: &Finding| findings.push(finding.to_string());
    Checker::new().check(&device, &check::Options::default(), &mut sink).unwrap();
    assert!(findings.is_empty(), "{findings:?}");
    let fs = Ext2::open(device, &OpenOptions::read_only()).unwrap();
    for name in names() {
        assert!(fs.read(format!("/{name}")).unwrap() == vec![7; 300_000], "{name}");
    }
}
