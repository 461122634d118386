//! ext2 behind `get_block` (`ext2_get_block`, `ext2_direct_IO` of Linux 4.8).

use ext2_core::plumbing::{Allocate, Plumbing, Publisher};

use crate::buffer_head::{BhState, BufferHead, Create, GetBlock, HoleSize};
use crate::dio::DioCount;
use crate::entry::PAGE_SIZE;
use crate::error::Result;
use crate::file::FileInner;
use crate::trace::Event;
use crate::volume::DataPath;

impl GetBlock for FileInner {
    fn get_block(&self, block: u64, bh: &mut BufferHead, create: Create) -> Result<()> {
        let geometry_bytes = self.block_bytes();
        let count = bh.size.div_ceil(geometry_bytes);
        let start = ext2_core::FileBlock::new(block);
        let asked = bh.size;
        let mapping = match create {
            Create::No => self.inode.map(start, count)?,
            Create::Yes => self.inode.map_for_write(start, count, Allocate::Published)?.mapping,
            Create::ForFault => self.inode.map_for_write(start, count, Allocate::Fault)?.mapping,
        };
        match mapping.target {
            Some(target) => {
                bh.state = BhState::MAPPED;
                bh.addr = self.byte_of(target);
                bh.size = mapping.count * geometry_bytes;
            }
            None => match self.hole_size() {
                HoleSize::Untold => {}
                HoleSize::OneBlock => (bh.state, bh.size) = (BhState::SIZED, geometry_bytes),
                HoleSize::InFull => (bh.state, bh.size) = (BhState::SIZED, mapping.count * geometry_bytes),
            },
        }
        self.counts().question(count, bh.believed() / geometry_bytes);
        let answer = *bh;
        self.pages.emit(|| Event::GetBlock {
            block,
            asked,
            create: create != Create::No,
            mapped: answer.state.contains(BhState::MAPPED),
            sized: answer.state.contains(BhState::SIZED),
            addr: answer.addr,
            size: answer.size,
        });
        Ok(())
    }

    fn tell_found(&self, page: u64, count: u64) {
        self.inode.tell_found(page * PAGE_SIZE..(page + count) * PAGE_SIZE, Publisher::Fault);
    }

    fn locked(&self, body: &mut dyn FnMut()) {
        self.counts().exclusive();
        let _io = self.inode.io_lock().write();
        body();
    }

    fn dio_count(&self) -> &DioCount {
        self.counts().dio();
        &self.pages.dio
    }

    fn write_failed(&self, end: u64) {
        if end > self.inode.size()
            && let Err(error) = self.inode.free_past_size()
        {
            log::warn!(target: "ext2_dax::buffer_head", "blocks of a failed write stay: {error}");
        }
    }
}

impl FileInner {
    fn hole_size(&self) -> HoleSize {
        match self.fs.options().path {
            DataPath::BufferHead(size) => size,
            DataPath::Iomap => HoleSize::InFull,
        }
    }
}
