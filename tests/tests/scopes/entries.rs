//! Blocks of directories: entries with every field that means something, one after another.

/// Bytes of a block.
pub(crate) const BLOCK: usize = 1024;

/// What an entry says that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// Nothing: it is not in use.
    Nothing,
    /// A file with other names.
    File,
    /// The directory that the block is of.
    Itself,
    /// The root, which all these directories are below.
    Root,
    /// The directory that this one is in.
    Parent,
    /// A directory that has its name elsewhere.
    Other,
    /// An inode that is not in use.
    Free,
    /// One that is reserved.
    Reserved,
    /// The one past the last.
    PastTheLast,
    /// The largest number.
    Largest,
}

/// Bytes from an entry to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Len {
    Of(u16),
    /// To the end of the block, and so many more or less.
    ToEnd(i16),
}

/// An entry: type, the length that its name is said to have, and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) named: Named,
    pub(crate) len: Len,
    pub(crate) name_len: u8,
    pub(crate) name: &'static [u8],
    pub(crate) kind: u8,
}

/// The numbers of what entries name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) file: u32,
    pub(crate) other: u32,
    pub(crate) free: u32,
    pub(crate) last: u32,
}

/// A directory: its first block, and a second one where there is one.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) first: Vec<Entry>,
    pub(crate) second: Option<Vec<Entry>>,
}

const FILE: u8 = 1;
const DIRECTORY: u8 = 2;

const DOT: Entry = Entry { named: Named::Itself, len: Len::Of(12), name_len: 1, name: b".", kind: DIRECTORY };
const DOT_DOT: Entry =
    Entry { named: Named::Parent, len: Len::Of(12), name_len: 2, name: b"..", kind: DIRECTORY };
/// The same where nothing follows.
const LAST_DOT_DOT: Entry = Entry { len: Len::ToEnd(0), ..DOT_DOT };

const NAMED: [Named; 10] = [
    Named::Nothing,
    Named::File,
    Named::Itself,
    Named::Root,
    Named::Parent,
    Named::Other,
    Named::Free,
    Named::Reserved,
    Named::PastTheLast,
    Named::Largest,
];

const LENGTHS: [Len; 13] = [
    Len::Of(0),
    Len::Of(4),
    Len::Of(8),
    Len::Of(12),
    Len::Of(13),
    Len::Of(14),
    Len::Of(16),
    Len::Of(1024),
    Len::Of(0xffff),
    Len::ToEnd(-4),
    Len::ToEnd(-12),
    Len::ToEnd(0),
    Len::ToEnd(4),
];

const NAMES: [(u8, &[u8]); 10] = [
    (0, b""),
    (1, b"a"),
    (1, b"."),
    (2, b".."),
    (2, b"a/"),
    (2, b"a\0"),
    (2, b"\0\0"),
    (4, b"four"),
    (5, b"fives"),
    (255, b"a"),
];

const KINDS: [u8; 4] = [0, FILE, DIRECTORY, 8];

/// All that one entry can be.
fn all() -> impl Iterator<Item = Entry> {
    NAMED.into_iter().flat_map(|named| {
        LENGTHS.into_iter().flat_map(move |len| {
            NAMES.into_iter().flat_map(move |(name_len, name)| {
                KINDS.into_iter().map(move |kind| Entry { named, len, name_len, name, kind })
            })
        })
    })
}

/// Fewer, for two in a row.
fn some() -> Vec<Entry> {
    let names: [(u8, &[u8]); 4] = [(1, b"a"), (1, b"b"), (5, b"fives"), (0, b"")];
    let lengths = [Len::Of(12), Len::Of(16), Len::ToEnd(-12), Len::ToEnd(0)];
    let mut some = Vec::new();
    for named in [Named::Nothing, Named::File, Named::Other, Named::Free] {
        for len in lengths {
            some.extend(names.map(|(name_len, name)| Entry { named, len, name_len, name, kind: FILE }));
        }
    }
    some
}

/// Fewer, for the first two.
fn dots(own: Entry) -> Vec<Entry> {
    let names: [(u8, &[u8]); 4] = [(1, b"."), (2, b".."), (1, b"a"), (0, b"")];
    let lengths = [Len::Of(12), Len::Of(16), Len::Of(24), Len::Of(28), Len::ToEnd(0), Len::ToEnd(-12)];
    let mut some = Vec::new();
    for named in [Named::Nothing, Named::File, Named::Itself, Named::Parent] {
        for len in lengths {
            some.extend(names.map(|(name_len, name)| Entry { named, len, name_len, name, ..own }));
        }
    }
    some
}

/// Every directory of this scope.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut first = |first: Vec<Entry>| cases.push(Case { first, second: None });
    // One entry of every kind as the first, the second and the third of a block.
    all().for_each(|one| first(vec![one, LAST_DOT_DOT]));
    all().for_each(|one| first(vec![DOT, one]));
    all().for_each(|one| first(vec![DOT, DOT_DOT, one]));
    // Two in a row: as the dots, and after them.
    for dot in dots(DOT) {
        dots(DOT_DOT).into_iter().for_each(|two| first(vec![dot, two]));
    }
    for one in some() {
        some().into_iter().for_each(|two| first(vec![DOT, DOT_DOT, one, two]));
    }
    // One of every kind as the first of another block, and two in a row in a second block.
    let mut second = |entries| cases.push(Case { first: vec![DOT, LAST_DOT_DOT], second: Some(entries) });
    all().for_each(|one| second(vec![one]));
    cases
}

impl Entry {
    /// Whether it leads to the end of a block if it begins at a byte.
    fn len_at(&self, at: usize) -> u16 {
        match self.len {
            Len::Of(len) => len,
            // OK to cast: within a block and a few bytes.
            Len::ToEnd(more) => (BLOCK as i32 - at as i32 + i32::from(more)).max(0) as u16,
        }
    }
}

/// The bytes of a block of directory `own` in `parent`. After an entry whose length leads nowhere the next one follows at
/// once; what does not fit is left out.
pub(crate) fn block_of(entries: &[Entry], own: u32, parent: u32, numbers: &Numbers) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    for entry in entries {
        let nr = match entry.named {
            Named::Nothing => 0,
            Named::File => numbers.file,
            Named::Itself => own,
            Named::Root => 2,
            Named::Parent => parent,
            Named::Other => numbers.other,
            Named::Free => numbers.free,
            Named::Reserved => 7,
            Named::PastTheLast => numbers.last + 1,
            Named::Largest => u32::MAX,
        };
        let len = entry.len_at(at);
        let mut bytes = nr.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend([entry.name_len, entry.kind]);
        bytes.extend(entry.name);
        if at + bytes.len() > BLOCK {
            break;
        }
        block[at..at + bytes.len()].copy_from_slice(&bytes);
        let leads = len >= 12 && len.is_multiple_of(4) && at + usize::from(len) < BLOCK;
        at += if leads { usize::from(len) } else { 12 };
    }
    block
}
