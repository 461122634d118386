//! An image as the page shows it.

use std::fmt::Write as _;
use std::sync::Arc;

use blockdev::{BlockDevice, RamDevice};
use ext2_core::{Ext2, FileKind, Inode, InodeNr, OpenOptions};
use ext2_image::check::{self, Finding, Options, Preen};
use ext2_image::fields::{Layout, Structure, Taken};
use ext2_image::jbd2;
use ext2_image::repair::Changes;
use ext2_image::{Units, Walk};
use serde::Serialize;

use super::{explain, place};
use crate::blocks::{BlockRun, Blocks};

/// At most so many files and findings are listed.
const FILES: usize = 600;
const FINDINGS: usize = 200;

/// All of an image.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Overview {
    pub(crate) bytes: u64,
    /// Where the file system begins in what was given.
    pub(crate) offset: u64,
    pub(crate) geometry: Option<GeometryLine>,
    /// Why it does not open, if it does not.
    pub(crate) refused: Option<String>,
    pub(crate) runs: Vec<BlockRun>,
    pub(crate) groups: Vec<GroupLine>,
    pub(crate) tree: Vec<FileLine>,
    /// What check says; `None` where it cannot check.
    pub(crate) findings: Option<Vec<FindingLine>>,
    /// What keeps it from that.
    pub(crate) unchecked: Option<String>,
    /// Faults in all, remarks left out, however many are told.
    pub(crate) faults: u64,
    /// Whether check looked at everything.
    pub(crate) complete: bool,
    /// Transactions of a journal that were replayed before the look.
    pub(crate) replayed: u64,
    /// Whether there are more files than are told.
    pub(crate) more: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct GeometryLine {
    pub(crate) block_size: u64,
    pub(crate) blocks: u32,
    pub(crate) inodes: u32,
    pub(crate) inode_size: u16,
    pub(crate) groups: u32,
    pub(crate) blocks_per_group: u32,
    pub(crate) inodes_per_group: u32,
    pub(crate) first_data_block: u32,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct GroupLine {
    pub(crate) number: u32,
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) has_super: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct FileLine {
    pub(crate) path: String,
    pub(crate) depth: usize,
    pub(crate) ino: u32,
    pub(crate) kind: &'static str,
    pub(crate) size: u64,
    pub(crate) links: u16,
    /// Blocks of 512 bytes, as `i_blocks` says.
    pub(crate) blocks: u64,
    /// Where a symlink leads, or why the file cannot be read.
    pub(crate) note: String,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct FindingLine {
    pub(crate) text: String,
    pub(crate) kind: &'static str,
    /// What repair without questions does with it: `mends`, `halts`; `remark` for what is no fault.
    pub(crate) preen: &'static str,
    /// What it means.
    pub(crate) why: &'static str,
    /// The structure, as [`place::parse`] takes it.
    pub(crate) what: String,
    /// Its fields that are meant.
    pub(crate) fields: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct StructureView {
    pub(crate) what: String,
    pub(crate) offset: u64,
    /// The bytes, two digits each.
    pub(crate) hex: String,
    pub(crate) fields: Vec<FieldLine>,
    /// What makes it impossible in itself.
    pub(crate) impossible: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct FieldLine {
    pub(crate) offset: usize,
    pub(crate) length: usize,
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) meaning: String,
    /// The word for what it leads to; `?77` for a block that is shown by its use.
    pub(crate) to: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct FileView {
    pub(crate) ino: u32,
    pub(crate) kind: &'static str,
    pub(crate) size: u64,
    /// The fifteen pointers.
    pub(crate) pointers: Vec<u32>,
    /// File blocks, blocks, device block; holes left out.
    pub(crate) runs: Vec<(u64, u64, u32)>,
    /// Units of 2 MiB: first, count, state.
    pub(crate) units: Vec<(u64, u64, &'static str)>,
    /// Pointers in one block.
    pub(crate) per_block: u64,
    /// What keeps the rest from being read.
    pub(crate) refused: Option<String>,
}

pub(super) fn overview(device: &RamDevice, layout: &Layout, offset: u64) -> Overview {
    let looked = look(device, layout);
    let mut view = Overview {
        bytes: device.size(),
        offset,
        geometry: None,
        refused: None,
        runs: Blocks::of(device, layout).runs(),
        groups: Vec::new(),
        tree: Vec::new(),
        findings: looked.findings,
        unchecked: looked.unchecked,
        faults: looked.faults,
        complete: looked.complete,
        replayed: looked.replayed,
        more: false,
    };
    match layout.geometry() {
        Ok(geo) => {
            view.geometry = Some(GeometryLine {
                block_size: geo.block_size.bytes(),
                blocks: geo.blocks_count,
                inodes: geo.inodes_count,
                inode_size: geo.inode_size,
                groups: geo.groups,
                blocks_per_group: geo.blocks_per_group,
                inodes_per_group: geo.inodes_per_group,
                first_data_block: geo.first_data_block,
            });
            view.groups = geo
                .group_numbers()
                .take(FILES)
                .map(|group| GroupLine {
                    number: group.get(),
                    first: geo.group_start(group),
                    count: geo.group_len(group),
                    has_super: geo.has_super(group),
                })
                .collect();
        }
        Err(error) => view.refused = Some(error.to_string()),
    }
    match open(device) {
        Ok(fs) => tree(&fs, &mut view),
        Err(error) => view.refused = Some(error),
    }
    view
}

/// A file system over a copy, which nobody changes under it.
fn open(device: &RamDevice) -> Result<Ext2, String> {
    let copy = RamDevice::from_bytes(&device.to_vec()).map_err(|error| error.to_string())?;
    Ext2::open(Arc::new(copy), &OpenOptions::read_only()).map_err(|error| error.to_string())
}

fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Fifo => "FIFO",
        FileKind::Socket => "socket",
        FileKind::CharDevice => "character device",
        FileKind::BlockDevice => "block device",
    }
}

fn tree(fs: &Ext2, view: &mut Overview) {
    let root = match fs.root() {
        Ok(root) => root,
        Err(error) => {
            view.refused = Some(error.to_string());
            return;
        }
    };
    for found in Walk::new(&root, b"/") {
        if view.tree.len() == FILES {
            view.more = true;
            return;
        }
        view.tree.push(match found {
            Ok(found) => {
                file_line(String::from_utf8_lossy(&found.path).into_owned(), found.depth, &found.inode)
            }
            Err(error) => FileLine {
                path: String::from_utf8_lossy(&error.path).into_owned(),
                depth: error.path.iter().filter(|byte| **byte == b'/').count(),
                ino: 0,
                kind: "unreadable",
                size: 0,
                links: 0,
                blocks: 0,
                note: error.error.to_string(),
            },
        });
    }
}

fn file_line(path: String, depth: usize, inode: &Inode) -> FileLine {
    let attr = inode.attr();
    let note = match attr.kind {
        FileKind::Symlink => match inode.read_link() {
            Ok(target) => format!("→ {}", String::from_utf8_lossy(&target)),
            Err(error) => error.to_string(),
        },
        _ => String::new(),
    };
    FileLine {
        path,
        depth,
        ino: inode.nr().get(),
        kind: kind_name(attr.kind),
        size: attr.size,
        links: attr.links,
        blocks: attr.blocks_512.into(),
        note,
    }
}

/// What check says.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    /// `None` where it cannot check.
    pub(super) findings: Option<Vec<FindingLine>>,
    unchecked: Option<String>,
    faults: u64,
    complete: bool,
    replayed: u64,
}

/// Checks an image as the command does: as it is after its logs.
pub(super) fn look(device: &RamDevice, layout: &Layout) -> Look {
    let mut found: Vec<Finding> = Vec::new();
    let mut looked = Look::default();
    let changes = Changes::new(device);
    let checked = settle(&changes).and_then(|replayed| {
        looked.replayed = replayed;
        check::check(&changes, &Options::default(), &mut |finding: &Finding| {
            if found.len() < FINDINGS {
                found.push(finding.clone());
            }
        })
    });
    match checked {
        Ok(summary) => (looked.faults, looked.complete) = (summary.faults, summary.complete),
        Err(error) => {
            looked.unchecked = Some(error.to_string());
            return looked;
        }
    }
    let blocks = if found.is_empty() { None } else { Some(Blocks::of(device, layout)) };
    let lines =
        found.iter().filter_map(|finding| Some((finding, blocks.as_ref()?))).map(|(finding, blocks)| {
            let (what, fields) = place::of_finding(finding, device, &|| device.to_vec(), layout, blocks);
            let preen = match finding.preen() {
                _ if finding.kind.is_remark() => "remark",
                Preen::Mends => "mends",
                Preen::Halts => "halts",
            };
            let kind = finding.kind.name();
            FindingLine { text: finding.to_string(), kind, preen, why: explain::why(kind), what, fields }
        });
    looked.findings = Some(lines.collect());
    looked
}

/// Replays the logs into `changes`: ours, and ext3's; how many transactions that had.
fn settle(changes: &Changes<'_>) -> ext2_core::Result<u64> {
    ext2_core::replay(changes)?;
    if !jbd2::needs_replay(changes).unwrap_or(false) {
        return Ok(0);
    }
    Ok(jbd2::replay(changes)?.map_or(0, |done| done.transactions))
}

pub(super) fn structure(
    what: &str,
    taken: &Taken,
    layout: &Layout,
    device: &RamDevice,
    structure: Structure,
) -> StructureView {
    let mut hex = String::with_capacity(2 * taken.bytes.len());
    for byte in &taken.bytes {
        // Writing to a String does not fail.
        let _ = write!(hex, "{byte:02x}");
    }
    let line = |field: &ext2_image::fields::Field| FieldLine {
        offset: field.offset,
        length: field.length,
        name: field.name.clone().into_owned(),
        value: field.value.to_string(),
        meaning: field.meaning.clone().into_owned(),
        to: place::target(structure, field),
    };
    StructureView {
        what: what.to_owned(),
        offset: taken.offset,
        hex,
        fields: taken.fields.iter().map(line).collect(),
        impossible: layout.impossible(device, structure, &taken.bytes),
    }
}

pub(super) fn file(device: &RamDevice, layout: &Layout, ino: u32) -> Result<FileView, String> {
    let nr = InodeNr::new(ino).ok_or("inode 0 is none")?;
    let taken = layout.take(device, Structure::Inode(nr)).map_err(|error| error.to_string())?;
    let number = |at: usize| {
        let part = taken.bytes.get(40 + 4 * at..44 + 4 * at).and_then(|part| part.try_into().ok());
        part.map_or(0, u32::from_le_bytes)
    };
    let per_block = layout.geometry().map_or(0, |geo| geo.block_size.bytes() / 4);
    let mut view = FileView {
        ino,
        kind: "unreadable",
        size: 0,
        pointers: (0..15).map(number).collect(),
        runs: Vec::new(),
        units: Vec::new(),
        per_block,
        refused: None,
    };
    let inode = match open(device).and_then(|fs| fs.inode(nr).map_err(|error| error.to_string())) {
        Ok(inode) => inode,
        Err(error) => {
            view.refused = Some(error);
            return Ok(view);
        }
    };
    (view.kind, view.size) = (kind_name(inode.kind()), inode.size());
    for run in inode.extents().take(FILES) {
        match run {
            Ok(run) => {
                view.runs.push((run.start.get(), run.count, run.target.map_or(0, |block| block.get())));
            }
            Err(error) => {
                view.refused = Some(error.to_string());
                return Ok(view);
            }
        }
    }
    if inode.kind() == FileKind::Regular {
        let units = Units::of(&inode, 0).take(FILES).map_while(Result::ok);
        view.units = units.map(|unit| (unit.first, unit.count, unit.state.name())).collect();
    }
    Ok(view)
}
