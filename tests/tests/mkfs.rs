//! File systems made by the library, beside those of mke2fs and before the eyes of e2fsck and the kernel.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use blockdev::{CacheOptions, Cached, Calls, DeviceOptions, Fault, Faulty, FileDevice, RamDevice};
use e2dax_tests::{need_tools, tools};
use ext2_core::{
    BlockSize, CompatFeatures, Ext2, IncompatFeatures, OpenOptions, RoCompatFeatures, Timestamp,
};
use ext2_image::check::{self, Checker, Finding};
use ext2_image::mkfs::{
    Body, DeviceOutput, Format, Fresh, Inodes, MemoryContents, NodeAttrs, NodeId, Options, Output as _, Plan,
    Revision, Tree,
};
use tempfile::tempdir;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// An empty sparse file of `size` bytes.
fn sparse(path: &Path, size: u64) {
    File::create(path).unwrap().set_len(size).unwrap();
}

/// What dumpe2fs says, without what has to differ: UUID, seed and times.
fn dumped(path: &Path, groups: bool) -> BTreeMap<String, String> {
    let mut args = vec![path.as_os_str()];
    if !groups {
        args.insert(0, "-h".as_ref());
    }
    let text = String::from_utf8(tools::run("dumpe2fs", &args).unwrap()).unwrap();
    let mut fields = BTreeMap::new();
    let mut group = String::new();
    for line in text.lines() {
        if line.starts_with("Group ") {
            group = line.split(':').next().unwrap().to_owned();
        }
        let (key, value) = match line.split_once(':') {
            Some((key, value)) if group.is_empty() => (key.trim().to_owned(), value.trim().to_owned()),
            // Lines of a group are many fields without common form: kept whole.
            _ => (format!("{group} {line}"), String::new()),
        };
        let differs = ["UUID", "Hash Seed", "created", "write time", "Last checked"]
            .iter()
            .any(|word| key.contains(word));
        if !differs {
            fields.insert(key, value);
        }
    }
    fields
}

struct Case {
    size: u64,
    args: Vec<String>,
    format: Format,
}

fn case(size: u64, args: &str, change: impl FnOnce(&mut Format)) -> Case {
    let mut format =
        Format { created: Timestamp::from_secs(1_700_000_000), uuid: [7; 16], ..Format::default() };
    change(&mut format);
    Case { size, args: args.split_whitespace().map(str::to_owned).collect(), format }
}

fn block_size(bytes: u64) -> Option<BlockSize> {
    Some(BlockSize::new(bytes).unwrap())
}

/// The geometries that are compared: every block size, sizes around every change of rules, every option.
fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let sizes = [
        64 * KIB,
        100 * KIB,
        128 * KIB,
        200 * KIB,
        MIB,
        1500 * KIB,
        2 * MIB,
        3 * MIB - KIB,
        3 * MIB,
        8 * MIB,
        8 * MIB + KIB,
        8 * MIB + 60 * KIB,
        9 * MIB,
        17 * MIB + 300 * KIB,
        64 * MIB,
        100 * MIB,
        256 * MIB,
        511 * MIB,
        512 * MIB,
        700 * MIB + 12 * KIB,
        GIB,
        3 * GIB + 5 * MIB,
    ];
    all.extend(sizes.map(|size| case(size, "", |_| ())));
    for log in 10..=16 {
        let bytes = 1 << log;
        for size in [2 * MIB, 40 * MIB, 300 * MIB, 3 * GIB] {
            let args = format!("-b {bytes}");
            all.push(case(size, &args, |format| format.block_size = block_size(bytes)));
        }
    }
    // Up to 4 TiB with few inodes, so that the tables of mke2fs, which it fills with zeros, stay small.
    for (size, bytes) in [(65 * GIB, 1024), (TIB, 4096), (3 * TIB, 2048), (4 * TIB, 65536)] {
        let args = format!("-b {bytes} -i 4194304");
        all.push(case(size, &args, |format| {
            format.block_size = block_size(bytes);
            format.inodes = Inodes::Ratio(4 << 20);
        }));
    }
    for size in [MIB, 20 * MIB, 600 * MIB] {
        all.push(case(size, "-r 0", |format| format.revision = Revision::Original));
        all.push(case(size, "-I 128", |format| format.inode_size = 128));
        all.push(case(size, "-I 1024", |format| format.inode_size = 1024));
        all.push(case(size, "-O ^resize_inode", |format| {
            format.features.compat -= CompatFeatures::RESIZE_INODE
        }));
        all.push(case(size, "-O ^resize_inode,^sparse_super", |format| {
            format.features.compat -= CompatFeatures::RESIZE_INODE;
            format.features.ro_compat -= RoCompatFeatures::SPARSE_SUPER;
        }));
        all.push(case(size, "-O sparse_super2", |format| {
            format.features.compat |= CompatFeatures::SPARSE_SUPER2
        }));
        all.push(case(size, "-O meta_bg,^resize_inode", |format| {
            format.features.compat -= CompatFeatures::RESIZE_INODE;
            format.features.incompat |= IncompatFeatures::META_BG;
        }));
        all.push(case(size, "-O none", |format| format.features = ext2_core::Features::default()));
        all.push(case(size, "-m 0 -L label -M /mnt -N 77", |format| {
            format.reserved_percent = 0.0;
            format.label = b"label".to_vec();
            format.last_mounted = b"/mnt".to_vec();
            format.inodes = Inodes::Count(77);
        }));
        all.push(case(size, "-m 7.5 -i 2048", |format| {
            format.reserved_percent = 7.5;
            format.inodes = Inodes::Ratio(2048);
        }));
        all.push(case(size, "-g 2048 -b 1024", |format| {
            format.blocks_per_group = Some(2048);
            format.block_size = block_size(1024);
        }));
    }
    all.push(case(64 * MIB, "-N 100000", |format| format.inodes = Inodes::Count(100_000)));
    all.push(case(300 * MIB, "-N 300000 -b 1024", |format| {
        format.inodes = Inodes::Count(300_000);
        format.block_size = block_size(1024);
    }));
    all
}

