//! The recorded scripts, their mappings in this process.

use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use blockdev::{BlockDevice, MmapDevice};
use e2dax_tests::oracle::{self, Step};
use ext2_core::{Ext2, OpenOptions};
use ext2_dax::mmu::host::{HostMmu, HostOptions};
use ext2_dax::replay::{Events, Player};
use ext2_dax::{Compat, DaxFs, DaxOptions, Flushing};
use tempfile::NamedTempFile;

use crate::setup::{answered, need_faults};

fn options() -> DaxOptions {
    DaxOptions { compat: Compat::FULL, media: Flushing::NeedsFlush, ..DaxOptions::default() }
}

/// The image that a script starts from, in a file that can be mapped.
fn image(name: &str) -> NamedTempFile {
    static EMPTY: OnceLock<Vec<u8>> = OnceLock::new();
    static SMALL: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = if name == "12-enospc" { &SMALL } else { &EMPTY };
    let bytes = bytes.get_or_init(|| {
        let ram = oracle::device(name);
        let mut bytes = vec![0; ram.size() as usize];
        ram.read_at(0, &mut bytes).unwrap();
        bytes
    });
    let file = tempfile::Builder::new().prefix("host-map").tempfile_in("/dev/shm").unwrap();
    file.as_file().set_len(bytes.len() as u64).unwrap();
    let zeros = [0; 64 << 10];
    for (at, part) in (0..).step_by(zeros.len()).zip(bytes.chunks(zeros.len())) {
        if !zeros.starts_with(part) {
            file.as_file().write_all_at(part, at).unwrap();
        }
    }
    file
}

fn device(file: &NamedTempFile) -> Arc<dyn BlockDevice> {
    Arc::new(MmapDevice::open(file.path(), &blockdev::DeviceOptions::read_write()).unwrap())
}

fn replay(name: &str, way: HostOptions) -> Vec<Step> {
    let file = image(name);
    let ext2 = Ext2::open(device(&file), &OpenOptions::default()).unwrap();
    let mut player = Player::with_host(DaxFs::new(ext2, options()), HostMmu::new(way).unwrap());
    let mut text = String::new();
    player.play(&oracle::script(name), |outcome| outcome.write_oracle(&mut text, Events::Hidden).unwrap());
    oracle::parse(&text)
}

#[test]
fn every_line_of_every_script_is_as_in_software() {
    need_faults!();
    let names = oracle::scripts();
    assert_eq!(names.len(), 28);
    let mut found = Vec::new();
    for name in names {
        let file = image(&name);
        let software = oracle::replay(device(&file), &oracle::script(&name), options());
        for way in answered() {
            let ours = replay(&name, way);
            assert_eq!(ours.len(), software.len());
            for (our, their) in ours.iter().zip(&software) {
                // How many blocks a file has depends on which faults were asked to be units.
                let blocks = matches!(our.verb(), "fiemap" | "stat");
                if our.op != their.op || (our.result != their.result && !blocks) {
                    found.push(format!(
                        "{name}, {way:?}: {} => {}, in software {}",
                        our.op, our.result, their.result
                    ));
                }
            }
        }
    }
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}
