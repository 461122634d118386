//! A file system that is one file: a map from blocks to device pages over a RAM device, with a log of
//! what it was asked and switches to make it misbehave.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use blockdev::{BlockDevice, DaxDevice};
use ext2_dax::compat::{Compat, Holes, Publish};
use ext2_dax::entry::{Order, PAGE_SIZE, PMD_PAGES};
use ext2_dax::error::{Error, Result};
use ext2_dax::fault::{self, DaxInode, FaultRequest, FaultResult};
use ext2_dax::iomap::{Iomap, IomapOps, MapFlags, OpFlags};
use ext2_dax::mapping::DaxMapping;
use ext2_dax::mmu::{Protection, Sharing, VmFile};
use ext2_dax::trace::{EventLog, InodeId, Tracer};
use ext2_dax::{Wait, truncate};
use ext2_dax::{WaitTable, compat, rw, uio, writeback};

use super::noted::Noted;

/// One call of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Begin { pos: u64, len: u64, flags: OpFlags },
    End { pos: u64, len: u64, written: u64 },
    Sync { first: u64, last: u64 },
}

/// Blocks chosen for a write that no one can find yet.
#[derive(Debug)]
pub(crate) struct Unpublished(Vec<(u64, u64)>);

type Override = Box<dyn Fn(u64, u64, OpFlags) -> Option<Result<Iomap<Unpublished>>> + Send>;

#[derive(Default)]
struct State {
    blocks: BTreeMap<u64, u64>,
    size: u64,
    next_page: u64,
    calls: Vec<Call>,
    override_begin: Option<Override>,
    not_durable: bool,
}

/// The file.
pub(crate) struct FakeFile {
    pub(crate) device: Arc<Noted>,
    pages: Arc<DaxMapping>,
    pub(crate) compat: Compat,
    pub(crate) log: Arc<EventLog>,
    state: Mutex<State>,
}

impl std::fmt::Debug for FakeFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakeFile")
    }
}

impl FakeFile {
    pub(crate) fn new(compat: Compat) -> Arc<Self> {
        let tracer = Arc::new(Tracer::new());
        let log = EventLog::new();
        tracer.listen(Some(log.clone()));
        let id = InodeId { dev: (259, 0), ino: 12 };
        Arc::new(Self {
            device: Arc::new(Noted::new(32 << 20)),
            pages: Arc::new(DaxMapping::new(id, Arc::new(WaitTable::new()), tracer)),
            compat,
            log,
            state: Mutex::new(State { next_page: 1, ..State::default() }),
        })
    }

    pub(crate) fn set_size(&self, size: u64) {
        self.state.lock().unwrap().size = size;
    }

    /// Puts the file's blocks `block..block + count` at device page `page` on.
    pub(crate) fn place(&self, block: u64, count: u64, page: u64) {
        let mut state = self.state.lock().unwrap();
        state.blocks.extend((0..count).map(|at| (block + at, page + at)));
        state.next_page = state.next_page.max(page + count);
    }

    pub(crate) fn blocks(&self) -> usize {
        self.state.lock().unwrap().blocks.len()
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    pub(crate) fn set_not_durable(&self) {
        self.state.lock().unwrap().not_durable = true;
    }

    /// Makes `begin` answer what `answer` says, where it says something.
    pub(crate) fn answer(
        &self,
        answer: impl Fn(u64, u64, OpFlags) -> Option<Result<Iomap<Unpublished>>> + Send + 'static,
    ) {
        self.state.lock().unwrap().override_begin = Some(Box::new(answer));
    }

    pub(crate) fn read(&self, pos: u64, buf: &mut [u8]) -> Result<u64> {
        let len = buf.len() as u64;
        rw::read(self, pos, len, &mut uio::SliceSink::new(buf), rw::Limits::default())
    }

    pub(crate) fn write(&self, pos: u64, bytes: &[u8]) -> Result<u64> {
        self.write_from(pos, bytes.len() as u64, &mut uio::SliceSource::new(bytes))
    }

    pub(crate) fn write_from(&self, pos: u64, len: u64, source: &mut dyn uio::Source) -> Result<u64> {
        let done = rw::write(self, pos, len, source, rw::Limits::default())?;
        let mut state = self.state.lock().unwrap();
        state.size = state.size.max(pos + done);
        Ok(done)
    }

    pub(crate) fn truncate(&self, size: u64, wait: Wait) -> Result<()> {
        truncate::take_pages(
            &self.pages,
            &*self.device,
            size..u64::MAX,
            wait,
            compat::Layouts::Broken,
            truncate::Taken::Truncated,
            || {
                let mut state = self.state.lock().unwrap();
                state.size = size;
                state.blocks.split_off(&size.div_ceil(PAGE_SIZE));
            },
        )?;
        ext2_dax::zero::truncate_page(self, size, PAGE_SIZE).map(|_| ())
    }

    pub(crate) fn fsync(&self) -> Result<u64> {
        writeback::writeback_range(&self.pages, &*self.device, 0, u64::MAX / PAGE_SIZE)
    }

    /// Event lines of the recordings' format since the last call.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log.take().iter().filter_map(|record| ext2_dax::trace::oracle::line(&record.event)).collect()
    }
}

