//! Every state that a crash may leave of a workload of one's own, each opened and looked at.
//!
//! The workload replaces a file as careful programs do: a new one under another name, synced, renamed. Whatever the crash,
//! the name leads to the old contents or to the new ones.
//!
//! `cargo run -p ext2-core --example crash_sweep`

use std::ops::ControlFlow;
use std::sync::Arc;

use blockdev::crash::PmemModel;
use blockdev::{BlockDevice, RamDevice, Recorder};
use ext2_core::{Ext2, Follow, OpenOptions};

const OLD: &[u8] = b"the old settings";
const NEW: &[u8] = b"the new settings, longer";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What is on the device before.
    let device = Arc::new(ext2_image::mkfs::in_memory(256 << 10)?);
    let fs = Ext2::open(device.clone(), &OpenOptions::default())?;
    fs.write("settings", OLD)?;
    fs.close()?;
    let mut base = vec![0; device.size() as usize];
    device.read_at(0, &mut base)?;

    // The workload, recorded: every store, write-back, fence and flush.
    let recorder = Arc::new(Recorder::new(RamDevice::from_bytes(&base)?));
    let fs = Ext2::open(recorder.clone(), &OpenOptions::default())?;
    fs.write("settings.new", NEW)?;
    fs.resolve("settings.new", Follow::Yes)?.sync()?;
    fs.rename_path("settings.new", "settings")?;
    fs.close()?;

    // What persistent memory may hold after a crash at any moment.
    let (mut old, mut new) = (0, 0);
    let report = PmemModel::new(&base, &recorder.take()).run(|state| {
        let seen = RamDevice::from_bytes(state.image)
            .map_err(ext2_core::Error::from)
            .and_then(|device| Ext2::open(device, &OpenOptions::default()))
            .and_then(|fs| fs.read("settings"));
        match seen.as_deref() {
            Ok(OLD) => old += 1,
            Ok(NEW) => new += 1,
            other => panic!("after a crash the file is {other:?}"),
        }
        ControlFlow::Continue(())
    });
    println!("{} states: {old} with the old contents, {new} with the new ones", report.states);
    assert!(old > 0 && new > 0);
    Ok(())
}
