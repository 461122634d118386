//! A process that has too little of something, images that are cut by somebody else, and threads that must not be disturbed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ext2_dax::mmu::Sharing;
use ext2_dax::mmu::host::{HostMmu, HostOptions};
use ext2_dax::mmu::soft::Signal;
use ext2_dax::{Wait, mmu::host::Tracking};

use crate::setup::{PAGE, UNIT, answered, image, loaded, map, need_faults, pattern, read, request, ways};

#[test]
fn an_image_that_somebody_cuts_is_an_error_of_the_access() {
    for way in ways() {
        let image = image(16);
        let file = image.file(b"f");
        for page in 0..16 {
            file.write_at(page * PAGE, &pattern(page)).unwrap();
        }
        file.truncate(UNIT, Wait::Yes).unwrap();
        let mapped = map(&file, way, UNIT, Sharing::Shared);
        assert_eq!(loaded(&mapped, 0, 4096), pattern(0));
        let len = image.path.as_file().metadata().unwrap().len();
        image.path.as_file().set_len(64 * PAGE).unwrap();
        // Data beyond what is left of the image, loaded and stored to; and a hole, for which the metadata is gone too.
        let lost = (0..16).filter(|page| mapped.load(page * PAGE) == Err(Signal::Bus)).count();
        let stored = mapped.store(40 * PAGE, 1);
        assert!(lost > 0, "{way:?}: nothing of the file lay there");
        image.path.as_file().set_len(len).unwrap();
        // Whatever became of the store, nobody died and nobody hangs.
        let _ = (stored, mapped.load(41 * PAGE));
        drop((mapped, file));
        drop(image);
    }
}

#[test]
fn an_image_that_is_replaced_stays_what_is_mapped() {
    for way in ways() {
        let image = image(16);
        let file = image.file(b"f");
        file.write_at(0, &pattern(1)).unwrap();
        let mapped = map(&file, way, UNIT, Sharing::Shared);
        let other = tempfile::Builder::new().tempfile_in(image.path.path().parent().unwrap()).unwrap();
        other.as_file().set_len(16 << 20).unwrap();
        let kept = image.path.path().with_extension("kept");
        std::fs::rename(image.path.path(), &kept).unwrap();
        std::fs::rename(other.path(), image.path.path()).unwrap();
        assert_eq!(loaded(&mapped, 0, 4096), pattern(1), "{way:?}");
        mapped.store(7, 9).unwrap();
        file.write_at(PAGE, &pattern(2)).unwrap();
        assert_eq!(loaded(&mapped, PAGE, 4096), pattern(2), "{way:?}");
        assert_eq!(read(&file, 7, 1), [9]);
        std::fs::rename(&kept, image.path.path()).unwrap();
        drop((mapped, file));
        image.close();
        // Its path is the image's, which removes it.
        let _ = other.into_temp_path().keep();
    }
}

/// A handler of the program's that runs on the thread that answers faults, and touches a mapping, would wait for itself.
#[test]
fn no_signal_is_delivered_to_the_threads_that_answer_faults() {
    need_faults!();
    let mmu = HostMmu::new(answered()[0]).unwrap();
    let image = image(16);
    let file = image.file(b"f");
    file.write_at(0, &pattern(1)).unwrap();
    let mapped = file.map_host(&mmu, &request(UNIT, Sharing::Shared)).unwrap();
    assert_eq!(mapped.load(0), Ok(pattern(1)[0]));
    let blocked = || -> Vec<(String, bool)> {
        let status = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("status")).ok();
        let of = |status: String| {
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let mask = u64::from_str_radix(field("SigBlk:")?, 16).ok()?;
            // SIGALRM and SIGTERM.
            Some((field("Name:")?.to_owned(), mask >> 13 & 1 == 1 && mask >> 14 & 1 == 1))
        };
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
        tasks.filter_map(status).filter_map(of).filter(|(name, _)| name.starts_with("faults")).collect()
    };
    // A thread that was made a moment ago may not have come so far; those of other tests are alike.
    let all_blocked = (0..200).any(|_| {
        thread::sleep(std::time::Duration::from_millis(2));
        let found = blocked();
        found.len() >= 2 && found.iter().all(|(_, blocked)| *blocked)
    });
    assert!(all_blocked, "{:?}", blocked());
    drop((mapped, file));
    image.close();
}

/// Mappings are made, used and dropped by threads, while others change the file.
#[test]
fn mappings_come_and_go_while_the_file_changes() {
    for way in ways() {
        let image = image(32);
        let file = image.file(b"f");
        file.truncate(2 * UNIT, Wait::Yes).unwrap();
        let mmu = HostMmu::new(HostOptions { tracking: Tracking::Auto, ..way }).unwrap();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for thread in 0..2_u64 {
                let (file, mmu, over) = (&file, &mmu, &over);
                scope.spawn(move || {
                    while !over.load(Ordering::SeqCst) {
                        let mapped = file.map_host(mmu, &request(2 * UNIT, Sharing::Shared)).unwrap();
                        for page in (0..1024).step_by(97) {
                            let at = page * PAGE + 8 * thread;
                            if mapped.try_store(at, &7_u64.to_le_bytes()).is_ok() {
                                let mut word = [0; 8];
                                let seen = mapped.try_load(at, &mut word).map(|()| u64::from_le_bytes(word));
                                // Cut off or punched since, or what was stored.
                                assert!(seen.is_err() || seen == Ok(0) || seen == Ok(7), "{way:?}: {seen:?}");
                            }
                        }
                    }
                });
            }
            for round in 0..60 {
                file.punch_hole(round % 7 * 64 * PAGE, 128 * PAGE, Wait::Yes).unwrap();
                file.truncate(UNIT + round * PAGE, Wait::Yes).unwrap();
                file.sync().unwrap();
                file.truncate(2 * UNIT, Wait::Yes).unwrap();
            }
            over.store(true, Ordering::SeqCst);
        });
        assert_eq!((file.pages().mappings(), mmu.mappings()), (0, 0), "{way:?}");
        drop(file);
        image.close();
    }
}
