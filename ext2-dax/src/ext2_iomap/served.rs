//! Whether our answers could be handed to a kernel that asks a server of FUSE for them: it looks at each before it believes it
//! (fs/fuse/fuse_iomap.c of the series that brings it), and shuts out who breaks one of these rules.

use std::sync::Arc;

use blockdev::{BlockDevice, RamDevice};
use ext2_core::{BlockSize, Errno, Ext2, FileBlock, FileKind, NewInode, OpenOptions};
use ext2_image::mkfs::{self, Format, Fresh};
use proptest::prelude::*;

use super::MAX_BYTES;
use crate::iomap::{Iomap, IomapOps as _, MapFlags, MapKind, OpFlags};
use crate::{DaxFs, DaxOptions, File, OpenFor, Wait};

const DEVICE: u64 = 12 << 20;
/// Bytes in which files are written.
const SPAN: u64 = 3 << 20;

/// What the kernel would find wrong with an answer.
fn fault_of<P>(answer: &Iomap<P>, pos: u64, flags: OpFlags, block: u64) -> Option<&'static str> {
    let whole = |number: u64| number.is_multiple_of(block);
    let end = answer.offset.checked_add(answer.length).filter(|end| *end <= MAX_BYTES);
    let writes = flags.contains(OpFlags::WRITE);
    let rules = [
        (answer.length > 0, "it is empty"),
        (whole(answer.offset) && whole(answer.length), "it is not of whole blocks"),
        (end.is_some_and(|end| (answer.offset..end).contains(&pos)), "it does not cover the position"),
        (matches!(answer.kind, MapKind::Hole | MapKind::Mapped), "ext2 has no such kind"),
        (
            answer.addr.is_some() == (answer.kind == MapKind::Mapped),
            "an address is for what is mapped, and only that",
        ),
        (answer.addr.is_none_or(whole), "the address is not a block's"),
        (
            answer.addr.is_none_or(|addr| addr.checked_add(answer.length).is_some_and(|end| end <= DEVICE)),
            "it leads out of the device",
        ),
        (!writes || flags.contains(OpFlags::UNIT) || answer.addr.is_some(), "a write has nowhere to go"),
        (
            writes || !answer.flags.intersects(MapFlags::NEW | MapFlags::DIRTY),
            "who only looks has made something new",
        ),
    ];
    rules.iter().find(|(is_kept, _)| !is_kept).map(|(_, rule)| *rule)
}

/// What is done with a file: a change of its blocks, or a question.
#[derive(Clone, Debug)]
enum Step {
    Write(u64, u64),
    Punch(u64, u64),
    Truncate(u64),
    /// Position, length, flags, and how much of a write is done in the end, in parts of 256.
    Ask(u64, u64, OpFlags, u8),
}

fn place() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..SPAN,
        2 => (0..SPAN / 1024).prop_map(|block| block * 1024),
        1 => prop::sample::select(vec![0, 1 << 31, 1 << 32, 1 << 41, 1 << 44, MAX_BYTES - 4096, MAX_BYTES - 1]),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![3 => 1_u64..20_000, 1 => 1..SPAN];
    let flags = prop::sample::select(vec![
        OpFlags::empty(),
        OpFlags::REPORT,
        OpFlags::ZERO,
        OpFlags::FAULT | OpFlags::DAX,
        OpFlags::NOWAIT,
        OpFlags::WRITE,
        OpFlags::WRITE | OpFlags::NOWAIT,
        OpFlags::WRITE | OpFlags::FAULT | OpFlags::DAX,
        OpFlags::WRITE | OpFlags::FAULT | OpFlags::DAX | OpFlags::UNIT,
    ]);
    let asked = prop_oneof![4 => len(), 1 => Just(u64::MAX)];
    prop_oneof![
        2 => (0..SPAN, len()).prop_map(|(at, len)| Step::Write(at, len.min(SPAN - at))),
        2 => (0..SPAN, len()).prop_map(|(at, len)| Step::Punch(at, len)),
        1 => (0..SPAN).prop_map(Step::Truncate),
        8 => (place(), asked, flags, any::<u8>()).prop_map(|(at, len, flags, done)| Step::Ask(at, len, flags, done)),
    ]
}

