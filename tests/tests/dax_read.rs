//! Files of the golden images read by DAX: by read calls and by loads through mappings, beside ext2-core's
//! own reading by copying.

use std::sync::Arc;

use blockdev::{BlockDevice, FileDevice, RamDevice};
use e2dax_tests::golden;
use ext2_core::{Ext2, FileKind, Follow, Inode, OpenOptions};
use ext2_dax::compat::Compat;
use ext2_dax::mmu::soft::{MapRequest, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};

const MIB: u64 = 1 << 20;

fn open(device: Arc<dyn BlockDevice>) -> Ext2 {
    Ext2::open(device, &OpenOptions { read_only: true, ..OpenOptions::default() }).unwrap()
}

/// Every regular file below `dir`, each once.
fn files(dir: &Inode, found: &mut Vec<Inode>) {
    for entry in dir.entries(0).unwrap() {
        let entry = entry.unwrap();
        if entry.name == b"." || entry.name == b".." {
            continue;
        }
        let inode = dir.fs().inode(entry.nr).unwrap();
        match inode.kind() {
            FileKind::Directory => files(&inode, found),
            FileKind::Regular if !found.iter().any(|known| known.nr() == inode.nr()) => found.push(inode),
            _ => {}
        }
    }
}

/// Compares the first and last MiB of `file` with what copying reads there.
fn compare(name: &str, file: &File, mmu: &Arc<SoftMmu>) {
    let size = file.size();
    for start in [0, size.saturating_sub(MIB) & !4095] {
        let len = (size - start).min(MIB);
        let mut expected = vec![0; len as usize];
        assert_eq!(file.inode().read_at(start, &mut expected).unwrap() as u64, len);
        let mut got = vec![1; len as usize];
        assert_eq!(file.read_at(start, &mut got).unwrap(), len, "{name} inode {:?}", file.inode());
        assert!(got[..len as usize] == expected, "{name}: {:?} by read", file.inode());
        assert_eq!(file.read_at(size, &mut [1; 10]).unwrap(), 0);
        if file.is_dax() && len > 0 {
            let request = MapRequest {
                offset: start,
                len,
                sharing: Sharing::Shared,
                protection: Protection::ReadOnly,
                colour: 0,
            };
            let map = file.map(mmu, &request).unwrap();
            map.load_bytes(0, &mut got[..len as usize]).unwrap();
            assert!(got[..len as usize] == expected, "{name}: {:?} by load", file.inode());
        }
    }
}

#[test]
fn every_golden_file_reads_and_loads_as_it_copies() {
    let mut compared = 0;
    for image in golden::readable() {
        let bytes = image.file_system();
        let device: Arc<dyn BlockDevice> = Arc::new(RamDevice::from_bytes(&bytes).unwrap());
        let fs = DaxFs::new(open(device), DaxOptions::default());
        let mut found = Vec::new();
        files(&fs.ext2().root().unwrap(), &mut found);
        let mmu = SoftMmu::new();
        for inode in found {
            compare(&image.name, &File::open(&fs, inode, OpenFor::Reading).unwrap(), &mmu);
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared} files were compared");
}

fn golden_fs(name: &str, compat: Compat) -> DaxFs {
    let device: Arc<dyn BlockDevice> =
        Arc::new(RamDevice::from_bytes(&golden::image(name).file_system()).unwrap());
    DaxFs::new(open(device), DaxOptions { compat, ..DaxOptions::default() })
}

/// Faults of 2 MiB and of 4 KiB that reading 2 MiB of hole takes.
fn faults_of_a_hole(compat: Compat) -> (u64, u64) {
    let fs = golden_fs("two-mib", compat);
    let inode = fs.ext2().resolve(b"/hole", Follow::Yes).unwrap();
    let file = File::open(&fs, inode, OpenFor::Reading).unwrap();
    let mmu = SoftMmu::new();
    let request = MapRequest {
        offset: 0,
        len: 2 * MIB,
        sharing: Sharing::Shared,
        protection: Protection::ReadOnly,
        colour: 0,
    };
    let map = file.map(&mmu, &request).unwrap();
    map.load_bytes(0, &mut vec![1; 2 * MIB as usize]).unwrap();
    let counters = mmu.counters();
    (counters.pmd_faults, counters.pte_faults)
}

#[test]
fn two_megabytes_of_hole_cost_one_fault_and_512_in_linux() {
    assert_eq!(faults_of_a_hole(Compat::FULL), (1, 0));
    assert_eq!(faults_of_a_hole(Compat::LINUX_6_1), (0, 512));
}

#[test]
fn a_file_on_a_device_that_is_no_memory_reads_by_copying_and_cannot_be_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, golden::golden("two-mib")).unwrap();
    let device: Arc<dyn BlockDevice> = Arc::new(
        FileDevice::open(
            &path,
            &blockdev::DeviceOptions { read_only: true, ..blockdev::DeviceOptions::default() },
        )
        .unwrap(),
    );
    let fs = DaxFs::new(open(device), DaxOptions::default());
    let mut found = Vec::new();
    files(&fs.ext2().root().unwrap(), &mut found);
    assert!(!found.is_empty());
    let mmu = SoftMmu::new();
    for inode in found {
        let file = File::open(&fs, inode, OpenFor::Reading).unwrap();
        assert!(!file.is_dax());
        compare("two-mib", &file, &mmu);
        let request = MapRequest {
            offset: 0,
            len: 4096,
            sharing: Sharing::Shared,
            protection: Protection::ReadOnly,
            colour: 0,
        };
        assert_eq!(file.map(&mmu, &request).unwrap_err().errno().get(), 95);
    }
}
