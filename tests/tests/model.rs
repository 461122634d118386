//! Random lists of operations on a file system and on a model in memory: the same outcome of each, the
//! same tree at the end, and e2fsck without a word. A failing list is shrunk.
//!
//! `E2DAX_MODEL_CASES=N` runs N cases of each kind instead of a few dozen.

use std::path::Path;
use std::sync::Arc;

use blockdev::{BlockDevice, Kind};
use e2dax_tests::model::{Op, Pair};
use e2dax_tests::{skip, tools};
use ext2_core::{Ext2, OpenOptions, Policy};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn op() -> impl Strategy<Value = Op> {
    let offset = prop_oneof![0..20_000u32, 0..400_000u32, 3_000_000..3_100_000u32];
    let len = prop_oneof![1..600u32, 1..9000u32, 1..120_000u32];
    let n = any::<u8>;
    prop_oneof![
        4 => (n(), n()).prop_map(|(dir, name)| Op::Create { dir, name }),
        2 => (n(), n()).prop_map(|(dir, name)| Op::Mkdir { dir, name }),
        1 => (n(), n(), any::<u16>()).prop_map(|(dir, name, len)| Op::Symlink { dir, name, len }),
        1 => (n(), n()).prop_map(|(dir, name)| Op::Mknod { dir, name }),
        2 => (n(), n(), n()).prop_map(|(file, dir, name)| Op::Link { file, dir, name }),
        2 => n().prop_map(|file| Op::Unlink { file }),
        1 => n().prop_map(|dir| Op::Rmdir { dir }),
        2 => (n(), n(), n(), n()).prop_map(|(from, dir, name, flags)| Op::Rename { from, dir, name, flags }),
        2 => (n(), n(), n()).prop_map(|(from, to, flags)| Op::RenameOver { from, to, flags }),
        6 => (n(), offset.clone(), len.clone(), n()).prop_map(|(file, offset, len, seed)| Op::Write { file, offset, len, seed }),
        3 => (n(), offset.clone()).prop_map(|(file, size)| Op::Truncate { file, size }),
        2 => (n(), offset.clone(), len.clone()).prop_map(|(file, offset, len)| Op::Punch { file, offset, len }),
        1 => (n(), offset, len).prop_map(|(file, offset, len)| Op::Zero { file, offset, len }),
        1 => (n(), n(), any::<u16>()).prop_map(|(file, name, len)| Op::SetXattr { file, name, len }),
        1 => (n(), n()).prop_map(|(file, name)| Op::RemoveXattr { file, name }),
        1 => (n(), any::<u16>()).prop_map(|(file, mode)| Op::Chmod { file, mode }),
        1 => Just(Op::Sync),
        1 => Just(Op::Remount),
    ]
}

/// An empty image of `kib` KiB with blocks of `block` bytes.
fn empty_image(block: u32, kib: u32) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    let (block, kib) = (block.to_string(), format!("{kib}k"));
    tools::mke2fs(&[
        "-t".as_ref(),
        "ext2".as_ref(),
        "-b".as_ref(),
        block.as_ref(),
        "-I".as_ref(),
        "256".as_ref(),
        "-N".as_ref(),
        "512".as_ref(),
        path.as_os_str(),
        kib.as_ref(),
    ]);
    std::fs::read(&path).expect("the image")
}

/// The device that a case runs on; all of them but RAM keep their bytes in a file.
#[derive(Clone, Copy, Debug)]
enum On {
    Ram,
    File,
    Mmap,
    Cached,
}

impl On {
    fn open(self, path: &Path) -> Arc<dyn BlockDevice> {
        let kind = match self {
            Self::Ram => Kind::Ram,
            Self::File => Kind::File,
            Self::Mmap => Kind::Mmap,
            Self::Cached => Kind::Cached,
        };
        blockdev::open_image(path, &blockdev::OpenOptions { kind, ..blockdev::OpenOptions::read_write() })
            .expect("a device")
    }
}

/// Puts what a RAM device holds where e2fsck can read it.
fn save(device: &dyn BlockDevice, path: &Path) {
    let mut bytes = vec![0; device.size() as usize];
    device.read_at(0, &mut bytes).expect("read");
    e2dax_tests::golden::write_sparse(path, &bytes).expect("written");
}

fn run_case(image: &[u8], ops: &[Op], policy: Policy, on: On) {
    let options = OpenOptions { policy, ..OpenOptions::default() };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    e2dax_tests::golden::write_sparse(&path, image).expect("written");
    let device = on.open(&path);
    let mut pair = Pair::new(Ext2::open(device.clone(), &options).expect("open"));
    for op in ops {
        if matches!(op, Op::Remount) {
            pair.fs.clone().close().expect("close");
            pair.fs = Ext2::open(device.clone(), &options).expect("open again");
        }
        pair.run(op);
    }
    pair.compare();
    pair.fs.clone().close().expect("close");
    drop(std::mem::replace(
        &mut pair.fs,
        Ext2::open(device.clone(), &OpenOptions::read_only()).expect("open again"),
    ));
    pair.compare();
    if matches!(on, On::Ram) {
        save(&*device, &path);
    }
    drop(pair);
    drop(device);
    if let Err(said) = tools::e2fsck_fn(&path) {
        panic!("{said}");
    }
}

fn run(block: u32, kib: u32, policy: Policy, on: On) {
    if !tools::have("mke2fs") || !tools::have("e2fsck") {
        skip!("mke2fs or e2fsck is missing");
    }
    let cases = std::env::var("E2DAX_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48);
    let image = empty_image(block, kib);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    runner
        .run(&proptest::collection::vec(op(), 1..120), |ops| {
            run_case(&image, &ops, policy, on);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn random_operations_equal_the_model_with_blocks_of_1_kib() {
    run(1024, 4096, Policy::Aligned, On::Ram);
}

#[test]
fn random_operations_equal_the_model_with_blocks_of_2_kib() {
    run(2048, 16384, Policy::Aligned, On::Ram);
}

#[test]
fn random_operations_equal_the_model_with_blocks_of_4_kib() {
    run(4096, 32768, Policy::Aligned, On::Ram);
}

#[test]
fn random_operations_equal_the_model_where_linux_would_place_them() {
    run(1024, 8192, Policy::Goal, On::Ram);
}

#[test]
fn random_operations_equal_the_model_on_a_plain_file() {
    run(1024, 4096, Policy::Aligned, On::File);
}

#[test]
fn random_operations_equal_the_model_on_a_mapped_file() {
    run(4096, 32768, Policy::Aligned, On::Mmap);
}

#[test]
fn random_operations_equal_the_model_through_a_write_back_cache() {
    run(2048, 16384, Policy::Aligned, On::Cached);
}
