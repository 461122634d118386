//! Processors that stay awake while requests come close together.
//!
//! A program that waits for an answer leaves its processor idle, and one that falls asleep takes longer to come back
//! than most requests take to answer: in a virtual machine 15 us and more, of some 25 for a page. So the kernel is told
//! through its quality of service for processors (`/dev/cpu_dma_latency`, Documentation/power/pm_qos_interface.rst)
//! that no delay is tolerated, from when several requests have come one soon after the other until none comes for a
//! moment. Idle processors then wait in a loop: all of the machine's, for which reason this is done only where it is
//! asked for (`-o awake`), by whoever may open that file, which by default is root.
//!
//! # Invariants
//! 1. The wish ends with the process, however that ends: it lives in an open file.
//! 2. No lock is taken and nothing is written but when the wish changes.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where the wish is made: microseconds, as four bytes in the order of the machine, which is that of `wire`.
const WISHES: &str = "/dev/cpu_dma_latency";
/// No delay.
const NONE: i32 = 0;
/// Any delay. Linux: `PM_QOS_CPU_LATENCY_DEFAULT_VALUE`.
const ANY: i32 = 2_000_000_000;
/// Requests that follow each other within this are close, and this long after the last the wish is given up: with fewer
/// requests there is less to gain than the waiting costs.
pub(crate) const CLOSE: Duration = Duration::from_micros(500);
/// So many close requests in a row make a stream.
const STREAM: u32 = 8;

/// The wish, and when requests came.
#[derive(Debug)]
pub(crate) struct Awake {
    /// `None` where it cannot or shall not be made.
    wishes: Option<Mutex<File>>,
    made: AtomicBool,
    begin: Instant,
    /// When the last request came, in microseconds since `begin`.
    last: AtomicU64,
    /// Requests in a row that came close to the one before.
    close: AtomicU32,
}

impl Awake {
    /// `wanted` is what the user says.
    pub(crate) fn new(wanted: bool) -> Self {
        let mut wishes = None;
        if wanted {
            match OpenOptions::new().write(true).open(WISHES) {
                Ok(file) => wishes = Some(Mutex::new(file)),
                Err(error) => log::warn!("option awake: {WISHES}: {error}"),
            }
        }
        Self {
            wishes,
            made: AtomicBool::new(false),
            begin: Instant::now(),
            last: AtomicU64::new(0),
            close: AtomicU32::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A request came.
    pub(crate) fn came(&self) {
        let Some(wishes) = &self.wishes else { return };
        // Threads that count at once may lose one; nothing depends on the number.
        let now = self.now();
        let is_close =
            u128::from(now.saturating_sub(self.last.swap(now, Ordering::Relaxed))) <= CLOSE.as_micros();
        let close = if is_close { self.close.load(Ordering::Relaxed).saturating_add(1) } else { 0 };
        self.close.store(close, Ordering::Relaxed);
        if close >= STREAM && !self.is_made() {
            self.wish(wishes, true);
        }
    }

    /// Whether the wish stands, and somebody has to ask [`rest`](Self::rest) after a while without requests.
    pub(crate) fn is_made(&self) -> bool {
        self.made.load(Ordering::Relaxed)
    }

    /// Gives the wish up, if no request has come for a while.
    pub(crate) fn rest(&self) {
        let quiet = u128::from(self.now().saturating_sub(self.last.load(Ordering::Relaxed)));
        if let Some(wishes) = &self.wishes
            && self.is_made()
            && quiet >= CLOSE.as_micros()
        {
            self.close.store(0, Ordering::Relaxed);
            self.wish(wishes, false);
        }
    }

    fn wish(&self, wishes: &Mutex<File>, made: bool) {
        let mut file = wishes.lock().unwrap_or_else(PoisonError::into_inner);
        if self.made.swap(made, Ordering::Relaxed) != made {
            let delay = if made { NONE } else { ANY };
            if let Err(error) = file.write_all(&delay.to_le_bytes()) {
                log::debug!("{WISHES}: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a file of ours in place of the kernel's.
    fn over(file: &File) -> Awake {
        let mut awake = Awake::new(false);
        awake.wishes = Some(Mutex::new(file.try_clone().unwrap()));
        awake
    }

    fn wishes(file: &mut File) -> Vec<i32> {
        use std::io::{Read as _, Seek as _};
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes.chunks_exact(4).map(|word| i32::from_le_bytes(word.try_into().unwrap())).collect()
    }

    #[test]
    fn the_wish_is_made_for_a_stream_of_requests_and_given_up_after_it() {
        let mut file = tempfile::tempfile().unwrap();
        let awake = over(&file);
        awake.came();
        assert!(wishes(&mut file).is_empty());
        while !awake.is_made() {
            awake.came();
        }
        awake.came();
        awake.rest();
        let quiet = awake.last.load(Ordering::Relaxed);
        while awake.is_made() {
            awake.rest();
        }
        assert!(u128::from(awake.now() - quiet) >= CLOSE.as_micros());
        assert_eq!(wishes(&mut file), [NONE, ANY]);
    }

    #[test]
    fn requests_far_from_each_other_are_no_stream() {
        let mut file = tempfile::tempfile().unwrap();
        let awake = over(&file);
        for _ in 0..2 * STREAM {
            awake.came();
            std::thread::sleep(CLOSE + Duration::from_micros(100));
        }
        assert!(wishes(&mut file).is_empty());
    }

    #[test]
    fn nothing_is_opened_where_it_is_not_wanted() {
        let awake = Awake::new(false);
        (0..3 * STREAM).for_each(|_| awake.came());
        assert!(awake.wishes.is_none() && !awake.is_made());
    }
}
