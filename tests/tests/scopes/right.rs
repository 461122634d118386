//! All directory blocks that are right, up to three entries after the dots, and a name of each length that comes and goes.

use std::{collections::BTreeSet, sync::Arc};

use blockdev::{BlockDevice, RamDevice};
use e2dax_tests::Scratch;
use ext2_core::{
    BlockSize, Errno, Ext2, FileBlock, FileKind, FixedClock, Inode, NewInode, OpenOptions, Timestamp,
};
use ext2_image::{
    check::{Checker, Finding, Options as CheckOptions},
    mkfs::{self, Format, Fresh, Inodes},
};

use super::{directories::inode_at, entries::BLOCK};

/// An entry of a right block: bytes to the next one, and whether it is in use.
type Part = (usize, bool);

/// Full, with slack for no name, for short ones and for most; dead ones for short names and for most; and a long name.
const PARTS: [Part; 7] =
    [(12, true), (16, true), (24, true), (300, true), (12, false), (24, false), (300, false)];

fn base() -> (Vec<u8>, u64, u32) {
    let device = Arc::new(RamDevice::new(64 << 10).expect("memory"));
    let format = Format {
        block_size: BlockSize::new(BLOCK as u64),
        inode_size: 128,
        inodes: Inodes::Count(16),
        reserved_percent: 0.0,
        ..Format::default()
    };
    mkfs::format(&*device, &format, Fresh::Zeros).expect("made");
    let fs = open(device.clone());
    let root = fs.root().expect("a root");
    let dir = root.create("d", &NewInode::new(FileKind::Directory, 0o755)).expect("made");
    let file = root.create("f", &NewInode::new(FileKind::Regular, 0o644)).expect("made");
    let at = dir.map(FileBlock::ZERO, 1).expect("mapped").target.expect("a block").get();
    let nr = file.nr().get();
    drop((root, dir, file));
    fs.close().expect("closed");
    (device.to_vec(), u64::from(at) * BLOCK as u64, nr)
}

fn open(device: Arc<dyn BlockDevice>) -> Ext2 {
    let clock = Some(Arc::new(FixedClock(Timestamp::from_secs(1_700_000_000))) as _);
    Ext2::open(device, &OpenOptions { clock, ..OpenOptions::default() }).expect("opened")
}

/// Puts these entries after the dots of a block; the last one reaches to the end. Gives the names in use.
fn lay(block: &mut [u8], parts: &[Part], file: u32) -> BTreeSet<Vec<u8>> {
    let mut names = BTreeSet::new();
    let mut at = 24;
    // `..` ends where the next one begins.
    let dot_dot = if parts.is_empty() { BLOCK - 12 } else { 12 };
    block[16..18].copy_from_slice(&(dot_dot as u16).to_le_bytes());
    for (nr, (len, in_use)) in parts.iter().enumerate() {
        let len = if nr + 1 == parts.len() { BLOCK - at } else { *len };
        let name = format!("n{nr}");
        let inode = if *in_use { file } else { 0 };
        block[at..at + 4].copy_from_slice(&inode.to_le_bytes());
        block[at + 4..at + 6].copy_from_slice(&(len as u16).to_le_bytes());
        block[at + 6..at + 8].copy_from_slice(&[2, 1]);
        block[at + 8..at + 10].copy_from_slice(name.as_bytes());
        if *in_use {
            names.insert(name.into_bytes());
        }
        at += len;
    }
    names
}

/// Every layout of up to three entries.
fn layouts() -> Vec<Vec<Part>> {
    let mut all = vec![Vec::new()];
    let mut from = 0;
    for _ in 0..3 {
        let to = all.len();
        for nr in from..to {
            all.extend(PARTS.map(|part| [&all[nr][..], &[part]].concat()));
        }
        from = to;
    }
    all
}

