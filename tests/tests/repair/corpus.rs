//! The golden images, sound and damaged by chance, and any folder of images.

use std::{env, fs, path::PathBuf};

use e2dax_tests::{
    Rng, Scratch, golden,
    hostile::{Damage, Victim},
    need_tools, tools,
};
use ext2_image::{
    check::{Options, check},
    jbd2,
    repair::Changes,
};

use crate::bench::{Bench, Row, judge};

/// Where all damage comes from.
const SEED: u64 = 0x6532_7265_7061_6972;

/// Images that are too large to be copied for each variant.
const LARGE: u64 = 40 << 20;

/// Damage that leaves an image its length.
fn damaged(victim: &Victim, bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for damage in victim.damage(rng) {
        match damage {
            Damage::Truncate(at) => bytes[at..].fill(0),
            Damage::Replace(at, new) => bytes[at..at + new.len()].copy_from_slice(&new),
        }
    }
    bytes
}

#[test]
fn damaged_golden_images_are_clean_after_one_repair_and_keep_what_e2fsck_keeps() {
    need_tools!("e2fsck");
    let variants = env::var("E2DAX_REPAIR_VARIANTS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let alone = env::var("E2DAX_REPAIR").ok();
    let bench = Bench::new();
    let mut rows: Vec<Row> = Vec::new();
    for image in golden::readable() {
        let bytes = image.file_system();
        let victim = Victim::new(bytes.clone());
        if bytes.len() as u64 > LARGE {
            continue;
        }
        for number in 0..=variants {
            let name = format!("{}:{number}", image.name);
            if alone.as_ref().is_some_and(|alone| *alone != name) {
                continue;
            }
            let mut rng = Rng::named(SEED + number, &image.name);
            let bytes = if number == 0 { bytes.clone() } else { damaged(&victim, &bytes, &mut rng) };
            if let (Some(_), Ok(keep)) = (&alone, env::var("E2DAX_REPAIR_KEEP")) {
                fs::write(keep, &bytes).expect("the image is kept");
            }
            rows.push(bench.compare(&name, &bytes));
        }
    }
    judge(&rows);
}

#[test]
fn images_of_a_folder_are_clean_after_one_repair() {
    need_tools!("e2fsck");
    let Some(folder) = env::var_os("E2DAX_CORPUS").map(PathBuf::from) else {
        println!("skipped: E2DAX_CORPUS names no folder of images");
        return;
    };
    let bench = Bench::new();
    let rows: Vec<Row> = images_in(folder).map(|(name, bytes)| bench.compare(&name, &bytes)).collect();
    judge(&rows);
}

/// The images of a folder and those below it, with their names.
fn images_in(folder: PathBuf) -> impl Iterator<Item = (String, Vec<u8>)> {
    let mut pending = vec![folder];
    let mut paths = Vec::new();
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).expect("the folder can be read") {
            let path = entry.expect("an entry can be read").path();
            if path.is_dir() {
                pending.push(path);
            } else if ["img", "gz", "image"]
                .iter()
                .any(|end| path.extension().is_some_and(|have| have == *end))
            {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let is_packed = path.extension().is_some_and(|end| end == "gz");
        let bytes =
            if is_packed { golden::gunzip(&path) } else { fs::read(&path).expect("the image can be read") };
        let name = path.iter().rev().take(2).collect::<Vec<_>>();
        let name: Vec<_> = name.iter().rev().map(|part| part.to_string_lossy().into_owned()).collect();
        (name.join("/"), bytes)
    };
    // One at a time: some are of GiBs.
    paths.into_iter().map(read)
}

#[test]
fn looking_at_images_of_a_folder_comes_to_the_verdict_of_e2fsck() {
    need_tools!("e2fsck");
    let Some(folder) = env::var_os("E2DAX_CORPUS").map(PathBuf::from) else {
        println!("skipped: E2DAX_CORPUS names no folder of images");
        return;
    };
    let bench = Bench::new();
    let path = bench.path("looked-at.img");
    let (mut same, mut wrong) = (0, Vec::new());
    for (name, bytes) in images_in(folder) {
        golden::write_sparse(&path, &bytes).expect("the image is written");
        // Of some images that have no tables e2fsck -n, to whose questions nobody answers yes, never comes to an end.
        let e2fsck = ["20".as_ref(), "e2fsck".as_ref(), "-fn".as_ref(), path.as_os_str()];
        let theirs = tools::run("timeout", &e2fsck).map(drop);
        let device = Scratch::new(bytes);
        // As the command does it: a journal that was left full is a part of the image.
        let changes = Changes::new(&device);
        let _ = jbd2::replay(&changes);
        let mut first = None;
        let ours = check(&changes, &Options::default(), &mut |finding| {
            if !finding.kind.is_remark() {
                first.get_or_insert(finding.to_string());
            }
        });
        let clean = matches!(&ours, Ok(summary) if summary.is_clean());
        if clean == theirs.is_ok() {
            same += 1;
            continue;
        }
        let ours = match ours {
            Err(error) => format!("refused: {error}"),
            Ok(_) => first.unwrap_or_else(|| "clean".to_owned()),
        };
        wrong.push(format!("{name}: {ours}; e2fsck: {theirs:?}"));
    }
    println!("{same} verdicts are those of e2fsck, {} are not", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
