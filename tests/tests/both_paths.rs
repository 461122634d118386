//! The old path beside the new: the same programs, the same bytes, sizes and errors; and what each asked
//! of the file system for it.

use std::sync::Arc;

use e2dax_tests::Rng;
use e2dax_tests::oracle::{self, Step};
use ext2_core::{Ext2, FileKind, NewInode, OpenOptions};
use ext2_dax::buffer_head::HoleSize;
use ext2_dax::replay::{Player, Script};
use ext2_dax::rw::Limits;
use ext2_dax::uio::{Faulting, SliceSource};
use ext2_dax::{Asked, DataPath, DaxFs, DaxOptions, File, OpenFor};

fn play(name: &str, script: &Script, path: DataPath) -> (Vec<Step>, Asked) {
    let ext2 = Ext2::open(oracle::device(name), &OpenOptions::default()).unwrap();
    let fs = DaxFs::new(ext2, DaxOptions { path, ..DaxOptions::default() });
    let mut text = String::new();
    let mut player = Player::new(fs.clone());
    player.play(script, |outcome| {
        outcome.write_oracle(&mut text, ext2_dax::replay::Events::Shown).unwrap();
    });
    (oracle::parse(&text), fs.asked())
}

/// Results, without what may differ: how many blocks a file has.
fn results(steps: &[Step]) -> Vec<(String, String)> {
    let result = |step: &Step| match step.verb() {
        "fiemap" => String::new(),
        "stat" => step.result.split(" blocks=").next().unwrap_or_default().to_owned(),
        _ => step.result.clone(),
    };
    steps.iter().map(|step| (step.op.clone(), result(step))).collect()
}

const OLD: [HoleSize; 3] = [HoleSize::Untold, HoleSize::OneBlock, HoleSize::InFull];

#[test]
fn the_recorded_scripts_give_the_same_on_both_paths() {
    for name in oracle::scripts() {
        let script = oracle::script(&name);
        let (new, _) = play(&name, &script, DataPath::Iomap);
        for size in OLD {
            let (mut old, _) = play(&name, &script, DataPath::BufferHead(size));
            if name == "12-enospc" {
                // The old path allocates 2 MiB for a store before it finds that it cannot map them.
                old.truncate(13);
            }
            for (old, new) in results(&old).iter().zip(&results(&new)) {
                assert_eq!(old, new, "{name} with {size:?}");
            }
        }
    }
}

/// A random program over three files, in the language of the scripts.
fn random_program(seed: u64, ops: usize) -> String {
    let mut rng = Rng::new(seed);
    let mut text = String::from(
        "create a\ncreate b\nmap m a 0 0x600000 shared rw\nmap n b 0x1000 0x300000 private rw\n",
    );
    text.push_str("map o a 0x200000 0x200000 shared ro 0x1000\n");
    let place = |rng: &mut Rng| match rng.below(3) {
        0 => rng.below(20_000),
        1 => 0x20_0000 - 6000 + rng.below(12_000),
        _ => rng.below(0x60_0000),
    };
    for _ in 0..ops {
        let file = if rng.below(2) == 0 { "a" } else { "b" };
        let map = ["m", "n", "o"][rng.below(3) as usize];
        let (at, seed) = (place(&mut rng), rng.below(200));
        let len = match rng.below(4) {
            0 => rng.below(100),
            1 => 4096,
            2 => rng.below(70_000),
            _ => rng.below(5000),
        };
        let line = match rng.below(13) {
            0..=2 => format!("write {file} {at} {len} {seed}"),
            3 => format!("writefault {file} {at} 12288 {seed} {}", rng.below(4) * 4096),
            4 | 5 => format!("read {file} {at} {len}"),
            6 => format!("truncate {file} {at}"),
            7 | 8 => format!("store {map} {} {seed}", at % 0x20_0000),
            9 | 10 => format!("load {map} {}", at % 0x20_0000),
            11 => format!("fsync {file}"),
            _ => format!("stat {file}"),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text.push_str("read a 0 0x700000\nread b 0 0x700000\nstat a\nstat b\n");
    text
}

#[test]
fn random_programs_give_the_same_on_both_paths() {
    for seed in 0..12 {
        let script = Script::parse(random_program(seed, 120).as_bytes()).unwrap();
        let (new, _) = play("random", &script, DataPath::Iomap);
        for size in OLD {
            let (old, _) = play("random", &script, DataPath::BufferHead(size));
            for (old, new) in results(&old).iter().zip(&results(&new)) {
                assert_eq!(old, new, "seed {seed} with {size:?}");
            }
        }
    }
}

#[test]
fn the_old_path_asks_a_block_at_a_time_where_the_new_one_asks_once() {
    // Eight MiB of hole, read once.
    let script = Script::parse(b"create f\ntruncate f 0x800000\nread f 0 0x800000\n").unwrap();
    let asked = |path| play("table", &script, path).1;
    let new = asked(DataPath::Iomap);
    assert_eq!((new.calls, new.blocks_asked, new.blocks_answered), (1, 2048, 2048));
    assert_eq!((new.shared_locks, new.exclusive_locks, new.dio_counts), (1, 0, 0));
    for size in [HoleSize::Untold, HoleSize::OneBlock] {
        let old = asked(DataPath::BufferHead(size));
        assert_eq!((old.calls, old.blocks_answered), (2048, 2048), "{size:?}");
        assert_eq!(old.blocks_asked, 2048 * 2049 / 2, "{size:?}: it asks for all that is left each time");
        assert_eq!((old.shared_locks, old.exclusive_locks, old.dio_counts), (0, 1, 1));
    }
    let full = asked(DataPath::BufferHead(HoleSize::InFull));
    assert_eq!((full.calls, full.exclusive_locks), (1, 1));
}

#[test]
fn a_short_write_leaves_no_block_past_the_end_on_either_path() {
    let paths = OLD.map(DataPath::BufferHead).into_iter().chain([DataPath::Iomap]);
    for path in paths {
        let device = Arc::new(ext2_image::mkfs::in_memory(16 << 20).unwrap());
        let ext2 = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
        let fs = DaxFs::new(ext2.clone(), DaxOptions { path, ..DaxOptions::default() });
        let new = NewInode::new(FileKind::Regular, 0o644);
        let file =
            File::open(&fs, ext2.root().unwrap().create("f", &new).unwrap(), OpenFor::Writing).unwrap();
        let bytes = vec![5; 400 << 10];
        // Of the buffer so much is there.
        let mut source = Faulting::new(SliceSource::new(&bytes), 5000);
        let done = file.write_from(0, bytes.len() as u64, &mut source, Limits::default()).unwrap();
        assert_eq!((done, file.size()), (5000, 5000), "{path:?}");
        drop((file, fs));
        ext2.close().unwrap();
        let mut found = Vec::new();
        let options = ext2_image::check::Options::default();
        let summary = ext2_image::check::check(&*device, &options, &mut |one| found.push(one.to_string()));
        assert!(summary.unwrap().is_clean(), "{path:?}: {found:?}");
    }
}
