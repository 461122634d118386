//! One image: as blocks, as a tree, as fields, and what check says of it and where. It may be broken in any way; what can
//! be shown is shown.

mod explain;
mod place;
mod sample;
mod view;

use blockdev::{BlockDevice, RamDevice, partitions};
use ext2_image::fields::{self, Layout};
use ext2_image::jbd2;
use ext2_image::repair::{self, Changes, Policy};

pub(crate) use sample::{SampleLine, grown, sample, samples};
#[cfg(test)]
use view::FindingLine;
use view::{FileView, Overview, StructureView};

use crate::blocks::Blocks;
use crate::machines::NOW;

/// An image that the lab holds.
#[derive(Debug)]
pub(crate) struct Held {
    /// The file system, or why there is no memory for it.
    device: Result<RamDevice, String>,
    /// Where the file system begins in what was given.
    offset: u64,
}

/// What a repair did.
#[derive(Clone, Debug)]
pub(crate) struct Mended {
    pub(crate) lines: Vec<String>,
    /// What it stopped at.
    pub(crate) stopped: Option<String>,
}

/// Bytes 56 and 57 of a superblock, and where it lies.
const MAGIC: [u8; 2] = [0x53, 0xef];
const MAGIC_AT: usize = 1024 + 56;

impl Held {
    /// Takes the bytes of a file system, or of a disk that has one in a partition.
    pub(crate) fn new(mut bytes: Vec<u8>) -> Self {
        let has_magic = |bytes: &[u8], at: usize| bytes.get(at + MAGIC_AT..at + MAGIC_AT + 2) == Some(&MAGIC);
        let mut range = 0..bytes.len();
        if !has_magic(&bytes, 0) {
            let disk = blockdev::ReadDevice::new(bytes.as_slice());
            let table = disk.and_then(|disk| partitions(&disk)).unwrap_or_default();
            let inside = |entry: &blockdev::PartitionEntry| {
                let start = usize::try_from(entry.offset).ok()?;
                let end = start.checked_add(usize::try_from(entry.len).ok()?)?.min(bytes.len());
                (start < end && has_magic(&bytes, start)).then_some(start..end)
            };
            range = table.iter().find_map(inside).unwrap_or(range);
        }
        let offset = range.start as u64;
        bytes.truncate(range.end);
        let device = RamDevice::from_bytes(bytes.get(range.start..).unwrap_or_default());
        Self { device: device.map_err(|error| error.to_string()), offset }
    }

    fn device(&self) -> Result<&RamDevice, String> {
        self.device.as_ref().map_err(Clone::clone)
    }

    fn layout(&self) -> Result<Layout, String> {
        Layout::read(self.device()?).map_err(|error| error.to_string())
    }

    /// All bytes of the file system.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.device.as_ref().map(RamDevice::to_vec).unwrap_or_default()
    }

    /// The whole image: geometry, blocks, tree, findings.
    ///
    /// # Errors
    /// No memory.
    pub(crate) fn overview(&self) -> Result<Overview, String> {
        let layout = self.layout()?;
        Ok(view::overview(self.device()?, &layout, self.offset))
    }

    /// A structure with its bytes and fields. The words for one: `sb`, `sb:1`, `group:0`, `bbitmap:0`, `ibitmap:0`,
    /// `inode:12`, `ind:500:1`, `dir:33`, `xattr:33`, `journal:33`, `block:77`.
    ///
    /// # Errors
    /// No such structure.
    pub(crate) fn structure(&self, what: &str) -> Result<StructureView, String> {
        let (device, layout) = (self.device()?, self.layout()?);
        let structure = place::parse(what).ok_or_else(|| format!("{what:?} is no structure"))?;
        let taken = layout.take(device, structure).map_err(|error| error.to_string())?;
        Ok(view::structure(what, &taken, &layout, device, structure))
    }

    /// The structure that block `number` is, by what it is used for.
    ///
    /// # Errors
    /// No such block.
    pub(crate) fn block(&self, number: u64) -> Result<StructureView, String> {
        let (device, layout) = (self.device()?, self.layout()?);
        let block = u32::try_from(number).map_err(|_| format!("there is no block {number}"))?;
        let blocks = Blocks::of(device, &layout);
        self.structure(&place::name_of_block(block, &blocks, &layout))
    }

    /// The pointers and the 2 MiB units of a file.
    ///
    /// # Errors
    /// No such inode.
    pub(crate) fn file(&self, ino: u32) -> Result<FileView, String> {
        view::file(self.device()?, &self.layout()?, ino)
    }

    /// Stores a value into a field.
    ///
    /// # Errors
    /// No such structure, field or value.
    pub(crate) fn set(&self, what: &str, field: &str, value: &str) -> Result<(), String> {
        let (device, layout) = (self.device()?, self.layout()?);
        let structure = place::parse(what).ok_or_else(|| format!("{what:?} is no structure"))?;
        let mut taken = layout.take(device, structure).map_err(|error| error.to_string())?;
        let found = taken.fields.iter().find(|known| known.name == field);
        let found = found.ok_or_else(|| format!("{what} has no field {field:?}"))?.clone();
        fields::set(&mut taken.bytes, &found, value).map_err(|error| error.to_string())?;
        device.write_at(taken.offset, &taken.bytes).map_err(|error| error.to_string())
    }

    /// Repairs the image as `check -y` does, or as `check -p`, which stops at what needs a person.
    ///
    /// # Errors
    /// An image that cannot be checked.
    pub(crate) fn mend(&self, all: bool) -> Result<Mended, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let changes = Changes::new(self.device()?);
        let mut lines = Vec::new();
        // A journal that cannot be followed is found, and mended, with the rest.
        if let Ok(Some(done)) = jbd2::replay(&changes) {
            let count = done.transactions;
            let plural = if count == 1 { "" } else { "s" };
            lines.push(format!("the journal is replayed: {count} transaction{plural}"));
        }
        let policy = if all { Policy::Asked } else { Policy::Preen };
        // OK to cast: the lab's time is a positive 32-bit one.
        let options = repair::Options { now: NOW as u32, policy, progress: &|_| () };
        let report = repair::repair(&changes, &options, &mut |finding| {
            lines.push(finding.to_string());
            true
        })
        .map_err(|error| text(&error))?;
        changes.apply().map_err(|error| text(&error))?;
        Ok(Mended { lines, stopped: report.stopped.map(|finding| finding.to_string()) })
    }

    /// What check says.
    ///
    /// # Errors
    /// An image that cannot be checked.
    #[cfg(test)]
    pub(crate) fn findings(&self) -> Result<Vec<FindingLine>, String> {
        let (device, layout) = (self.device()?, self.layout()?);
        let looked = view::look(device, &layout);
        looked.findings.ok_or_else(|| "the image cannot be checked".to_owned())
    }
}
