//! Stores to private mappings: the page is copied, the file keeps its own (`dax_fault_cow_page`).

use blockdev::Access;

use super::{DaxInode, FaultRequest, FaultResult, Outcome, device_page, page_memory};
use crate::entry::PAGE_SIZE;
use crate::error::{BadMapping, Result};
use crate::iomap::{Iomap, MapKind};
use crate::page_table::CowPage;

/// Maps a private copy of the page at `pos`, which is zeros where the file has a hole. The entry stays
/// as it is: the file's page is not mapped.
pub(super) fn copy_page<I: DaxInode + ?Sized>(
    inode: &I,
    request: &FaultRequest<'_>,
    iomap: &Iomap<I::Private>,
    pos: u64,
) -> Result<Outcome> {
    let mut copy: CowPage = Box::new([0; PAGE_SIZE as usize]);
    match iomap.kind {
        MapKind::Hole | MapKind::Unwritten => {}
        MapKind::Mapped => {
            let page = device_page(iomap, pos)?;
            page_memory(inode.memory(), page, Access::Read)?.copy_out(0, &mut copy[..])?;
        }
        kind => return Err(BadMapping::NotMapped(kind).into()),
    }
    request.table.map_copy(request.address, copy);
    Ok(Outcome::Done(FaultResult::DONE_COW))
}
