//! Placing for pages of 2 MiB: whole aligned units for files that grow, remnants for all else.

use super::{FreeSpace, Placed, Placement, Request, Role, Which};
use crate::error::Result;

/// Bytes that a file may fill in blocks of its neighbours before it gets units of its own: half a unit, so that
/// what is moved then is little, and files that never fill a unit do not break one each. With 64 KiB an image
/// that is churned at 75 % keeps 70 % of its units mappable, with this nearly all.
const SMALL_FILE: u64 = 1024 << 10;

/// Groups that are searched for room in broken units before a whole one is broken.
const NEIGHBOURS: u32 = 8;

/// Whole aligned units of 2 MiB for files that grow past a small size, what is left of broken ones for all else.
#[derive(Clone, Copy, Debug, Default)]
pub struct Aligned;

impl Placement for Aligned {
    fn place<'s>(&self, space: &'s FreeSpace<'_>, request: &Request) -> Result<Option<Placed<'s>>> {
        let kept = request.window.clone();
        let mut wishes = &[Which::Broken, Which::Free, Which::EvenReserved][..];
        if let Role::Data { logical, big, unit_base } = request.role {
            if let Some(placed) = in_unit(space, request, (logical, big, unit_base))? {
                return Ok(Some(placed));
            }
            if big {
                // No whole unit is left: as long a run as there is.
                wishes = &[Which::Free, Which::EvenReserved];
            }
        }
        for &which in wishes {
            let groups = if which == Which::Broken { NEIGHBOURS } else { space.groups() };
            if let Some(taken) = space.search(request.goal, groups, which)? {
                return Ok(Some(Placed { taken, window: kept }));
            }
        }
        Ok(None)
    }

    fn small_file_bytes(&self) -> Option<u64> {
        Some(SMALL_FILE)
    }
}

/// Where the unit lies already, or in a unit of the file's own.
fn in_unit<'s>(
    space: &'s FreeSpace<'_>,
    request: &Request,
    (logical, big, unit_base): (u64, bool, Option<u32>),
) -> Result<Option<Placed<'s>>> {
    let within = (logical % u64::from(space.unit())) as u32;
    let count = space.unit() - within;
    if let Some(base) = unit_base {
        let taken = space.take_at(base.saturating_add(within), count)?;
        return Ok(taken.map(|taken| Placed { taken, window: request.window.clone() }));
    }
    if big && let Some(own) = space.reserve_unit()? {
        let taken = space.take_at(space.start_of(&own).saturating_add(within), count);
        // One of the two windows goes, and the file knows of the other: what it gives up later is its own.
        let goes = if matches!(taken, Ok(Some(_))) { request.window.as_ref() } else { Some(&own) };
        goes.map_or(Ok(()), |window| space.release(window))?;
        return Ok(taken?.map(|taken| Placed { taken, window: Some(own) }));
    }
    Ok(None)
}