fn new_file(block: u64) -> File {
    let device = RamDevice::new(DEVICE).unwrap();
    let format = Format { block_size: BlockSize::new(block), ..Format::default() };
    mkfs::format(&device, &format, Fresh::Zeros).unwrap();
    assert_eq!(device.size(), DEVICE);
    let ext2 = Ext2::open(Arc::new(device), &OpenOptions::default()).unwrap();
    let inode = ext2.root().unwrap().create(b"f", &NewInode::new(FileKind::Regular, 0o644)).unwrap();
    File::open(&DaxFs::new(ext2, DaxOptions::default()), inode, OpenFor::Writing).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn each_answer_passes_the_checks_of_a_kernel_that_asks_for_it(
        block in prop::sample::select(vec![1024_u64, 2048, 4096]),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let file = new_file(block);
        let largest = file.0.inode.fs().geometry().max_file_size();
        for step in steps {
            match step {
                Step::Write(at, len) => drop(file.write_at(at, &vec![7; len as usize])),
                Step::Punch(at, len) => file.punch_hole(at, len, Wait::Yes).unwrap(),
                Step::Truncate(size) => file.truncate(size, Wait::Yes).unwrap(),
                Step::Ask(pos, len, flags, done) => {
                    // A fault of 2 MiB is asked for as such, within the file.
                    let (pos, len) = if flags.contains(OpFlags::UNIT) { (0, 2 << 20) } else { (pos, len) };
                    // The device is full, or no file reaches as far.
                    let Ok(answer) = file.0.begin(pos, len, flags) else { continue };
                    let fault = fault_of(&answer, pos, flags, block);
                    prop_assert_eq!(fault, None, "{:?} at {} of {} bytes, {:?}", answer, pos, len, flags);
                    let covered = len.min(answer.end().unwrap() - pos);
                    let written = (u128::from(covered) * u128::from(done) / 256) as u64;
                    let written = if flags.contains(OpFlags::WRITE) { written } else { 0 };
                    // Who writes asks nothing past the largest size; who does all the same gets no size of it.
                    let is_size = flags.contains(OpFlags::FAULT) || written == 0 || pos + written <= largest;
                    let is_mapped = file.0.inode.map(FileBlock::new(pos / block), 1).unwrap().target.is_some();
                    let ended = file.0.end(pos, covered, written, flags, answer);
                    let expected = if is_size { Ok(()) } else { Err(Errno::FBIG) };
                    prop_assert_eq!(ended.map_err(|error| error.errno()), expected);
                    let is_now = file.0.inode.map(FileBlock::new(pos / block), 1).unwrap().target.is_some();
                    prop_assert!(is_size || is_now == is_mapped, "a block past the largest size");
                }
            }
        }
    }
}

#[test]
fn an_answer_that_breaks_a_rule_is_found() {
    let sound = || Iomap::<()>::mapped(4096, 8192, 40960);
    let asks = OpFlags::empty();
    assert_eq!(fault_of(&sound(), 4096, asks, 4096), None);
    let broken: [(Iomap, u64, OpFlags); 9] = [
        (Iomap::mapped(4096, 0, 40960), 4096, asks),
        (Iomap::mapped(4096, 8191, 40960), 4096, asks),
        (Iomap::mapped(4090, 8192, 40960), 4096, asks),
        (sound(), 4090, asks),
        (sound(), 12288, asks),
        (Iomap::mapped(4096, 8192, 512), 4096, asks),
        (Iomap::mapped(4096, 8192, DEVICE - 4096), 4096, asks),
        (Iomap { addr: Some(0), ..Iomap::hole(4096, 8192) }, 4096, asks),
        (Iomap::hole(4096, 8192), 4096, OpFlags::WRITE),
    ];
    for (answer, pos, flags) in broken {
        assert!(fault_of(&answer, pos, flags, 4096).is_some(), "{answer:?} at {pos}");
    }
}
