//! Whole trees: what the library reads beside what the kernel reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, BorrowedFd},
};

use ext2_core::{Ext2, FileKind, Inode};
use rustix::fs::OFlags;

use super::{
    attributes::{attr, xattrs},
    contents::{bytes, ranges},
    difference::{Difference, FieldCase},
    fields::{Field, differing, is_alike, times},
    geometry::Geometry,
    hands::reopen,
    names::{Listed, listed, open_path},
};

/// A comparison of two trees.
#[derive(Debug)]
pub(super) struct Trees<'t> {
    ext2: &'t Ext2,
    geometry: &'t Geometry,
    /// Whether both read the same image: then numbers and times are equal as well.
    is_one_image: bool,
    start: i64,
    /// Directories whose entries may lie elsewhere.
    pub(super) reordered: BTreeSet<u32>,
    /// What was met.
    pub(super) differences: BTreeMap<Difference, u64>,
}

impl<'t> Trees<'t> {
    pub(super) fn new(ext2: &'t Ext2, geometry: &'t Geometry, is_one_image: bool, start: i64) -> Self {
        Self { ext2, geometry, is_one_image, start, reordered: BTreeSet::new(), differences: BTreeMap::new() }
    }

    /// Compares everything below the roots.
    ///
    /// # Errors
    /// The first difference that is no [`Difference`], with its path.
    pub(super) fn compare(&mut self, root: BorrowedFd<'_>) -> Result<(), String> {
        let ours = self.ext2.root().map_err(|error| error.to_string())?;
        self.node(&ours, root, b"")
    }

    fn node(&mut self, ours: &Inode, kernel: BorrowedFd<'_>, path: &[u8]) -> Result<(), String> {
        let at = path.escape_ascii();
        let words = |error: ext2_core::Error| format!("{}: {error}", path.escape_ascii());
        let refused = |errno: rustix::io::Errno| format!("{}: the kernel: {errno}", path.escape_ascii());
        let (our_attr, kernel_attr) = (ours.attr(), attr(kernel).map_err(refused)?);
        let mut our_xattrs = ours.xattrs().map_err(words)?;
        our_xattrs.sort();
        let kernel_xattrs = xattrs(kernel).map_err(refused)?;
        if our_xattrs != kernel_xattrs {
            return Err(format!("{at}: attributes {our_xattrs:?}, kernel {kernel_xattrs:?}"));
        }
        let mut fields = differing(&our_attr, &kernel_attr);
        for ((field, ours), (_, kernel)) in times(&our_attr).into_iter().zip(times(&kernel_attr)) {
            let is_equal =
                if self.is_one_image { ours == kernel } else { is_alike(ours, kernel, self.start) };
            if !is_equal {
                fields.push(field);
            }
        }
        if self.is_one_image && our_attr.nr != kernel_attr.nr {
            fields.push(Field::Kind);
        }
        for field in fields {
            let case = FieldCase {
                step: None,
                field,
                ours: &our_attr,
                kernel: &kernel_attr,
                geometry: self.geometry,
                has_xattrs: !our_xattrs.is_empty(),
                seen: None,
                is_reordered: self.reordered.contains(&our_attr.nr.get()),
            };
            let difference = Difference::of_field(&case)
                .filter(|_| !self.is_one_image)
                .ok_or_else(|| format!("{at}: {field:?} differs: {our_attr:?}, kernel {kernel_attr:?}"))?;
            *self.differences.entry(difference).or_default() += 1;
        }
        match our_attr.kind {
            FileKind::Regular => self.contents(ours, kernel).map_err(|words| format!("{at}: {words}")),
            FileKind::Directory => self.names(ours, kernel, path),
            FileKind::Symlink => {
                let target = ours.read_link().map_err(words)?;
                let kernels = rustix::fs::readlinkat(kernel, "", Vec::new()).map_err(refused)?;
                if target == kernels.as_bytes() { Ok(()) } else { Err(format!("{at}: {kernels:?}")) }
            }
            _ => Ok(()),
        }
    }

