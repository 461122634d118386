//! What one step of a flight came to, as the page shows it.

use ext2_dax::iomap::{MapFlags, OpFlags};
use ext2_dax::trace::{Event, Record, oracle};
use ext2_dax::{Asked, fault::Fallback, mmu::soft::Counters};
use serde::Serialize;

use crate::snapshot::{FileState, MapState};

/// At most so many calls, and so many events, are told of one step; all are counted.
const TOLD: usize = 160;

/// One step.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Step {
    /// What it gave: `ok`, `n=4096`, `signal=SIGBUS`, …
    pub result: String,
    /// Who asked the file system for what, in order.
    pub calls: Vec<Call>,
    /// Calls that are not told.
    pub more_calls: usize,
    /// What happened, in the kernel's words.
    pub events: Vec<Told>,
    /// Events that are not told.
    pub more_events: usize,
    /// The files that are open, afterwards.
    pub files: Vec<FileState>,
    /// The mappings, afterwards.
    pub maps: Vec<MapState>,
    /// What was counted in this step.
    pub counts: Counts,
    /// What was counted since the beginning.
    pub total: Counts,
}

/// Counters, of a step or since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Calls of `iomap_begin` or `get_block`.
    pub calls: u64,
    /// Blocks asked for.
    pub asked: u64,
    /// Blocks answered, and believed.
    pub answered: u64,
    /// Faults of 4 KiB.
    pub pte_faults: u64,
    /// Faults of 2 MiB that were tried.
    pub pmd_faults: u64,
    /// Of these, those that fell back.
    pub fallbacks: u64,
    /// Times that the inode was locked for one alone.
    pub exclusive: u64,
    /// Times that it was locked together with others.
    pub shared: u64,
    /// Times that an operation was counted as direct I/O.
    pub dio: u64,
}

impl Counts {
    /// What the two counters say.
    #[must_use]
    pub fn of(asked: &Asked, counters: &Counters) -> Self {
        Self {
            calls: asked.calls,
            asked: asked.blocks_asked,
            answered: asked.blocks_answered,
            pte_faults: counters.pte_faults,
            pmd_faults: counters.pmd_faults,
            fallbacks: counters.pmd_fallbacks,
            exclusive: asked.exclusive_locks,
            shared: asked.shared_locks,
            dio: asked.dio_counts,
        }
    }

    /// What was counted since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let less = u64::saturating_sub;
        Self {
            calls: less(self.calls, before.calls),
            asked: less(self.asked, before.asked),
            answered: less(self.answered, before.answered),
            pte_faults: less(self.pte_faults, before.pte_faults),
            pmd_faults: less(self.pmd_faults, before.pmd_faults),
            fallbacks: less(self.fallbacks, before.fallbacks),
            exclusive: less(self.exclusive, before.exclusive),
            shared: less(self.shared, before.shared),
            dio: less(self.dio, before.dio),
        }
    }

    /// Faults of both sizes; one that fell back counts once.
    #[must_use]
    pub fn faults(&self) -> u64 {
        (self.pte_faults + self.pmd_faults).saturating_sub(self.fallbacks)
    }
}

/// A field and what is in it.
type FieldOf = (&'static str, String);

/// One question to the file system, and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Call {
    /// Who asks.
    pub who: &'static str,
    /// `iomap_begin` or `get_block`.
    pub what: &'static str,
    /// The fields of the question.
    pub asked: Vec<FieldOf>,
    /// The fields of the answer.
    pub answered: Vec<FieldOf>,
    /// What that means to who asked.
    pub meaning: String,
    /// Fields of the question, and of the answer, that say something else than on another machine.
    pub differs: (Vec<&'static str>, Vec<&'static str>),
    /// What of it can be compared.
    #[serde(skip)]
    pub(crate) essence: Essence,
}

/// What a question and its answer say, in the words of neither interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Essence {
    /// The first byte of the file that is asked for.
    pos: u64,
    /// Bytes asked for.
    asked: u64,
    /// Whether there are blocks.
    mapped: bool,
    /// Where they are on the device.
    addr: Option<u64>,
    /// Bytes that the caller may go by, from `pos` on.
    answered: u64,
}

