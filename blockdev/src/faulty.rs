//! A device that fails on command.

use alloc::string::String;

use bitflags::bitflags;

use crate::poison::PoisonSet;
use crate::range::page_run;
use crate::sync::Mutex;
use crate::{
    Access, BlockDevice, Claim, DaxDevice, Error, Media, PAGE_SIZE, PmemSlice, Result, StoreData,
    StoreObserver, StorePath,
};

bitflags! {
    /// Kinds of calls to a device.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Calls: u32 {
        /// `read_at`, `read_u32`.
        const READ = 1 << 0;
        /// `write_at`, `write_u32`, `write_u16`, `recovery_write`.
        const WRITE = 1 << 1;
        /// `zero`.
        const ZERO = 1 << 2;
        /// `fence`.
        const FENCE = 1 << 3;
        /// `flush`.
        const FLUSH = 1 << 4;
        /// `direct_access`.
        const DIRECT_ACCESS = 1 << 5;
        /// `write_back`.
        const WRITE_BACK = 1 << 6;
        /// A store through a slice.
        const STORE = 1 << 7;
        /// A load through a slice.
        const LOAD = 1 << 8;
        /// `discard`.
        const DISCARD = 1 << 9;
    }
}

/// How a failing call fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FaultError {
    /// [`Error::Io`] with EIO.
    #[default]
    Io,
    /// [`Error::NoSpace`].
    NoSpace,
    /// [`Error::Poisoned`], at the page of the call.
    Poisoned,
}

/// How often a fault strikes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Repeat {
    /// One call fails; later ones work.
    #[default]
    Once,
    /// Every call from the n-th on fails: the device is gone.
    FromThenOn,
}

/// What a failing write leaves behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tear {
    /// Nothing.
    #[default]
    Nothing,
    /// The first half of its bytes, rounded down to whole 8-byte words.
    FirstHalf,
}

/// A fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kinds of calls that are counted, and of which one fails.
    pub calls: Calls,
    /// Calls of these kinds that still work: 0 fails the next one.
    pub after: u64,
    /// Whether those after it fail too.
    pub repeat: Repeat,
    /// What they answer.
    pub error: FaultError,
    /// What a failing write has written.
    pub tear: Tear,
}

impl Fault {
    /// One EIO, for the call of these kinds after `after` more.
    pub fn once(calls: Calls, after: u64) -> Self {
        Self { calls, after, repeat: Repeat::Once, error: FaultError::default(), tear: Tear::default() }
    }

    /// EIO for every call of these kinds after `after` more.
    pub fn from_then_on(calls: Calls, after: u64) -> Self {
        Self { repeat: Repeat::FromThenOn, ..Self::once(calls, after) }
    }
}

#[derive(Debug, Default)]
struct State {
    fault: Option<Fault>,
    counted: u64,
    fired: u64,
}

/// `D`, failing when told to. A failing call does nothing to the device but what [`Tear`] says.
///
/// To fail a workload at every point: run it once with [`arm`](Self::arm) of a fault far away and read
/// [`counted`](Self::counted); then run it again for each number below.
///
/// ```
/// use blockdev::{BlockDevice, Calls, Fault, Faulty, RamDevice};
///
/// let device = Faulty::new(RamDevice::new(1 << 20)?);
/// // The second write from here on fails, and no other.
/// device.arm(Fault::once(Calls::WRITE, 1));
/// assert!(device.write_at(0, b"a").is_ok());
/// assert!(device.write_at(0, b"b").is_err());
/// assert!(device.write_at(0, b"c").is_ok());
/// # Ok::<(), blockdev::Error>(())
/// ```
#[derive(Debug)]
pub struct Faulty<D> {
    state: Mutex<State>,
    poison: PoisonSet,
    inner: D,
}

impl<D: BlockDevice> Faulty<D> {
    /// The layer over `inner`, with no fault armed.
    pub fn new(inner: D) -> Self {
        Self { state: Mutex::new(State::default()), poison: PoisonSet::default(), inner }
    }

    /// The device below.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// The device below.
    pub fn into_inner(self) -> D {
        self.inner
    }

    /// Arms `fault` in place of any other, and counts from 0.
    pub fn arm(&self, fault: Fault) {
        *self.state.lock() = State { fault: Some(fault), counted: 0, fired: 0 };
    }

    /// Takes the fault away; everything works again. The counts stay.
    pub fn disarm(&self) {
        self.state.lock().fault = None;
    }

    /// Calls of the fault's kinds since it was armed, the failed ones included.
    pub fn counted(&self) -> u64 {
        self.state.lock().counted
    }

    /// Calls that failed since the fault was armed.
    pub fn fired(&self) -> u64 {
        self.state.lock().fired
    }

    /// Calls that will still work before the fault strikes; `None` where no fault is armed or it has.
    pub fn remaining(&self) -> Option<u64> {
        let state = self.state.lock();
        let fault = state.fault.filter(|_| state.fired == 0)?;
        fault.after.checked_sub(state.counted)
    }

    /// Makes `page` unreadable until it is written whole or [healed](Self::heal).
    ///
    /// # Errors
    /// `OutOfRange`.
    pub fn poison(&self, page: u64) -> Result<()> {
        page_run(page, 1, self.inner.size())?;
        self.poison.insert(page);
        Ok(())
    }

    /// Makes `page` readable again; it has the contents from before.
    pub fn heal(&self, page: u64) {
        self.poison.remove(page);
    }

