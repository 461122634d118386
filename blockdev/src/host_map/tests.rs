//! What takes `fork`, or signals, to show.

#![allow(unsafe_code)]

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use super::*;
use crate::PAGE_SIZE;

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
    let Ok(faults) = HostFaults::open(false) else { return work(None) };
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
