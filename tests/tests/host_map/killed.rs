//! A process that stores through a mapping is killed: what it had synced is there.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use blockdev::MmapDevice;
use e2dax_tests::{Rng, tools};
use ext2_dax::Wait;
use ext2_dax::mmu::Sharing;
use ext2_dax::mmu::host::{Faulting, HostMmu};
use ext2_dax::{File, OpenFor};

use crate::setup::{PAGE, UNIT, answered, image, need_faults, open, request, tracked};

const MARK: &str = "E2DAX_HOST_KILLED";

/// Not a test of its own: what the process does that is killed.
#[test]
fn child() {
    let Some(path) = std::env::var_os(MARK) else { return };
    let device = MmapDevice::open(path.as_ref(), &blockdev::DeviceOptions::read_write()).unwrap();
    let fs = open(Arc::new(device));
    let inode = fs.ext2().root().unwrap().lookup(b"f").unwrap();
    let file = File::open(&fs, inode, OpenFor::Writing).unwrap();
    let [extents, pages, _] = answered();
    let mut ways = tracked();
    // It stores into holes, by bare stores.
    ways.retain(|way| way.faulting == Faulting::Userfaultfd);
    ways.extend([extents, pages]);
    let way = ways[std::process::id() as usize % ways.len()];
    let mmu = HostMmu::new(way).unwrap();
    let map = file.map_host(&mmu, &request(4 * UNIT, Sharing::Shared)).unwrap();
    let memory = map.slice(0, map.len()).unwrap();
    let mut out = std::io::stderr();
    for round in 1_u64.. {
        for at in 0..16 {
            memory.store_u64(place(round, at), round).unwrap();
        }
        file.sync().unwrap();
        out.write_all(b".").unwrap();
    }
}

/// Where round `round` stores for the `at`-th time.
fn place(round: u64, at: u64) -> u64 {
    (round * 37 + at * 131) % (4 * UNIT / PAGE) * PAGE + at * 8
}

#[test]
fn what_fsync_returned_for_survives_a_kill() {
    need_faults!();
    let mut rng = Rng::named(3, "host kill");
    let kills = std::env::var("E2DAX_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    for kill in 0..kills {
        let image = image(32);
        let file = image.file(b"f");
        file.truncate(4 * UNIT, Wait::Yes).unwrap();
        drop(file);
        let ext2 = image.fs.ext2().clone();
        drop(image.fs);
        let _ = ext2.close().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "killed::child", "--nocapture"]).env(MARK, image.path.path());
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut err = child.stderr.take().unwrap();
        let mut said = vec![0];
        err.read_exact(&mut said).unwrap();
        std::thread::sleep(Duration::from_micros(rng.below(60_000)));
        child.kill().unwrap();
        let _ = child.wait().unwrap();
        err.read_to_end(&mut said).unwrap();
        assert!(said.iter().all(|byte| *byte == b'.'), "{}", String::from_utf8_lossy(&said));
        let synced = said.len() as u64;
        if tools::have("e2fsck") {
            tools::e2fsck_p(image.path.path()).unwrap();
        }
        let device = MmapDevice::open(image.path.path(), &blockdev::DeviceOptions::read_write()).unwrap();
        let fs = open(Arc::new(device));
        let inode = fs.ext2().root().unwrap().lookup(b"f").unwrap();
        let file = File::open(&fs, inode, OpenFor::Reading).unwrap();
        let mut last = std::collections::BTreeMap::new();
        for round in 1..=synced {
            last.extend((0..16).map(|at| (place(round, at), round)));
        }
        for (at, round) in last {
            let mut word = [0; 8];
            file.read_at(at, &mut word).unwrap();
            let word = u64::from_le_bytes(word);
            // The round that was under way may have been here, too.
            assert!(
                word == round || word == synced + 1,
                "kill {kill}: {word} at {at}, synced {round} of {synced}"
            );
        }
    }
}
