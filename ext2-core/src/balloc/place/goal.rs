//! Placing as Linux's ext2 does: at the goal, else after it, with a window for each file that grows.

use super::{Kind, Request, Role, search_around};
use crate::balloc::blocks::Run;
use crate::balloc::group::{Groups, Window};
use crate::error::Result;
use crate::fs::Fs;

/// Blocks of a first window (Linux: `EXT2_DEFAULT_RESERVE_BLOCKS`).
const WINDOW: u32 = 8;
/// Blocks of the largest (Linux: `EXT2_MAX_RESERVE_BLOCKS`).
const WINDOW_MAX: u32 = 1027;

pub(super) fn place(fs: &Fs, groups: &Groups, request: &Request) -> Result<Option<(Run, Option<Window>)>> {
    let all = groups.len();
    let mut found = search_around(fs, groups, request, |_| Kind::Any, all)?;
    if found.is_none() {
        found = search_around(fs, groups, request, |_| Kind::EvenReserved, all)?;
    }
    let Some(run) = found else { return Ok(None) };
    if !matches!(request.role, Role::Data { .. }) {
        return Ok(Some((run, request.window.clone())));
    }
    if let Some(window) = &request.window {
        fs.release_window(window)?;
    }
    Ok(Some((run, reserve_after(fs, groups, request, run)?)))
}

/// Reserves the free blocks after a run: twice as many as before when the file goes on where it was.
fn reserve_after(fs: &Fs, groups: &Groups, request: &Request, run: Run) -> Result<Option<Window>> {
    let Some((nr, bit)) = fs.geo.group_of_block(run.block(0)) else { return Ok(None) };
    let start = bit + run.len;
    let before = request.window.as_ref();
    let went_on = before.is_some_and(|window| window.group == nr && window.bits.contains(&bit));
    let len = before
        .filter(|_| went_on)
        .map_or(WINDOW, |window| (window.bits.len() as u32 * 2).clamp(WINDOW, WINDOW_MAX));
    let mut group = groups.get(nr).lock();
    let free = group.free_run(fs, nr, start, len)?;
    let end = (start + free).min(group.next_window_of_other(start, Some(request.owner)));
    if end <= start || group.window_of_other(start, Some(request.owner)).is_some() {
        return Ok(None);
    }
    group.windows.insert(start, (end, request.owner));
    Ok(Some(Window { group: nr, bits: start..end }))
}
