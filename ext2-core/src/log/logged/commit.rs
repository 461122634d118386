//! Commits: from memory into the log, and from there in place.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use blockdev::{Error, Result};

use super::alone::Last;
use super::{Logged, State};
use crate::log::area::Area;
use ext2_format::journal as record;

/// How often whoever waits for room looks before a commit may come between changes that belong together.
const PATIENCE: u32 = 256;
/// How often whoever waits for others looks before it goes on without: they may wait for a lock that it holds. Some ten
/// milliseconds.
pub(in crate::log) const ENDURANCE: u32 = 1 << 14;

/// The number of an error of the device's.
const EIO: i32 = 5;

/// What came of an attempt to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    /// There was a commit.
    Done,
    /// One is under way, which ends whatever locks this thread holds.
    Running,
    /// A change is in the way that must be whole, and that may wait for a lock of this thread.
    InTheWay,
}

/// A commit in the log: from which of its blocks on it stands, and how many it takes.
#[derive(Clone, Copy, Debug)]
struct Place {
    sequence: u32,
    start: u32,
    len: u32,
}

/// What a commit holds.
#[derive(Debug)]
pub(super) struct Frozen {
    /// Its number in the log.
    pub(super) number: u32,
    /// Its number among all, those that hold no block included.
    turn: u64,
    pub(super) blocks: Vec<(u32, Vec<u8>)>,
}

/// Who commits, and where.
#[derive(Debug, Default)]
pub(super) struct Committer {
    pub(super) area: Option<Area>,
    /// Where the next commit goes.
    head: u32,
    /// The commits that a replay of the log as it is on the media could need: the last two.
    places: VecDeque<Place>,
}

impl Logged {
    /// Begins to log. Everything that was stored so far is durable.
    pub(crate) fn begin(&self, area: Area) {
        let mut committer = self.commit.lock();
        let mut state = self.state.write();
        state.running = area.sequence;
        // A third of the log for each, less descriptors, the last block, and some for a change that is under way.
        let third = (area.blocks.len() - 1) / 3;
        state.most = third - third / 16 - 24;
        *committer = Committer { head: 1, area: Some(area), ..Committer::default() };
        self.failed.store(false, Ordering::SeqCst);
        self.on.store(true, Ordering::Release);
    }

    /// Ends logging: everything is in its place and durable, and the device is the one below again. Nobody else stores
    /// to it meanwhile. Gives the log's place.
    pub(crate) fn end(&self) -> Result<Option<Area>> {
        if !self.is_on() {
            return Ok(None);
        }
        loop {
            self.commit()?;
            let mut committer = self.commit.lock();
            // What the last commit has put in its place may be lost where this fails: only a replay brings it back.
            self.or_fail(self.inner.flush())?;
            let mut state = self.state.write();
            if state.dirty > 0 {
                // Somebody stores after all.
                continue;
            }
            let Some(area) = committer.area.take() else { return Ok(None) };
            let running = state.running;
            *state = State::default();
            self.on.store(false, Ordering::Release);
            drop(state);
            self.write_head(&area, running, 0)?;
            self.inner.flush()?;
            return Ok(Some(area));
        }
    }

    /// Forgets what no commit holds, and takes nothing more: for a file system that is shut down as if the power went. Also
    /// within changes that belong together, for whose end a commit may wait: it gives up.
    pub(crate) fn abandon(&self) {
        self.failed.store(true, Ordering::SeqCst);
        drop(self.commit.lock());
    }

    /// Says in the superblock of the log where a replay begins; 0 where there is nothing to replay.
    fn write_head(&self, area: &Area, sequence: u32, start: u32) -> Result<()> {
        let mut words = [0; 8];
        record::put(&mut words, 0, sequence);
        record::put(&mut words, 4, start);
        self.inner.write_at(area.byte_of(0, self.block) + record::S_SEQUENCE as u64, &words)
    }

    /// A commit, unless one is under way or a change that must be whole.
    fn try_commit(&self) -> Result<Tried> {
        let Some(mut committer) = self.commit.try_lock() else {
            let waits = self.is_awaited.load(Ordering::SeqCst);
            return Ok(if waits { Tried::InTheWay } else { Tried::Running });
        };
        if !self.is_between() {
            return Ok(Tried::InTheWay);
        }
        let Some(frozen) = self.freeze()? else { return Ok(Tried::InTheWay) };
        self.run(&mut committer, &frozen, Last::No).map(|()| Tried::Done)
    }

    /// Whether there was a commit. Where a change was in its way, that counts as a look; one that is under way makes room, however
    /// slow the media are.
    pub(super) fn try_for_room(&self, looks: &mut u32) -> Result<bool> {
        let tried = self.try_commit()?;
        *looks += u32::from(tried == Tried::InTheWay);
        if tried != Tried::Done {
            crate::sync::pause();
        }
        Ok(tried == Tried::Done)
    }

