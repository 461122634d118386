//! What takes `fork`, or signals, to show.

#![allow(unsafe_code)]

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use rustix::fs::MemfdFlags;

use super::*;
use crate::PAGE_SIZE;

#[path = "../../tests/child/mod.rs"]
mod child;

/// Runs a bare load of each address in a child, and gives the signals that ended it.
fn loads_in_children(addresses: &[*mut u8]) -> Vec<Option<i32>> {
    let ends_by = |address: &*mut u8| {
        // SAFETY: the child does one load and calls `_exit`, which may both be done after a fork of any process.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "{}", std::io::Error::last_os_error());
        if child == 0 {
            // SAFETY: a byte of whatever lies there, in a process that may die of it.
            unsafe { address.read_volatile() };
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: the pointer is good for a status.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))
    };
    addresses.iter().map(ends_by).collect()
}

/// A space whose pages are, one after the other: the file's, zeros, nothing, a private copy where faults are answered, and
/// missing there.
fn one_of_each(faults: Option<Arc<HostFaults>>) -> (HostSpace, std::fs::File, Vec<u64>) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(PAGE_SIZE).unwrap();
    let answered = faults.is_some();
    let space = HostSpace::reserve(faults, Rights::ReadWrite, 8 * PAGE_SIZE, 0).unwrap();
    space.place_file(0, PAGE_SIZE, file.as_fd(), 0, FileUse::Plain).unwrap();
    space.place_zeros(PAGE_SIZE, PAGE_SIZE).unwrap();
    space.place_end(2 * PAGE_SIZE, PAGE_SIZE).unwrap();
    let mut kinds = vec![0, 1, 2];
    if answered {
        space.copy_page(3 * PAGE_SIZE, &[7; 4096], false).unwrap();
        kinds.extend([3, 4]);
    }
    space.show();
    // Placed while it is seen.
    space.place_file(5 * PAGE_SIZE, PAGE_SIZE, file.as_fd(), 0, FileUse::Plain).unwrap();
    space.place_zeros(6 * PAGE_SIZE, PAGE_SIZE).unwrap();
    space.place_end(7 * PAGE_SIZE, PAGE_SIZE).unwrap();
    kinds.extend([5, 6, 7]);
    (space, file, kinds)
}

/// With somebody who reads the events of moves.
fn with_faults(work: impl FnOnce(Option<Arc<HostFaults>>)) {
    let Ok(faults) = HostFaults::open(false, false) else { return work(None) };
    let faults = Arc::new(faults);
    let (served, assisted) = (Arc::clone(&faults), Arc::clone(&faults));
    let serve = thread::spawn(move || while !matches!(served.next(None), Ok(Next::Closed) | Err(_)) {});
    let assist = thread::spawn(move || assisted.assist());
    work(Some(Arc::clone(&faults)));
    faults.close();
    serve.join().unwrap();
    assist.join().unwrap();
}

#[test]
fn a_child_of_fork_inherits_no_page_of_any_kind_and_dies_of_sigsegv() {
    if std::env::var_os("E2DAX_EMULATED").is_some() {
        eprintln!("skipped: qemu-user gives a child of fork pages that the kernel would keep from it");
        return;
    }
    let check = |faults: Option<Arc<HostFaults>>| {
        let (space, _file, kinds) = one_of_each(faults);
        // OK to cast: inside the range.
        let address = |page: &u64| space.base().wrapping_add((page * PAGE_SIZE) as usize);
        let addresses: Vec<*mut u8> = kinds.iter().map(address).collect();
        let signals = loads_in_children(&addresses);
        assert!(signals.iter().all(|signal| *signal == Some(libc::SIGSEGV)), "{kinds:?}: {signals:?}");
        // The same in this process is what it was.
        assert_eq!(space.memory(0, PAGE_SIZE).unwrap().load_u8(0).unwrap(), 0);
        assert!(space.memory(2 * PAGE_SIZE, PAGE_SIZE).unwrap().load_u8(0).is_err());
    };
    check(None);
    with_faults(check);
}

