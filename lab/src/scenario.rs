//! The scripts that come with the page: the recorded ones, and a few to begin with.

/// A script.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// A word for it, as addresses name it.
    pub id: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// The script.
    pub script: &'static str,
    /// Bytes of the image that it starts from.
    pub image: u64,
}

const MIB: u64 = 1 << 20;

macro_rules! recorded {
    ($id:literal, $title:literal) => {
        recorded!($id, $title, 64)
    };
    ($id:literal, $title:literal, $mib:literal) => {
        Scenario {
            id: $id,
            title: $title,
            script: include_str!(concat!("../recorded/", $id, ".ops")),
            image: $mib * MIB,
        }
    };
}

/// Whole units, holes and all, on the three machines.
const BEGIN: &str = "\
# One file, 4 MiB: the first half is written, the second stays a hole.
create f
write f 0 0x200000 1
truncate f 0x400000
map m f 0 0x400000 shared rw
load m 0
load m 0x200000
store m 0x201000 7
load m 0x201000
msync m 0 0x400000
fiemap f
";

/// The tree of pointers, one block after the other.
const GROW: &str = "\
# A file grows past its direct blocks, its indirect and its double indirect block.
create f
write f 0 4096 1
write f 0xb000 4096 2
write f 0xc000 4096 3
write f 0x40b000 4096 4
write f 0x40c000 4096 5
stat f
fiemap f
truncate f 0xc000
stat f
";

/// All of them, the ones to begin with first.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        id: "begin",
        title: "To begin with: data, a hole, and 2 MiB pages",
        script: BEGIN,
        image: 16 * MIB,
    },
    Scenario {
        id: "grow",
        title: "A file grows: direct, indirect, double indirect",
        script: GROW,
        image: 16 * MIB,
    },
    recorded!("01-hole-then-write", "A read fault in a hole, then a store"),
    recorded!("02-hole-2m", "Four units of hole: point 6 of the mail"),
    recorded!("03-rw-unaligned", "Reads and writes across every edge"),
    recorded!("04-eof-sigbus", "A fault past the end: point 5 of the mail"),
    recorded!("05-truncate-mapped", "Truncation under a mapping"),
    recorded!("06-write-over-mapped-hole", "A write into a hole that is mapped"),
    recorded!("07-private-cow", "Private mappings and their copies"),
    recorded!("08-dirty-mkwrite", "What is dirty, and what write-back protects"),
    recorded!("09-map-sync", "Synchronous mappings"),
    recorded!("10-sparse-levels", "One block in each kind of subtree"),
    recorded!("11-limits", "What is refused"),
    recorded!("12-enospc", "Running out of blocks", 4),
    recorded!("13-namespace", "Names and links"),
    recorded!("14-write-mapped-pte", "Write faults that allocate"),
    recorded!("15-short-append", "An append whose buffer faults half-way"),
    recorded!("16-tail-and-efault", "Bytes past the end, and a bad buffer"),
    recorded!("rand-01", "Random, seed 1"),
    recorded!("rand-02", "Random, seed 2"),
    recorded!("rand-03", "Random, seed 3"),
    recorded!("rand-04", "Random, seed 4"),
    recorded!("rand-05", "Random, seed 5"),
    recorded!("rand-06", "Random, seed 6"),
    recorded!("rand-07", "Random, seed 7"),
    recorded!("rand-08", "Random, seed 8"),
    recorded!("rand-09", "Random, seed 9"),
    recorded!("rand-10", "Random, seed 10"),
    recorded!("rand-11", "Random, seed 11"),
    recorded!("rand-12", "Random, seed 12"),
];

/// The scenario of this name.
#[must_use]
pub(crate) fn find(id: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.id == id)
}
