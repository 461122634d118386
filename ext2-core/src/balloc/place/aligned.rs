//! Placing for pages of 2 MiB: whole aligned units for files that grow, remnants for all else.

use core::sync::atomic::Ordering;

use super::{Kind, NEIGHBOURS, Place, Request, Role, Search, around, search_around, take_locked};
use crate::balloc::blocks::Run;
use crate::balloc::group::{Groups, Window};
use crate::error::Result;
use crate::fs::Fs;
use crate::{GroupNr, InodeNr};

pub(super) fn place(
    fs: &Fs,
    groups: &Groups,
    place: &Place,
    request: &Request,
) -> Result<Option<(Run, Option<Window>)>> {
    if let Role::Data { logical, big, unit_base } = request.role {
        let within = (logical % u64::from(place.unit)) as u32;
        let count = request.count.min(place.unit - within);
        // Where the unit lies already, or a unit of the file's own.
        let window = request.window.as_ref().filter(|window| unit_base == Some(base_of(fs, window)));
        if let Some(base) = unit_base
            && let Some((nr, bit)) = fs.geo.group_of_block(base)
            && let Some(run) = take_at(fs, groups, nr, bit + within, count, request.owner)?
        {
            return Ok(Some((run, window.or(request.window.as_ref()).cloned())));
        }
        if big
            && unit_base.is_none()
            && let Some(own) = reserve_unit(fs, groups, place, request.owner, request.goal)?
        {
            if let Some(old) = &request.window {
                fs.release_window(old)?;
            }
            if let Some(run) = take_at(fs, groups, own.group, own.bits.start + within, count, request.owner)?
            {
                return Ok(Some((run, Some(own))));
            }
            fs.release_window(&own)?;
        }
        if big {
            // No whole unit is left: as long a run as there is.
            let kept = request.window.clone();
            let all = groups.len();
            for kind in [Kind::Any, Kind::EvenReserved] {
                if let Some(run) = search_around(fs, groups, request, |_| kind, all)? {
                    return Ok(Some((run, kept)));
                }
            }
            return Ok(None);
        }
    }
    let broken = |nr: GroupNr| {
        let (first, units) = place.units(fs, nr);
        Kind::Broken { first, units, unit: place.unit }
    };
    let kept = request.window.clone();
    if let Some(run) = search_around(fs, groups, request, broken, NEIGHBOURS)? {
        return Ok(Some((run, kept)));
    }
    for kind in [Kind::Any, Kind::EvenReserved] {
        if let Some(run) = search_around(fs, groups, request, |_| kind, groups.len())? {
            return Ok(Some((run, kept)));
        }
    }
    Ok(None)
}

/// The block at which a window begins.
fn base_of(fs: &Fs, window: &Window) -> u32 {
    fs.geo.group_start(window.group).saturating_add(window.bits.start)
}

/// Takes a run that begins exactly at a bit, if it is free and not another's.
fn take_at(
    fs: &Fs,
    groups: &Groups,
    nr: GroupNr,
    bit: u32,
    count: u32,
    owner: InodeNr,
) -> Result<Option<Run>> {
    let mut group = groups.get(nr).lock();
    if group.free_run(fs, nr, bit, 1)? == 0 || group.window_of_other(bit, Some(owner)).is_some() {
        return Ok(None);
    }
    take_locked(fs, groups, nr, &mut group, &Search { owner: Some(owner), from: bit, count, kind: Kind::Any })
}

/// Reserves a whole, aligned, free unit for `owner`: the next one after `goal`, around all groups.
pub(super) fn reserve_unit(
    fs: &Fs,
    groups: &Groups,
    place: &Place,
    owner: InodeNr,
    goal: u32,
) -> Result<Option<Window>> {
    if place.no_units.load(Ordering::Relaxed) || place.unit == 0 {
        return Ok(None);
    }
    let (home, goal_bit) = fs.geo.group_of_block(goal).unwrap_or((GroupNr::new(0), 0));
    let starts = core::iter::once(goal_bit).chain(core::iter::repeat(0));
    let tries = around(groups, home).zip(starts).chain(core::iter::once((home, 0)));
    for (nr, from) in tries {
        if groups
            .free_blocks_of
            .get(nr.get() as usize)
            .is_none_or(|free| free.load(Ordering::Relaxed) < place.unit)
        {
            continue;
        }
        let (first, units) = place.units(fs, nr);
        let mut group = groups.get(nr).lock();
        let skip = from.saturating_sub(first).div_ceil(place.unit);
        for start in (skip..units).map(|unit| first + unit * place.unit) {
            if group.free_run(fs, nr, start, place.unit)? < place.unit {
                continue;
            }
            let end = start + place.unit;
            let before = group.windows.range(..end).next_back().is_some_and(|(_, &(past, _))| past > start);
            if !before {
                group.windows.insert(start, (end, owner));
                return Ok(Some(Window { group: nr, bits: start..end }));
            }
        }
    }
    place.no_units.store(true, Ordering::Relaxed);
    Ok(None)
}
