//! What a process may not have: each limit is an error that says what is lacking, and nothing is lost by it.

use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;
use std::time::Duration;

use ext2_dax::mmu::Sharing;
use ext2_dax::mmu::host::{HostMmu, HostOptions};
use ext2_dax::{Errno, Wait};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::setup::{PAGE, image, map, pattern, read, request, ways};

const MARK: &str = "E2DAX_HOST_LIMIT";

/// Runs the test of this name again in a process of its own, whose limits are nobody else's. True in that process.
fn is_alone(name: &str) -> bool {
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", name]).env(MARK, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
    false
}

fn limit(resource: Resource, current: Option<u64>) {
    let maximum = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current: current.or(maximum), maximum }).unwrap();
}

/// As many file descriptors as there are, so that the next would be one too many.
fn no_more_descriptors(is_limited: bool) {
    let next = || std::fs::File::open("/dev/null").unwrap().as_raw_fd() as u64;
    limit(Resource::Nofile, is_limited.then(next));
}

/// What a file has and what is stored through its mapping, under a limit and when it is gone.
fn under(limited: impl Fn(HostOptions, &ext2_dax::File), limit: impl Fn(bool)) {
    for way in ways() {
        let image = image(16);
        let file = image.file(b"f");
        file.write_at(0, &pattern(1)).unwrap();
        let before = file.map_host(&HostMmu::new(way).unwrap(), &request(2 * PAGE, Sharing::Shared)).unwrap();
        limit(true);
        limited(way, &file);
        // What was mapped before goes on.
        before.store(7, 9).unwrap();
        file.write_at(PAGE, &pattern(2)).unwrap();
        let seen = (before.load(7), before.load(PAGE));
        limit(false);
        assert_eq!(seen, (Ok(9), Ok(pattern(2)[0])), "{way:?}");
        let after = file.map_host(&HostMmu::new(way).unwrap(), &request(2 * PAGE, Sharing::Shared)).unwrap();
        after.store(8, 10).unwrap();
        assert_eq!(read(&file, 7, 2), [9, 10], "{way:?}");
        drop((before, after, file));
        image.close();
    }
}

#[test]
fn without_file_descriptors_a_mapping_is_refused_and_those_that_are_there_go_on() {
    if !is_alone("limits::without_file_descriptors_a_mapping_is_refused_and_those_that_are_there_go_on") {
        return;
    }
    // Or all are too many, as in a program that shuts itself in.
    let none = |is_limited: bool| limit(Resource::Nofile, is_limited.then_some(0));
    let limited = |way, file: &ext2_dax::File| {
        let error = HostMmu::new(way)
            .and_then(|mmu| file.map_host(&mmu, &request(PAGE, Sharing::Shared)))
            .expect_err("refused");
        assert!(error.is(Errno::MFILE), "{way:?}: {error}");
    };
    under(limited, no_more_descriptors);
    under(limited, none);
}

#[test]
fn a_private_copy_outlives_a_hole_that_is_made_where_no_descriptor_is_left() {
    if !is_alone("limits::a_private_copy_outlives_a_hole_that_is_made_where_no_descriptor_is_left") {
        return;
    }
    for way in ways() {
        let image = image(16);
        let file = image.file(b"f");
        file.write_at(0, &[1; 4 * 4096]).unwrap();
        let private = map(&file, way, 4 * PAGE, Sharing::Private);
        private.store(PAGE, 77).unwrap();
        no_more_descriptors(true);
        file.punch_hole(0, 4 * PAGE, Wait::Yes).unwrap();
        let seen = private.load(PAGE);
        no_more_descriptors(false);
        assert_eq!(seen, Ok(77), "{way:?}");
        drop((private, file));
        image.close();
    }
}

#[test]
fn pages_that_come_while_there_is_no_room_for_them_can_be_touched_later() {
    if !is_alone("limits::pages_that_come_while_there_is_no_room_for_them_can_be_touched_later") {
        return;
    }
    for way in ways() {
        let image = image(16);
        let file = image.file(b"f");
        file.write_at(0, &[1; 4 * 4096]).unwrap();
        let map = map(&file, way, 64 * PAGE, Sharing::Shared);
        assert_eq!(map.load(0), Ok(1));
        // Whoever answers faults has begun by then.
        thread::sleep(Duration::from_millis(100));
        limit(Resource::As, Some(1 << 20));
        let grown = file.truncate(16 * PAGE, Wait::Yes);
        limit(Resource::As, None);
        grown.unwrap();
        let first = map.load(9 * PAGE);
        let is_there = || {
            map.load(9 * PAGE) == Ok(0) || {
                thread::sleep(Duration::from_millis(10));
                false
            }
        };
        assert!((0..1000).any(|_| is_there()), "{way:?}: {first:?} at first");
        drop((map, file));
        image.close();
    }
}

#[test]
fn without_addresses_a_mapping_is_refused_and_those_that_are_there_go_on() {
    if !is_alone("limits::without_addresses_a_mapping_is_refused_and_those_that_are_there_go_on") {
        return;
    }
    let addresses = |is_limited: bool| limit(Resource::As, is_limited.then_some(64 << 30));
    let limited = |way, file: &ext2_dax::File| {
        let mmu = HostMmu::new(way).unwrap();
        let error = file.map_host(&mmu, &request(1 << 40, Sharing::Shared)).expect_err("refused");
        assert!(error.is(Errno::NOMEM), "{way:?}: {error}");
        assert_eq!((mmu.mappings(), file.pages().mappings()), (0, 1), "{way:?}: something is left of it");
    };
    under(limited, addresses);
}

#[test]
fn nothing_is_locked_in_memory_and_so_no_limit_of_that_is_met() {
    if !is_alone("limits::nothing_is_locked_in_memory_and_so_no_limit_of_that_is_met") {
        return;
    }
    let locked = |is_limited: bool| limit(Resource::Memlock, is_limited.then_some(0));
    let limited = |way, file: &ext2_dax::File| {
        let map = file.map_host(&HostMmu::new(way).unwrap(), &request(PAGE, Sharing::Shared)).unwrap();
        assert_eq!(map.load(0), Ok(pattern(1)[0]), "{way:?}");
    };
    under(limited, locked);
}
