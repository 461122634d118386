//! All these directories in one image, judged by our check and by e2fsck, listed, looked up in and changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use blockdev::{BlockDevice, RamDevice};
use e2dax_tests::{golden, hostile::Workbench, tools};
use ext2_core::{
    BlockSize, Errno, Error, Ext2, FileBlock, FileKind, FixedClock, Inode, InodeNr, NewInode, OnError,
    OpenOptions, RenameFlags, Timestamp,
};
use ext2_image::{
    check::{Checker, Finding, Options as CheckOptions, Place},
    mkfs::{self, Format, Fresh, Inodes},
};

use super::entries::{BLOCK, Case, Numbers, block_of};

/// Directories of one directory: one cannot have more than 32,000.
const IN_ONE: usize = 1000;
/// Links that the file is said to have, so that it stays however many of its names go.
const LINKS: u16 = 30_000;
/// A listing of a block has fewer entries.
const ENDLESS: usize = 200;
/// A name that is in none of these directories, and what it is renamed to.
const NEW: [&[u8]; 2] = [b"made by a test", b"renamed by a test"];

/// A directory of the image.
#[derive(Clone, Debug)]
pub(crate) struct Dir {
    pub(crate) nr: u32,
    pub(crate) case: Case,
}

/// The image, with its directories.
#[derive(Debug)]
pub(crate) struct Made {
    image: Vec<u8>,
    pub(crate) dirs: Vec<Dir>,
}

fn open(device: Arc<dyn BlockDevice>) -> Ext2 {
    let options = OpenOptions {
        errors: Some(OnError::Continue),
        clock: Some(Arc::new(FixedClock(Timestamp::from_secs(1_700_000_000)))),
        ..OpenOptions::default()
    };
    Ext2::open(device, &options).expect("the image opens")
}

/// Makes an image with a directory of each case.
pub(crate) fn make(cases: &[Case]) -> Made {
    let blocks = 2 * cases.len() + cases.len() / 4 + 8192;
    let device = Arc::new(RamDevice::new((blocks * BLOCK) as u64).expect("memory"));
    let mut features = Format::default_features();
    features.compat = ext2_core::CompatFeatures::empty();
    let format = Format {
        block_size: BlockSize::new(BLOCK as u64),
        inode_size: 128,
        inodes: Inodes::Count(cases.len() as u64 + 2000),
        features,
        reserved_percent: 0.0,
        ..Format::default()
    };
    mkfs::format(&*device, &format, Fresh::Zeros).expect("made");
    let fs = open(device.clone());
    let root = fs.root().expect("a root");
    let dir = NewInode::new(FileKind::Directory, 0o755);
    let file = root.create("file", &NewInode::new(FileKind::Regular, 0o644)).expect("a file");
    let other = root.create("other", &dir).expect("a directory");
    let last = u32::try_from(fs.statfs().expect("known").files).expect("few");
    let numbers = Numbers { file: file.nr().get(), other: other.nr().get(), free: last, last };
    let mut patches = Vec::new();
    let mut dirs = Vec::new();
    for (nr, part) in cases.chunks(IN_ONE).enumerate() {
        let parent = root.create(format!("g{nr}"), &dir).expect("a directory");
        for (nr, case) in part.iter().enumerate() {
            let own = parent.create(format!("d{nr}"), &dir).expect("a directory");
            if case.second.is_some() {
                grow(&own, &file);
            }
            let (own_nr, parent_nr) = (own.nr().get(), parent.nr().get());
            assert_ne!(own_nr, numbers.free);
            for (nr, entries) in std::iter::once(&case.first).chain(&case.second).enumerate() {
                let at = own.map(FileBlock::new(nr as u64), 1).expect("mapped").target.expect("a block");
                let bytes = block_of(entries, own_nr, parent_nr, &numbers);
                patches.push((at.get() as usize * BLOCK, bytes));
            }
            dirs.push(Dir { nr: own_nr, case: case.clone() });
        }
    }
    drop((root, other));
    let file_nr = file.nr().get();
    drop(file);
    fs.close().expect("closed");
    let mut image = device.to_vec();
    for (at, bytes) in patches {
        image[at..at + BLOCK].copy_from_slice(&bytes);
    }
    let at = inode_at(&image, file_nr) + 26;
    image[at..at + 2].copy_from_slice(&LINKS.to_le_bytes());
    Made { image, dirs }
}

