//! What does not go through the kernel's page cache, and what goes from the image to the kernel without a copy.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use e2dax_tests::{Rng, memory, need_tools};
use rustix::fs::{Advice, FallocateFlags, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::pipe::fcntl_getpipe_size;

use crate::common::{Image, Mount, need_fuse, run};

/// A pipe as large as this is made for splicing, and for nothing else.
const LARGE_PIPE: usize = 1 << 20;

/// Whether the process that serves the mount keeps a pipe to splice through.
fn splices(mount: &Mount) -> bool {
    mount.open_files().iter().any(|(descriptor, target)| {
        if !target.to_string_lossy().starts_with("pipe:") {
            return false;
        }
        // Both ends can be opened once more like this; nothing is read. It may be gone by now.
        let pipe = open(descriptor, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
        pipe.is_ok_and(|pipe| fcntl_getpipe_size(pipe).unwrap() >= LARGE_PIPE)
    })
}

/// Pages of a file that the kernel holds.
fn pages_held(path: &Path) -> u64 {
    let text = run("fincore", &["-n", "-o", "PAGES", path.to_str().unwrap()], path.parent().unwrap());
    text.trim().parse().unwrap()
}

#[test]
fn with_direct_io_the_kernel_holds_no_page_of_a_file_that_is_read_and_written() {
    need_fuse!();
    need_tools!("fincore");
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    for (options, holds) in [("", true), ("direct_io", false)] {
        let image = Image::new(&["-b", "1024"], "8M");
        let mount = image.mount(options);
        fs::write(mount.join("f"), &bytes).unwrap();
        // Past the tick of the clock in which it was written: until then each opening has the time of access changed.
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(fs::read(mount.join("f")).unwrap(), bytes);
        assert_eq!(pages_held(&mount.join("f")) > 0, holds, "{options}");
        mount.unmount();
        image.check();
    }
}

#[test]
fn files_in_pieces_with_holes_are_read_as_they_were_written() {
    need_fuse!();
    const SIZE: usize = 3_000_000;
    for (options, block) in [("", "4096"), ("direct_io", "4096"), ("direct_io", "1024")] {
        let image = Image::new(&["-b", block], "32M");
        let mount = image.mount(options);
        let path = mount.join("f");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        assert!(!splices(&mount), "nothing was read");
        let mut rng = Rng::new(11);
        let mut expected = vec![0; SIZE];
        for round in 1..=60_u8 {
            let hole = round % 3 == 0;
            let at = usize::try_from(rng.below(SIZE as u64 - 200_000)).unwrap();
            let len = usize::try_from(1 + rng.below(if hole { 20_000 } else { 200_000 })).unwrap();
            if hole {
                let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&file, mode, at as u64, len as u64).unwrap();
                expected[at..at + len].fill(0);
            } else {
                file.write_all_at(&vec![round; len], at as u64).unwrap();
                expected[at..at + len].fill(round);
            }
        }
        file.set_len(SIZE as u64).unwrap();
        file.sync_all().unwrap();
        let reader = File::open(&path).unwrap();
        let mut buffer = vec![0; 2 << 20];
        for round in 0..200 {
            if round % 8 == 0 {
                rustix::fs::fadvise(&reader, 0, None, Advice::DontNeed).unwrap();
            }
            let at = usize::try_from(rng.below(SIZE as u64)).unwrap();
            let len = usize::try_from(rng.below(if round % 2 == 0 { 2 << 20 } else { 100_000 })).unwrap();
            let wanted = len.min(SIZE - at);
            reader.read_exact_at(&mut buffer[..wanted], at as u64).unwrap();
            assert!(buffer[..wanted] == expected[at..at + wanted], "{options}, {wanted} bytes at {at}");
        }
        assert_eq!(reader.read_at(&mut buffer, SIZE as u64).unwrap(), 0);
        assert!(splices(&mount), "{options}: large reads are spliced");
        // To the end, which is in the middle of a page.
        let mut all = Vec::new();
        File::open(&path).unwrap().read_to_end(&mut all).unwrap();
        assert!(all == expected, "{options}");
        drop((file, reader));
        mount.unmount();
        image.check();
    }
}

#[test]
fn what_is_in_memory_of_an_image_is_mapped_soon_after_it_is_mounted() {
    need_fuse!();
    const SIZE: u64 = 48 << 20;
    let image = Image::new(&["-b", "4096"], "64M");
    let mount = image.mount("");
    fs::write(mount.join("f"), vec![7; SIZE as usize]).unwrap();
    mount.unmount();
    for options in ["", "ro"] {
        let mount = image.mount(options);
        let begin = Instant::now();
        loop {
            let mapped = 1024
                * ["RssFile", "RssShmem"]
                    .map(|field| memory::of(mount.pid(), field).unwrap())
                    .iter()
                    .sum::<u64>();
            if mapped >= SIZE {
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{options}: {mapped} bytes are mapped");
            std::thread::sleep(Duration::from_millis(5));
        }
        mount.unmount();
        image.check();
    }
}

#[test]
fn a_full_device_is_reported_by_the_write_where_nothing_gathers_writes() {
    need_fuse!();
    for options in ["direct_io", "", "no_writeback_cache"] {
        let image = Image::new(&["-b", "1024"], "1M");
        let mount = image.mount(options);
        let mut file = File::create(mount.join("f")).unwrap();
        let mut written = 0;
        let error = loop {
            match file.write(&[7; 100_000]) {
                Ok(len) => written += len as u64,
                Err(error) => break error,
            }
        };
        assert_eq!(Errno::from_io_error(&error), Some(Errno::NOSPC), "{options}");
        drop(file);
        let found = fs::read(mount.join("f")).unwrap();
        assert!(found.len() as u64 == written && found.iter().all(|byte| *byte == 7), "{options}");
        mount.unmount();
        image.check();
    }
}