/// Makes and removes a name of each length in each layout. Gives the number of layouts and of names.
pub(crate) fn come_and_go() -> (u64, u64) {
    let (image, at, file) = base();
    let mut checker = Checker::new();
    let (mut layouts_done, mut done) = (0, 0);
    for parts in layouts() {
        let mut bytes = image.clone();
        let names = lay(&mut bytes[at as usize..][..BLOCK], &parts, file);
        let links = inode_at(&bytes, file) + 26;
        bytes[links..links + 2].copy_from_slice(&(1 + names.len() as u16).to_le_bytes());
        let device = Arc::new(Scratch::new(bytes));
        for len in 1..=255 {
            one(&device, &mut checker, &names, len)
                .unwrap_or_else(|words| panic!("{parts:?}, {len}: {words}"));
            device.restore();
            done += 1;
        }
        layouts_done += 1;
    }
    (layouts_done, done)
}

fn one(
    device: &Arc<Scratch>,
    checker: &mut Checker,
    names: &BTreeSet<Vec<u8>>,
    len: usize,
) -> Result<(), String> {
    let words = |error: ext2_core::Error| error.to_string();
    let fs = open(device.clone());
    let dir = fs.root().and_then(|root| root.lookup("d")).map_err(words)?;
    let name = vec![b'x'; len];
    let made = dir.create(&name, &NewInode::new(FileKind::Regular, 0o600)).map_err(words)?;
    let with = names.iter().cloned().chain([name.clone()]).collect();
    holds(&dir, &with)?;
    if dir.lookup_nr(&name).map_err(words)? != made.nr() {
        return Err("the new name is another file's".to_owned());
    }
    drop(made);
    // The room that a removal leaves is found again.
    dir.unlink(&name).map_err(words)?;
    holds(&dir, names)?;
    if let Some(first) = names.first() {
        dir.unlink(first).map_err(words)?;
        let without: BTreeSet<_> = names.iter().skip(1).cloned().collect();
        holds(&dir, &without)?;
        let file = fs.root().and_then(|root| root.lookup("f")).map_err(words)?;
        dir.link(&file, first).map_err(words)?;
        holds(&dir, names)?;
    }
    drop(dir);
    fs.close().map_err(words)?;
    let mut found = None;
    let mut sink = |finding: &Finding| found = found.take().or(Some(finding.to_string()));
    checker.check(&**device, &CheckOptions::default(), &mut sink).map_err(words)?;
    found.map_or(Ok(()), |found| Err(format!("check: {found}")))
}

/// Whether a directory is made of whole blocks with exactly these names, and finds them.
fn holds(dir: &Inode, names: &BTreeSet<Vec<u8>>) -> Result<(), String> {
    let words = |error: ext2_core::Error| error.to_string();
    let mut left: BTreeSet<&[u8]> = names.iter().map(|name| &name[..]).chain([&b"."[..], b".."]).collect();
    for nr in 0..dir.attr().size / BLOCK as u64 {
        let block = dir.map(FileBlock::new(nr), 1).map_err(words)?.target.ok_or("a hole")?;
        let mut bytes = [0; BLOCK];
        dir.fs()
            .device()
            .read_at(u64::from(block.get()) * BLOCK as u64, &mut bytes)
            .map_err(|error| error.to_string())?;
        let mut at = 0;
        while at < BLOCK {
            let len = usize::from(u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]));
            let name_len = usize::from(bytes[at + 6]);
            if len < 12 || !len.is_multiple_of(4) || at + len > BLOCK || len < 8 + name_len {
                return Err(format!("the entry at {at} of block {nr} has {len} bytes, its name {name_len}"));
            }
            if bytes[at..at + 4] != [0; 4] && !left.remove(&bytes[at + 8..at + 8 + name_len]) {
                return Err(format!(
                    "{} should not be there",
                    bytes[at + 8..at + 8 + name_len].escape_ascii()
                ));
            }
            at += len;
        }
    }
    if let Some(missing) = left.first() {
        return Err(format!("{} is missing", missing.escape_ascii()));
    }
    for name in names {
        dir.lookup_nr(name).map_err(|error| format!("{}: {error}", name.escape_ascii()))?;
    }
    match dir.lookup_nr("never made") {
        Err(error) if error.refuses(Errno::NOENT) => Ok(()),
        other => Err(format!("a name that was never made: {other:?}")),
    }
}
