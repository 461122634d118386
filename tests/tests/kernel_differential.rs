//! The library beside the kernel's driver: the same steps give the same answers.

use std::collections::BTreeMap;

use e2dax_tests::{
    need_mount, need_tools,
    sim::kernel::{Difference, Tally, list},
};
use ext2_core::sync::Mended;

/// Lists where nobody asks for another number.
const LISTS: u64 = 120;

/// Beside those, lists in which rare differences come up.
const RARE: [u64; 10] = [136, 161, 163, 194, 341, 1014, 1171, 2070, 20174, 51700];

#[test]
fn each_operation_gives_what_the_kernel_gives() {
    need_mount!();
    need_tools!("debugfs", "e2fsck");
    let lists = std::env::var("E2DAX_KERNEL_LISTS").map_or(LISTS, |n| n.parse().expect("a number of lists"));
    let first = std::env::var("E2DAX_KERNEL_FIRST").map_or(0, |n| n.parse().expect("a seed"));
    if let Ok(name) = std::env::var("E2DAX_KERNEL_WITH") {
        let fault = Mended::ALL.iter().find(|fault| format!("{fault:?}") == name);
        Mended::put_back(Some(*fault.expect("a fault of this name")));
    }
    let mut tally = Tally::default();
    let (mut failed, mut seeds) = (Vec::new(), BTreeMap::new());
    let is_whole = first == 0 && lists >= LISTS;
    let rare = RARE.iter().copied().filter(|rare| is_whole && *rare >= lists);
    for seed in (first..first + lists).chain(rare) {
        match list(seed) {
            Ok(list) => {
                for difference in list.differences.keys() {
                    seeds.entry(*difference).or_insert(seed);
                }
                tally.add(&list);
            }
            Err(words) => failed.push(words),
        }
    }
    println!("{tally}first seeds: {seeds:?}");
    if let Some(words) = failed.first() {
        for words in &failed {
            let lines: Vec<&str> = words.lines().collect();
            println!("{} ... {}", lines[0], lines[lines.len().saturating_sub(3)..].join("\n    "));
        }
        panic!("{} of {lists} lists fail, the first: {words}", failed.len());
    }
    let missing: Vec<_> = Difference::ALL.iter().filter(|one| !tally.differences.contains_key(one)).collect();
    assert!(missing.is_empty() || !is_whole, "these differences do not come up any more: {missing:?}");
}

#[test]
fn the_documentation_has_a_line_for_each_difference_and_no_other() {
    let text = include_str!("../../docs/tests.md");
    let (_, section) = text.split_once("\n### Beside the kernel\n").expect("the section is there");
    let section = section.split("\n### ").next().expect("it has a text");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let lines: Vec<String> = rows.map(str::to_owned).collect();
    let differences: Vec<String> = Difference::ALL.iter().map(|one| format!("{one:?}")).collect();
    assert_eq!(lines, differences);
}
