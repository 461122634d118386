//! A process that writes through a mapping is killed in the middle: nothing that it had reported is missing.

use std::{
    fs,
    io::Read,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use blockdev::RamDevice;
use e2dax_tests::{
    Rng, Scratch,
    crash::{self, Base, History, Moment},
    tools, tree,
};
use ext2_core::Ext2;
use ext2_image::check::{Checker, Outcome};

/// How often; `E2DAX_KILLS` says another number.
const KILLS: u64 = 200;

/// Operations of a workload.
const LEN: u64 = 120;

/// What the workload of a seed promises.
fn history(base: &Base, seed: u64) -> History {
    let device = Arc::new(RamDevice::from_bytes(&base.image).expect("memory"));
    let fs = Ext2::open(device, &crash::options()).expect("the base opens");
    let mut history = History::new(tree::of(&fs).expect("the base can be read"), base.block_size);
    for action in crash::seeded(&crash::vocabulary(), seed, LEN) {
        let done = crash::perform(&fs, &action).is_ok();
        history.push(done.then_some(action), tree::of(&fs).expect("it can be read"));
    }
    history
}

#[test]
fn nothing_that_a_killed_process_reported_is_missing() {
    let kills = std::env::var("E2DAX_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let base = Base::of("times");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("killed.img");
    let mut rng = Rng::named(1, "kill");
    let mut checker = Checker::new();
    let (mut in_the_middle, mut mended, mut reported) = (0u64, 0u64, 0usize);
    for seed in 0..kills {
        fs::write(&path, &base.image).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_writer"));
        command.arg(&path).arg(seed.to_string()).arg(LEN.to_string());
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        // The first report says that the writer is at work; from there it has some hundred microseconds to some
        // milliseconds to live.
        let mut out = child.stdout.take().unwrap();
        let mut first = [0];
        let begun = out.read(&mut first).unwrap();
        let longest = 1 << (4 + rng.below(9));
        thread::sleep(Duration::from_micros(rng.below(longest)));
        child.kill().unwrap();
        let mut rest = Vec::new();
        out.read_to_end(&mut rest).unwrap();
        let was_killed = !child.wait().unwrap().success();
        let done = begun + rest.len();
        reported += done;
        in_the_middle += u64::from(was_killed);

        let image = fs::read(&path).unwrap();
        let device = Arc::new(Scratch::new(image));
        let outcome = checker.mend(&*device, crash::NOW, &mut |_| {}).unwrap();
        assert!(!matches!(outcome, Outcome::Halts(_)), "kill {seed}: {outcome:?}");
        mended += u64::from(matches!(outcome, Outcome::Mended(_)));
        let found = tree::read(device.clone()).unwrap();
        if let Err(problem) = history(&base, seed).judge(Moment::During(done), &found) {
            panic!("kill {seed} after {done} operations: {problem}");
        }
        if seed % 10 == 0 && tools::have("e2fsck") {
            tools::e2fsck_p(&path).unwrap();
            let theirs = tree::read(Arc::new(Scratch::new(fs::read(&path).unwrap()))).unwrap();
            assert_eq!(theirs, found, "kill {seed}");
        }
    }
    println!(
        "{kills} kills, {in_the_middle} of them in the middle, {reported} operations reported, {mended} mended"
    );
    assert!(in_the_middle * 2 > kills, "only {in_the_middle} of {kills} were killed in the middle");
}
