//! A policy of one's own: logs at the end of the device, all else at its start.
//!
//! `cargo run -p ext2-core --example own_policy`

use std::sync::Arc;

use ext2_core::placement::{FreeSpace, Placed, Placement, Request, Role, Which};
use ext2_core::{Ext2, FileBlock, Follow, GroupNr, OpenOptions, Result};

/// Contents from the middle of the device on, metadata before it.
#[derive(Debug)]
struct Halves;

impl Placement for Halves {
    fn place<'s>(&self, space: &'s FreeSpace<'_>, request: &Request) -> Result<Option<Placed<'s>>> {
        let last = space.group_blocks(GroupNr::new(space.groups() - 1)).end;
        let from = match request.role {
            Role::Data { .. } => request.goal.max(last / 2),
            Role::Meta => space.group_blocks(request.home).start,
        };
        for which in [Which::Free, Which::EvenReserved] {
            if let Some(taken) = space.search(from, space.groups(), which)? {
                return Ok(Some(Placed { taken, window: None }));
            }
        }
        Ok(None)
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let options = OpenOptions { placement: Some(Arc::new(Halves)), ..OpenOptions::default() };
    let fs = Ext2::open(ext2_image::mkfs::in_memory(8 << 20)?, &options)?;
    fs.write("data", vec![1; 100_000])?;
    let file = fs.resolve("data", Follow::Yes)?;
    let first = file.map(FileBlock::new(0), 1)?.target.ok_or("the file has a block")?;
    println!("block 0 of the file is block {first} of {}", fs.geometry().blocks_count);
    assert!(first.get() >= fs.geometry().blocks_count / 2);
    Ok(())
}