/// The byte of an image with blocks of 1 KiB at which an inode of the first group lies.
pub(crate) fn inode_at(image: &[u8], nr: u32) -> usize {
    let table = u32::from_le_bytes(image[2 * BLOCK + 8..][..4].try_into().expect("4 bytes"));
    table as usize * BLOCK + (nr as usize - 1) * 128
}

/// Gives a directory a second block.
fn grow(dir: &Inode, file: &Inode) {
    let names = [b'1', b'2', b'3', b'4'].map(|letter| vec![letter; 255]);
    names.iter().for_each(|name| dir.link(file, name).expect("linked"));
    names.iter().for_each(|name| dir.unlink(name).expect("unlinked"));
    assert_eq!(dir.attr().size, 2 * BLOCK as u64);
}

/// What is said of each directory: the findings of our check, or the lines of e2fsck.
pub(crate) type Said = BTreeMap<u32, Vec<String>>;

impl Made {
    fn numbers(&self) -> BTreeSet<u32> {
        self.dirs.iter().map(|dir| dir.nr).collect()
    }

    /// What our check says.
    pub(crate) fn ours(&self) -> Said {
        let dirs = self.numbers();
        let mut said = Said::new();
        let mut sink = |finding: &Finding| {
            let (Place::Entry { directory: nr, .. } | Place::Inode(nr)) = finding.place else { return };
            if dirs.contains(&nr) {
                said.entry(nr).or_default().push(format!("{finding} [{:?}]", finding.kind));
            }
        };
        let device = RamDevice::from_bytes(&self.image).expect("memory");
        Checker::new().check(&device, &CheckOptions::default(), &mut sink).expect("it is checked");
        said
    }

    /// What e2fsck finds. It mends a copy, since `e2fsck -n` ends at the first block that is broken.
    pub(crate) fn theirs(&self) -> Said {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
        let path = folder.path().join("image");
        golden::write_sparse(&path, &self.image).expect("written");
        let output = tools::command("e2fsck").arg("-fy").arg(&path).output().expect("e2fsck runs");
        let words = tools::words(&output);
        assert!(words.contains("Pass 5"), "it ends early: {words}");
        let dirs = self.numbers();
        let mut said = Said::new();
        for line in words.lines() {
            numbers_in(line).filter(|nr| dirs.contains(nr)).for_each(|nr| {
                said.entry(nr).or_default().push(line.to_owned());
            });
        }
        said
    }

    /// Lists, looks up in and changes each directory: what is wrong with one. The image is then as it was left.
    pub(crate) fn use_all(&mut self) -> Result<(), String> {
        let calls = 2000 * self.dirs.len() as u64;
        let device = Arc::new(Workbench::new(std::mem::take(&mut self.image), calls));
        let fs = open(device.clone());
        for dir in &self.dirs {
            let named = |words: String| format!("{:?} (inode {}): {words}", dir.case, dir.nr);
            let nr = InodeNr::new(dir.nr).expect("not 0");
            let inode = fs.inode(nr).map_err(|error| named(error.to_string()))?;
            use_one(&fs, &inode).map_err(named)?;
            if let Some(offence) = device.offence() {
                return Err(named(offence));
            }
        }
        // What is broken is noted, and the image is not called clean then.
        fs.close().map_err(|error| error.to_string())?;
        self.image = device.to_vec();
        Ok(())
    }
}

/// The inodes that a line of e2fsck is about: the numbers after `inode` and `#`, and those in brackets.
fn numbers_in(line: &str) -> impl Iterator<Item = u32> + '_ {
    let words = line.split_whitespace();
    let after = words.clone().zip(words.skip(1)).filter(|(word, _)| word.eq_ignore_ascii_case("inode"));
    let after = after.map(|(_, nr)| nr);
    let bracketed = line.split('(').skip(1).filter_map(|rest| rest.split(')').next());
    let digits = |text: &str| text.trim_end_matches(|letter: char| !letter.is_ascii_digit()).parse().ok();
    after.chain(bracketed).filter_map(digits)
}