    /// Waits for room for a change that begins, also for those that must be whole to end. For one that is a part of such only where
    /// all of them are about to be more than a commit can hold: one comes between, or it would fail, and all before it be lost.
    pub(crate) fn make_room(&self) -> Result<()> {
        let dirty_over = |most: fn(&State) -> usize| {
            self.is_on() && {
                let state = self.state.read();
                state.dirty > most(&state)
            }
        };
        if !crate::sync::may_wait() {
            let mut looks = 0;
            while looks < ENDURANCE && dirty_over(State::most_within) {
                self.is_full.store(true, Ordering::SeqCst);
                self.try_for_room(&mut looks)?;
            }
            return Ok(());
        }
        let mut looks = 0;
        while dirty_over(|state| state.most) && self.try_commit()? != Tried::Done {
            looks += 1;
            if looks == PATIENCE {
                // Whoever must be whole may wait for the lock of renames, which this one may have.
                self.is_full.store(true, Ordering::SeqCst);
                looks = 0;
            }
            crate::sync::pause();
        }
        Ok(())
    }

    /// Lets a commit go first that waits for changes which belong together to end: where others begin before these have ended it
    /// would wait for ever. Not for long, since these may wait for what the caller is about to do. Without threads of `std` nobody
    /// knows who is within such changes.
    pub(crate) fn give_way(&self) {
        let waits =
            || cfg!(feature = "std") && crate::sync::may_wait() && self.is_awaited.load(Ordering::SeqCst);
        for _ in (0..ENDURANCE).take_while(|_| waits()) {
            crate::sync::pause();
        }
    }

    /// Refuses what waits for changes that belong together, in a thread that makes some.
    pub(crate) fn refuse_within(&self) -> Result<()> {
        let is_within = self.is_on() && !crate::sync::may_wait();
        if is_within { Err(Error::Unsupported("a sync within changes that belong together")) } else { Ok(()) }
    }

    /// Makes all that was stored before durable. Who comes while one is under way shares the next with all others. Within a
    /// change that must be whole there is none.
    pub(crate) fn commit(&self) -> Result<()> {
        self.refuse_within()?;
        let before = self.begun.load(Ordering::SeqCst);
        // Whoever gives the log up waits for those that are under way, and not for one after the other.
        for _ in (0..ENDURANCE).take_while(|_| self.givers.load(Ordering::SeqCst) > 0) {
            crate::sync::pause();
        }
        let mut committer = self.commit.lock();
        if self.ended.load(Ordering::SeqCst) > before {
            return Ok(());
        }
        loop {
            let frozen = self.freeze();
            self.is_awaited.store(matches!(frozen, Ok(None)), Ordering::SeqCst);
            if let Some(frozen) = frozen? {
                return self.run(&mut committer, &frozen, Last::No);
            }
            // Whoever holds it is in the middle of a rename.
            crate::sync::pause();
        }
    }

    pub(super) fn run(&self, committer: &mut Committer, frozen: &Frozen, last: Last) -> Result<()> {
        let number = frozen.turn;
        let done = match committer.area.as_ref().and_then(|area| Some((area, area.batch.as_ref()?))) {
            Some((area, batch)) => self.commit_alone(area, batch, frozen, last),
            None => self.commit_with(committer, frozen),
        };
        if done.is_ok() {
            self.ended.store(number, Ordering::SeqCst);
        }
        self.or_fail(done)
    }

    /// Notes it where the log has failed: no later commit is made, nor is this log ended.
    pub(super) fn or_fail(&self, done: Result<()>) -> Result<()> {
        done.inspect_err(|error| {
            log::error!("the log could not be written: {error}");
            self.failed.store(true, Ordering::SeqCst);
        })
    }

    /// Refuses what no commit would bring to the media, since one has failed.
    pub(crate) fn refuse_failed(&self) -> Result<()> {
        if !self.failed.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(Error::Io {
            op: "commit",
            offset: 0,
            errno: Some(EIO),
            message: "nothing more is written, since its log could not be written".into(),
        })
    }

