//! What a machine holds between two steps: files with their entries and blocks, mappings with their translations.

use std::collections::BTreeMap;

use ext2_dax::File;
use ext2_dax::entry::{Content, EntryInfo, Order};
use ext2_dax::mmu::soft::{Leads, SoftMap};
use ext2_dax::replay::Player;
use serde::Serialize;

/// At most so many runs are shown of one list.
const RUNS: usize = 96;

/// A file that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileState {
    /// How the script names it, or its inode number.
    pub name: String,
    /// Its inode.
    pub ino: u32,
    /// `i_size`.
    pub size: u64,
    /// `i_blocks`, in blocks of 512 bytes.
    pub blocks: u64,
    /// The block map: file block, blocks, device block.
    pub map: Vec<(u64, u64, u64)>,
    /// The entries of its pages, runs of them joined.
    pub entries: Vec<EntryRun>,
    /// Whether lists were cut.
    pub cut: bool,
}

/// Entries beside each other that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EntryRun {
    /// First file page.
    pub page: u64,
    /// Entries.
    pub count: u64,
    /// `pte` or `pmd`.
    pub size: &'static str,
    /// `zero`, `data` or `empty`.
    pub kind: &'static str,
    /// Device page of the first, where there is one.
    pub device: Option<u64>,
    /// Whether they are dirty.
    pub dirty: bool,
}

/// A mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MapState {
    /// Its name in the script.
    pub name: String,
    /// The inode.
    pub ino: u64,
    /// First file page.
    pub pgoff: u64,
    /// Pages.
    pub pages: u64,
    /// What its page table holds.
    pub runs: Vec<PteRun>,
    /// Whether the list was cut.
    pub cut: bool,
}

/// Translations beside each other that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PteRun {
    /// First file page.
    pub page: u64,
    /// Translations.
    pub count: u64,
    /// `pte` or `pmd`.
    pub size: &'static str,
    /// `zero`, `data` or `copy`.
    pub kind: &'static str,
    /// Device page of the first, where there is one.
    pub device: Option<u64>,
    /// Whether stores go through.
    pub writable: bool,
}

fn size_name(order: Order) -> &'static str {
    match order {
        Order::Pte => "pte",
        Order::Pmd => "pmd",
    }
}

impl EntryRun {
    fn of(entry: &EntryInfo) -> Self {
        let (kind, device) = match entry.content {
            Content::Empty => ("empty", None),
            Content::Zero => ("zero", None),
            Content::Page(page) => ("data", Some(page.get())),
        };
        Self { page: entry.index, count: 1, size: size_name(entry.order), kind, device, dirty: entry.dirty }
    }

    fn goes_on_with(&self, next: &Self) -> bool {
        let device = match (self.device, next.device) {
            (Some(first), Some(page)) => first + self.count == page,
            (None, None) => true,
            _ => false,
        };
        self.size == "pte"
            && next.size == "pte"
            && self.page + self.count == next.page
            && self.kind == next.kind
            && self.dirty == next.dirty
            && device
    }
}

/// The entries of a file, runs joined; whether some were left out.
pub(crate) fn entry_runs(entries: &[EntryInfo]) -> (Vec<EntryRun>, bool) {
    let mut runs: Vec<EntryRun> = Vec::new();
    for entry in entries {
        let next = EntryRun::of(entry);
        match runs.last_mut() {
            Some(last) if last.goes_on_with(&next) => last.count += 1,
            _ => runs.push(next),
        }
    }
    let cut = runs.len() > RUNS;
    runs.truncate(RUNS);
    (runs, cut)
}

/// A mapping as it is.
pub(crate) fn map_state(name: &str, map: &SoftMap) -> MapState {
    let vma = map.vma();
    let mut runs: Vec<PteRun> = map
        .translations()
        .iter()
        .map(|run| {
            let (kind, device) = match run.leads {
                Leads::Zero => ("zero", None),
                Leads::Device(page) => ("data", Some(page.get())),
                Leads::Copy => ("copy", None),
            };
            PteRun {
                // The table of a mapping that begins inside a unit begins before it.
                page: (vma.pgoff + run.address / 4096).saturating_sub(vma.start / 4096),
                count: run.count,
                size: size_name(run.order),
                kind,
                device,
                writable: run.writable,
            }
        })
        .collect();
    let cut = runs.len() > RUNS;
    runs.truncate(RUNS);
    let pages = (vma.end - vma.start) / 4096;
    MapState { name: name.to_owned(), ino: map.inode().ino, pgoff: vma.pgoff, pages, runs, cut }
}

fn file_state(file: &File, names: &BTreeMap<u32, String>) -> FileState {
    let inode = file.inode();
    let (nr, attr) = (inode.nr().get(), inode.attr());
    let (entries, mut cut) = entry_runs(&file.pages().entries());
    let mut map = Vec::new();
    // A map that cannot be read to its end is shown as far as it goes.
    for run in inode.extents().map_while(Result::ok) {
        if map.len() == RUNS {
            cut = true;
            break;
        }
        let device = run.target.map_or(0, |block| u64::from(block.get()));
        map.push((run.start.get(), run.count, device));
    }
    let name = names.get(&nr).cloned().unwrap_or_else(|| format!("inode {nr}"));
    FileState { name, ino: nr, size: attr.size, blocks: attr.blocks_512.into(), map, entries, cut }
}

/// Everything that a player holds.
pub(crate) fn of(player: &Player, names: &BTreeMap<u32, String>) -> (Vec<FileState>, Vec<MapState>) {
    let files = player.files().map(|file| file_state(file, names)).collect();
    let maps = player.maps().map(|(name, map)| map_state(name, map)).collect();
    (files, maps)
}
