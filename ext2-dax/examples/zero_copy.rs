//! Searches records in a file of an image without reading it: the file is mapped, and a load of a key is a load of the image.
//!
//! `cargo run --release -p ext2-dax --example zero_copy -- [MIB]`; 1,024 MiB of records by default, in an image that is made
//! for it in `/dev/shm` and goes with the program.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use blockdev::MmapDevice;
use ext2_core::{BlockSize, Ext2, FileKind, NewInode, OpenOptions};
use ext2_dax::mmu::host::{HostMmu, HostOptions};
use ext2_dax::mmu::soft::MapRequest;
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};
use ext2_image::mkfs::{self, Format, Fresh};

/// Bytes of a record; its key is the first eight.
const RECORD: u64 = 64;

/// The key of a record: no two have the same.
fn key(record: u64) -> u64 {
    record.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mib: u64 = std::env::args().nth(1).map_or(Ok(1024), |text| text.parse())?;
    let size = mib << 20;
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let image = tempfile::Builder::new().prefix("records").tempfile_in(folder)?;
    image.as_file().set_len(size + size / 64 + (16 << 20))?;
    let device = MmapDevice::open(image.path(), &blockdev::DeviceOptions::read_write())?;
    mkfs::format(&device, &Format { block_size: BlockSize::new(4096), ..Format::default() }, Fresh::Zeros)?;
    let ext2 = Ext2::open(Arc::new(device), &OpenOptions::default())?;
    let fs = DaxFs::new(ext2.clone(), DaxOptions::default());

    let inode = ext2.root()?.create(b"records", &NewInode::new(FileKind::Regular, 0o644))?;
    let file = File::open(&fs, inode, OpenFor::Writing)?;
    let mut part = vec![0; 1 << 20];
    for at in (0..size).step_by(part.len()) {
        for (record, bytes) in (at / RECORD..).zip(part.chunks_exact_mut(64)) {
            bytes[..8].copy_from_slice(&key(record).to_le_bytes());
        }
        file.write_at(at, &part)?;
    }

    // Two searches: by one that reads, a MiB at a time, and by one that looks.
    let (last, begin) = (size / RECORD - 1, Instant::now());
    let mut found = None;
    for at in (0..size).step_by(part.len()) {
        file.read_at(at, &mut part)?;
        let is_it = |bytes: &[u8]| bytes.get(..8) == Some(&key(last).to_le_bytes()[..]);
        found = found.or(part.chunks_exact(64).position(is_it).map(|nr| at / RECORD + nr as u64));
    }
    println!("read:   record {found:?} of {mib} MiB in {:?}", begin.elapsed());

    let mmu = HostMmu::new(HostOptions::default())?;
    let protection = Protection::ReadOnly;
    let begin = Instant::now();
    let map = file.map_host(
        &mmu,
        &MapRequest { offset: 0, len: size, sharing: Sharing::Shared, protection, colour: 0 },
    )?;
    let records = map.slice(0, size)?;
    let mut found = None;
    for record in 0..=last {
        if records.load_u64(record * RECORD)? == key(last) {
            found = Some(record);
        }
    }
    println!("mapped: record {found:?} of {mib} MiB in {:?}", begin.elapsed());
    let view = map.view()?;
    println!("{} mappings of the kernel, {} MiB of 2 MiB pages", view.mappings, view.huge() >> 20);
    drop((map, file, fs));
    let _ = ext2.close()?;
    if found == Some(last) { Ok(()) } else { Err("the record was not found".into()) }
}
