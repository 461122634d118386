//! Small scopes: all there is up to a bound, where other tests take samples of what is larger.
//!
//! `E2DAX_SCOPE_DEPTH`, 3 where it is not said, is how many letters sequences of all letters have. Those of names have two more,
//! those of bytes one more, and those in which power fails one less.

#[path = "scopes/directories.rs"]
mod directories;
#[path = "scopes/entries.rs"]
mod entries;
#[path = "scopes/letters.rs"]
mod letters;
#[path = "scopes/lookups.rs"]
mod lookups;
#[path = "scopes/right.rs"]
mod right;
#[path = "scopes/trees.rs"]
mod trees;

use std::time::Instant;

use e2dax_tests::{
    crash::Device,
    need_tools,
    sim::{Options, Scope},
};
use ext2_core::Barrier;

/// Letters of the longest sequence, `more` or less than what the environment says.
fn depth(more: isize) -> usize {
    let depth = std::env::var("E2DAX_SCOPE_DEPTH").ok().and_then(|text| text.parse::<usize>().ok());
    depth.unwrap_or(3).saturating_add_signed(more).max(1)
}

fn walk(what: &str, scope: &Scope) {
    let begun = Instant::now();
    let walked = scope.walk().unwrap_or_else(|words| panic!("{what}: {words}"));
    println!(
        "{what}: all of up to {} of {} letters: {walked}; {:.1} s",
        scope.depth,
        scope.letters.len(),
        begun.elapsed().as_secs_f64()
    );
    assert!(walked.longest > 0, "no sequence is of full length");
}

#[test]
fn every_short_sequence_of_all_letters_is_answered_as_the_model_says() {
    let all = [letters::names(), letters::bytes(), letters::ends()].concat();
    walk("all", &letters::scope(all, depth(0)));
}

#[test]
fn every_longer_sequence_of_names_is_answered_as_the_model_says() {
    walk("names", &letters::scope(letters::names(), depth(2)));
}

#[test]
fn every_longer_sequence_of_bytes_is_answered_as_the_model_says() {
    walk("bytes", &letters::scope(letters::bytes(), depth(1)));
}

#[test]
fn after_a_crash_anywhere_in_a_short_sequence_what_was_promised_is_there() {
    let all = [letters::names(), letters::bytes(), letters::ends()].concat();
    for device in [Device::Lines, Device::Sectors] {
        walk(&format!("crashes, {device:?}"), &letters::crashing(all.clone(), depth(-1), device));
    }
}

#[test]
fn what_a_mapping_stored_past_the_end_is_not_seen_after_a_crash_in_a_write_that_grows_the_file() {
    let mut some = letters::bytes();
    some.retain(|letter| ["map and store", "write a block", "append a part"].contains(&letter.name));
    assert_eq!(some.len(), 3);
    for device in [Device::Lines, Device::Words, Device::Sectors, Device::Program] {
        walk(&format!("{device:?}"), &letters::crashing(some.clone(), 3, device));
    }
}

/// Fences without which one letter is enough to break a promise.
const NEEDED: [Barrier; 7] = [
    Barrier::Mounted,
    Barrier::Killed,
    Barrier::EntryBuilt,
    Barrier::NamePublished,
    Barrier::NameReplaced,
    Barrier::Filled,
    Barrier::IndirectBuilt,
];

#[test]
fn a_fence_that_is_left_out_is_noticed_in_the_shortest_sequences() {
    let all = [letters::names(), letters::bytes(), letters::ends()].concat();
    for barrier in NEEDED {
        let scope = letters::crashing(all.clone(), 1, Device::Lines);
        let options = Options { without: Some(barrier), ..scope.options };
        let walked = (Scope { options, ..scope }).walk();
        assert!(walked.is_err(), "{barrier:?} is left out, and no sequence notices");
    }
}

/// What our check finds in a directory and e2fsck does not, or the other way round, and why.
const EXPLAINED: [(&str, &str); 0] = [];

/// The directories of which only one of both has something to say, by what it says.
fn disagreements(made: &directories::Made) -> Vec<String> {
    let (ours, theirs) = (made.ours(), made.theirs());
    let mut found = Vec::new();
    for dir in &made.dirs {
        let both = (ours.get(&dir.nr), theirs.get(&dir.nr));
        if both.0.is_some() != both.1.is_some() {
            let words = format!("ours {:?}, e2fsck {:?}", both.0, both.1);
            if !EXPLAINED.iter().any(|(sign, _)| words.contains(sign)) {
                found.push(format!("inode {}: {:?}: {words}", dir.nr, dir.case));
            }
        }
    }
    println!(
        "{} directories, {} of them with findings of ours, {} of e2fsck's, {} judged otherwise",
        made.dirs.len(),
        ours.len(),
        theirs.len(),
        found.len()
    );
    found
}

#[test]
fn every_block_of_a_directory_is_judged_as_by_e2fsck_and_harms_nobody() {
    need_tools!("e2fsck");
    let begun = Instant::now();
    let mut made = directories::make(&entries::cases());
    let right = made.ours();
    let found = disagreements(&made);
    assert!(
        found.is_empty(),
        "{} judged otherwise: {}",
        found.len(),
        found[..found.len().min(20)].join("\n")
    );
    made.use_all().unwrap_or_else(|words| panic!("{words}"));
    let (ours, theirs) = (made.ours(), made.theirs());
    let whole = made.dirs.iter().filter(|dir| !right.contains_key(&dir.nr));
    let mut count = 0;
    for dir in whole {
        let both = (ours.get(&dir.nr), theirs.get(&dir.nr));
        assert_eq!(both, (None, None), "was right, and is broken by use: {dir:?}");
        count += 1;
    }
    println!("{count} right ones are right after use; {:.1} s", begun.elapsed().as_secs_f64());
    assert!(count > 100);
}

#[test]
fn a_name_of_each_length_comes_and_goes_in_every_right_block() {
    let begun = Instant::now();
    let (layouts, names) = right::come_and_go();
    println!("{layouts} blocks, {names} names; {:.1} s", begun.elapsed().as_secs_f64());
}

#[test]
fn every_lookup_in_every_small_pointer_tree_is_full_and_right() {
    let begun = Instant::now();
    let (trees, lookups) = lookups::look_all();
    println!("{trees} trees, {lookups} lookups; {:.1} s", begun.elapsed().as_secs_f64());
}

#[test]
fn every_cut_of_every_tree_of_edges_leaves_what_it_should_and_frees_the_rest() {
    let begun = Instant::now();
    let cuts = trees::cut_all();
    println!("{cuts} cuts; {:.1} s", begun.elapsed().as_secs_f64());
}