/// A space of two pages, the file's and a hole, whose stores are found by signals.
fn watched() -> (HostSpace, std::fs::File) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(PAGE_SIZE).unwrap();
    let mut space = HostSpace::reserve(None, Rights::ReadWrite, 3 * PAGE_SIZE, 0).unwrap();
    space.track(StoresBy::Signals { units: false }, true).unwrap();
    space.place_file(0, PAGE_SIZE, file.as_fd(), 0, FileUse::Tracked).unwrap();
    space.place_zeros(PAGE_SIZE, PAGE_SIZE).unwrap();
    space.show();
    (space, file)
}

fn stored(space: &HostSpace) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    space.take_stored(0, space.len(), |first, after| all.push((first, after))).unwrap();
    all
}

const CHILD: &str = "BLOCKDEV_STORE_CHILD";

extern "C" fn own_handler(_: i32) {
    // SAFETY: ends the process.
    unsafe { libc::_exit(42) };
}

/// Not a test of its own: a process that may die of a store.
#[test]
fn store_child() {
    let Ok(what) = std::env::var(CHILD) else { return };
    if what == "own" {
        let handler = own_handler as extern "C" fn(i32) as usize;
        // SAFETY: a function of the kind that a handler is.
        unsafe { libc::signal(libc::SIGSEGV, handler) };
    }
    let (space, _file) = watched();
    // SAFETY: a byte of the file's page, which is mapped.
    unsafe { space.base().write_volatile(7) };
    assert_eq!(stored(&space), [(0, PAGE_SIZE)]);
    if what == "unmapped" {
        drop(space);
        // SAFETY: none: what is shown is how the process dies.
        unsafe { core::ptr::without_provenance_mut::<u8>(8).write_volatile(7) };
        return;
    }
    // SAFETY: none: the process is to die here.
    unsafe { space.base().wrapping_add(PAGE_SIZE as usize).write_volatile(7) };
}

#[test]
fn a_store_that_is_not_ours_to_allow_goes_to_the_handler_that_was_there() {
    use std::os::unix::process::ExitStatusExt;
    for (what, code, signal) in [
        ("none", None, Some(libc::SIGSEGV)),
        ("own", Some(42), None),
        ("unmapped", None, Some(libc::SIGSEGV)),
    ] {
        let output = child::of_test("host_map::tests::store_child").env(CHILD, what).output().unwrap();
        assert_eq!((output.status.code(), output.status.signal()), (code, signal), "{what}: {output:?}");
    }
}

#[test]
fn stores_found_by_signals_leave_errno_and_every_byte_as_they_were() {
    let (space, file) = watched();
    assert!(stored(&space).is_empty());
    let page: Vec<u8> = (0..PAGE_SIZE).map(|at| at as u8).collect();
    for round in 0..3 {
        // SAFETY: gives the place of the thread's own.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: the thread's own.
        unsafe { errno.write(99) };
        space.memory(0, PAGE_SIZE).unwrap().copy_in_cached(0, &page).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { errno.read() }, 99);
        assert_eq!(stored(&space), [(0, PAGE_SIZE)], "{round}");
    }
    let mut read = [0; PAGE_SIZE as usize];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut read, 0).unwrap();
    assert_eq!(read[..], page);
    // The kernel's stores are refused until the page is noted.
    assert!(space.read_from(0, 10, file.as_fd(), 0).is_err());
    assert!(space.allow_stores(0).unwrap() && !space.allow_stores(0).unwrap());
    assert_eq!(space.read_from(0, 10, file.as_fd(), 0).unwrap(), 10);
    assert!(!space.allow_stores(PAGE_SIZE).unwrap(), "a hole");
    // Many come and go: places are used again.
    for _ in 0..50 {
        let (again, _file) = watched();
        again.memory(0, 1).unwrap().copy_in_cached(0, &[1]).unwrap();
    }
    assert_eq!(stored(&space), [(0, PAGE_SIZE)]);
}

