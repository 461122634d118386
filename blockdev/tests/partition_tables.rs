//! Partition tables: sound ones, damaged ones, and ones that mean harm.

use blockdev::{BlockDevice, Error, Partition, PartitionKind, RamDevice, partitions};
use proptest::prelude::*;

const SECTORS: u64 = 8192;

/// One entry of an MBR: type, first sector, sectors.
fn mbr_entry(device: &RamDevice, table: u64, slot: u64, kind: u8, first: u32, sectors: u32) {
    let mut raw = [0; 16];
    raw[4] = kind;
    raw[8..12].copy_from_slice(&first.to_le_bytes());
    raw[12..16].copy_from_slice(&sectors.to_le_bytes());
    device.write_at(table * 512 + 446 + slot * 16, &raw).unwrap();
    device.write_at(table * 512 + 510, &[0x55, 0xaa]).unwrap();
}

fn device() -> RamDevice {
    RamDevice::new(SECTORS * 512).unwrap()
}

/// `(index, first sector, sectors)` of what is found.
fn found(device: &RamDevice) -> Vec<(u32, u64, u64)> {
    let entries = partitions(device).unwrap();
    entries.iter().map(|entry| (entry.index, entry.offset / 512, entry.len / 512)).collect()
}

/// A GPT of two partitions, both copies.
fn gpt() -> RamDevice {
    let device = device();
    mbr_entry(&device, 0, 0, 0xee, 1, SECTORS as u32 - 1);
    let mut entries = vec![0; 128 * 128];
    // Linux filesystem data, 0fc63daf-8483-4772-8e79-3d69d8477de4.
    let linux =
        [0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4];
    for (slot, first, last) in [(0, 64_u64, 1063_u64), (4, 2048, 4095)] {
        let raw = &mut entries[slot * 128..][..128];
        raw[..16].copy_from_slice(&linux);
        raw[16] = 1;
        raw[32..40].copy_from_slice(&first.to_le_bytes());
        raw[40..48].copy_from_slice(&last.to_le_bytes());
        for (unit, at) in "röt".encode_utf16().zip((56..).step_by(2)) {
            raw[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
    }
    for (lba, other, entries_lba) in [(1, SECTORS - 1, 2), (SECTORS - 1, 1, SECTORS - 33)] {
        device.write_at(entries_lba * 512, &entries).unwrap();
        let mut raw = [0; 92];
        raw[..8].copy_from_slice(b"EFI PART");
        raw[8..12].copy_from_slice(&0x10000_u32.to_le_bytes());
        raw[12..16].copy_from_slice(&92_u32.to_le_bytes());
        for (at, value) in [(24, lba), (32, other), (40, 34), (48, SECTORS - 34), (72, entries_lba)] {
            raw[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        raw[80..84].copy_from_slice(&128_u32.to_le_bytes());
        raw[84..88].copy_from_slice(&128_u32.to_le_bytes());
        raw[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
        let crc = crc32fast::hash(&raw);
        raw[16..20].copy_from_slice(&crc.to_le_bytes());
        device.write_at(lba * 512, &raw).unwrap();
    }
    device
}

#[test]
fn a_device_without_a_table_has_no_partitions() {
    assert_eq!(found(&device()), []);
    assert_eq!(found(&RamDevice::new(100).unwrap()), []);
    assert!(matches!(Partition::numbered(device(), 1), Err(Error::BadTable(_))));
}

#[test]
fn primary_and_logical_partitions_are_numbered_as_linux_does() {
    let device = device();
    mbr_entry(&device, 0, 0, 0x83, 63, 100);
    mbr_entry(&device, 0, 2, 0x0f, 1000, 3000);
    // Logical ones count from their own table, the links from the extended partition.
    mbr_entry(&device, 1000, 0, 0x83, 8, 500);
    mbr_entry(&device, 1000, 1, 0x05, 600, 700);
    mbr_entry(&device, 1600, 0, 0x82, 8, 400);
    assert_eq!(found(&device), [(1, 63, 100), (3, 1000, 3000), (5, 1008, 500), (6, 1608, 400)]);
    assert_eq!(partitions(&device).unwrap()[3].kind, PartitionKind::Mbr(0x82));
    device.write_at(1608 * 512, b"swap").unwrap();
    let mut buf = [0; 4];
    Partition::numbered(&device, 6).unwrap().read_at(0, &mut buf).unwrap();
    assert_eq!(&buf, b"swap");
    assert!(Partition::numbered(&device, 2).is_err());
}

#[test]
fn a_chain_of_logical_partitions_that_loops_or_leaves_ends() {
    for next in [0, 1, 100, u32::MAX] {
        let device = device();
        mbr_entry(&device, 0, 0, 0x05, 1000, 3000);
        mbr_entry(&device, 1000, 0, 0x83, 8, 500);
        mbr_entry(&device, 1000, 1, 0x05, next, 700);
        mbr_entry(&device, 1001, 1, 0x05, 0, 700);
        let entries = found(&device);
        assert_eq!(entries[..2], [(1, 1000, 3000), (5, 1008, 500)]);
        assert_eq!(entries.len(), 2);
    }
}

#[test]
fn an_entry_beyond_the_device_is_listed_and_not_opened() {
    let device = device();
    mbr_entry(&device, 0, 1, 0x83, u32::MAX, u32::MAX);
    assert_eq!(found(&device), [(2, u64::from(u32::MAX), u64::from(u32::MAX))]);
    assert!(matches!(Partition::numbered(&device, 2), Err(Error::OutOfRange { .. })));
}

#[test]
fn a_gpt_is_read_from_either_copy() {
    let device = gpt();
    let sound = partitions(&device).unwrap();
    assert_eq!(found(&device), [(1, 64, 1000), (5, 2048, 2048)]);
    assert_eq!(sound[0].name, "röt");
    assert_eq!(sound[0].kind.to_string(), "0fc63daf-8483-4772-8e79-3d69d8477de4");
    // A bit of the header, then a bit of an entry.
    for offset in [512 + 40, 1024 + 32] {
        let device = gpt();
        device.write_at(offset, &[0xff]).unwrap();
        assert_eq!(partitions(&device).unwrap(), sound);
        device.write_at((SECTORS - 1) * 512, b"no").unwrap();
        assert!(matches!(partitions(&device), Err(Error::BadTable(_))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_tables_end_in_an_answer(
        is_gpt in any::<bool>(),
        edits in prop::collection::vec((0..2048_u64, any::<u8>()), 1..40),
        links in prop::collection::vec((0..64_u64, any::<u8>(), any::<u32>()), 0..20),
        fix in any::<bool>(),
    ) {
        let device = if is_gpt { gpt() } else { device() };
        if !is_gpt {
            mbr_entry(&device, 0, 0, 0x05, 1, 100);
            for (table, kind, first) in links {
                mbr_entry(&device, table, table % 4, kind, first % 80, first);
            }
        }
        for (offset, byte) in edits {
            device.write_at(offset, &[byte]).unwrap();
        }
        if fix && is_gpt {
            // Checksums that agree with the damage let it through to what reads the fields.
            let mut raw = [0; 92];
            device.read_at(512, &mut raw).unwrap();
            raw[12..16].copy_from_slice(&92_u32.to_le_bytes());
            raw[16..20].fill(0);
            let crc = crc32fast::hash(&raw);
            raw[16..20].copy_from_slice(&crc.to_le_bytes());
            device.write_at(512, &raw).unwrap();
        }
        if let Ok(entries) = partitions(&device) {
            prop_assert!(entries.len() < 10_000);
            for entry in entries {
                let _ = Partition::new(&device, entry.offset, entry.len);
            }
        }
    }
}

#[test]
fn the_backup_of_a_gpt_serves_where_the_first_copy_cannot_be_read() {
    let device = gpt();
    let sound = found(&device);
    assert_eq!(sound.len(), 2);
    // Entries, and no header.
    device.poison(1).unwrap();
    assert_eq!(found(&device), sound);
    // The backup's.
    device.poison((SECTORS - 33) * 512 / 4096).unwrap();
    assert_eq!(partitions(&device), Err(Error::Poisoned { offset: 4096 }));
}