fn run(state: &State, block: u64, count: u64) -> (Option<u64>, u64) {
    let first = state.blocks.get(&block).copied();
    let mut len = 1;
    while len < count && state.blocks.get(&(block + len)).copied() == first.map(|page| page + len) {
        len += 1;
    }
    (first, len)
}

impl IomapOps for FakeFile {
    type Private = Unpublished;

    fn begin(&self, pos: u64, len: u64, flags: OpFlags) -> Result<Iomap<Unpublished>> {
        let mut state = self.state.lock().unwrap();
        state.calls.push(Call::Begin { pos, len, flags });
        if let Some(answer) = state.override_begin.as_ref().and_then(|answer| answer(pos, len, flags)) {
            return answer;
        }
        let block = pos / PAGE_SIZE;
        let count = (pos + len).div_ceil(PAGE_SIZE) - block;
        let (page, mut run) = run(&state, block, count);
        let offset = block * PAGE_SIZE;
        let mut map = match page {
            Some(page) => Iomap::mapped(offset, run * PAGE_SIZE, page * PAGE_SIZE),
            None if !flags.contains(OpFlags::WRITE) => {
                if self.compat.holes == Holes::OneBlock {
                    run = 1;
                }
                Iomap::hole(offset, run * PAGE_SIZE)
            }
            None => {
                let fault = flags.contains(OpFlags::FAULT);
                let whole_unit = flags.contains(OpFlags::UNIT);
                if whole_unit && run < PMD_PAGES {
                    return Ok(Iomap::hole(offset, run * PAGE_SIZE));
                }
                let mut first = state.next_page;
                if whole_unit {
                    first = first.next_multiple_of(PMD_PAGES);
                }
                if (first + run) * PAGE_SIZE > self.device.size() {
                    return match whole_unit {
                        true => Ok(Iomap::hole(offset, PAGE_SIZE)),
                        false => Err(Error::refused(ext2_dax::Errno::NOSPC, "full")),
                    };
                }
                state.next_page = first + run;
                let chosen: Vec<_> = (0..run).map(|at| (block + at, first + at)).collect();
                let mut map = Iomap::mapped(offset, run * PAGE_SIZE, first * PAGE_SIZE);
                map.flags |= MapFlags::NEW;
                if fault || self.compat.publish == Publish::AtBegin {
                    self.device.zero(first * PAGE_SIZE, run * PAGE_SIZE)?;
                    state.blocks.extend(chosen);
                } else {
                    map.private = Some(Unpublished(chosen));
                }
                map
            }
        };
        if state.not_durable && flags.contains(OpFlags::WRITE) {
            map.flags |= MapFlags::DIRTY;
        }
        Ok(map)
    }

    fn end(&self, pos: u64, len: u64, written: u64, _: OpFlags, map: Iomap<Unpublished>) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        state.calls.push(Call::End { pos, len, written });
        let Some(Unpublished(chosen)) = map.private else { return Ok(()) };
        for (block, page) in chosen {
            let (start, end) = (block * PAGE_SIZE, (block + 1) * PAGE_SIZE);
            if start < pos + written && !state.blocks.contains_key(&block) {
                let (head, tail) = (pos.saturating_sub(start), end.saturating_sub(pos + written));
                self.device.zero(page * PAGE_SIZE, head)?;
                self.device.zero((page + 1) * PAGE_SIZE - tail, tail)?;
                state.blocks.insert(block, page);
            }
        }
        if written > 0 {
            state.size = state.size.max(pos + written);
        }
        Ok(())
    }
}

impl DaxInode for FakeFile {
    fn pages(&self) -> &DaxMapping {
        &self.pages
    }

    fn memory(&self) -> &dyn DaxDevice {
        &*self.device
    }

    fn size(&self) -> u64 {
        self.state.lock().unwrap().size
    }

    fn compat(&self) -> &Compat {
        &self.compat
    }

    fn sync_pages(&self, first: u64, last: u64) -> Result<()> {
        writeback::writeback_range(&self.pages, &*self.device, first, last)?;
        let mut state = self.state.lock().unwrap();
        state.calls.push(Call::Sync { first, last });
        state.not_durable = false;
        Ok(())
    }
}

impl VmFile for FakeFile {
    fn pages(&self) -> &Arc<DaxMapping> {
        &self.pages
    }

    fn memory(&self) -> &dyn DaxDevice {
        &*self.device
    }

    fn fault(&self, request: &FaultRequest<'_>) -> FaultResult {
        fault::handle(self, request, Order::Pte)
    }

    fn has_huge_faults(&self) -> bool {
        self.compat.pmd_faults == compat::PmdFaults::Tried
    }

    fn huge_fault(&self, request: &FaultRequest<'_>) -> FaultResult {
        fault::handle(self, request, Order::Pmd)
    }

    fn msync(&self, first: u64, last: u64) -> Result<()> {
        writeback::writeback_range(&self.pages, &*self.device, first, last).map(|_| ())
    }

    fn check_map(&self, _: Sharing, _: Protection) -> Result<()> {
        Ok(())
    }
}
