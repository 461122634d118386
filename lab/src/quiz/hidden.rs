//! A field of a sound image gets another value, and the student looks for it.

use super::random::Random;
use super::{Question, shuffled};
use crate::image::{Held, sample};

/// A way to break something: the structure, the field, and what its value becomes.
struct Way {
    topic: &'static str,
    what: &'static str,
    field: &'static str,
    change: Change,
    why: &'static str,
}

#[derive(Clone, Copy)]
enum Change {
    /// A little more.
    Add,
    /// This.
    To(&'static str),
    /// What another field of the image has: structure and field.
    As(&'static str, &'static str),
    /// One bit, which was set, is cleared.
    ClearBit,
    /// One bit, which was clear, is set.
    SetBit,
}

use Change::{Add, As, ClearBit, SetBit, To};

const fn way(
    topic: &'static str,
    what: &'static str,
    field: &'static str,
    change: Change,
    why: &'static str,
) -> Way {
    Way { topic, what, field, change, why }
}

/// All ways, in the sample `small`, whose tree is: /docs (inode 12), /docs/small (13), /docs/direct (14), /docs/indirect
/// (15), /sparse (16). The words `@12` stand for the first block of that directory.
const WAYS: &[Way] = &[
    way(
        "superblock",
        "sb",
        "s_first_ino",
        To("7"),
        "Inodes below s_first_ino are reserved; ext2's first free one is 11.",
    ),
    way(
        "superblock",
        "sb",
        "s_inode_size",
        To("192"),
        "An inode's size is a power of two, from 128 to a block.",
    ),
    way(
        "superblock",
        "sb",
        "s_inodes_count",
        Add,
        "There are as many inodes as groups times inodes of a group.",
    ),
    way(
        "superblock",
        "sb",
        "s_log_block_size",
        To("9"),
        "A block has 1024 << s_log_block_size bytes, at most 64 KiB.",
    ),
    way(
        "superblock",
        "sb",
        "s_blocks_count",
        To("0x7fffffff"),
        "The image has more blocks than the device has room for.",
    ),
    way(
        "superblock",
        "sb",
        "s_log_frag_size",
        Add,
        "Fragments were never built: their size is that of a block.",
    ),
    way(
        "groups",
        "group:0",
        "bg_free_blocks_count",
        Add,
        "The bitmap has fewer free blocks than the descriptor counts.",
    ),
    way(
        "groups",
        "group:0",
        "bg_free_inodes_count",
        Add,
        "The bitmap has fewer free inodes than the descriptor counts.",
    ),
    way(
        "groups",
        "group:0",
        "bg_used_dirs_count",
        Add,
        "The group has fewer directories than its descriptor counts.",
    ),
    way(
        "groups",
        "group:0",
        "bg_block_bitmap",
        To("2"),
        "The block bitmap would be where the descriptors are.",
    ),
    way(
        "groups",
        "group:0",
        "bg_inode_table",
        As("group:0", "bg_block_bitmap"),
        "The table of inodes would lie over a bitmap.",
    ),
    way(
        "bitmaps",
        "bbitmap:0",
        "",
        ClearBit,
        "A block that is in use is said to be free: the next file would get it, too.",
    ),
    way("bitmaps", "bbitmap:0", "", SetBit, "A free block is said to be in use: it is lost."),
    way("bitmaps", "ibitmap:0", "", ClearBit, "An inode that is in use is said to be free."),
    way("bitmaps", "ibitmap:0", "", SetBit, "A free inode is said to be in use."),
    way("inodes", "inode:14", "i_links_count", Add, "One name leads to the inode, and it counts more."),
    way("inodes", "inode:13", "i_links_count", To("1"), "Two names lead to the inode, and it counts one."),
    way("inodes", "inode:15", "i_blocks", Add, "The blocks of the file and of its indirect block are fewer."),
    way("inodes", "inode:14", "i_mode", To("0"), "The mode says no kind of file."),
    way(
        "inodes",
        "inode:14",
        "i_dtime",
        To("@1472250602"),
        "A file that has a name has no time of deletion.",
    ),
    way("inodes", "inode:14", "i_block[1]", As("inode:15", "i_block[2]"), "Two files have the same block."),
    way("inodes", "inode:14", "i_block[3]", To("0x00ffffff"), "The image has no such block."),
    way(
        "inodes",
        "inode:15",
        "i_block[12]",
        As("inode:14", "i_block[0]"),
        "The indirect block is a block of another file's data.",
    ),
    way("inodes", "inode:16", "i_size", To("1024"), "The file has blocks far past its size."),
    way("directories", "@12", "entry[2].inode", To("60"), "The name leads to an inode that is not in use."),
    way("directories", "@12", "entry[0].inode", To("2"), "\".\" is not the directory itself."),
    way("directories", "@12", "entry[1].inode", To("12"), "\"..\" is not the parent."),
    way(
        "directories",
        "@12",
        "entry[2].rec_len",
        To("3"),
        "A record is a multiple of 4 bytes and holds its name.",
    ),
    way("directories", "@12", "entry[3].file_type", To("2"), "The entry says that a file is a directory."),
    way("directories", "@12", "entry[3].inode", To("4000"), "There is no such inode."),
];

/// Breaks the sample by `way`; the field, what was in it and what is.
fn break_it(held: &Held, way: &Way, random: &mut Random) -> Result<(String, String, String, String), String> {
    let what = match way.what.strip_prefix('@') {
        Some(ino) => {
            let file = held.file(ino.parse().map_err(|_| "the way names no inode".to_owned())?)?;
            format!("dir:{}", file.pointers.first().copied().unwrap_or_default())
        }
        None => way.what.to_owned(),
    };
    let structure = held.structure(&what)?;
    let of = |number: &str| parse(number).ok_or_else(|| format!("{number:?} is no number"));
    let wanted = |name: &str| {
        let found = structure.fields.iter().find(|field| field.name == name);
        found.ok_or_else(|| format!("{what} has no field {name:?}"))
    };
    let (field, value) = match way.change {
        Add => {
            let field = wanted(way.field)?;
            (field, (of(&field.value)? + 1 + random.below(3)).to_string())
        }
        To(value) => (wanted(way.field)?, value.to_owned()),
        As(other, name) => {
            let other = held.structure(other)?;
            let value = other.fields.iter().find(|field| field.name == name).map(|field| field.value.clone());
            (wanted(way.field)?, value.ok_or_else(|| format!("there is no {name}"))?)
        }
        ClearBit | SetBit => {
            let set = matches!(way.change, ClearBit);
            let has = |byte: u64, bit: u64| (byte >> bit & 1 != 0) == set;
            // Whole bytes of the other value are likely to be at the border; any byte with such a bit will do, behind the
            // structures at the image's start.
            let known = structure.fields.iter().filter(|field| field.name != "padding");
            let able: Vec<_> = known
                .filter(|field| parse(&field.value).is_some_and(|byte| (0..8).any(|bit| has(byte, bit))))
                .collect();
            let field = *random.choose(&able).ok_or("no bit to change")?;
            let byte = of(&field.value)?;
            let bits: Vec<u64> = (0..8).filter(|bit| has(byte, *bit)).collect();
            let bit = random.choose(&bits).copied().unwrap_or(0);
            (field, format!("{:#x}", byte ^ (1 << bit)))
        }
    };
    let (name, before) = (field.name.clone(), field.value.clone());
    held.set(&what, &name, &value)?;
    Ok((what, name, before, value))
}

/// A number as fields show it.
fn parse(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// As people call a structure.
fn plain(what: &str) -> String {
    let (name, number) = what.split_once(':').unwrap_or((what, "0"));
    match name {
        "sb" => "the superblock".into(),
        "group" => format!("the descriptor of group {number}"),
        "bbitmap" => format!("the block bitmap of group {number}"),
        "ibitmap" => format!("the inode bitmap of group {number}"),
        "inode" => format!("inode {number}"),
        "dir" | "@12" => "the directory /docs".into(),
        _ => what.to_owned(),
    }
}

fn answer(what: &str, field: &str) -> String {
    if field.is_empty() { plain(what) } else { format!("{}: {field}", plain(what)) }
}

pub(super) fn ask(
    seed: u64,
    topic: &'static str,
    random: &mut Random,
) -> Result<(Question, Vec<u8>), String> {
    let ways: Vec<&Way> = WAYS.iter().filter(|way| way.topic == topic).collect();
    let way = *random.choose(&ways).ok_or_else(|| format!("nothing is hidden in {topic:?}"))?;
    let held = Held::new(sample("small")?);
    let (what, field, before, after) = break_it(&held, way, random)?;
    let shown = if way.field.is_empty() { field.as_str() } else { way.field };
    let right = answer(&what, shown);
    let mut others: Vec<String> = Vec::new();
    // Of the same topic first: those are harder.
    for other in ways.iter().copied().chain(WAYS) {
        others.push(answer(other.what, if other.field.is_empty() { "a byte of it" } else { other.field }));
    }
    let start = random.below(ways.len().max(1) as u64) as usize;
    let len = ways.len().min(others.len());
    others[..len].rotate_left(start.min(len));
    let (choices, right) = shuffled(random, right, others);
    let text = format!(
        "One field of this image was changed (topic: {topic}). Which one? Look at the structures, or let check tell what \
         contradicts what."
    );
    let explanation = format!("{} was {before} and is {after}. {}", answer(&what, &field), way.why);
    let question = Question { seed, topic, text, choices, right, explanation, place: (what, field) };
    Ok((question, held.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_finds_something_wherever_something_is_hidden() {
        for (nr, way) in WAYS.iter().enumerate() {
            for seed in 0..4 {
                let held = Held::new(sample("small").unwrap());
                assert_eq!(held.findings().unwrap().len(), 0, "the sample is sound");
                let (what, field, ..) = break_it(&held, way, &mut Random::new(seed))
                    .unwrap_or_else(|error| panic!("way {nr}: {error}"));
                if let Ok(findings) = held.findings() {
                    assert!(!findings.is_empty(), "way {nr}: {what} {field}");
                }
            }
        }
    }
}
