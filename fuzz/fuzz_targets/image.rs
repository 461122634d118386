//! A golden image with structured damage: opened, read to the end, checked, changed, mended.
#![no_main]

use std::sync::{Arc, OnceLock};

use arbitrary::Arbitrary;
use e2dax_tests::exercise::{modify_everything, try_everything};
use e2dax_tests::golden;
use e2dax_tests::hostile::{Damage, Victim, Workbench};
use ext2_image::check::{Options as CheckOptions, check, mend};
use ext2_core::{Ext2, OpenOptions, Policy};
use libfuzzer_sys::fuzz_target;

/// Calls of the device that one input may cost.
const CALLS: u64 = 20_000_000;

/// Damage to one of the golden images. Places are chosen among the parts that hold something.
#[derive(Arbitrary, Debug)]
struct Input {
    image: u8,
    edits: Vec<Edit>,
    goal: bool,
}

#[derive(Arbitrary, Debug)]
enum Edit {
    /// A 32-bit field of a part that holds something.
    Word { part: u16, word: u8, value: u32 },
    /// A byte anywhere in such a part.
    Byte { part: u16, at: u8, value: u8 },
    /// The image ends early.
    End { eighths: u8 },
}

fn victims() -> &'static [Victim] {
    static VICTIMS: OnceLock<Vec<Victim>> = OnceLock::new();
    VICTIMS.get_or_init(|| {
        let small = golden::readable()
            .into_iter()
            .map(|golden| golden.file_system())
            .filter(|bytes| bytes.len() <= 4 << 20);
        small.map(Victim::new).collect()
    })
}

fuzz_target!(|input: Input| {
    let victims = victims();
    let victim = &victims[usize::from(input.image) % victims.len()];
    let grains: Vec<_> = victim.hot_grains().collect();
    let place = |part: u16| grains[usize::from(part) % grains.len()].clone();
    let damage: Vec<Damage> = input
        .edits
        .iter()
        .take(16)
        .map(|edit| match edit {
            Edit::Word { part, word, value } => {
                let grain = place(*part);
                let at = grain.start + usize::from(*word) * 4 % grain.len().max(4);
                Damage::Replace(at.min(victim.len() - 4), value.to_le_bytes().to_vec())
            }
            Edit::Byte { part, at, value } => {
                let grain = place(*part);
                Damage::Replace(grain.start + usize::from(*at) % grain.len(), vec![*value])
            }
            Edit::End { eighths } => Damage::Truncate(victim.len() / 8 * usize::from(eighths % 8)),
        })
        .collect();
    let device = Arc::new(Workbench::new(victim.damaged(&damage), CALLS));
    if let Ok(fs) = Ext2::open(device.clone(), &OpenOptions::read_only()) {
        try_everything(&fs);
    }
    let _ = check(&*device, &CheckOptions::default(), &mut |_| {});
    let policy = if input.goal { Policy::Goal } else { Policy::Aligned };
    if let Ok(fs) = Ext2::open(device.clone(), &OpenOptions { policy, ..OpenOptions::default() }) {
        modify_everything(&fs);
        let _ = fs.close();
    }
    let _ = mend(&*device, 1_800_000_000, &mut |_| {});
    assert_eq!(device.offence(), None);
});