#[test]
fn dumpe2fs_shows_the_geometry_of_mke2fs_and_e2fsck_finds_nothing() {
    need_tools!("mke2fs", "dumpe2fs", "e2fsck");
    // In memory where there is room: mke2fs syncs every image.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempdir()).unwrap();
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    let all = cases();
    assert!(all.len() >= 60, "{}", all.len());
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for case in &all {
        let name = format!("mke2fs -t ext2 {} ({} KiB)", case.args.join(" "), case.size / KIB);
        sparse(&theirs, case.size);
        let mut args = vec!["-t".to_owned(), "ext2".to_owned(), "-F".to_owned(), "-q".to_owned()];
        args.extend(case.args.iter().cloned());
        args.push(theirs.to_str().unwrap().to_owned());
        let made = tools::run("mke2fs", &args);
        sparse(&ours, case.size);
        let device = FileDevice::open(&ours, &DeviceOptions::default()).unwrap();
        let result = ext2_image::mkfs::format(&device, &case.format, Fresh::Zeros);
        drop(device);
        match (made, result) {
            (Ok(_), Ok(_)) => compared += 1,
            (Err(theirs), Err(ours)) => {
                println!("{name}: both refuse: {} / {ours}", theirs.trim());
                continue;
            }
            (Ok(_), Err(ours)) => {
                wrong.push(format!("{name}: only we refuse: {ours}"));
                continue;
            }
            // mke2fs wants room for 50 files and for inode 11; we take what there is.
            (Err(theirs), Ok(_)) => {
                println!("{name}: only mke2fs refuses: {}", theirs.trim());
                tools::e2fsck_fn(&ours).unwrap_or_else(|error| panic!("{name}: {error}"));
                continue;
            }
        }
        let groups = case.size <= 10 * GIB;
        let (left, right) = (dumped(&theirs, groups), dumped(&ours, groups));
        for key in left.keys().chain(right.keys().filter(|key| !left.contains_key(*key))) {
            if left.get(key) != right.get(key) && wrong.len() < 60 {
                wrong.push(format!("{name}: {key}: theirs {:?} ours {:?}", left.get(key), right.get(key)));
            }
        }
        if case.size <= 10 * GIB
            && let Err(error) = tools::e2fsck_fn(&ours)
        {
            wrong.push(format!("{name}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared >= 60, "only {compared} were made by both");
}

#[test]
fn there_is_no_file_system_on_a_device_behind_a_cache_before_all_of_it_is_there() {
    let attrs = |mode| NodeAttrs::new(mode, (0, 0), Timestamp::from_secs(1_700_000_000));
    let contents = |nr: u8| vec![nr + 1; 1 << 20];
    let changes = Calls::WRITE | Calls::ZERO | Calls::FENCE | Calls::FLUSH;
    let mut whole = 0;
    for ends in 0..80 {
        let mut files = MemoryContents::default();
        let mut tree = Tree::new(attrs(0o755));
        for nr in 0..20 {
            let body = Body::File { size: 1 << 20, data: None, handle: files.push(contents(nr)) };
            tree.add(NodeId::ROOT, format!("f{nr}").as_bytes(), attrs(0o644), body).unwrap();
        }
        let plan = Plan::new(tree, &Format::default(), &Options::default()).unwrap();
        let below = Arc::new(Faulty::new(RamDevice::new(plan.bytes()).unwrap()));
        below.arm(Fault::from_then_on(changes, ends));
        let cached = Cached::new(Arc::clone(&below), CacheOptions::default()).unwrap();
        let out = DeviceOutput::new(&cached, Fresh::Unknown);
        let made = plan.write(&mut files, &out, &mut |_| ()).and_then(|_| out.flush());
        drop(cached);
        let Ok(fs) = Ext2::open(Arc::clone(&below), &OpenOptions::read_only()) else {
            assert!(made.is_err(), "{ends}: made, and not there");
            continue;
        };
        whole += 1;
        let mut findings = Vec::new();
        let mut sink = |finding: &Finding| findings.push(finding.to_string());
        Checker::new().check(&below, &check::Options::default(), &mut sink).unwrap();
        assert!(findings.is_empty(), "{ends}: {findings:?}");
        for nr in 0..20 {
            assert!(fs.read(format!("/f{nr}")).unwrap() == contents(nr), "{ends}: f{nr}");
        }
    }
    assert!(whole > 0, "it was never made");
}
