//! The end of a synchronous fault: metadata first, then the translation that lets stores through
//! (`dax_finish_sync_fault`, `dax_insert_pfn_mkwrite`).

use super::{DaxInode, FaultRequest, FaultResult};
use crate::entry::{Content, DevPage, Order};
use crate::mapping::Mark;
use crate::page_table::{Target, Writable};
use crate::trace::Event;

/// Makes block map, size and data of the unit durable and maps `page` for stores. No lock of the file is
/// held: the sync takes what it needs.
pub(super) fn finish_sync_fault<I: DaxInode + ?Sized>(
    inode: &I,
    request: &FaultRequest<'_>,
    order: Order,
    page: DevPage,
) -> FaultResult {
    let first = order.round(request.pgoff());
    if let Err(error) = inode.sync_pages(first, first + order.pages() - 1) {
        log::warn!(target: "ext2_dax::fault", "synchronous fault on file page {first}: {error}");
        return FaultResult::SIGBUS;
    }
    let info = request.info();
    let _no_truncate = inode.pages().lock_shared();
    if request.may_not_store(inode.pages()) {
        return FaultResult::SIGBUS;
    }
    // The entry may be another one by now, or name other blocks: then the access simply faults again.
    let again = |inode: &I| {
        inode.pages().emit(|| Event::InsertPfnMkwriteNoEntry(info, FaultResult::NOPAGE));
        FaultResult::NOPAGE
    };
    let Ok(mut entry) = inode.pages().grab(request.pgoff(), order) else {
        return again(inode);
    };
    let same = entry.order() == order && entry.page_of(first) == Some(page);
    if !same {
        return again(inode);
    }
    entry.insert(Content::Page(page), Mark::Dirty);
    match order {
        Order::Pte => request.table.map_pte(request.address, Target::Page(page), Writable::Yes),
        Order::Pmd => {
            if request.table.map_pmd(request.address, Target::Page(page), Writable::Yes).is_err() {
                return again(inode);
            }
        }
    }
    inode.pages().emit(|| Event::InsertPfnMkwrite(info, FaultResult::NOPAGE));
    FaultResult::NOPAGE
}
