//! Faults of 4 KiB by buffer heads (`dax_fault` of Linux 4.8).

use blockdev::Access;

use super::{BufferHead, Create, GetBlock};
use crate::entry::{Content, DevPage, Order, PAGE_SIZE};
use crate::error::{BadMapping, Result};
use crate::fault::{FaultRequest, FaultResult};
use crate::mapping::{EntryGuard, Mark};
use crate::page_table::{CowPage, Slot, Target, Writable};
use crate::trace::Event;

/// Handles a missing page, or a store to a read-only one.
pub(crate) fn fault<I: GetBlock + ?Sized>(inode: &I, request: &FaultRequest<'_>) -> FaultResult {
    let info = request.info();
    inode.pages().emit(|| Event::PteFault(info, FaultResult::empty()));
    let result = find_and_map(inode, request);
    inode.pages().emit(|| Event::PteFaultDone(info, result));
    result
}

fn find_and_map<I: GetBlock + ?Sized>(inode: &I, request: &FaultRequest<'_>) -> FaultResult {
    // The size in pages, rounded up: right, and the same as comparing bytes (point 5 of the mail).
    if request.pgoff() >= inode.size().div_ceil(PAGE_SIZE) {
        return FaultResult::SIGBUS;
    }
    let Ok(mut entry) = inode.pages().grab(request.pgoff(), Order::Pte) else {
        return FaultResult::SIGBUS;
    };
    if request.table.slot(request.address) == Slot::Huge {
        return FaultResult::NOPAGE;
    }
    match map(inode, request, &mut entry) {
        Ok(result) => result,
        Err(error) => {
            log::debug!(target: "ext2_dax::buffer_head", "fault on page {}: {error}", request.pgoff());
            FaultResult::SIGBUS
        }
    }
}

fn map<I: GetBlock + ?Sized>(
    inode: &I,
    request: &FaultRequest<'_>,
    entry: &mut EntryGuard<'_>,
) -> Result<FaultResult> {
    let mut bh = ask(inode, request.pgoff(), Create::No)?;
    if bh.is_mapped() {
        inode.tell_found(request.pgoff(), 1);
    }
    if request.is_store() && !request.vma.is_shared() {
        let mut copy: CowPage = Box::new([0; PAGE_SIZE as usize]);
        if bh.is_mapped() {
            let page = inode.memory().direct_access(bh.addr / PAGE_SIZE, 1, Access::Read)?;
            page.copy_out(0, &mut copy[..])?;
        }
        request.table.map_copy(request.address, copy);
        return Ok(FaultResult::DONE_COW);
    }
    let mut result = FaultResult::NOPAGE;
    if !bh.is_mapped() {
        if !request.is_store() {
            entry.insert(Content::Zero, Mark::AsItIs);
            request.table.map_pte(request.address, Target::Zero, Writable::No);
            inode.pages().emit(|| Event::LoadHole(request.info(), result));
            return Ok(result);
        }
        bh = ask(inode, request.pgoff(), Create::ForFault)?;
        result |= FaultResult::MAJOR;
    }
    let page = DevPage::new(bh.addr / PAGE_SIZE).ok_or(BadMapping::BadAddress { addr: Some(bh.addr) })?;
    let (access, mark, writable) = match request.is_store() {
        true => (Access::Write, Mark::Dirty, Writable::Yes),
        false => (Access::Read, Mark::AsItIs, Writable::No),
    };
    inode.memory().direct_access(page.get(), 1, access)?;
    entry.insert(Content::Page(page), mark);
    request.table.map_pte(request.address, Target::Page(page), writable);
    Ok(result)
}

/// Asks for one page; less is an error.
fn ask<I: GetBlock + ?Sized>(inode: &I, page: u64, create: Create) -> Result<BufferHead> {
    let mut bh = BufferHead::ask(PAGE_SIZE);
    inode.get_block(page, &mut bh, create)?;
    if bh.has_size() && bh.size < PAGE_SIZE {
        return Err(BadMapping::ShorterThanPage { length: bh.size }.into());
    }
    Ok(bh)
}
