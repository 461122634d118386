//! Memory that says what was written back, and can keep a thread in the middle of that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use blockdev::{Access, BackingFile, BlockDevice, DaxDevice, Error, PmemSlice, Result};

/// How long somebody is given who may not return.
const A_MOMENT: Duration = Duration::from_millis(300);
/// How long is waited for what has to come.
const AT_LAST: Duration = Duration::from_secs(20);
/// The thread that is kept.
const NAME: &str = "slow";

/// Who says that it is there, and waits to be let on.
pub type Gate = (mpsc::Sender<()>, mpsc::Receiver<()>);

/// `D`, of which the thread of [`Slow::thread`] waits in its next write-back.
#[derive(Debug)]
pub struct Slow<D> {
    inner: D,
    gate: Mutex<Option<Gate>>,
    written: Mutex<Vec<(u64, u64)>>,
    is_watched: AtomicBool,
}

impl<D: BlockDevice> Slow<D> {
    /// Over memory.
    pub fn new(inner: D) -> Self {
        let (gate, written) = (Mutex::new(None), Mutex::new(Vec::new()));
        Self { inner, gate, written, is_watched: AtomicBool::new(false) }
    }

    /// The device below.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// From now on write-backs count.
    ///
    /// # Panics
    /// After another panic.
    pub fn watch(&self) {
        self.written.lock().unwrap().clear();
        self.is_watched.store(true, Ordering::SeqCst);
    }

    /// The same, and the first of the slow thread waits: who hears of that, and who lets it on.
    ///
    /// # Panics
    /// After another panic.
    pub fn keep(&self) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let ((tell, told), (let_go, go)) = (mpsc::channel(), mpsc::channel());
        *self.gate.lock().unwrap() = Some((tell, go));
        self.watch();
        (told, let_go)
    }

    /// Whether a byte was written back since it is watched.
    ///
    /// # Panics
    /// After another panic.
    pub fn has_written(&self, byte: u64) -> bool {
        self.written.lock().unwrap().iter().any(|&(at, len)| (at..at + len).contains(&byte))
    }

    /// Runs the slow thread.
    ///
    /// # Panics
    /// Where there can be no thread.
    pub fn thread(work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
        thread::Builder::new().name(NAME.into()).spawn(work).expect("a thread")
    }

    /// Runs `sync` while the slow thread is in the middle of `first`: what it returned for is written back, whoever did it.
    ///
    /// # Panics
    /// Where it is not.
    pub fn while_kept(
        &self,
        byte: u64,
        first: impl FnOnce() + Send + 'static,
        sync: impl FnOnce() + Send + 'static,
    ) {
        let (told, let_go) = self.keep();
        let slow = Self::thread(first);
        told.recv_timeout(AT_LAST).expect("it writes something back");
        let (tell, returned) = mpsc::channel();
        let other = thread::spawn(move || {
            sync();
            tell.send(()).expect("somebody waits");
        });
        if returned.recv_timeout(A_MOMENT).is_ok() {
            assert!(self.has_written(byte), "a sync returned before what it is for was written back");
        }
        let_go.send(()).expect("it waits");
        slow.join().expect("it ends");
        other.join().expect("it ends");
        assert!(self.has_written(byte), "nobody wrote it back");
    }

    fn memory(&self) -> Result<&dyn DaxDevice> {
        self.inner.dax().ok_or(Error::Unsupported("not memory"))
    }
}

impl<D: BlockDevice> BlockDevice for Slow<D> {
    crate::forward!(inner: size, read_at, write_at, zero, fence, flush);

    fn dax(&self) -> Option<&dyn DaxDevice> {
        self.inner.dax().map(|_| self as &dyn DaxDevice)
    }

    fn backing_file(&self) -> Option<BackingFile<'_>> {
        self.inner.backing_file()
    }
}

impl<D: BlockDevice> DaxDevice for Slow<D> {
    fn direct_access(&self, page: u64, count: u64, mode: Access) -> Result<PmemSlice<'_>> {
        self.memory()?.direct_access(page, count, mode)
    }

    fn recovery_write(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.memory()?.recovery_write(offset, buf)
    }

    fn write_back(&self, offset: u64, len: u64) -> Result<()> {
        let is_slow = thread::current().name() == Some(NAME);
        let gate =
            if is_slow { self.gate.lock().unwrap_or_else(PoisonError::into_inner).take() } else { None };
        if let Some((there, go)) = gate {
            let _ = there.send(());
            let _ = go.recv_timeout(AT_LAST);
        }
        self.memory()?.write_back(offset, len)?;
        if self.is_watched.load(Ordering::SeqCst) {
            self.written.lock().unwrap_or_else(PoisonError::into_inner).push((offset, len));
        }
        Ok(())
    }

    fn pfn(&self, page: u64) -> u64 {
        self.memory().map_or(page, |memory| memory.pfn(page))
    }
}
