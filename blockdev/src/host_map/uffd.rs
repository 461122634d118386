//! One userfaultfd.

use core::ffi::c_long;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::abi;

/// What the kernel lets this process do with page faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Missing pages and stores to zeros can be answered: userfaultfd with write-protection of pages that are not there yet
    /// (Linux 6.4), and moves that are told.
    pub faults: bool,
    /// Accesses by the kernel in the name of this process (`read(2)` into a page) wait, too. Without the right to it they
    /// are `EFAULT` at a missing page.
    pub kernel_faults: bool,
    /// Which pages of a file were stored to can be asked (`WP_ASYNC` and `PAGEMAP_SCAN`, Linux 6.7).
    pub stores: bool,
}

/// An open userfaultfd with its features agreed upon.
#[derive(Debug)]
pub(super) struct Uffd(OwnedFd);

/// Features that faults are answered with.
pub(super) const FOR_FAULTS: u64 = abi::FEATURE_PAGEFAULT_FLAG_WP
    | abi::FEATURE_EVENT_REMAP
    | abi::FEATURE_WP_HUGETLBFS_SHMEM
    | abi::FEATURE_WP_UNPOPULATED;
/// Features that stores are found with.
pub(super) const FOR_STORES: u64 = abi::FEATURE_PAGEFAULT_FLAG_WP
    | abi::FEATURE_WP_HUGETLBFS_SHMEM
    | abi::FEATURE_WP_UNPOPULATED
    | abi::FEATURE_WP_ASYNC;

impl Uffd {
    /// Opens one that has these features.
    pub(super) fn open(features: u64, user_only: bool) -> io::Result<Self> {
        let flags = c_long::from(libc::O_CLOEXEC | libc::O_NONBLOCK)
            | if user_only { abi::UFFD_USER_MODE_ONLY } else { 0 };
        // SAFETY: the call takes flags and gives a descriptor.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: made just now, and nobody else has it.
        let uffd = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        let mut api = abi::Api { api: abi::UFFD_API, features, ioctls: 0 };
        // SAFETY: the structure of this call.
        unsafe { abi::ioctl(uffd.0.as_fd(), abi::UFFDIO_API, &mut api) }?;
        Ok(uffd)
    }

    /// Registers a range that is mapped.
    pub(super) fn register(&self, start: u64, len: u64, mode: u64) -> io::Result<()> {
        let mut register = abi::Register { range: abi::Range { start, len }, mode, ioctls: 0 };
        // SAFETY: the structure of this call.
        unsafe { abi::ioctl(self.0.as_fd(), abi::UFFDIO_REGISTER, &mut register) }.map(drop)
    }

    /// Protects a range from stores, or ends that and wakes who waits.
    pub(super) fn protect(&self, start: u64, len: u64, protect: bool) -> io::Result<()> {
        let mode = u64::from(protect);
        let mut argument = abi::WriteProtect { range: abi::Range { start, len }, mode };
        loop {
            // SAFETY: the structure of this call.
            match unsafe { abi::ioctl(self.0.as_fd(), abi::UFFDIO_WRITEPROTECT, &mut argument) } {
                // Somebody changes mappings at this moment.
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => std::thread::yield_now(),
                done => return done.map(drop),
            }
        }
    }

    /// Lets those who wait for a page of the range try again.
    pub(super) fn wake(&self, start: u64, len: u64) -> io::Result<()> {
        let mut range = abi::Range { start, len };
        // SAFETY: the structure of this call.
        unsafe { abi::ioctl(self.0.as_fd(), abi::UFFDIO_WAKE, &mut range) }.map(drop)
    }

    /// Puts a copy of `page` where a page is missing, and wakes who waits for it. False where one is there.
    pub(super) fn copy(&self, to: u64, page: &[u8; 4096], protect: bool) -> io::Result<bool> {
        let mode = if protect { 2 } else { 0 };
        let from = page.as_ptr().addr() as u64;
        let mut copy = abi::Copy { to, from, len: page.len() as u64, mode, copied: 0 };
        loop {
            // SAFETY: the structure of this call; `from` is a page that is only read.
            let done = unsafe { abi::ioctl(self.0.as_fd(), abi::UFFDIO_COPY, &mut copy) };
            match done.map_err(|error| (error.raw_os_error(), error)) {
                Ok(_) => return Ok(true),
                Err((Some(libc::EAGAIN), _)) => std::thread::yield_now(),
                Err((Some(libc::EEXIST), _)) => return Ok(false),
                Err((_, error)) => return Err(error),
            }
        }
    }

    /// Reads what has happened into `messages`; 0 where nothing has.
    pub(super) fn read(&self, messages: &mut [abi::Message]) -> io::Result<usize> {
        let len = size_of_val(messages);
        // SAFETY: the buffer is good for `len` bytes, and any bytes make messages.
        let read = unsafe { libc::read(self.0.as_raw_fd(), messages.as_mut_ptr().cast(), len) };
        match usize::try_from(read) {
            Ok(bytes) => Ok(bytes / size_of::<abi::Message>()),
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EAGAIN) => Ok(0),
                error => Err(error),
            },
        }
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
