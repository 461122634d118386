//! Placing as Linux's ext2 does: at the goal, else after it, with a window for each file that grows.

use super::{FreeSpace, Placed, Placement, Request, Role, Which};
use crate::error::Result;

/// Blocks of a first window (Linux: `EXT2_DEFAULT_RESERVE_BLOCKS`).
const WINDOW: u32 = 8;
/// Blocks of the largest (Linux: `EXT2_MAX_RESERVE_BLOCKS`).
const WINDOW_MAX: u32 = 1027;

/// As Linux's ext2: at the goal, else after it, with a window for each file that grows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Goal;

impl Placement for Goal {
    fn place<'s>(&self, space: &'s FreeSpace<'_>, request: &Request) -> Result<Option<Placed<'s>>> {
        let all = space.groups();
        let mut found = space.search(request.goal, all, Which::Free)?;
        if found.is_none() {
            found = space.search(request.goal, all, Which::EvenReserved)?;
        }
        let Some(taken) = found else { return Ok(None) };
        if !matches!(request.role, Role::Data { .. }) {
            return Ok(Some(Placed { taken, window: request.window.clone() }));
        }
        let mut len = WINDOW;
        if let Some(window) = &request.window {
            // Twice as many as before when the file goes on where it was.
            let went_on = taken.start().is_some_and(|start| {
                let first = space.start_of(window);
                start.get() >= first && start.get() - first < window.len()
            });
            if went_on {
                len = window.len().saturating_mul(2).clamp(WINDOW, WINDOW_MAX);
            }
            space.release(window)?;
        }
        let window = space.reserve_after(&taken, len)?;
        Ok(Some(Placed { taken, window }))
    }
}
