//! The count of operations that only pretend to be direct I/O.

use crate::sync::{Condvar, Mutex};

/// How many operations are under way that only pretend to be direct I/O (Linux: `i_dio_count`).
#[derive(Debug, Default)]
pub struct DioCount {
    count: Mutex<u64>,
    idle: Condvar,
}

/// One operation, while it is counted.
#[derive(Debug)]
pub(crate) struct Counted<'a>(&'a DioCount);

impl DioCount {
    pub(crate) fn new() -> Self {
        Self { count: Mutex::new(0), idle: Condvar::new() }
    }

    pub(crate) fn begin(&self) -> Counted<'_> {
        *self.count.lock() += 1;
        Counted(self)
    }

    /// Waits until no operation is under way (`inode_dio_wait`).
    pub(crate) fn wait(&self) {
        let mut count = self.count.lock();
        while *count > 0 {
            count = self.idle.wait(count);
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        *self.0.count.lock() -= 1;
        self.0.idle.notify_all();
    }
}
