//! System calls that move bytes into and out of a mapping, while others take its pages.

use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use ext2_dax::fault::{FaultRequest, FaultResult};
use ext2_dax::mmu::host::{HostMap, HostMmu, HostOptions};
use ext2_dax::mmu::{Sharing, VmFile};
use ext2_dax::{Errno, File, Wait};

use crate::setup::{PAGE, answered, image, need_faults, read, request};

/// A file whose first page somebody wants to punch at each fault of a later one.
#[derive(Debug)]
struct Punched {
    file: File,
    answers: Mutex<Vec<Result<(), Errno>>>,
}

impl VmFile for Punched {
    e2dax_tests::forward_file!(file: pages, memory, huge_fault, msync, layout, end_page, stored, check_map);

    fn fault(&self, request: &FaultRequest<'_>) -> FaultResult {
        if request.address >= request.vma.start + PAGE {
            let done = self.file.punch_hole(0, PAGE, Wait::No);
            self.answers.lock().unwrap().push(done.map_err(|error| error.errno()));
        }
        self.file.fault(request)
    }

    fn has_huge_faults(&self) -> bool {
        false
    }
}

/// Moves the bytes of a page and a half from the first byte on, of which the second page is a hole, by a system call that meets its
/// fault; gives what came of punching the first page then. Nobody keeps it afterwards.
fn punched_during(way: HostOptions, sharing: Sharing, call: impl FnOnce(&HostMap)) -> Vec<Result<(), Errno>> {
    let image = image(16);
    let file = image.file(b"f");
    file.write_at(0, &[1; 4096]).unwrap();
    file.truncate(3 * PAGE, Wait::Yes).unwrap();
    let punched = Arc::new(Punched { file: file.clone(), answers: Mutex::default() });
    let vm: Arc<dyn VmFile> = Arc::<Punched>::clone(&punched);
    let map = HostMmu::new(way).unwrap().map(vm, &request(3 * PAGE, sharing)).unwrap();
    call(&map);
    file.punch_hole(0, 3 * PAGE, Wait::No).unwrap();
    assert_eq!(read(&file, 0, 3 * 4096), vec![0; 3 * 4096], "{way:?}");
    drop(map);
    let answers = std::mem::take(&mut *punched.answers.lock().unwrap());
    drop((punched, file));
    image.close();
    answers
}

/// The ways in which a system call meets the faults of its pages.
fn met_by_the_kernel() -> Vec<HostOptions> {
    let kernel = HostMmu::features().kernel_faults;
    answered().into_iter().filter(|way| kernel && !way.user_only).collect()
}

#[test]
fn what_a_system_call_reads_into_a_mapping_is_not_punched_meanwhile() {
    need_faults!();
    let source = tempfile::tempfile().unwrap();
    source.write_all_at(&[7; 6144], 0).unwrap();
    for way in met_by_the_kernel() {
        let answers = punched_during(way, Sharing::Shared, |map| {
            assert_eq!(map.read_from(0, 6144, &source, 0).unwrap(), 6144, "{way:?}");
            assert_eq!((map.load(6143), map.load(6144)), (Ok(7), Ok(0)), "{way:?}");
        });
        assert!(
            !answers.is_empty() && answers.iter().all(|one| *one == Err(Errno::BUSY)),
            "{way:?} {answers:?}"
        );
    }
}

#[test]
fn what_a_system_call_writes_from_a_mapping_is_not_punched_meanwhile() {
    need_faults!();
    for way in met_by_the_kernel() {
        for sharing in [Sharing::Shared, Sharing::Private] {
            let sink = tempfile::tempfile().unwrap();
            let answers = punched_during(way, sharing, |map| {
                assert_eq!(map.write_to(0, 6144, &sink, 0).unwrap(), 6144, "{way:?}");
            });
            let mut bytes = [9; 6144];
            sink.read_exact_at(&mut bytes, 0).unwrap();
            assert!(bytes[..4096] == [1; 4096] && bytes[4096..] == [0; 2048], "{way:?}");
            // What is mapped ahead has no fault of its own.
            assert!(answers.iter().all(|one| *one == Err(Errno::BUSY)), "{way:?} {answers:?}");
        }
    }
}

/// Past the end nothing can be supplied, and outside the mapping there is nothing: the lease is gone with the error.
#[test]
fn a_system_call_that_fails_keeps_nothing() {
    for way in crate::setup::ways() {
        let image = image(16);
        let file = image.file(b"f");
        file.write_at(0, &[1; 4096]).unwrap();
        let map = file.map_host(&HostMmu::new(way).unwrap(), &request(2 * PAGE, Sharing::Shared)).unwrap();
        let source = tempfile::tempfile().unwrap();
        source.write_all_at(&[7; 4096], 0).unwrap();
        assert!(map.read_from(PAGE, 4096, &source, 0).is_err(), "{way:?}");
        assert!(map.read_from(2 * PAGE, 1, &source, 0).is_err(), "{way:?}");
        assert!(map.write_to(u64::MAX, u64::MAX, &source, 0).is_err(), "{way:?}");
        assert_eq!(map.read_from(0, 0, &source, 0).unwrap(), 0, "{way:?}");
        file.truncate(0, Wait::No).unwrap();
        drop((map, file));
        image.close();
    }
}