impl Call {
    /// Marks what differs from the call that another machine made in its place.
    pub(crate) fn compare(&mut self, other: &Self) {
        let (ours, theirs) = (self.essence, other.essence);
        let begin = self.what == "iomap_begin";
        let word = |iomap: &'static str, buffer_head: &'static str| if begin { iomap } else { buffer_head };
        let mut mark = |differs: bool, of_answer: bool, name: &'static str| {
            let list = if of_answer { &mut self.differs.1 } else { &mut self.differs.0 };
            if differs && !list.contains(&name) {
                list.push(name);
            }
        };
        mark(ours.pos != theirs.pos, false, word("pos", "iblock"));
        mark(ours.asked != theirs.asked, false, word("length", "b_size"));
        mark(ours.mapped != theirs.mapped, true, word("type", "b_state"));
        mark(ours.addr != theirs.addr, true, word("addr", "b_blocknr"));
        mark(ours.answered != theirs.answered, true, word("length", "b_size"));
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// `fault`, `done`, `hole`, `writeback`, `fallback` or `ours`, for its colour.
    pub class: &'static str,
    /// In the kernel's words, or in ours.
    pub text: String,
}

impl Step {
    /// Takes in what happened.
    ///
    /// Blocks of a buffer head are of `block_size` bytes.
    pub(crate) fn hear(&mut self, records: &[Record], block_size: u64) {
        let mut within = "dax_iomap_rw";
        for record in records {
            within = asker(&record.event).unwrap_or(within);
            if let Some(call) = call(&record.event, within, block_size) {
                if self.calls.len() < TOLD {
                    self.calls.push(call);
                } else {
                    self.more_calls += 1;
                }
            } else if self.events.len() < TOLD {
                self.events.push(told(&record.event));
            } else {
                self.more_events += 1;
            }
        }
    }
}

/// Who asks from here on, if the event says so.
fn asker(event: &Event) -> Option<&'static str> {
    match event {
        Event::PmdFault(..) => Some("dax_pmd_fault"),
        Event::PteFault(..) => Some("dax_fault"),
        Event::PmdFaultDone(..) | Event::PteFaultDone(..) => Some("dax_do_io"),
        _ => None,
    }
}

/// Bytes as people say them.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0 => "0".into(),
        _ if count.is_multiple_of(1 << 30) => format!("{} GiB", count >> 30),
        _ if count.is_multiple_of(1 << 20) => format!("{} MiB", count >> 20),
        _ if count.is_multiple_of(1 << 10) => format!("{} KiB", count >> 10),
        _ => format!("{count} B"),
    }
}

fn flag_names(names: impl Iterator<Item = &'static str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "–".into() } else { names.join("|") }
}

