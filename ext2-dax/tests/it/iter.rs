//! The iterator's contract, over a file system that records what it is asked.

use ext2_dax::compat::Compat;
use ext2_dax::error::{BadMapping, Error};
use ext2_dax::iomap::{Iomap, MapFlags, OpFlags};
use ext2_dax::iter::{IomapIter, Step};

use super::fake::{Call, FakeFile};

const P: u64 = 4096;

fn begin(pos: u64, len: u64) -> Call {
    Call::Begin { pos, len, flags: OpFlags::empty() }
}

fn end(pos: u64, len: u64, written: u64) -> Call {
    Call::End { pos, len, written }
}

#[test]
fn each_begin_is_followed_by_one_end_with_what_was_done() {
    let file = FakeFile::new(Compat::FULL);
    file.place(1, 2, 7);
    let mut iter = IomapIter::new(&*file, 0, 4 * P, OpFlags::empty());
    let mut lengths = Vec::new();
    while iter.next().unwrap() {
        lengths.push(iter.length());
        let done = Step::Done(iter.length());
        iter.processed(done);
    }
    assert_eq!(lengths, [P, 2 * P, P]);
    let expected = [
        begin(0, 4 * P),
        end(0, P, P),
        begin(P, 3 * P),
        end(P, 2 * P, 2 * P),
        begin(3 * P, P),
        end(3 * P, P, P),
    ];
    assert_eq!(file.calls(), expected);
}

#[test]
fn a_part_done_is_reported_and_the_rest_asked_again() {
    let file = FakeFile::new(Compat::FULL);
    let mut iter = IomapIter::new(&*file, 0, 2 * P, OpFlags::empty());
    assert!(iter.next().unwrap());
    iter.processed(Step::Done(100));
    assert!(iter.next().unwrap());
    assert_eq!(iter.pos(), 100);
    assert_eq!(file.calls(), [begin(0, 2 * P), end(0, 2 * P, 100), begin(100, 2 * P - 100)]);
}

#[test]
fn nothing_done_ends_the_walk_without_an_error() {
    let file = FakeFile::new(Compat::FULL);
    let mut iter = IomapIter::new(&*file, 0, P, OpFlags::empty());
    assert!(iter.next().unwrap());
    assert!(!iter.next().unwrap());
    assert!(!iter.next().unwrap(), "a walk that is over stays over");
    assert_eq!(file.calls(), [begin(0, P), end(0, P, 0)]);
}

#[test]
fn nothing_done_with_a_stale_mapping_asks_again() {
    let file = FakeFile::new(Compat::FULL);
    let mut iter = IomapIter::new(&*file, 0, P, OpFlags::empty());
    assert!(iter.next().unwrap());
    iter.mark_stale();
    assert!(iter.next().unwrap());
    iter.processed(Step::Done(P));
    assert!(!iter.next().unwrap());
    assert_eq!(file.calls(), [begin(0, P), end(0, P, 0), begin(0, P), end(0, P, P)]);
}

#[test]
fn a_failed_body_still_has_its_end_and_its_error() {
    let file = FakeFile::new(Compat::FULL);
    let mut iter = IomapIter::new(&*file, 0, P, OpFlags::empty());
    assert!(iter.next().unwrap());
    iter.processed(Step::Failed(Error::Interrupted));
    assert!(matches!(iter.next(), Err(Error::Interrupted)));
    assert_eq!(file.calls(), [begin(0, P), end(0, P, 0)]);
}

#[test]
fn a_walk_that_is_dropped_still_has_its_end() {
    let file = FakeFile::new(Compat::FULL);
    let mut iter = IomapIter::new(&*file, 0, P, OpFlags::empty());
    assert!(iter.next().unwrap());
    drop(iter);
    assert_eq!(file.calls(), [begin(0, P), end(0, P, 0)]);
}

#[test]
fn a_failed_begin_has_no_end() {
    let file = FakeFile::new(Compat::FULL);
    file.answer(|_, _, _| Some(Err(Error::Interrupted)));
    let mut iter = IomapIter::new(&*file, 0, P, OpFlags::empty());
    assert!(iter.next().is_err());
    assert!(!iter.next().unwrap());
    assert_eq!(file.calls(), [begin(0, P)]);
}

#[test]
fn an_empty_request_never_reaches_the_file_system() {
    let file = FakeFile::new(Compat::FULL);
    assert!(!IomapIter::new(&*file, 5, 0, OpFlags::empty()).next().unwrap());
    assert!(!IomapIter::new(&*file, u64::MAX, 10, OpFlags::empty()).next().unwrap());
    assert_eq!(file.calls(), []);
}

/// What an answer comes to, and whether it had its end.
fn refused(answer: fn() -> Iomap<super::fake::Unpublished>) -> (Option<BadMapping>, usize) {
    let file = FakeFile::new(Compat::FULL);
    file.answer(move |_, _, _| Some(Ok(answer())));
    let error = IomapIter::new(&*file, 2 * P, P, OpFlags::empty()).next();
    let bad = match error {
        Err(Error::BadMapping(bad)) => Some(bad),
        _ => None,
    };
    (bad, file.calls().len())
}

#[test]
fn an_empty_mapping_is_an_error_and_not_a_loop() {
    assert_eq!(refused(|| Iomap::hole(2 * P, 0)), (Some(BadMapping::Empty), 2));
}

#[test]
fn a_mapping_that_starts_too_late_is_an_error() {
    let (bad, calls) = refused(|| Iomap::hole(2 * P + 1, P));
    assert_eq!(bad, Some(BadMapping::StartsAfter { pos: 2 * P, offset: 2 * P + 1 }));
    assert_eq!(calls, 2);
}

#[test]
fn a_mapping_that_ends_too_early_or_never_is_an_error() {
    let early = Some(BadMapping::EndsBefore { pos: 2 * P });
    assert_eq!(refused(|| Iomap::hole(0, 2 * P)), (early, 2));
    assert_eq!(refused(|| Iomap::hole(P, u64::MAX)), (early, 2));
}

#[test]
fn a_mapping_that_is_born_stale_is_an_error() {
    let answer = || {
        let mut map = Iomap::hole(0, 4 * P);
        map.flags |= MapFlags::STALE;
        map
    };
    assert_eq!(refused(answer), (Some(BadMapping::Stale), 2));
}

#[test]
fn more_done_than_there_was_is_an_error() {
    let file = FakeFile::new(Compat::FULL);
    let mut iter = IomapIter::new(&*file, 0, P, OpFlags::empty());
    assert!(iter.next().unwrap());
    iter.processed(Step::Done(P + 1));
    let too_much = BadMapping::TooMuchDone { processed: P + 1, length: P };
    assert!(matches!(iter.next(), Err(Error::BadMapping(bad)) if bad == too_much));
}