#[test]
fn what_pages_are_is_known_without_a_scan_as_with_it() {
    with_faults(|faults| {
        if faults.is_none() {
            return;
        }
        let (space, _file, kinds) = one_of_each(faults);
        for page in kinds.iter().filter(|page| ![2, 4, 7].contains(*page)) {
            space.memory(page * PAGE_SIZE, 8).unwrap().load_u8(0).unwrap();
        }
        let start = space.base().addr() as u64;
        let by_scan = pages::kinds(start, start + space.len(), false).unwrap();
        let page_by_page = pages::kinds(start, start + space.len(), true).unwrap();
        assert_eq!(by_scan, page_by_page);
        assert!(by_scan.iter().any(|run| run.kind.zero) && by_scan.iter().any(|run| run.kind.file));
    });
}

/// A child of `fork` asks about itself: who is not told takes private copies for the file's pages.
#[test]
fn a_child_of_fork_is_told_of_its_own_pages() {
    let copied = || {
        let file = tempfile::tempfile().unwrap();
        file.set_len(PAGE_SIZE).unwrap();
        let space = HostSpace::reserve(None, Rights::Private, PAGE_SIZE, 0).unwrap();
        space.place_file(0, PAGE_SIZE, file.as_fd(), 0, FileUse::Plain).unwrap();
        space.show();
        space.memory(0, 8).unwrap().store_u8(0, 7).unwrap();
        space.kinds(0, PAGE_SIZE).is_ok_and(|runs| runs.len() == 1 && !runs[0].kind.file)
    };
    assert!(copied());
    // SAFETY: the child maps and asks, which takes no lock that another thread may have held, but for the allocator's, which
    // the C library makes anew after a fork.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let status = i32::from(!std::panic::catch_unwind(copied).unwrap_or(false));
        // SAFETY: ends the child.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: the pointer is good for a status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child is not told that its page is a copy");
}

/// Who answers hears the bell, whatever the other reader is about at that moment.
#[test]
fn both_threads_end_when_pages_were_taken_away_just_before() {
    for _ in 0..100 {
        with_faults(|faults| {
            let Some(faults) = faults else { return };
            let space = HostSpace::reserve(Some(faults), Rights::ReadWrite, 2 * PAGE_SIZE, 0).unwrap();
            space.show();
            space.place_missing(0, PAGE_SIZE).unwrap();
        });
    }
}

#[test]
fn a_thread_that_keeps_signals_away_lets_its_own_faults_through() {
    let masks = thread::spawn(|| {
        keep_signals_away();
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim().to_owned();
        u64::from_str_radix(&line, 16).unwrap()
    });
    let blocked = masks.join().unwrap();
    let is_blocked = |signal: i32| blocked >> (signal - 1) & 1 == 1;
    assert!([libc::SIGALRM, libc::SIGINT, libc::SIGTERM, libc::SIGUSR1].into_iter().all(is_blocked));
    assert!(![libc::SIGBUS, libc::SIGSEGV, libc::SIGILL, libc::SIGFPE].into_iter().any(is_blocked));
}

#[test]
fn a_page_on_its_way_can_be_read_and_not_stored_to() {
    for rights in [Rights::ReadWrite, Rights::Private] {
        let space = HostSpace::reserve(None, rights, 2 * PAGE_SIZE, 0).unwrap();
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[7; 8192], 0).unwrap();
        space.place_file(0, 2 * PAGE_SIZE, file.as_fd(), 0, FileUse::Plain).unwrap();
        space.place_snapshot(0, PAGE_SIZE).unwrap();
        assert_eq!(space.memory(0, PAGE_SIZE).unwrap().load_u8(5).unwrap(), 7);
        // A store would be lost; the kernel's is refused as a bare one is.
        assert!(space.read_from(0, 10, file.as_fd(), 0).is_err(), "{rights:?}");
        assert_eq!(space.read_from(PAGE_SIZE, 10, file.as_fd(), 0).unwrap(), 10);
    }
}