fn call(event: &Event, within: &'static str, block_size: u64) -> Option<Call> {
    match event {
        Event::IomapIter { pos, length, flags, offset, answered, kind, map_flags, addr } => {
            let who = match () {
                () if flags.contains(OpFlags::FAULT) => "dax_iomap_fault",
                () if flags.contains(OpFlags::REPORT) => "iomap_fiemap",
                () if flags.contains(OpFlags::ZERO) => "dax_zero_range",
                () => "dax_iomap_rw",
            };
            let what_for = flag_names(flags.iter_names().map(|(name, _)| name));
            let special = flag_names(map_flags.iter_names().map(|(name, _)| name));
            let ends = offset.saturating_add(*answered);
            let whole = *offset <= *pos && ends >= pos.saturating_add(*length);
            let meaning = match addr {
                None if whole => format!("all {} asked are hole", bytes(*length)),
                None => {
                    format!("a hole, of which {} are told; {} were asked", bytes(ends - pos), bytes(*length))
                }
                Some(_) if map_flags.contains(MapFlags::NEW) => {
                    "new blocks: translations of the hole have to go".into()
                }
                Some(_) => format!("{} of blocks in a row", bytes(*answered)),
            };
            Some(Call {
                who,
                what: "iomap_begin",
                asked: vec![("pos", format!("{pos:#x}")), ("length", bytes(*length)), ("flags", what_for)],
                answered: vec![
                    ("type", format!("{kind:?}").to_uppercase()),
                    ("addr", addr.map_or_else(|| "–".into(), |addr| format!("{addr:#x}"))),
                    ("offset", format!("{offset:#x}")),
                    ("length", bytes(*answered)),
                    ("flags", special),
                ],
                meaning,
                differs: Default::default(),
                essence: Essence {
                    pos: *pos,
                    asked: *length,
                    mapped: addr.is_some(),
                    addr: addr.map(|addr| addr + pos.saturating_sub(*offset)),
                    answered: ends.saturating_sub(*pos).min(*length),
                },
            })
        }
        Event::GetBlock { block, asked, create, mapped, sized, addr, size } => {
            let state = match (mapped, sized) {
                (true, _) => "mapped",
                (false, true) => "sized",
                (false, false) => "nothing set",
            };
            let meaning = match (mapped, sized) {
                (true, _) => format!("{} of blocks in a row", bytes(*size)),
                (false, true) => format!("a hole of {}", bytes(*size)),
                (false, false) => {
                    "a hole; b_size is what the caller had put in, so one block is believed".into()
                }
            };
            Some(Call {
                who: if within == "dax_iomap_rw" { "dax_do_io" } else { within },
                what: "get_block",
                asked: vec![
                    ("iblock", block.to_string()),
                    ("b_size", bytes(*asked)),
                    ("create", u8::from(*create).to_string()),
                ],
                answered: vec![
                    ("b_state", state.into()),
                    ("b_blocknr", if *mapped { (addr / block_size).to_string() } else { "–".into() }),
                    ("b_size", bytes(*size)),
                ],
                meaning,
                differs: Default::default(),
                essence: Essence {
                    pos: block.saturating_mul(block_size),
                    asked: *asked,
                    mapped: *mapped,
                    addr: mapped.then_some(*addr),
                    answered: if *mapped || *sized { (*size).min(*asked) } else { block_size.min(*asked) },
                },
            })
        }
        _ => None,
    }
}

fn told(event: &Event) -> Told {
    let class = match event {
        Event::PmdFault(..) | Event::PteFault(..) => "fault",
        Event::PmdFaultDone(..) | Event::PteFaultDone(..) => "done",
        Event::PmdLoadHole(..) | Event::LoadHole(..) => "hole",
        Event::WritebackRange { .. } | Event::WritebackOne { .. } | Event::WritebackRangeDone { .. } => {
            "writeback"
        }
        Event::Fallback { .. } | Event::PmdLoadHoleFallback(..) => "fallback",
        _ => "ours",
    };
    let text = oracle::line(event).unwrap_or_else(|| match event {
        Event::Fallback { index, reason } => {
            format!("unit at page {index:#x} falls back to 4 KiB, {reason}: {}", why(*reason))
        }
        Event::Downgrade { index } => {
            format!("the 2 MiB entry at page {index:#x} gives way to 4 KiB entries")
        }
        Event::Invalidate { start, end } => {
            format!("translations of pages {start:#x}-{:#x} are taken away", end.saturating_sub(1))
        }
        Event::Undo { pos, len } => format!("iomap_end takes back {} from byte {pos:#x}", bytes(*len)),
        other => other.name().to_owned(),
    });
    Told { class, text }
}

/// The reason in a sentence.
fn why(reason: Fallback) -> &'static str {
    match reason {
        Fallback::Colour => "address and file offset differ modulo 2 MiB",
        Fallback::PrivateWrite => "a store to private memory copies one page",
        Fallback::BeforeMapping => "the mapping begins inside the unit",
        Fallback::AfterMapping => "the mapping ends inside the unit",
        Fallback::PastEof => "the file ends inside the unit",
        Fallback::Conflict => "a 4 KiB entry is in the unit, so there is no one lock for it",
        Fallback::BeginFailed => "the file system gave an error",
        Fallback::TooShort => "the answer is shorter than 2 MiB",
        Fallback::NoHugeZeroPage => "there is no huge zero page",
        Fallback::SlotTaken => "another translation came first",
        Fallback::Unaligned => "the blocks do not begin at a multiple of 2 MiB",
        Fallback::BadMapping => "neither blocks nor a hole",
        Fallback::NoUnit => "no aligned run of free blocks is left",
    }
}