    fn contents(&self, ours: &Inode, kernel: BorrowedFd<'_>) -> Result<(), String> {
        let words = |error: ext2_core::Error| error.to_string();
        let refused = |errno: rustix::io::Errno| format!("the kernel: {errno}");
        let file = reopen(kernel, OFlags::RDONLY).map_err(refused)?;
        let size = ours.attr().size;
        let kernels = ranges(&file).map_err(refused)?;
        let block = self.geometry.block;
        let mut found: Vec<std::ops::Range<u64>> = Vec::new();
        for run in ours.extents() {
            let run = run.map_err(words)?;
            let (start, end) = (run.start.get() * block, (run.end().get() * block).min(size));
            match found.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => found.push(start..end),
            }
        }
        if found != kernels {
            return Err(format!("data at {found:?}, kernel {kernels:?}"));
        }
        for range in kernels {
            let len = (range.end - range.start) as usize;
            let mut our_bytes = vec![0xee; len];
            let got = ours.read_at(range.start, &mut our_bytes).map_err(words)?;
            let kernel_bytes = bytes(&file, range.start, len).map_err(refused)?;
            if our_bytes[..got] != kernel_bytes {
                let first = our_bytes.iter().zip(&kernel_bytes).position(|(ours, kernel)| ours != kernel);
                return Err(format!("bytes of {range:?} differ from {first:?} on"));
            }
        }
        Ok(())
    }

    fn names(&mut self, ours: &Inode, kernel: BorrowedFd<'_>, path: &[u8]) -> Result<(), String> {
        let words = |error: ext2_core::Error| format!("{}: {error}", path.escape_ascii());
        let refused = |errno: rustix::io::Errno| format!("{}: the kernel: {errno}", path.escape_ascii());
        let entries = ours.entries(0).map_err(words)?;
        let our_entries = entries.collect::<Result<Vec<_>, _>>().map_err(words)?;
        let mut our_entries: Vec<Listed> = our_entries.iter().map(Listed::from).collect();
        let mut kernel_entries = listed(kernel).map_err(refused)?;
        let by_hashes = self.geometry.has("dir_index");
        let is_reordered = self.reordered.contains(&ours.nr().get());
        let is_large = ours.size() > self.geometry.block;
        if !self.is_one_image && (by_hashes || is_reordered || is_large) || by_hashes {
            for entries in [&mut our_entries, &mut kernel_entries] {
                entries.sort_by(|one, other| one.name.cmp(&other.name));
                entries.iter_mut().for_each(|entry| entry.next_cookie = 0);
            }
            let why = match () {
                () if by_hashes => Difference::HashOrder,
                () if is_reordered => Difference::RenameInPlace,
                () => Difference::AnyBlock,
            };
            *self.differences.entry(why).or_default() += 1;
        }
        for (ours, kernels) in our_entries.iter().zip(&mut kernel_entries) {
            if ours.next_cookie < kernels.next_cookie && ours.next_cookie.is_multiple_of(self.geometry.block)
            {
                *self.differences.entry(Difference::EmptyFirst).or_default() += 1;
                kernels.next_cookie = ours.next_cookie;
            }
        }
        let shown = |entries: &[Listed]| -> Vec<_> {
            entries.iter().map(|entry| (entry.name.clone(), entry.kind, entry.next_cookie)).collect()
        };
        let (our_names, kernel_names) = (shown(&our_entries), shown(&kernel_entries));
        if our_names != kernel_names {
            return Err(format!("{}: {our_names:?}, kernel {kernel_names:?}", path.escape_ascii()));
        }
        for entry in our_entries.iter().filter(|entry| !matches!(&entry.name[..], b"." | b"..")) {
            let path = [path, b"/", &entry.name].concat();
            let child = ours.lookup(&entry.name[..]).map_err(words)?;
            let kernels = open_path(kernel, &entry.name).map_err(refused)?;
            self.node(&child, kernels.as_fd(), &path)?;
        }
        Ok(())
    }
}

/// Adds how many units of 512 bytes the kernel's inodes below a directory have more than the library's, each inode once.
///
/// # Errors
/// What cannot be read.
pub(super) fn more_blocks(
    ours: &Inode,
    kernel: BorrowedFd<'_>,
    more: &mut BTreeMap<u32, i64>,
) -> Result<(), String> {
    let words = |error: ext2_core::Error| error.to_string();
    let refused = |errno: rustix::io::Errno| format!("the kernel: {errno}");
    let blocks = attr(kernel).map_err(refused)?.blocks_512;
    more.insert(ours.nr().get(), i64::from(blocks) - i64::from(ours.attr().blocks_512));
    if ours.kind() == FileKind::Directory {
        for entry in ours.entries(0).map_err(words)? {
            let entry = entry.map_err(words)?;
            if !entry.name.is_dots() {
                let child = ours.lookup(&entry.name).map_err(words)?;
                let kernels = open_path(kernel, &entry.name).map_err(refused)?;
                more_blocks(&child, kernels.as_fd(), more)?;
            }
        }
    }
    Ok(())
}
