//! A disk around an image: sfdisk finds nothing to complain of, and our reader finds what was placed.

use blockdev::{BlockDevice as _, RamDevice, partitions};
use e2dax_tests::{need_tools, tools};
use ext2_image::disk::{Disk, Kind, Part, Table};
use ext2_image::mkfs::{DeviceOutput, Fresh};

fn part(name: &str, kind: Kind, bytes: u64) -> Part {
    Part { name: name.to_owned(), kind, bytes }
}

/// What sfdisk says of a disk.
fn sfdisk(path: &std::path::Path, what: &str) -> String {
    let output = tools::command("sfdisk").arg(what).arg(path).output().unwrap();
    let words = tools::words(&output);
    assert!(output.status.success() && output.stderr.is_empty(), "{words}");
    words
}

#[test]
fn tables_are_what_sfdisk_and_our_own_reader_take_for_sound() {
    need_tools!("sfdisk");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    for table in [Table::Gpt, Table::Mbr] {
        let parts = vec![part("EFI", Kind::EFI, 1_000_001), part("root", Kind::LINUX, 6 << 20)];
        let disk = Disk::new(table, parts, &[7; 16], None).unwrap();
        let device = RamDevice::new(disk.bytes).unwrap();
        disk.write(&DeviceOutput::new(&device, Fresh::Zeros)).unwrap();
        let found = partitions(&device).unwrap();
        assert_eq!(found.len(), disk.parts.len());
        for (found, placed) in found.iter().zip(&disk.parts) {
            assert_eq!((found.offset, found.len), (placed.offset, placed.len));
            assert!(placed.offset % (2 << 20) == 0 && placed.len >= placed.part.bytes);
        }
        std::fs::write(&path, device.to_vec()).unwrap();
        assert!(sfdisk(&path, "--verify").contains("No errors detected"));
        let dump = sfdisk(&path, "--dump").to_lowercase();
        if table == Table::Gpt {
            (0..2).for_each(|index| assert!(dump.contains(&disk.part_uuid(index).to_lowercase()), "{dump}"));
        }
        // The same partitions and seed, the same bytes.
        let again = RamDevice::new(device.size()).unwrap();
        disk.write(&DeviceOutput::new(&again, Fresh::Zeros)).unwrap();
        assert!(again.to_vec() == device.to_vec());
    }
}

#[test]
fn what_a_table_cannot_hold_is_refused() {
    let many = |count| (0..count).map(|_| part("x", Kind::LINUX, 4096)).collect();
    assert!(Disk::new(Table::Mbr, many(5), &[0; 16], None).is_err());
    assert!(Disk::new(Table::Gpt, many(129), &[0; 16], None).is_err());
    assert!(Disk::new(Table::Gpt, vec![part(&"n".repeat(37), Kind::LINUX, 1)], &[0; 16], None).is_err());
    assert!(Disk::new(Table::Gpt, many(2), &[0; 16], Some(4 << 20)).is_err());
    assert!(Disk::new(Table::Mbr, vec![part("", Kind::LINUX, 3 << 40)], &[0; 16], None).is_err());
}
