//! What the kernel says of pages: `PAGEMAP_SCAN`, and a word for each page where that is not.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use super::abi;
use crate::PAGE_SIZE;

/// What a page is, as the kernel has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageKind {
    /// It is in memory and mapped: an access does not fault.
    pub present: bool,
    /// It is the file's; otherwise it is anonymous.
    pub file: bool,
    /// It is the zero page.
    pub zero: bool,
    /// It is part of a translation of 2 MiB; never said by kernels before 6.7.
    pub huge: bool,
    /// It is on a swap device.
    pub swapped: bool,
}

/// Pages one after the other that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageRun {
    /// First address.
    pub start: u64,
    /// First address after.
    pub end: u64,
    /// What they are.
    pub kind: PageKind,
}

const REGIONS: usize = 128;

/// The pagemap of one process.
struct Pagemap {
    process: u32,
    file: File,
    /// That of a child of `fork`, which would ask about its parent.
    next: OnceLock<Box<Pagemap>>,
}

/// The pagemap of this process, which stays open once it could be opened.
fn pagemap() -> io::Result<&'static File> {
    static FIRST: OnceLock<Box<Pagemap>> = OnceLock::new();
    let process = std::process::id();
    let mut place = &FIRST;
    loop {
        match place.get() {
            Some(one) if one.process == process => return Ok(&one.file),
            Some(one) => place = &one.next,
            None => {
                let file = File::open("/proc/self/pagemap")?;
                let _ = place.set(Box::new(Pagemap { process, file, next: OnceLock::new() }));
            }
        }
    }
}

fn scan(mut scan: abi::Scan, mut visit: impl FnMut(abi::Region)) -> io::Result<()> {
    let fd = pagemap()?.as_fd();
    let mut regions = [abi::Region::default(); REGIONS];
    scan.size = size_of::<abi::Scan>() as u64;
    scan.vec_len = REGIONS as u64;
    let end = scan.end;
    while scan.start < end {
        scan.vec = regions.as_mut_ptr().addr() as u64;
        // SAFETY: the structure of this call; it stores at most `vec_len` regions, which is how many there are.
        let found = unsafe { abi::ioctl(fd, abi::PAGEMAP_SCAN, &mut scan) };
        match found {
            Ok(found) => {
                regions.iter().take(usize::try_from(found).unwrap_or(0)).copied().for_each(&mut visit)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if scan.walk_end <= scan.start {
            break;
        }
        scan.start = scan.walk_end;
    }
    Ok(())
}

/// The pages of the range that were stored to since they were protected, which they are again.
pub(super) fn take_stored(start: u64, end: u64, mut visit: impl FnMut(u64, u64)) -> io::Result<()> {
    let question = abi::Scan {
        flags: abi::SCAN_WP_MATCHING | abi::SCAN_CHECK_WPASYNC,
        start,
        end,
        mask: abi::PAGE_IS_WRITTEN,
        returned: abi::PAGE_IS_WRITTEN,
        ..abi::Scan::default()
    };
    scan(question, |region| visit(region.start, region.end))
}

/// What the pages of the range are, those left out that are not there. By what kernels before 6.7 say, where there is nothing
/// else or `as_before` is set: nothing is known then of translations of 2 MiB.
pub(super) fn kinds(start: u64, end: u64, as_before: bool) -> io::Result<Vec<PageRun>> {
    if as_before {
        return kinds_page_by_page(start, end);
    }
    match kinds_by_scan(start, end) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => kinds_page_by_page(start, end),
        done => done,
    }
}

/// By the words of /proc/self/pagemap, one for each page.
fn kinds_page_by_page(start: u64, end: u64) -> io::Result<Vec<PageRun>> {
    const WORDS: u64 = 512;
    let mut runs = Vec::new();
    let mut bytes = [0; WORDS as usize * 8];
    let mut at = start / PAGE_SIZE;
    while at < end / PAGE_SIZE {
        // OK to cast: as many as there is room for.
        let bytes = &mut bytes[..8 * (end / PAGE_SIZE - at).min(WORDS) as usize];
        pagemap()?.read_exact_at(bytes, at * 8)?;
        for (page, word) in (at..).zip(bytes.as_chunks::<8>().0) {
            // As the machine has its words.
            let is_little = cfg!(target_endian = "little");
            let word = if is_little { u64::from_le_bytes(*word) } else { u64::from_be_bytes(*word) };
            let has = |bit: u32| word >> bit & 1 == 1;
            let (present, swapped, file) = (has(63), has(62), has(61));
            // A zero page is nobody's: neither the file's nor one that this process alone has.
            let zero = present && !file && !has(56);
            if present || swapped {
                let kind = PageKind { present, file, zero, huge: false, swapped };
                add(&mut runs, PageRun { start: page * PAGE_SIZE, end: (page + 1) * PAGE_SIZE, kind });
            }
        }
        at += bytes.len() as u64 / 8;
    }
    Ok(runs)
}

fn add(runs: &mut Vec<PageRun>, run: PageRun) {
    match runs.last_mut() {
        Some(last) if last.end == run.start && last.kind == run.kind => last.end = run.end,
        _ => runs.push(run),
    }
}

fn kinds_by_scan(start: u64, end: u64) -> io::Result<Vec<PageRun>> {
    let any = abi::PAGE_IS_PRESENT | abi::PAGE_IS_SWAPPED;
    let returned = any | abi::PAGE_IS_FILE | abi::PAGE_IS_PFNZERO | abi::PAGE_IS_HUGE;
    let question = abi::Scan { start, end, any_of: any, returned, ..abi::Scan::default() };
    let mut runs: Vec<PageRun> = Vec::new();
    scan(question, |region| {
        let has = |category| region.categories & category != 0;
        let kind = PageKind {
            present: has(abi::PAGE_IS_PRESENT),
            file: has(abi::PAGE_IS_FILE),
            zero: has(abi::PAGE_IS_PFNZERO),
            huge: has(abi::PAGE_IS_HUGE),
            swapped: has(abi::PAGE_IS_SWAPPED),
        };
        add(&mut runs, PageRun { start: region.start, end: region.end, kind });
    })?;
    Ok(runs)
}
