//! Machines made of directories. What a real one says is tested in `tests/in_use.rs`.

use std::fs::File;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// A machine with an image of 1 MiB.
struct Machine {
    dir: TempDir,
    image: File,
}

impl Machine {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let image = dir.path().join("disk.img");
        let image = File::options().read(true).write(true).create_new(true).open(image).unwrap();
        image.set_len(1 << 20).unwrap();
        let machine = Self { dir, image };
        machine.file("proc/self/mountinfo", "");
        machine.file("proc/swaps", "Filename Type Size Used Priority\n");
        machine
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A loop device over a path of this machine.
    fn attach(&self, name: &str, backing: &str, offset: u64, limit: u64) {
        let at = |file: &str| format!("sys/block/{name}/{file}");
        self.file(&at("loop/backing_file"), &format!("{backing}\n"));
        self.file(&at("loop/offset"), &format!("{offset}\n"));
        self.file(&at("loop/sizelimit"), &format!("{limit}\n"));
        self.file(&at("size"), &format!("{}\n", ((1 << 20) - offset) / SECTOR));
        self.file(&at("dev"), &format!("7:{}\n", &name[4..]));
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn mounted(&self, number: &str, at: &str) {
        self.file("proc/self/mountinfo", &format!("36 35 {number} / {at} rw - ext2 /dev/x rw\n"));
    }

    fn user(&self, bytes: Range<u64>) -> Option<String> {
        let dir = self.dir.path();
        let system = System { sys: dir.join("sys"), proc: dir.join("proc"), dev: dir.join("dev") };
        system.user(&Image { file: &self.image, meta: self.image.metadata().unwrap() }, &bytes)
    }
}

const ALL: Range<u64> = 0..1 << 20;

#[test]
fn a_machine_that_says_nothing_uses_nothing() {
    assert_eq!(Machine::new().user(ALL), None);
}

#[test]
fn a_mounted_loop_device_is_named_with_its_mount() {
    let machine = Machine::new();
    machine.attach("loop3", &machine.path("disk.img"), 0, 0);
    machine.mounted("7:3", "/mnt/my\\040disk");
    assert_eq!(machine.user(ALL).unwrap(), "/dev/loop3 is mounted on /mnt/my disk");
}

#[test]
fn a_loop_device_that_may_be_opened_and_is_not_held_uses_nothing() {
    let machine = Machine::new();
    machine.attach("loop3", &machine.path("disk.img"), 0, 0);
    // No right to ask: taken for used.
    assert!(machine.user(ALL).unwrap().contains("may be mounted"));
    // A file in place of the device can be opened exclusively.
    machine.file("dev/loop3", "");
    assert_eq!(machine.user(ALL), None);
    machine.file("sys/block/loop3/holders/dm-0", "");
    assert_eq!(machine.user(ALL).unwrap(), "/dev/loop3 is used by dm-0");
}

#[test]
fn links_and_other_files_of_the_same_name_are_told_apart() {
    let machine = Machine::new();
    machine.mounted("7:0", "/mnt");
    machine.file("other/disk.img", "");
    machine.attach("loop0", &machine.path("other/disk.img"), 0, 0);
    assert_eq!(machine.user(ALL), None);
    symlink(machine.path("disk.img"), machine.path("link")).unwrap();
    machine.attach("loop0", &machine.path("link"), 0, 0);
    assert!(machine.user(ALL).is_some());
    fs::hard_link(machine.path("disk.img"), machine.path("hard")).unwrap();
    machine.attach("loop0", &machine.path("hard"), 0, 0);
    assert!(machine.user(ALL).is_some());
}

#[test]
fn a_path_that_leads_nowhere_is_the_images_where_somebody_has_it_open() {
    let machine = Machine::new();
    machine.mounted("7:0", "/mnt");
    for gone in ["/no/such/host/path/disk.img", "/no/such/host/path/disk.img (deleted)"] {
        machine.attach("loop0", gone, 0, 0);
        // Only this test has the file open.
        assert_eq!(machine.user(ALL), None, "{gone}");
        let _writer = File::options().write(true).open(machine.path("disk.img")).unwrap();
        assert!(machine.user(ALL).is_some(), "{gone}");
        machine.file("sys/block/loop0/size", "77\n");
        assert_eq!(machine.user(ALL), None, "another size");
    }
}

#[test]
fn only_the_bytes_that_a_loop_device_shows_are_in_use() {
    let machine = Machine::new();
    machine.attach("loop1", &machine.path("disk.img"), 65536, 65536);
    machine.mounted("7:1", "/mnt");
    assert_eq!(machine.user(0..65536), None);
    assert_eq!(machine.user(131_072..1 << 20), None);
    assert!(machine.user(131_071..131_072).is_some());
    assert!(machine.user(ALL).is_some());
}

#[test]
fn a_mounted_partition_uses_its_own_bytes() {
    let machine = Machine::new();
    machine.attach("loop1", &machine.path("disk.img"), 0, 0);
    for (nr, start) in [(1, 64), (2, 256)] {
        let at = |file: &str| format!("sys/block/loop1/loop1p{nr}/{file}");
        machine.file(&at("partition"), &format!("{nr}\n"));
        machine.file(&at("start"), &format!("{start}\n"));
        machine.file(&at("size"), "128\n");
        machine.file(&at("dev"), &format!("259:{nr}\n"));
        machine.file(&format!("dev/loop1p{nr}"), "");
    }
    machine.mounted("259:2", "/mnt");
    let found = machine.user(256 * SECTOR..384 * SECTOR).unwrap();
    assert_eq!(found, "/dev/loop1p2 is mounted on /mnt");
    assert_eq!(machine.user(64 * SECTOR..192 * SECTOR), None, "the partition beside it");
}

#[test]
fn swap_space_and_files_that_a_program_serves_are_in_use() {
    let machine = Machine::new();
    machine.file("proc/swaps", &format!("Filename Type\n{} file 1 0 -2\n", machine.path("disk.img")));
    assert_eq!(machine.user(ALL).unwrap(), "it is swap space");
    machine.file("proc/swaps", "Filename Type\n/dev/loop0 partition 1 0 -2\n");
    assert_eq!(machine.user(ALL), None);
    let served = |kind| format!("36 35 0:5 / /mnt rw - {kind} {} rw\n", machine.path("disk.img"));
    machine.file("proc/self/mountinfo", &served("fuse.other"));
    assert_eq!(machine.user(ALL).unwrap(), "it is mounted on /mnt (fuse.other)");
    machine.file("proc/self/mountinfo", &served("9p"));
    assert_eq!(machine.user(ALL), None);
}
