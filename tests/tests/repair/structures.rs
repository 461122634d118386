//! Damage to the structures of the format: a field of one gets a value that is likely where it is, or one structure the
//! bytes of another.

use std::{env, ops::Range};

use e2dax_tests::{Rng, golden, need_tools};

use crate::bench::{Bench, Row, judge};

/// Where all damage comes from.
const SEED: u64 = 0x6532_6669_656c_6473;
/// Images that are too large to be copied for each variant.
const LARGE: usize = 40 << 20;

/// Where the structures of a sound image lie, by kind, and what numbers its fields have.
struct Structures {
    bytes: Vec<u8>,
    block: usize,
    kinds: Vec<Vec<Range<usize>>>,
    /// Blocks that files and tables have, and inodes in use.
    blocks: Vec<u32>,
    inodes: Vec<u32>,
}

fn half(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 2).map_or(0, |two| usize::from(u16::from_le_bytes([two[0], two[1]])))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_le_bytes(*four))
}

impl Structures {
    fn new(bytes: Vec<u8>) -> Self {
        const SUPER: usize = 1024;
        let block = 1024 << word(&bytes, SUPER + 24);
        let mut found = Self { block, kinds: Vec::new(), blocks: Vec::new(), inodes: Vec::new(), bytes };
        let bytes = &found.bytes;
        let (count, per_group) = (word(bytes, SUPER), word(bytes, SUPER + 40));
        let size = if word(bytes, SUPER + 76) == 0 { 128 } else { half(bytes, SUPER + 88) };
        let descriptors = (word(bytes, SUPER + 20) as usize + 1) * block;
        // Of meta groups only the first lie there; those are enough.
        let groups = count.div_ceil(per_group).min((block / 32) as u32) as usize;
        let [mut inodes, mut pointers, mut directories, mut attributes, mut journal] =
            [const { Vec::new() }; 5];
        let (mut blocks, mut used) = (Vec::new(), Vec::new());
        for group in 0..groups {
            let descriptor = descriptors + group * 32;
            let [bitmap, inode_bitmap, table] = [0, 4, 8].map(|at| word(bytes, descriptor + at));
            blocks.extend([bitmap, inode_bitmap, table]);
            for bit in 0..per_group as usize {
                let map = inode_bitmap as usize * block + bit / 8;
                if bytes.get(map).is_none_or(|byte| byte >> (bit % 8) & 1 == 0) {
                    continue;
                }
                let (at, nr) =
                    (table as usize * block + bit * size, group as u32 * per_group + bit as u32 + 1);
                if half(bytes, at) == 0 || at + size > bytes.len() {
                    continue;
                }
                inodes.push(at..at + size);
                used.push(nr);
                let acl = word(bytes, at + 104);
                if acl != 0 {
                    attributes.push(found.range(acl));
                }
                let kind = half(bytes, at) >> 12;
                // A short symlink and a device have no blocks.
                let is_long_link = kind == 10 && word(bytes, at + 28) > 8;
                if !matches!(kind, 4 | 8) && !is_long_link {
                    continue;
                }
                let mut data = Vec::new();
                for slot in 0..15 {
                    let pointer = word(bytes, at + 40 + slot * 4);
                    found.follow(pointer, slot.saturating_sub(11), &mut data, &mut pointers);
                }
                blocks.extend(data.iter().take(40));
                match (kind, nr) {
                    (4, _) => directories.extend(data.iter().map(|&block| found.range(block))),
                    (_, 8) => journal.extend(data.iter().take(20).map(|&block| found.range(block))),
                    _ => {}
                }
            }
        }
        let supers = std::iter::once(SUPER..SUPER + 264).collect();
        let descriptors = (0..groups).map(|nr| descriptors + nr * 32..descriptors + nr * 32 + 32).collect();
        let kinds = vec![supers, descriptors, inodes, pointers, directories, attributes, journal];
        let inside = |kind: Vec<Range<usize>>| -> Vec<Range<usize>> {
            kind.into_iter().filter(|range| range.end <= found.bytes.len()).collect()
        };
        found.kinds = kinds.into_iter().map(inside).filter(|kind| !kind.is_empty()).collect();
        (found.blocks, found.inodes) = (blocks, used);
        found
    }

    fn range(&self, block: u32) -> Range<usize> {
        block as usize * self.block..(block as usize + 1) * self.block
    }

    /// The blocks below a pointer of a file, and the blocks of pointers.
    fn follow(&self, pointer: u32, level: usize, data: &mut Vec<u32>, pointers: &mut Vec<Range<usize>>) {
        let range = self.range(pointer);
        if pointer == 0 || range.end > self.bytes.len() {
            return;
        }
        if level == 0 {
            data.push(pointer);
            return;
        }
        pointers.push(range.clone());
        for at in range.step_by(4) {
            self.follow(word(&self.bytes, at), level - 1, data, pointers);
        }
    }

    /// The image with one to three structures damaged.
    fn damaged(&self, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for _ in 0..=rng.below(3) {
            let kind = rng.pick(&self.kinds);
            let place = rng.pick(kind).clone();
            if rng.one_in(8) {
                // Another of its kind in its place.
                let other = rng.pick(kind).clone();
                bytes.copy_within(other, place.start);
                continue;
            }
            let width = *rng.pick(&[1, 2, 2, 4, 4, 4]);
            // Most of a block is empty, and what it says is at its beginning.
            let len = if rng.one_in(3) { place.len() } else { place.len().min(128) };
            let at = place.start + rng.below((len / width) as u64) as usize * width;
            let value = match rng.below(7) {
                0 => *rng.pick(&[0, 1, 2, 8, 11, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, u32::MAX]),
                1 => *rng.pick(&self.blocks),
                2 => *rng.pick(&self.inodes),
                3 => word(&bytes, at) ^ 1 << rng.below(width as u64 * 8),
                4 => word(&bytes, at).wrapping_add(rng.below(5) as u32).wrapping_sub(2),
                5 => word(&bytes, rng.pick(kind).start + (at - place.start) % 128),
                _ => rng.next() as u32,
            };
            bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        bytes
    }
}

#[test]
fn structures_with_wrong_fields_are_mended_in_one_repair_and_nothing_is_lost_that_e2fsck_keeps() {
    need_tools!("e2fsck");
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, count) =
        (number("E2DAX_REPAIR_FIRST").unwrap_or(0), number("E2DAX_REPAIR_VARIANTS").unwrap_or(1));
    let alone = env::var("E2DAX_REPAIR").ok();
    let bench = Bench::new();
    let mut rows: Vec<Row> = Vec::new();
    for image in golden::all() {
        let bytes = image.file_system();
        if bytes.len() > LARGE || !image.reads() && image.name != "ext3-recover" {
            continue;
        }
        let structures = Structures::new(bytes);
        for number in first..first + count {
            let name = format!("{}:{number}", image.name);
            if alone.as_ref().is_some_and(|alone| *alone != name) {
                continue;
            }
            let bytes = structures.damaged(&mut Rng::named(SEED + number, &image.name));
            if let (Some(_), Ok(keep)) = (&alone, env::var("E2DAX_REPAIR_KEEP")) {
                std::fs::write(keep, &bytes).expect("the image is kept");
            }
            rows.push(bench.compare(&name, &bytes));
        }
    }
    judge(&rows);
}
