//! Taking pages away, whatever the process has too little of.
//!
//! The pages have to be gone before their blocks are free, and so there is always one more way: as they should go; after
//! mappings that were kept for this are given back and others were taken away; in smaller pieces; as bus errors that are
//! missing pages again a moment later; as `SIGSEGV` in all of the mapping.

use super::area::{Area, State};
use super::runs::{Joins, Kind, Run};
use crate::entry::PAGE_SIZE;
use crate::error::{Errno, Result};
use crate::mapping::PrivateCopies;

/// Runs that are taken away to make room for the one that has to go.
const MAKE_ROOM: usize = 16;

impl Area {
    /// Takes a run away.
    pub(super) fn revoke(&self, state: &mut State, start: u64, end: u64, copies: PrivateCopies) {
        let Err(error) = self.take_away(state, start, end, copies) else { return };
        log::debug!(target: "ext2_dax::mmu", "pages {start} to {end} of a file are taken away in pieces: {error}");
        let has_reserve = self.service.with_reserve(|| {
            for _ in 0..MAKE_ROOM {
                self.evict(state, start, end);
            }
            self.revoke_in_pieces(state, start, end, copies);
        });
        if !has_reserve && self.is_answered() && !self.is_private() {
            // The next one needs it as well. A mapping of which all is missing is one piece.
            self.service.with_reserve(|| self.evict_all(state));
        }
    }

    /// Makes all of the mapping missing, as far as it can be.
    fn evict_all(&self, state: &mut State) {
        let (first, after) = self.pages();
        // What is past the end, or refused, stays so.
        let mut runs = state.runs.within(first, after);
        if runs.iter().all(|run| run.kind != Kind::End)
            && self.place(state, first, after, Kind::Missing).is_ok()
        {
            return;
        }
        runs.retain(|run| matches!(run.kind, Kind::File(_) | Kind::Zeros));
        for run in runs {
            if self.place(state, run.start, run.end, Kind::Missing).is_err() {
                return;
            }
        }
    }

    fn revoke_in_pieces(&self, state: &mut State, start: u64, end: u64, copies: PrivateCopies) {
        let Err(error) = self.take_away(state, start, end, copies) else { return };
        let middle = start + (end - start) / 2;
        if middle > start && (error.is(Errno::NOMEM) || error.is(Errno::AGAIN)) {
            self.revoke_in_pieces(state, start, middle, copies);
            return self.revoke_in_pieces(state, middle, end, copies);
        }
        // A bus error for a moment is no stale byte.
        let (first, after) = self.pages();
        for (start, end) in [(start, end), (first, after)] {
            log::error!(target: "ext2_dax::mmu", "pages {start} to {end} of a file are bus errors: {error}");
            if self.place(state, start, end, Kind::End).is_ok() {
                return self.note_refused(state, start..end);
            }
        }
        if let Err(error) = self.space.close_off() {
            log::error!(target: "ext2_dax::mmu", "pages of a file cannot be taken away: {error}");
            std::process::abort();
        }
        // Nothing there can be used any more.
        self.set(state, Run { start: first, end: after, kind: Kind::End, joins: Joins::Alike });
    }

    /// Takes a run away as it should go.
    fn take_away(&self, state: &mut State, start: u64, end: u64, copies: PrivateCopies) -> Result<()> {
        let (at, len) = (self.byte(start), (end - start) * PAGE_SIZE);
        if self.is_answered() {
            return self.place(state, start, end, Kind::Missing);
        }
        if copies == PrivateCopies::Drop {
            return self.place(state, start, end, Kind::End);
        }
        // Nobody answers: what was there can be read until it is settled what comes.
        self.space.place_snapshot(at, len)?;
        self.note_shown(state, start, end);
        Ok(())
    }

    /// Notes that pages show, for loads alone, what is enough until it is settled what comes.
    pub(super) fn note_shown(&self, state: &mut State, start: u64, end: u64) {
        self.set(state, Run { start, end, kind: Kind::Missing, joins: Joins::Never });
    }
}
