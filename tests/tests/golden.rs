//! The golden images are what `testdata/README.md` says they are.

use std::{collections::BTreeSet, sync::Arc};

use blockdev::RamDevice;
use e2dax_tests::{Access, Verdict, golden, mount, need_mount, need_tools, tools};
use ext2_core::{Error, Ext2, OpenOptions};
use ext2_image::manifest::{Manifest, diff, from_image};
use tempfile::tempdir;

/// Panics with every difference.
#[track_caller]
fn assert_same(name: &str, left: &Manifest, right: &Manifest) {
    let found: Vec<String> = diff(left, right).iter().map(|found| format!("  {found}\n")).collect();
    assert!(found.is_empty(), "{name}: the manifests differ:\n{}", found.concat());
}

#[test]
fn every_image_that_reads_has_a_manifest_and_every_file_is_in_the_list() {
    let mut expected = BTreeSet::from(["LIST".to_owned()]);
    for image in golden::all() {
        expected.insert(format!("{}.img.gz", image.name));
        if image.reads() {
            expected.insert(format!("{}.manifest", image.name));
            assert!(image.manifest().entries().len() > 1, "{} has files", image.name);
        }
    }
    let found: BTreeSet<String> = std::fs::read_dir(golden::testdata().join("golden"))
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn e2fsck_finds_nothing_but_in_the_image_of_a_crash() {
    need_tools!("e2fsck");
    let folder = tempdir().unwrap();
    for image in golden::readable() {
        let path = image.unpack_file_system(folder.path());
        if image.verdict == Verdict::Unclean {
            assert!(tools::e2fsck_fn(&path).is_err(), "{} has something to mend", image.name);
            tools::e2fsck_p(&path).unwrap_or_else(|error| panic!("{}: {error}", image.name));
        }
        tools::e2fsck_fn(&path).unwrap_or_else(|error| panic!("{}: {error}", image.name));
    }
}

#[test]
fn the_kernel_shows_what_the_committed_manifests_say() {
    need_mount!();
    let folder = tempdir().unwrap();
    let mut mounted = 0;
    for image in golden::readable() {
        if !image.kernel_mounts() {
            continue;
        }
        let path = image.unpack(folder.path());
        let seen = mount::with_mount_of(&path, "ext2", Access::ReadOnly, image.offset, |dir| {
            e2dax_tests::walk(dir).unwrap()
        });
        assert_same(&image.name, &seen, &image.manifest());
        mounted += 1;
    }
    assert!(mounted > 20, "only {mounted} images were mounted");
}

#[test]
fn the_kernel_refuses_to_mount_as_ext2_what_is_to_be_refused() {
    need_mount!();
    let folder = tempdir().unwrap();
    for image in golden::all().iter().filter(|image| !image.reads()) {
        let path = image.unpack(folder.path());
        // The ext4 driver that stands in for ext2 knows ext4's features; asked for ext2 it says no to them.
        let answer = mount::try_mount(&path, Access::ReadOnly);
        assert!(answer.is_err(), "{} was mounted as ext2", image.name);
    }
}

/// Opens the file system of a golden image, in memory, read-only.
fn open(image: &golden::Golden) -> Result<Ext2, Error> {
    let device = RamDevice::from_bytes(&image.file_system()).unwrap();
    Ext2::open(Arc::new(device), &OpenOptions::read_only())
}

#[test]
fn our_reader_sees_what_the_kernel_saw() {
    for image in golden::readable() {
        let fs = open(&image).unwrap_or_else(|error| panic!("{}: {error}", image.name));
        let found = from_image(&fs).unwrap_or_else(|error| panic!("{}: {error}", image.name));
        assert_same(&image.name, &found, &image.manifest());
    }
}

#[test]
fn what_is_not_ext2_is_refused_by_name() {
    for image in golden::all() {
        let Verdict::Refuses(word) = &image.verdict else { continue };
        let error = open(&image).expect_err(&image.name);
        assert!(matches!(error, Error::Incompatible(_)), "{}: {error:?}", image.name);
        assert!(error.to_string().contains(word), "{}: {error} does not name {word}", image.name);
    }
}

#[test]
fn a_journal_that_needs_recovery_can_be_ignored_read_only() {
    let device = Arc::new(RamDevice::from_bytes(&golden::golden("ext3-recover")).unwrap());
    let ignore = OpenOptions { ignore_journal: true, ..OpenOptions::read_only() };
    let fs = Ext2::open(device.clone(), &ignore).unwrap();
    // What the journal alone holds is not seen.
    let names: Vec<_> = from_image(&fs).unwrap().entries().iter().map(|entry| entry.path.clone()).collect();
    assert_eq!(names, [&b"/"[..], b"/lost+found"]);
    let write = OpenOptions { read_only: false, ..ignore };
    assert!(Ext2::open(device, &write).is_err(), "a journal that needs recovery is never written past");
}
