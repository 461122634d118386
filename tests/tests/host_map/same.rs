//! The same lists of operations on the page table in software and on real mappings: the same results, the same bytes.

use std::sync::Arc;

use blockdev::RamDevice;
use e2dax_tests::Rng;
use ext2_core::{FileKind, NewInode};
use ext2_dax::Wait;
use ext2_dax::mmu::host::{Faulting, HostMap, HostMmu, HostOptions};
use ext2_dax::mmu::soft::{MapRequest, SoftMap, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::trace::{Event, EventLog};
use ext2_dax::{DaxFs, File, OpenFor};

use crate::setup::{PAGE, UNIT, answered, image, need_faults, pattern, request, tracked, ways};

/// Bytes that a file may have.
const MOST: u64 = 3 * UNIT;

fn file_of(fs: &DaxFs) -> File {
    let inode = fs.ext2().root().unwrap().create(b"f", &NewInode::new(FileKind::Regular, 0o644)).unwrap();
    File::open(fs, inode, OpenFor::Writing).unwrap()
}

/// A mapping on both sides.
struct Pair {
    soft: SoftMap,
    host: HostMap,
}

impl Pair {
    /// Byte `at` of the file as a byte of the mapping, if it is in it.
    fn offset_of(&self, at: u64) -> Option<u64> {
        at.checked_sub(self.host.vma().pgoff * PAGE).filter(|offset| *offset < self.host.len())
    }

    /// What the page around byte `at` of the file is on both sides.
    fn look(&self, at: u64, said: &str) {
        let Some(offset) = self.offset_of(at / PAGE * PAGE) else { return };
        let (mut ours, mut theirs) = ([1; PAGE as usize], [1; PAGE as usize]);
        let loaded = (self.host.try_load(offset, &mut ours), self.soft.load_bytes(offset, &mut theirs));
        assert_eq!(loaded.0, loaded.1, "{said}: a look at byte {at} of the file by {:?}", self.host.vma());
        let differs = (0..PAGE as usize).find(|at| ours[*at] != theirs[*at]);
        assert_eq!(differs, None, "{said}: a look at byte {at} of the file by {:?}", self.host.vma());
    }
}

fn somewhere(rng: &mut Rng) -> u64 {
    match rng.below(3) {
        0 => rng.below(12 * PAGE),
        1 => UNIT - 4 * PAGE + rng.below(8 * PAGE),
        _ => rng.below(MOST),
    }
}

fn some(rng: &mut Rng) -> usize {
    match rng.below(8) {
        0 => 1 + rng.below(600 * 1024) as usize,
        1 => 4096,
        _ => 1 + rng.below(9000) as usize,
    }
}

fn run(way: HostOptions, seed: u64, steps: u64) {
    let mut rng = Rng::named(seed, "host");
    let image = image(32);
    let device = RamDevice::new(32 << 20).unwrap();
    crate::setup::format(&device);
    let memory = crate::setup::open(Arc::new(device));
    let (here, there) = (file_of(&image.fs), file_of(&memory));
    let (mmu, soft) = (HostMmu::new(way).unwrap(), SoftMmu::new());
    let mut maps: Vec<Pair> = Vec::new();
    for step in 0..steps {
        let said = format!("{way:?}, seed {seed}, step {step}");
        let (at, len) = (somewhere(&mut rng), some(&mut rng));
        let bytes: Vec<u8> = (0..len).map(|at| (at as u64 ^ step) as u8).collect();
        if maps.len() < 3 && rng.below(20) == 0 || maps.is_empty() {
            let private = rng.below(3) == 0;
            let request = MapRequest {
                offset: rng.below(4) * PAGE,
                len: 1 + rng.below(MOST),
                sharing: if private { Sharing::Private } else { Sharing::Shared },
                protection: if rng.below(4) == 0 { Protection::ReadOnly } else { Protection::ReadWrite },
                colour: if rng.below(3) == 0 { rng.below(4) * PAGE } else { 0 },
            };
            let (host, soft) = (here.map_host(&mmu, &request).unwrap(), there.map(&soft, &request).unwrap());
            maps.push(Pair { soft, host });
            continue;
        }
        let pick = rng.below(maps.len() as u64) as usize;
        match rng.below(26) {
            24..=25 => {
                // Two threads at once, each its own pages of the file: in a mapping, and in another or by a call that does
                // not grow the file.
                let (first, second) = bytes.split_at(len / 2);
                let (one, other) = (&maps[pick], &maps[rng.below(maps.len() as u64) as usize]);
                let begins = |pair: &Pair| pair.host.vma().pgoff * PAGE;
                let behind = (begins(one) + at + first.len() as u64).next_multiple_of(PAGE);
                let by_call = rng.below(2) == 0 && behind + second.len() as u64 <= here.size();
                let within = behind.saturating_sub(begins(other));
                if !by_call && begins(other) > behind {
                    continue;
                }
                let stored = std::thread::scope(|scope| {
                    let one = scope.spawn(|| one.host.try_store(at, first));
                    let two = if by_call {
                        here.write_at(behind, second).unwrap();
                        Ok(())
                    } else {
                        other.host.try_store(within, second)
                    };
                    (one.join().unwrap(), two)
                });
                let one = one.soft.store_bytes(at, first);
                let two = if by_call {
                    there.write_at(behind, second).unwrap();
                    Ok(())
                } else {
                    other.soft.store_bytes(within, second)
                };
                assert_eq!(stored, (one, two), "{said}: two at once");
            }
            0..=3 => {
                assert_eq!(here.write_at(at, &bytes).unwrap(), there.write_at(at, &bytes).unwrap(), "{said}")
            }
            4..=6 => {
                let (mut ours, mut theirs) = (vec![1; len], vec![1; len]);
                assert_eq!(
                    here.read_at(at, &mut ours).unwrap(),
                    there.read_at(at, &mut theirs).unwrap(),
                    "{said}"
                );
                assert!(ours == theirs, "{said}: read at {at}");
            }
            7..=12 => {
                let (mut ours, mut theirs) = (vec![1; len], vec![1; len]);
                let Pair { soft, host } = &maps[pick];
                let loaded = (host.try_load(at, &mut ours), soft.load_bytes(at, &mut theirs));
                assert_eq!(
                    loaded.0.map_err(cut(host, at)),
                    loaded.1.map_err(cut(host, at)),
                    "{said}: load at {at}+{len}"
                );
                assert!(ours == theirs, "{said}: load at {at}+{len}");
            }
            13..=18 => {
                let Pair { soft, host } = &maps[pick];
                let stored = (host.try_store(at, &bytes), soft.store_bytes(at, &bytes));
                assert_eq!(
                    stored.0.map_err(cut(host, at)),
                    stored.1.map_err(cut(host, at)),
                    "{said}: store at {at}+{len}"
                );
            }
            19 => {
                let size = somewhere(&mut rng);
                here.truncate(size, Wait::Yes).unwrap();
                there.truncate(size, Wait::Yes).unwrap();
            }
            20 => {
                here.punch_hole(at, len as u64, Wait::Yes).unwrap();
                there.punch_hole(at, len as u64, Wait::Yes).unwrap();
            }
            21 => {
                here.sync().unwrap();
                there.sync().unwrap();
            }
            22 => {
                let at = at / PAGE * PAGE;
                let synced = (maps[pick].host.msync(at, len as u64), maps[pick].soft.msync(at, len as u64));
                assert_eq!(synced.0.is_ok(), synced.1.is_ok(), "{said}: msync");
            }
            _ => drop(maps.swap_remove(pick)),
        }
        assert_eq!(here.size(), there.size(), "{said}");
        // All who map it see what became of it, and of the pages around; half of the time, so that pages stay untouched, too.
        if rng.below(2) == 0 {
            let begins = maps.get(pick).map_or(0, |pair| pair.host.vma().pgoff * PAGE);
            let around = [at.saturating_sub(PAGE), at, at + len as u64, at + len as u64 + PAGE];
            for pair in &maps {
                around.iter().for_each(|at| pair.look(*at, &said));
                around.iter().for_each(|at| pair.look(begins + at, &said));
                pair.look(somewhere(&mut rng), &said);
            }
        }
    }
    let mut all = (vec![0; MOST as usize], vec![0; MOST as usize]);
    assert_eq!(here.read_at(0, &mut all.0).unwrap(), there.read_at(0, &mut all.1).unwrap());
    assert!(all.0 == all.1, "{way:?}, seed {seed}: the bytes in the end");
    drop((maps, here));
    image.close();
}

/// An access that leaves the mapping is an error of the whole call on the one side and dies there on the other: the
/// same signal.
fn cut(_: &HostMap, _: u64) -> impl Fn(ext2_dax::mmu::soft::Died) -> ext2_dax::mmu::soft::Died {
    |died| died
}

#[test]
fn both_do_the_same() {
    let steps = std::env::var("E2DAX_HOST_OPS").ok().and_then(|text| text.parse().ok()).unwrap_or(3_000_u64);
    let mut ways = ways();
    ways.extend(tracked());
    // A long run has more beginnings, too, and may be several processes.
    let first = std::env::var("E2DAX_HOST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0_u64);
    let seeds = (steps / 12_000).max(3);
    let each = (steps / ways.len() as u64 / seeds).max(100);
    for seed in first..first + seeds {
        for &way in &ways {
            run(way, seed, each);
        }
    }
}

/// What the file system was asked, as far as the answer does not say where blocks are.
fn questions(log: &EventLog) -> Vec<(u64, u64, u64, u64, String)> {
    let of = |event: Event| match event {
        Event::IomapIter { pos, length, offset, answered, kind, .. } => {
            Some((pos, length, offset, answered, format!("{kind:?}")))
        }
        _ => None,
    };
    log.take().into_iter().filter_map(|record| of(record.event)).collect()
}

#[test]
fn page_by_page_the_file_system_is_asked_the_same_questions() {
    need_faults!();
    let [_, pages, _] = answered();
    let image = image(32);
    let device = RamDevice::new(32 << 20).unwrap();
    crate::setup::format(&device);
    let memory = crate::setup::open(Arc::new(device));
    let (here, there) = (file_of(&image.fs), file_of(&memory));
    for file in [&here, &there] {
        for page in (0..40).chain(512..1024) {
            file.write_at(page * PAGE, &pattern(page)).unwrap();
        }
        file.truncate(5 * UNIT + 100 * PAGE, Wait::Yes).unwrap();
    }
    let (ours, theirs) = (EventLog::new(), EventLog::new());
    image.fs.tracer().listen(Some(ours.clone()));
    memory.tracer().listen(Some(theirs.clone()));
    let len = 6 * UNIT;
    let host = here.map_host(&HostMmu::new(pages).unwrap(), &request(len, Sharing::Shared)).unwrap();
    let soft = there.map(&SoftMmu::new(), &request(len, Sharing::Shared)).unwrap();
    let mut rng = Rng::named(5, "questions");
    let mut asked = 0;
    for step in 0..400 {
        let page = rng.below(len / PAGE);
        // A page of data is stored to when it is touched first, or never: a store to one that was loaded faults in software
        // and does not here.
        let stores = page.is_multiple_of(3) && page / 512 != 1 && page >= 40;
        let done = if stores {
            (host.store(page * PAGE, 7), soft.store(page * PAGE, 7))
        } else if page / 512 == 1 || page >= 40 {
            (host.load(page * PAGE).map(drop), soft.load(page * PAGE).map(drop))
        } else {
            continue;
        };
        assert_eq!(done.0, done.1, "step {step}");
        let (mine, his) = (questions(&ours), questions(&theirs));
        // A bus error is one fault here for all that follow.
        if done.0.is_ok() && !his.is_empty() {
            let is_store_again = mine.is_empty() && stores;
            assert!(is_store_again || mine == his, "step {step}, page {page}: {mine:?}, in software {his:?}");
            asked += mine.len();
        }
    }
    assert!(asked > 20, "{asked}");
    image.fs.tracer().listen(None);
    memory.tracer().listen(None);
    drop((host, here));
    image.close();
}

#[test]
fn the_eager_way_is_among_those_that_are_compared() {
    assert!(ways().iter().any(|way| way.faulting == Faulting::Eager));
}