    /// Counts a call, and finds whether it fails.
    fn strike(&self, call: Calls) -> Option<Fault> {
        let mut state = self.state.lock();
        let fault = state.fault.filter(|fault| fault.calls.intersects(call))?;
        let number = state.counted;
        state.counted += 1;
        let strikes = match fault.repeat {
            Repeat::Once => number == fault.after,
            Repeat::FromThenOn => number >= fault.after,
        };
        strikes.then(|| {
            state.fired += 1;
            fault
        })
    }

    fn call(&self, call: Calls, op: &'static str, offset: u64) -> Result<()> {
        self.strike(call).map_or(Ok(()), |fault| Err(failure(fault, op, offset)))
    }

    /// As [`call`](Self::call), for a write that may tear.
    fn call_write(&self, op: &'static str, offset: u64, buf: &[u8]) -> Result<()> {
        let Some(fault) = self.strike(Calls::WRITE) else { return Ok(()) };
        if fault.tear == Tear::FirstHalf {
            let half = buf.len() / 2 / 8 * 8;
            self.inner.write_at(offset, &buf[..half])?;
        }
        Err(failure(fault, op, offset))
    }

    /// Poison is only checked and healed for ranges that the device has.
    fn check_poison(&self, offset: u64, len: u64) -> Result<()> {
        crate::range::check(offset, len, self.inner.size())?;
        self.poison.check(offset, len)
    }

    fn heal_for_write(&self, offset: u64, len: u64) -> Result<()> {
        let size = self.inner.size();
        crate::range::check(offset, len, size)?;
        self.poison.heal_for_write(offset, len, size)
    }

    fn memory(&self) -> Result<&dyn DaxDevice> {
        self.inner.dax().ok_or(Error::Unsupported("DAX"))
    }

    fn observer_below(&self) -> Option<&dyn StoreObserver> {
        self.inner.dax().and_then(|dax| dax.observer())
    }
}

fn failure(fault: Fault, op: &'static str, offset: u64) -> Error {
    match fault.error {
        FaultError::NoSpace => Error::NoSpace { offset },
        FaultError::Poisoned => Error::Poisoned { offset: offset / PAGE_SIZE * PAGE_SIZE },
        FaultError::Io => {
            const EIO: i32 = 5;
            Error::Io { op, offset, errno: Some(EIO), message: String::from("injected failure") }
        }
    }
}

impl<D: BlockDevice> BlockDevice for Faulty<D> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.call(Calls::READ, "read", offset)?;
        self.check_poison(offset, buf.len() as u64)?;
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.call_write("write", offset, buf)?;
        self.heal_for_write(offset, buf.len() as u64)?;
        self.inner.write_at(offset, buf)
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.call(Calls::ZERO, "zero", offset)?;
        self.heal_for_write(offset, len)?;
        self.inner.zero(offset, len)
    }

    fn fence(&self) -> Result<()> {
        self.call(Calls::FENCE, "fence", 0)?;
        self.inner.fence()
    }

    fn flush(&self) -> Result<()> {
        self.call(Calls::FLUSH, "flush", 0)?;
        self.inner.flush()
    }

    fn claim(&self, offset: u64, len: u64) -> Result<Claim> {
        self.inner.claim(offset, len)
    }

    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }

    fn media(&self) -> Media {
        self.inner.media()
    }

    fn dax(&self) -> Option<&dyn DaxDevice> {
        self.inner.dax().map(|_| self as &dyn DaxDevice)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.call(Calls::DISCARD, "discard", offset)?;
        self.inner.discard(offset, len)
    }
}

impl<D: BlockDevice> DaxDevice for Faulty<D> {
    fn direct_access(&self, page: u64, count: u64, mode: Access) -> Result<PmemSlice<'_>> {
        self.call(Calls::DIRECT_ACCESS, "direct access", page.saturating_mul(PAGE_SIZE))?;
        let (offset, len) = page_run(page, count, self.inner.size())?;
        let mut slice = self.memory()?.direct_access(page, count, mode)?;
        if mode != Access::Recovery
            && let Some(poisoned) = self.poison.first_in(offset, len)
        {
            let good = (poisoned * PAGE_SIZE).saturating_sub(offset);
            if good == 0 {
                return Err(Error::Poisoned { offset });
            }
            slice = slice.subslice(0, good.min(slice.len()))?;
        }
        slice.reissue(offset, Some(self))
    }

    fn recovery_write(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.call_write("recovery write", offset, buf)?;
        self.heal_for_write(offset, buf.len() as u64)?;
        self.memory()?.recovery_write(offset, buf)
    }

    fn write_back(&self, offset: u64, len: u64) -> Result<()> {
        self.call(Calls::WRITE_BACK, "write back", offset)?;
        self.memory()?.write_back(offset, len)
    }

    fn pfn(&self, page: u64) -> u64 {
        self.inner.dax().map_or(page, |dax| dax.pfn(page))
    }

    fn observer(&self) -> Option<&dyn StoreObserver> {
        Some(self)
    }
}

impl<D: BlockDevice> StoreObserver for Faulty<D> {
    fn before_store(&self, offset: u64, data: StoreData<'_>, path: StorePath) -> Result<()> {
        self.call(Calls::STORE, "store", offset)?;
        self.observer_below().map_or(Ok(()), |below| below.before_store(offset, data, path))
    }

    fn after_store(&self, offset: u64, len: u64) {
        if let Some(below) = self.observer_below() {
            below.after_store(offset, len);
        }
    }

    fn before_load(&self, offset: u64, len: u64) -> Result<()> {
        self.call(Calls::LOAD, "load", offset)?;
        // A page that is poisoned while a slice of it is held fails the load, as a machine check would.
        self.check_poison(offset, len)?;
        self.observer_below().map_or(Ok(()), |below| below.before_load(offset, len))
    }
}