#[test]
fn pages_that_become_missing_are_one_mapping_whatever_lies_beside_where_they_are_made() {
    // What the heap's allocator makes: pages that were stored to, which lie where the kernel puts the next ones.
    let heap: Vec<*mut libc::c_void> = (0..512)
        .map(|_| {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let rights = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: a new mapping at a place of the kernel's choice.
            let page = unsafe { libc::mmap(core::ptr::null_mut(), PAGE_SIZE as usize, rights, flags, -1, 0) };
            assert_ne!(page, libc::MAP_FAILED);
            // SAFETY: the page is ours, and may be stored to.
            unsafe { page.cast::<u8>().write_volatile(1) };
            page
        })
        .collect();
    with_faults(|faults| {
        if faults.is_none() {
            return;
        }
        let file = tempfile::tempfile().unwrap();
        file.set_len(PAGE_SIZE).unwrap();
        let space = HostSpace::reserve(faults, Rights::ReadWrite, 64 * PAGE_SIZE, 0).unwrap();
        for page in 0..64 {
            space.place_file(page * PAGE_SIZE, PAGE_SIZE, file.as_fd(), 0, FileUse::Plain).unwrap();
        }
        assert_eq!(space.view(0, space.len()).unwrap().mappings, 64);
        for page in 0..64 {
            space.place_missing(page * PAGE_SIZE, PAGE_SIZE).unwrap();
        }
        assert_eq!(space.view(0, space.len()).unwrap().mappings, 1);
    });
    for page in heap {
        // SAFETY: mapped above, and used by nobody any more.
        unsafe { libc::munmap(page, PAGE_SIZE as usize) };
    }
}

/// A space with a page of a file that can be protected so, stores to which are found by faults; the kernel's own stores to a
/// protected page are refused.
fn answered() -> Option<(HostSpace, std::fs::File)> {
    let faults = Arc::new(HostFaults::open(true, true).ok()?);
    let file = std::fs::File::from(rustix::fs::memfd_create("file", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(PAGE_SIZE).unwrap();
    let mut space = HostSpace::reserve(Some(faults), Rights::ReadWrite, PAGE_SIZE, 0).unwrap();
    space.track(StoresBy::Faults, true).unwrap();
    space.place_file(0, PAGE_SIZE, file.as_fd(), 0, FileUse::Tracked).unwrap();
    space.show();
    Some((space, file))
}

#[test]
fn a_child_of_fork_takes_no_note_of_its_parents_stores_and_protects_none_of_its_pages() {
    let Some((space, file)) = answered() else { return };
    assert!(space.read_from(0, 10, file.as_fd(), 0).is_err(), "protected");
    assert!(space.allow_stores(0).unwrap());
    assert_eq!(space.read_from(0, 10, file.as_fd(), 0).unwrap(), 10);
    // SAFETY: the child asks what was stored, which takes no lock that another thread may have held, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let status = i32::try_from(stored(&space).len()).unwrap_or(-1);
        // SAFETY: ends the child.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: the pointer is good for a status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(space.read_from(0, 10, file.as_fd(), 0).unwrap(), 10, "protected by the child");
    assert_eq!((status, stored(&space)), (0, vec![(0, PAGE_SIZE)]));
}

/// As when protecting many pages again ends at one of them: those before it are protected, and are noted still.
#[test]
fn a_page_that_is_protected_and_noted_all_the_same_can_be_stored_to() {
    let check = |space: &HostSpace, file: &std::fs::File, protect: &dyn Fn(u64)| {
        space.allow_stores(0).unwrap();
        assert_eq!(space.read_from(0, 10, file.as_fd(), 0).unwrap(), 10);
        protect(space.base().addr() as u64);
        assert!(space.read_from(0, 10, file.as_fd(), 0).is_err(), "{:?}: protected", space.stores_by());
        assert!(!space.allow_stores(0).unwrap(), "noted before");
        assert_eq!(space.read_from(0, 10, file.as_fd(), 0).unwrap(), 10);
        assert_eq!(stored(space), [(0, PAGE_SIZE)]);
    };
    let (space, file) = watched();
    check(&space, &file, &|_| {
        // SAFETY: the page is the file's, and stays mapped.
        assert_eq!(unsafe { libc::mprotect(space.base().cast(), PAGE_SIZE as usize, libc::PROT_READ) }, 0);
    });
    if let Some((space, file)) = answered() {
        let faults = Arc::clone(space.faults.as_ref().unwrap());
        check(&space, &file, &|start| faults.faults.protect(start, PAGE_SIZE, true).unwrap());
    }
}
