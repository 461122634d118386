//! What has no name gets one in `lost+found`, `#` and its inode's number as e2fsck does it.

use alloc::format;
use alloc::vec::Vec;
use core::mem::offset_of;

use ext2_core::raw::{RawInode, dirent_size};

use super::directories::{put_entry, put_len, said};
use crate::check::inodes::ROOT;
use crate::check::run::{Dir, DirBlock, Run, Step, USED};

const NAME: &[u8] = b"lost+found";

impl Run<'_> {
    /// Gives an inode of a kind a name. What was counted stays right, so that the passes can go on.
    pub(crate) fn connect(&mut self, inode: u32, kind: u8) -> Step {
        let home = self.lost_and_found()?;
        let name = format!("#{inode}");
        for to in [home, ROOT] {
            if self.add_name(to, name.as_bytes(), inode, kind)? {
                self.recount(inode, 1);
                return if kind == 2 { self.set_parent(inode, to) } else { Ok(()) };
            }
            // Other names are hardly shorter: its blocks are not read again for each of them.
            self.later.cursors.insert(to, usize::MAX);
        }
        self.later.left += 1;
        Ok(())
    }

    /// The directory for what is found, made where there is none. Without room for it the root has to do.
    fn lost_and_found(&mut self) -> Step<u32> {
        if self.later.lost_found == 0 {
            self.later.lost_found = match self.find_lost_and_found()? {
                Some(found) => found,
                None => self.make_lost_and_found()?.unwrap_or(ROOT),
            };
        }
        Ok(self.later.lost_found)
    }

    fn find_lost_and_found(&mut self) -> Step<Option<u32>> {
        let mut bytes = Vec::new();
        for block in self.blocks_of(ROOT) {
            self.read_block(block.block, &mut bytes)?;
            let mut at = 0;
            while let Some(here) = said(&bytes, at).filter(|here| here.fits(bytes.len() - at)) {
                if here.inode != 0 && bytes.get(at + 8..at + 8 + here.name_len) == Some(NAME) {
                    if self.is_directory(here.inode) {
                        return Ok(Some(here.inode));
                    }
                    // As e2fsck: the name is taken from what is none, which gets another.
                    self.later.again = true;
                    self.dev.write_u32(self.byte_of(block.block) + at as u64, 0)?;
                }
                at += here.len;
            }
        }
        Ok(None)
    }

    fn make_lost_and_found(&mut self) -> Step<Option<u32>> {
        let Some(inode) = self.take_inode()? else { return Ok(None) };
        let Some(block) = self.take_block() else { return Ok(None) };
        let bytes = self.empty_directory(inode, ROOT);
        self.fill_block(block, &bytes)?;
        self.write_directory(inode, 0o700, block)?;
        self.set_state(inode, USED | 2);
        if !self.add_name(ROOT, NAME, inode, 2)? {
            self.later.again = true;
            self.clear_inode(inode)?;
            return Ok(None);
        }
        for table in [&mut self.s.links, &mut self.s.counted] {
            if let Some(links) = table.get_mut(inode as usize - 1) {
                *links = 2;
            }
        }
        self.recount(ROOT, 1);
        let dotdot_at = self.byte_of(block) + 12;
        let dir = Dir { inode, parent: ROOT, dotdot: ROOT, indexed: false, entry_at: 0, dotdot_at };
        let at = self.s.dirs.partition_point(|other| other.inode < inode);
        self.s.dirs.insert(at, dir);
        let at = self.s.dir_blocks.partition_point(|other| other.inode < inode);
        self.s.dir_blocks.insert(at, DirBlock { inode, nr: 0, block });
        Ok(Some(inode))
    }

    /// The blocks of a directory as pass 1 saw them.
    fn blocks_of(&self, dir: u32) -> Vec<DirBlock> {
        let from = self.s.dir_blocks.partition_point(|block| block.inode < dir);
        let to = self.s.dir_blocks.partition_point(|block| block.inode <= dir);
        self.s.dir_blocks.get(from..to).unwrap_or_default().to_vec()
    }

    /// Adds a name to a directory, which may grow for it; `false` when there is no room. A name that is there already gets
    /// a `~` behind it.
    fn add_name(&mut self, dir: u32, name: &[u8], inode: u32, kind: u8) -> Step<bool> {
        let start = self.s.dir_blocks.partition_point(|block| block.inode < dir);
        let end = self.s.dir_blocks.partition_point(|block| block.inode <= dir);
        let from = self.later.cursors.get(&dir).copied().unwrap_or(0);
        let need = dirent_size(name.len() + 1);
        let mut bytes = Vec::new();
        for index in from..end - start {
            let Some(block) = self.s.dir_blocks.get(start + index).copied() else { break };
            self.read_block(block.block, &mut bytes)?;
            let mut at = 0;
            let mut name = name.to_vec();
            let mut place = None;
            while let Some(here) = said(&bytes, at).filter(|here| here.fits(bytes.len() - at)) {
                let own = if here.inode == 0 { 0 } else { dirent_size(here.name_len) };
                // The first two are never given up, whatever they say.
                let own = if block.nr == 0 && at < 24 { own.max(12) } else { own };
                if here.inode != 0 && bytes.get(at + 8..at + 8 + here.name_len) == Some(&name) {
                    name.push(b'~');
                }
                if place.is_none() && here.len >= own + need {
                    place = Some((at, own, here.len));
                }
                at += here.len;
            }
            let Some((at, own, len)) = place else { continue };
            if own != 0 {
                put_len(&mut bytes, at, own);
            }
            let kind = self.type_byte(kind);
            put_entry(&mut bytes, at + own, len - own, inode, kind, &name);
            self.dev.write_at(self.byte_of(block.block), &bytes)?;
            self.drop_index(dir)?;
            self.later.cursors.insert(dir, index);
            return Ok(true);
        }
        let last = self.s.dir_blocks.get(start..end).and_then(|blocks| blocks.last());
        let nr = last.map_or(0, |block| block.nr + 1);
        self.grow(dir, nr, end - start, name, inode, kind)
    }

    /// Adds the block `nr` to a directory that has `count`, with a name in it.
    fn grow(&mut self, dir: u32, nr: u32, count: usize, name: &[u8], inode: u32, kind: u8) -> Step<bool> {
        let Some(offset) = self.inode_offset(dir) else { return Ok(false) };
        let taken = self.later.taken;
        let Some(block) = self.take_block() else { return Ok(false) };
        let mut bytes = alloc::vec![0; self.block_len()];
        let len = bytes.len();
        put_entry(&mut bytes, 0, len, inode, self.type_byte(kind), name);
        self.fill_block(block, &bytes)?;
        if !self.hang(dir, nr.into(), block)? {
            // What was taken is given back when the passes begin anew.
            self.later.again = true;
            return Ok(false);
        }
        let sectors = (self.later.taken - taken) << (self.geo.block_size.log2() - 9);
        let at = offset + offset_of!(RawInode, i_blocks) as u64;
        self.dev.write_u32(at, self.dev.read_u32(at)?.saturating_add(sectors))?;
        let size = (u64::from(nr) + 1) << self.geo.block_size.log2();
        // OK to cast: directories stay below 2^31 bytes, which pass 1 saw to.
        self.dev.write_u32(offset + offset_of!(RawInode, i_size) as u64, size as u32)?;
        self.drop_index(dir)?;
        let at = self.s.dir_blocks.partition_point(|other| (other.inode, other.nr) < (dir, nr));
        self.s.dir_blocks.insert(at, DirBlock { inode: dir, nr, block });
        self.later.cursors.insert(dir, count);
        Ok(true)
    }
}
