//! The image's pages, mapped before they are asked for.
//!
//! The first small read of a page is a page fault, a fifth of what such a read takes in all. A thread of its own maps
//! what of the image is in memory when it is mounted, while the processors have little else to do.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use ext2_core::Ext2;

/// Bytes that are mapped at a time, which takes some hundred microseconds.
const STEP: u64 = 2 << 20;
/// Bytes that are mapped at most, from the begin of the image: their page tables take 16 MiB.
const MOST: u64 = 8 << 30;
/// The lowest priority. Linux: `nice`.
const LOWEST: i32 = 19;

/// Begins to map the image of this file system, until it is mapped or the mount is `over`. Until the thread has ended it
/// holds the image.
///
/// # Errors
/// The system's, where there can be no thread.
pub(crate) fn start(fs: Ext2, over: Arc<AtomicBool>) -> io::Result<JoinHandle<()>> {
    let work = move || {
        // Of this thread alone. Where that is refused, the scheduler is fair all the same.
        let _ = rustix::process::setpriority_process(None, LOWEST);
        let device = fs.device();
        let end = device.size().min(MOST);
        let mut at = 0;
        while at < end && !over.load(Ordering::Acquire) {
            let len = STEP.min(end - at);
            if device.populate(at, len).is_err() {
                break;
            }
            at += len;
        }
    };
    thread::Builder::new().name("populate".into()).spawn(work)
}
