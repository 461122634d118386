//! Writes whose buffer ends half-way: how many blocks Linux 6.1 has then, and how many we have.

use ext2_dax::replay::{Player, Script};
use ext2_dax::{Compat, DaxFs, DaxOptions};

use crate::setup::fresh;

/// What the last `stat` of a script prints of blocks.
fn blocks(script: &str, compat: Compat) -> u64 {
    let (_device, fs) = fresh(32);
    let fs = DaxFs::new(fs.ext2().clone(), DaxOptions { compat, ..DaxOptions::default() });
    let mut blocks = None;
    Player::new(fs).play(&Script::parse(script.as_bytes()).unwrap(), |outcome| {
        let of = outcome.result.split_whitespace().find_map(|word| word.strip_prefix("blocks="));
        blocks = of.map(|count| count.parse().unwrap()).or(blocks);
    });
    blocks.expect("a stat")
}

#[test]
fn linux_asks_for_as_many_blocks_as_the_length_makes_and_for_one_array_of_pointers_at_a_time() {
    // Recorded on Linux 6.1, and what is here without those two habits.
    let scripts = [
        ("create f\ntruncate f 0x700000\nwritefault f 5228484 12288 90 4096\nstat f\n", 40, 48),
        ("create h\ntruncate h 0x100000\nwritefault h 100 4096 1 0\nstat h\n", 8, 16),
        ("create h\nwrite h 627453 1 70\nwritefault h 45056 12288 1 0\nstat h\n", 24, 40),
    ];
    for (script, linux, in_full) in scripts {
        assert_eq!(blocks(script, Compat::LINUX_6_1), linux, "{script}");
        let without =
            Compat { write_blocks: Compat::FULL.write_blocks, runs: Compat::FULL.runs, ..Compat::LINUX_6_1 };
        assert_eq!(blocks(script, without), in_full, "{script}");
    }
}