    /// The blocks of the next commit as they are at this moment; `None` in the middle of a change that must be whole. The
    /// caller holds `commit`. An error where the last one failed: what was given up since stays so, and is overwritten by nobody.
    pub(super) fn freeze(&self) -> Result<Option<Frozen>> {
        self.refuse_failed()?;
        let mut state = self.state.write();
        if !self.is_between() {
            return Ok(None);
        }
        self.is_full.store(false, Ordering::SeqCst);
        if state.dirty > 0 {
            for nr in state.always.clone() {
                self.capture(&mut state, nr, false, |_| ())?;
            }
        }
        // Who comes from here on needs another one.
        let turn = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let number = state.running;
        let blocks = state.blocks.iter().filter(|(_, captured)| captured.commit == number);
        let blocks: Vec<_> = blocks.map(|(nr, captured)| (*nr, captured.bytes.to_vec())).collect();
        if !blocks.is_empty() {
            state.running = number.wrapping_add(1);
        }
        state.dirty = 0;
        state.freeing = core::mem::take(&mut state.freed);
        Ok(Some(Frozen { number, turn, blocks }))
    }

    fn commit_with(&self, committer: &mut Committer, frozen: &Frozen) -> Result<()> {
        let Frozen { number, blocks, .. } = frozen;
        let number = *number;
        if blocks.is_empty() {
            self.inner.flush()?;
            self.state.write().freeing.clear();
            return Ok(());
        }
        let Some(area) = &committer.area else { return Err(Error::Unsupported("a log")) };
        let (len, size) = (self.block as usize, area.blocks.len() as u32);
        let descriptors = blocks.len().div_ceil(record::tags_in(len));
        let need = u32::try_from(blocks.len() + descriptors + 1).unwrap_or(u32::MAX);
        if need >= size - 1 {
            return Err(Error::Unsupported("a change that is larger than its log"));
        }
        // One that does not fit beside the last two has to wait until they are in their places.
        while committer.places.len() > 2 {
            committer.places.pop_front();
        }
        let taken: u32 = committer.places.iter().map(|place| place.len).sum();
        if taken + need > size - 1 {
            self.inner.flush()?;
            committer.places.clear();
            // What is in its place is not replayed: the log begins with this commit.
            self.write_head(area, number, committer.head)?;
            self.inner.flush()?;
        }
        let start = committer.head;
        let next = |at: u32| if at + 1 == size { 1 } else { at + 1 };
        let mut at = start;
        for part in blocks.chunks(record::tags_in(len)) {
            let part: Vec<_> = part.iter().map(|(nr, bytes)| (*nr, bytes.as_slice())).collect();
            for bytes in record::described(len, number, record::OURS, &part) {
                self.inner.write_at(area.byte_of(at, self.block), &bytes)?;
                at = next(at);
            }
        }
        // A replay begins with the commit before this one: what came before that is in its place since the flush of that.
        let from = committer.places.back().map_or((number, start), |last| (last.sequence, last.start));
        self.write_head(area, from.0, from.1)?;
        self.inner.flush()?;
        self.inner.write_at(area.byte_of(at, self.block), &record::block(len, record::COMMIT, number))?;
        self.inner.flush()?;
        committer.head = next(at);
        committer.places.push_back(Place { sequence: number, start, len: need });
        self.put_in_place(number, blocks)
    }

    /// Writes what is committed in its place, and forgets what has not changed since.
    fn put_in_place(&self, number: u32, blocks: &[(u32, Vec<u8>)]) -> Result<()> {
        for (nr, bytes) in blocks {
            self.put(*nr, bytes)?;
        }
        self.forget(number, blocks);
        Ok(())
    }

    /// Writes a block in its place.
    pub(super) fn put(&self, nr: u32, bytes: &[u8]) -> Result<()> {
        let start = u64::from(nr) * self.block;
        let len = self.block.min(self.inner.size().saturating_sub(start)) as usize;
        self.inner.write_at(start, bytes.get(..len).unwrap_or_default())
    }

    /// Forgets blocks that are in their places, but for those that have changed since.
    pub(super) fn forget(&self, number: u32, blocks: &[(u32, Vec<u8>)]) {
        let mut state = self.state.write();
        let mut words = BTreeMap::<usize, u64>::new();
        let mut gone = Vec::new();
        for (nr, _) in blocks {
            if state.blocks.get(nr).is_some_and(|captured| captured.commit == number) {
                state.blocks.remove(nr);
                gone.push(*nr);
            }
            state.live.insert(*nr, number);
        }
        // A replay may write what the last two commits hold.
        state.live.retain(|_, commit| number.wrapping_sub(*commit) <= 1);
        state.freeing.clear();
        // The words of the filter in which a bit goes, with the bits of all that stays.
        for nr in gone {
            words.insert(Self::place(nr).0, 0);
        }
        for nr in state.blocks.keys() {
            let (word, bit) = Self::place(*nr);
            words.entry(word).and_modify(|bits| *bits |= bit);
        }
        for (word, bits) in words {
            if let Some(word) = self.filter.get(word) {
                word.store(bits, Ordering::Release);
            }
        }
    }
}