/// Whether an error is one that a directory or a disk of this image may give.
fn may_be(error: &Error) -> bool {
    let known =
        [Errno::ISDIR, Errno::NOTDIR, Errno::NOENT, Errno::INVAL, Errno::NOTEMPTY, Errno::EXIST, Errno::BUSY];
    matches!(error, Error::Corrupt(_)) || known.iter().any(|errno| error.refuses(*errno))
}

/// A name in a listing, and the inode that it is listed as.
type Listed = (Vec<u8>, u32);

/// Names that a listing shows, with the inode of each, and whether it ended well.
fn list(dir: &Inode) -> Result<(Vec<Listed>, bool), String> {
    let (mut names, mut is_whole) = (Vec::new(), true);
    for (nr, entry) in dir.entries(0).map_err(|error| error.to_string())?.enumerate() {
        if nr > ENDLESS {
            return Err("a listing does not end".to_owned());
        }
        match entry {
            Ok(entry) => names.push((entry.name.as_bytes().to_vec(), entry.nr.get())),
            Err(Error::Corrupt(_)) => is_whole = false,
            Err(error) => return Err(format!("listed: {error}")),
        }
    }
    Ok((names, is_whole))
}

fn use_one(fs: &Ext2, dir: &Inode) -> Result<(), String> {
    let (names, is_whole) = list(dir)?;
    for (nr, (name, inode)) in names.iter().enumerate() {
        // A listing shows what lies after a block that is broken, and a lookup ends there.
        let is_first = !names[..nr].iter().any(|(other, _)| other == name);
        match dir.lookup_nr(name) {
            Ok(found) if is_first && found.get() != *inode => {
                return Err(format!("{:?} is listed as {inode} and found as {found}", name.escape_ascii()));
            }
            Err(error) if is_whole || !matches!(error, Error::Corrupt(_)) => {
                return Err(format!("{} is listed and not found: {error}", name.escape_ascii()));
            }
            _ => {}
        }
        if let Err(error) = dir.lookup(name)
            && !may_be(&error)
        {
            return Err(format!("{} is looked up: {error}", name.escape_ascii()));
        }
    }
    match dir.lookup_nr(NEW[0]) {
        Err(error) if error.refuses(Errno::NOENT) && is_whole => {}
        Err(Error::Corrupt(_)) if !is_whole => {}
        other => return Err(format!("a name that is not listed: {other:?}")),
    }
    change(fs, dir, &names, is_whole)
}

/// Makes, renames and removes a name, and then what is listed.
fn change(fs: &Ext2, dir: &Inode, names: &[Listed], is_whole: bool) -> Result<(), String> {
    let may =
        |what: &str, error: &Error| if may_be(error) { Ok(()) } else { Err(format!("{what}: {error}")) };
    match dir.create(NEW[0], &NewInode::new(FileKind::Regular, 0o600)) {
        Ok(made) => {
            let renamed = fs.rename(dir, NEW[0], dir, NEW[1], RenameFlags::empty());
            renamed.map_err(|error| format!("a new name is renamed: {error}"))?;
            let found = dir.lookup_nr(NEW[1]).map_err(|error| format!("a name that was made: {error}"))?;
            if found != made.nr() {
                return Err(format!("a name that was made leads to {found}"));
            }
            drop(made);
            dir.unlink(NEW[1]).map_err(|error| format!("a name that was made goes: {error}"))?;
        }
        Err(error) if is_whole => return Err(format!("nothing can be made: {error}")),
        Err(error) => may("made", &error)?,
    }
    let (after, _) = list(dir)?;
    if after != names {
        return Err(format!("names were {names:?}, and are {after:?} after one came and went"));
    }
    for (name, _) in names {
        if let Err(error) = fs.rename(dir, name, dir, NEW[0], RenameFlags::empty()) {
            may("renamed", &error)?;
            if let Err(error) = dir.unlink(name) {
                may("removed", &error)?;
            }
        } else if let Err(error) = fs.rename(dir, NEW[0], dir, name, RenameFlags::empty()) {
            may("renamed back", &error)?;
        }
    }
    Ok(())
}
