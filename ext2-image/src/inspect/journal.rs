//! What a journal holds (debugfs: `logdump`).

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use blockdev::BlockDevice;
use ext2_core::{Corrupt, InodeNr, Object, Result};

use super::{Budget, Step, read_inode, visit};
use crate::fields::{Field, Layout, PointsTo, journal_block};

/// A block of a journal that is one of its own: a superblock, a descriptor, a commit, a list of revoked blocks.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JournalBlock {
    /// Its number in the journal.
    pub nr: u64,
    /// Its number on the device.
    pub block: u32,
    /// Its fields.
    pub fields: Vec<Field>,
}

impl JournalBlock {
    fn number(&self, name: &str) -> Option<u64> {
        self.fields.iter().find(|field| field.name == name).and_then(|field| field.value.number())
    }

    /// `h_blocktype`: 1 descriptor, 2 commit, 3 and 4 superblock, 5 revoked blocks.
    #[must_use]
    pub fn kind(&self) -> u64 {
        self.number("h_blocktype").unwrap_or_default()
    }

    /// The transaction that it belongs to.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.number("h_sequence").unwrap_or_default()
    }

    /// The blocks of the device that it names: those of which copies follow, or that are revoked.
    #[must_use]
    pub fn blocks(&self) -> Vec<u32> {
        let block = |field: &Field| match field.points_to {
            Some(PointsTo::Block(block)) => Some(block),
            _ => None,
        };
        self.fields.iter().filter_map(block).collect()
    }
}

/// The journal's own blocks, in its order. Copies of other blocks are passed over.
///
/// # Errors
/// An image without a journal inside; the device's.
pub fn journal(dev: &dyn BlockDevice, layout: &Layout) -> Result<(InodeNr, Vec<JournalBlock>)> {
    let geo = layout.geometry()?;
    let Some(nr) = layout.superblock()?.journal_inode else {
        return Err(Corrupt::new(Object::Superblock, "names no journal").into());
    };
    let (_, inode) = read_inode(dev, layout, nr)?;
    let mut runs = Vec::new();
    visit(dev, geo, &inode, &mut Budget::of(geo), &mut |step| {
        if let Step::Run { first, count, block } = step {
            runs.push((first, count, block));
        }
    })?;
    if runs.iter().map(|run| run.1).sum::<u64>() > u64::from(geo.blocks_count) {
        let what = format!("a journal of more blocks than the file system's {}", geo.blocks_count);
        return Err(Corrupt::new(Object::Inode(nr), what).into());
    }
    let mut found = Vec::new();
    let mut bytes = vec![0; geo.block_size.len()];
    for (first, count, start) in runs {
        for offset in 0..count {
            // OK to cast: a run of blocks with numbers of 32 bits.
            let block = start.saturating_add(offset as u32);
            let Some(place) = geo.data_block(block) else { continue };
            dev.read_at(geo.byte_of(place), &mut bytes)?;
            let fields = journal_block(&bytes);
            if !fields.is_empty() {
                found.push(JournalBlock { nr: first + offset, block, fields });
            }
        }
    }
    Ok((nr, found))
}
