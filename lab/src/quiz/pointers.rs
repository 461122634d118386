//! Which pointer leads to a byte of a file. The answer is what the path of the library's own block map says: a block is
//! stored there, and the pointers that are set then are looked at.

use std::sync::Arc;

use blockdev::RamDevice;
use ext2_core::{BlockSize, Timestamp};
use ext2_dax::DaxFs;
use ext2_dax::replay::{Player, Script};
use ext2_image::mkfs::{self, Format, Fresh};

use super::random::Random;
use super::{Question, shuffled};
use crate::image::Held;
use crate::machines::{self, NOW};

const LEVELS: [&str; 4] =
    ["a direct pointer", "the indirect block", "the double indirect block", "the triple indirect block"];

pub(super) fn ask(seed: u64, random: &mut Random) -> Result<(Question, Vec<u8>), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let block = *random.choose(&[1024_u64, 2048, 4096]).unwrap_or(&1024);
    let per = block / 4;
    // Somewhere in each kind of subtree, and as often at its edges.
    let edges = [12, 12 + per, 12 + per + per * per];
    let index = match random.below(7) {
        0 => random.below(12),
        1 => edges[0] - 1 + random.below(2),
        2 => edges[0] + random.below(per),
        3 => edges[1] - 1 + random.below(2),
        4 => edges[1] + random.below(per * per),
        5 => edges[2] - 1 + random.below(2),
        _ => edges[2] + random.below(per * per),
    };
    let byte = index * block + random.below(block);
    let device = Arc::new(RamDevice::new(1 << 20).map_err(|error| text(&error))?);
    let format =
        Format { block_size: BlockSize::new(block), created: Timestamp::from_secs(NOW), ..Format::default() };
    mkfs::format(&*device, &format, Fresh::Zeros).map_err(|error| text(&error))?;
    let ours = machines::ours();
    let ext2 = machines::open(Arc::clone(&device) as _, ours.policy)?;
    let script =
        Script::parse(format!("create f\nwrite f {byte} 1 1\n").as_bytes()).map_err(|error| text(&error))?;
    let mut player = Player::new(DaxFs::new(ext2.clone(), ours.options));
    player.play(&script, |_| ());
    let ino = ext2.resolve(b"/f", ext2_core::Follow::Yes).map_err(|error| text(&error))?.nr().get();
    drop(player);
    ext2.close().map_err(|error| text(&error))?;
    let held = Held::new(device.to_vec());
    let pointers = held.file(ino)?.pointers;
    let slot = pointers.iter().position(|pointer| *pointer != 0).ok_or("nothing was stored")?;
    let level = slot.saturating_sub(11);
    let right = LEVELS.get(level).copied().unwrap_or_default().to_owned();
    let (choices, right) = shuffled(random, right, LEVELS.iter().map(|level| (*level).to_owned()).collect());
    let question = Question {
        seed,
        topic: "pointers",
        text: format!(
            "Blocks have {block} bytes. A file has one byte stored, byte {byte}. What does its inode lead there by?"
        ),
        choices,
        right,
        explanation: format!(
            "It is in block {index} of the file. Blocks 0 to 11 have direct pointers; a block of {block} bytes holds {per} \
             pointers, so the indirect one covers blocks 12 to {}, the double indirect one those to {}. Here i_block[{slot}] is set.",
            edges[1] - 1,
            edges[2] - 1
        ),
        place: (String::new(), String::new()),
    };
    Ok((question, held.bytes()))
}
