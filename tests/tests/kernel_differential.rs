//! The library beside the kernel's driver: the same steps give the same answers.

use e2dax_tests::{
    need_mount, need_tools,
    sim::kernel::{Difference, Tally, list},
};

/// Lists where nobody asks for another number.
const LISTS: u64 = 40;

#[test]
fn each_operation_gives_what_the_kernel_gives() {
    need_mount!();
    need_tools!("debugfs", "e2fsck");
    let lists = std::env::var("E2DAX_KERNEL_LISTS").map_or(LISTS, |n| n.parse().expect("a number of lists"));
    let first = std::env::var("E2DAX_KERNEL_FIRST").map_or(0, |n| n.parse().expect("a seed"));
    let mut tally = Tally::default();
    let mut failed = Vec::new();
    for seed in first..first + lists {
        match list(seed) {
            Ok(list) => tally.add(&list),
            Err(words) => failed.push(words),
        }
    }
    println!("{tally}");
    if let Some(words) = failed.first() {
        for words in &failed {
            let lines: Vec<&str> = words.lines().collect();
            println!("{} ... {}", lines[0], lines[lines.len().saturating_sub(3)..].join("\n    "));
        }
        panic!("{} of {lists} lists fail, the first: {words}", failed.len());
    }
    let missing: Vec<_> = Difference::ALL.iter().filter(|one| !tally.differences.contains_key(one)).collect();
    assert!(missing.is_empty(), "these differences do not come up any more: {missing:?}");
}
