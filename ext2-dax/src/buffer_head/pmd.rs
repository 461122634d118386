//! Faults of 2 MiB by buffer heads (`dax_pmd_fault` of Linux 4.8, where it was switched off).

use blockdev::Access;

use super::{BufferHead, Create, GetBlock};
use crate::entry::{Content, DevPage, Order, PAGE_SIZE, PMD_PAGES, PMD_SIZE};
use crate::fault::{Fallback, FaultRequest, FaultResult, check_fallback};
use crate::mapping::{EntryGuard, GrabError, Mark};
use crate::page_table::{Slot, Target, Writable};
use crate::trace::Event;

/// Handles a fault in a place that has no table of 4 KiB translations.
pub(crate) fn pmd_fault<I: GetBlock + ?Sized>(inode: &I, request: &FaultRequest<'_>) -> FaultResult {
    let info = request.info();
    let max_pgoff = inode.size().div_ceil(PAGE_SIZE);
    inode.pages().emit(|| Event::PmdFault(info, max_pgoff));
    let index = Order::Pmd.round(request.pgoff());
    let result = if index >= max_pgoff {
        FaultResult::SIGBUS
    } else {
        find_and_map(inode, request, max_pgoff).unwrap_or_else(|reason| {
            request.table.split(request.address);
            inode.pages().emit(|| Event::Fallback { index, reason });
            FaultResult::FALLBACK
        })
    };
    inode.pages().emit(|| Event::PmdFaultDone(info, max_pgoff, result));
    result
}

fn find_and_map<I: GetBlock + ?Sized>(
    inode: &I,
    request: &FaultRequest<'_>,
    max_pgoff: u64,
) -> Result<FaultResult, Fallback> {
    check_fallback(request, request.vma, max_pgoff)?;
    let index = Order::Pmd.round(request.pgoff());
    let mut entry = match inode.pages().grab(index, Order::Pmd) {
        Ok(entry) => entry,
        Err(GrabError::Conflict) => return Err(Fallback::Conflict),
        Err(GrabError::OutOfRange) => return Ok(FaultResult::SIGBUS),
    };
    if request.table.slot(request.address) == Slot::Table {
        return Ok(FaultResult::empty());
    }
    let mut bh = ask(inode, index, Create::No)?;
    if bh.is_mapped() {
        inode.tell_found(index, PMD_PAGES);
    }
    let mut result = FaultResult::NOPAGE;
    if request.is_store() && !bh.is_mapped() {
        bh = ask(inode, index, Create::ForFault)?;
        result |= FaultResult::MAJOR;
    }
    // Here the old path had to guess: without a size that can be believed it gave up. What `Create::ForFault`
    // allocated stays allocated.
    if !bh.has_size() || bh.size < PMD_SIZE {
        return Err(Fallback::TooShort);
    }
    if bh.is_mapped() {
        map_blocks(inode, request, &mut entry, &bh)?
    } else {
        map_hole(inode, request, &mut entry)?
    }
    Ok(result)
}

fn ask<I: GetBlock + ?Sized>(inode: &I, index: u64, create: Create) -> Result<BufferHead, Fallback> {
    let mut bh = BufferHead::ask(PMD_SIZE);
    inode.get_block(index, &mut bh, create).map_err(|_| Fallback::BeginFailed)?;
    Ok(bh)
}

fn map_hole<I: GetBlock + ?Sized>(
    inode: &I,
    request: &FaultRequest<'_>,
    entry: &mut EntryGuard<'_>,
) -> Result<(), Fallback> {
    if !request.table.has_huge_zero_page() {
        return Err(Fallback::NoHugeZeroPage);
    }
    entry.insert(Content::Zero, Mark::AsItIs);
    request.table.map_pmd(request.address, Target::Zero, Writable::No).map_err(|_| Fallback::SlotTaken)?;
    inode.pages().emit(|| Event::PmdLoadHole(request.info()));
    Ok(())
}

fn map_blocks<I: GetBlock + ?Sized>(
    inode: &I,
    request: &FaultRequest<'_>,
    entry: &mut EntryGuard<'_>,
    bh: &BufferHead,
) -> Result<(), Fallback> {
    let page = DevPage::new(bh.addr / PAGE_SIZE).ok_or(Fallback::Unaligned)?;
    let (access, mark, writable) = match request.is_store() {
        true => (Access::Write, Mark::Dirty, Writable::Yes),
        false => (Access::Read, Mark::AsItIs, Writable::No),
    };
    let device = inode.memory();
    let run = device.direct_access(page.get(), PMD_PAGES, access).map_err(|_| Fallback::Unaligned)?;
    if run.len() < PMD_SIZE || !device.pfn(page.get()).is_multiple_of(PMD_PAGES) {
        return Err(Fallback::Unaligned);
    }
    entry.insert(Content::Page(page), mark);
    request.table.map_pmd(request.address, Target::Page(page), writable).map_err(|_| Fallback::SlotTaken)
}
