//! The recorded scripts, their mappings in this process.

use std::sync::Arc;

use blockdev::{BlockDevice, MmapDevice};
use e2dax_tests::oracle::{self, Step};
use ext2_core::{Ext2, OpenOptions};
use ext2_dax::mmu::host::{HostMmu, HostOptions};
use ext2_dax::replay::{Events, Player};
use ext2_dax::{Compat, DaxFs, DaxOptions, Flushing};

use crate::setup::{answered, need_faults};

fn options() -> DaxOptions {
    DaxOptions { compat: Compat::FULL, media: Flushing::NeedsFlush, ..DaxOptions::default() }
}

fn replay(name: &str, way: HostOptions) -> Vec<Step> {
    let file = tempfile::Builder::new().tempfile_in("/dev/shm").unwrap();
    let ram = oracle::device(name);
    file.as_file().set_len(ram.size()).unwrap();
    let mut bytes = vec![0; 1 << 20];
    for at in (0..ram.size()).step_by(bytes.len()) {
        ram.read_at(at, &mut bytes).unwrap();
        if bytes.iter().any(|byte| *byte != 0) {
            std::os::unix::fs::FileExt::write_all_at(file.as_file(), &bytes, at).unwrap();
        }
    }
    let device = MmapDevice::open(file.path(), &blockdev::DeviceOptions::read_write()).unwrap();
    let ext2 = Ext2::open(Arc::new(device), &OpenOptions::default()).unwrap();
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
        let software = oracle::replay(oracle::device(&name), &oracle::script(&name), options());
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
