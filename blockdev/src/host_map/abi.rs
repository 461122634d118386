//! The kernel's numbers and structures that libc does not have: linux/userfaultfd.h, and `PAGEMAP_SCAN` of linux/fs.h.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

pub(super) const UFFD_API: u64 = 0xaa;
pub(super) const UFFD_USER_MODE_ONLY: libc::c_long = 1;

pub(super) const UFFDIO_API: u64 = 0xc018_aa3f;
pub(super) const UFFDIO_REGISTER: u64 = 0xc020_aa00;
pub(super) const UFFDIO_WAKE: u64 = 0x8010_aa02;
pub(super) const UFFDIO_COPY: u64 = 0xc028_aa03;
pub(super) const UFFDIO_WRITEPROTECT: u64 = 0xc018_aa06;
pub(super) const PAGEMAP_SCAN: u64 = 0xc060_6610;

pub(super) const FEATURE_PAGEFAULT_FLAG_WP: u64 = 1;
pub(super) const FEATURE_EVENT_REMAP: u64 = 1 << 2;
pub(super) const FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
pub(super) const FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
pub(super) const FEATURE_WP_ASYNC: u64 = 1 << 15;

pub(super) const EVENT_PAGEFAULT: u8 = 0x12;
pub(super) const FAULT_WRITE: u64 = 1;
pub(super) const FAULT_WP: u64 = 1 << 1;

pub(super) const MODE_MISSING: u64 = 1;
pub(super) const MODE_WP: u64 = 1 << 1;

pub(super) const PAGE_IS_WRITTEN: u64 = 1 << 1;
pub(super) const PAGE_IS_FILE: u64 = 1 << 2;
pub(super) const PAGE_IS_PRESENT: u64 = 1 << 3;
pub(super) const PAGE_IS_SWAPPED: u64 = 1 << 4;
pub(super) const PAGE_IS_PFNZERO: u64 = 1 << 5;
pub(super) const PAGE_IS_HUGE: u64 = 1 << 6;
pub(super) const SCAN_WP_MATCHING: u64 = 1;
pub(super) const SCAN_CHECK_WPASYNC: u64 = 1 << 1;

/// `struct uffdio_api`.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Api {
    pub(super) api: u64,
    pub(super) features: u64,
    pub(super) ioctls: u64,
}

/// `struct uffdio_range`.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) len: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Register {
    pub(super) range: Range,
    pub(super) mode: u64,
    pub(super) ioctls: u64,
}

/// `struct uffdio_writeprotect`.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct WriteProtect {
    pub(super) range: Range,
    pub(super) mode: u64,
}

/// `struct uffdio_copy`.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Copy {
    pub(super) to: u64,
    pub(super) from: u64,
    pub(super) len: u64,
    pub(super) mode: u64,
    pub(super) copied: i64,
}

/// `struct uffd_msg`, as far as page faults need it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Message {
    pub(super) event: u8,
    pub(super) reserved: [u8; 7],
    pub(super) flags: u64,
    pub(super) address: u64,
    pub(super) third: u64,
}

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) size: u64,
    pub(super) flags: u64,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) walk_end: u64,
    pub(super) vec: u64,
    pub(super) vec_len: u64,
    pub(super) max_pages: u64,
    pub(super) inverted: u64,
    pub(super) mask: u64,
    pub(super) any_of: u64,
    pub(super) returned: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Region {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) categories: u64,
}

const _: () = assert!(size_of::<Api>() == 24 && size_of::<Register>() == 32 && size_of::<Copy>() == 40);
const _: () = assert!(size_of::<Message>() == 32 && size_of::<Scan>() == 96 && size_of::<Region>() == 24);

/// `ioctl` with a structure that is both question and answer. Gives what the call returned, which is not negative.
///
/// # Safety
/// `T` is the structure that the kernel takes for this number, and what its fields point at is good for what it does.
pub(super) unsafe fn ioctl<T>(fd: BorrowedFd<'_>, number: u64, argument: &mut T) -> io::Result<u64> {
    let pointer: *mut T = argument;
    // SAFETY: the caller's promise; the pointer is good for a `T`.
    let returned = unsafe { libc::ioctl(fd.as_raw_fd(), number as _, pointer) };
    u64::try_from(returned).map_err(|_| io::Error::last_os_error())
}
