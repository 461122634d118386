//! The end of a file system, with a log and without: by several threads at once, and after an error.

use std::sync::{Arc, Barrier};
use std::thread;

use blockdev::RamDevice;
use e2dax_tests::{
    Scratch, need_tools,
    small::{batched, file, image_of, logged, open_as},
    tree,
};
use ext2_core::{Closed, Ext2, OnError, OpenOptions, Unclean};
use ext2_image::check::{Checker, Options, Outcome};

/// With no log, with one, and with one for each commit.
fn kinds() -> [OpenOptions; 3] {
    [OpenOptions::default(), logged(), batched()]
}

#[test]
fn of_threads_that_close_it_at_once_one_does_and_the_others_come_back_when_it_is_closed() {
    need_tools!("mke2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024"], "16M");
    for (kind, options) in kinds().into_iter().enumerate() {
        for round in 0..100 {
            let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
            let fs = open_as(device.clone(), &options);
            file(&fs.root().unwrap(), "kept", &[7; 40_000]);
            let start = Arc::new(Barrier::new(3));
            let closes = [0, 1].map(|_| {
                let (fs, start, device) = (fs.clone(), start.clone(), device.clone());
                thread::spawn(move || {
                    start.wait();
                    let closed = fs.close().unwrap();
                    (closed, device.to_vec())
                })
            });
            start.wait();
            fs.sync().unwrap();
            let [(one, seen), (other, also)] = closes.map(|close| close.join().unwrap());
            assert!(
                [(Closed::Clean, Closed::ReadOnly), (Closed::ReadOnly, Closed::Clean)]
                    .contains(&(one, other)),
                "kind {kind}, round {round}: {one:?} and {other:?}"
            );
            drop(fs);
            let last = device.to_vec();
            assert!(seen == last && also == last, "kind {kind}, round {round}: stored to after a close");
            let found = Checker::new().check(&*device, &Options::default(), &mut |_| {}).unwrap();
            assert!(found.is_clean(), "kind {kind}, round {round}: {found:?}");
        }
    }
}

#[test]
fn an_error_that_was_found_is_told_when_it_is_closed_although_writing_went_on() {
    need_tools!("mke2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024", "-e", "continue"], "16M");
    for options in kinds() {
        let device = Arc::new(Scratch::new(base.clone()));
        let fs = open_as(device.clone(), &OpenOptions { errors: Some(OnError::Continue), ..options });
        let root = fs.root().unwrap();
        let error = file(&root, "before", &[1; 3000]).lookup(b"x").unwrap_err();
        fs.note_broken(&error);
        file(&root, "after", &[2; 3000]);
        assert!(!fs.is_read_only());
        drop(root);
        assert_eq!(fs.close().unwrap(), Closed::Unclean(Unclean::Errors));
        // What was written is there, and a check is made, as e2fsck makes it.
        let mut found = Vec::new();
        let outcome =
            Checker::new().mend(&*device, 1_700_000_000, &mut |finding| found.push(finding.to_string()));
        assert!(!matches!(outcome.unwrap(), Outcome::Halts(_)), "{found:?}");
        assert_eq!(tree::read(device.clone()).unwrap()[&b"/after"[..]].content, [2; 3000]);
        // Then it is clean again.
        assert_eq!(Ext2::open(device, &OpenOptions::default()).unwrap().close().unwrap(), Closed::Clean);
    }
}
