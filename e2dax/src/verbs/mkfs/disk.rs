//! `mkfs --disk`: a partition table around the file system.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use ext2_image::disk::{self, Disk, Kind, Part, Table, next_start, parse_guid};
use ext2_image::mkfs::{FileOutput, Fresh, Output as _};

use super::image::Where;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::json::{Json, object};
use crate::text::show_os;

/// The disk.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "The disk")]
pub(super) struct DiskArgs {
    /// Make a disk with a partition table, and the file system in its last partition; address it as IMG@pN
    #[arg(long, value_name = "TABLE", conflicts_with = "pfn_header")]
    disk: Option<TableArg>,

    /// A partition before that of the file system, with what is in FILE. NAME may be EFI, BIOS, BOOT or SWAP, which say
    /// what it is for, or any other; NAME:TYPE names a type by its GUID, or for an MBR its two hexadecimal digits
    #[arg(long, value_name = "NAME=FILE", value_parser = parse_partition, requires = "disk")]
    partition: Vec<Partition>,

    /// The name of the file system's partition
    #[arg(long, value_name = "NAME", default_value = "root", requires = "disk")]
    partition_name: String,

    /// The type of the file system's partition, as for --partition [default: a file system of Linux]
    #[arg(long, value_name = "TYPE", value_parser = parse_kind, requires = "disk")]
    partition_type: Option<Kind>,
}

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TableArg {
    /// That of UEFI
    Gpt,
    /// That of the PC
    Mbr,
}

/// A partition beside the file system's.
#[derive(Clone, Debug)]
struct Partition {
    name: String,
    kind: Kind,
    file: PathBuf,
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    if let Some(guid) = parse_guid(text) {
        return Ok(Kind { guid, ..Kind::LINUX });
    }
    match (text.len(), u8::from_str_radix(text, 16)) {
        (2, Ok(byte)) => Ok(Kind { byte, ..Kind::LINUX }),
        _ => Err("a type is a GUID or two hexadecimal digits".into()),
    }
}

fn parse_partition(text: &str) -> Result<Partition, String> {
    let (name, file) = text.split_once('=').ok_or("NAME=FILE")?;
    let (name, kind) = match name.split_once(':') {
        Some((name, kind)) => (name, parse_kind(kind)?),
        None => (name, Kind::of_name(name)),
    };
    Ok(Partition { name: name.into(), kind, file: file.into() })
}

/// The disk in the making.
pub(super) struct DiskPlan {
    table: Table,
    /// The other partitions, their files open.
    others: Vec<(Part, File, PathBuf)>,
    own: Part,
    start: u64,
}

impl DiskArgs {
    /// The files that go into partitions.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.partition.iter().map(|partition| partition.file.as_path())
    }
}

impl DiskPlan {
    /// What was asked for; `None` without `--disk`.
    pub(super) fn new(args: &DiskArgs, place: &Where) -> Result<Option<Self>> {
        let Some(table) = args.disk else { return Ok(None) };
        if place.is_part() {
            return Err(Failure::usage(&OsString::from("--disk"), "makes a whole disk, and no part of one"));
        }
        let table = match table {
            TableArg::Gpt => Table::Gpt,
            TableArg::Mbr => Table::Mbr,
        };
        let mut others = Vec::new();
        let mut end = 0;
        for partition in &args.partition {
            let host = |error| Failure::host(&partition.file, error);
            let file = File::open(&partition.file).map_err(host)?;
            let found = file.metadata().map_err(host)?;
            if !found.is_file() {
                return Err(Failure::text(show_os(partition.file.as_os_str()), "is not a file"));
            }
            let part = Part { name: partition.name.clone(), kind: partition.kind, bytes: found.len() };
            end = next_start(end).saturating_add(found.len());
            others.push((part, file, partition.file.clone()));
        }
        let kind = args.partition_type.unwrap_or(Kind::LINUX);
        let own = Part { name: args.partition_name.clone(), kind, bytes: 0 };
        Ok(Some(Self { table, others, own, start: next_start(end) }))
    }

    /// Where the file system begins.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// The disk, with a partition of `bytes` bytes for the file system and what belongs to it.
    pub(super) fn lay_out(&self, bytes: u64, seed: &[u8; 16], room: Option<u64>) -> Result<Disk> {
        let own = Part { bytes, ..self.own.clone() };
        let parts = self.others.iter().map(|other| other.0.clone()).chain([own]).collect();
        Disk::new(self.table, parts, seed, room)
            .map_err(|error: disk::Error| Failure::text("", error.to_string()))
    }

    /// Writes the table and the other partitions.
    pub(super) fn write(
        &self,
        disk: &Disk,
        file: &File,
        is_in_place: bool,
    ) -> Result<(), ext2_image::mkfs::Error> {
        if !is_in_place {
            file.set_len(disk.bytes).map_err(|error| ext2_image::mkfs::Error::source(b"", error))?;
        }
        let out = FileOutput::new(file, 0, disk.bytes, Fresh::Unknown);
        for ((part, from, path), placed) in self.others.iter().zip(&disk.parts) {
            use std::os::unix::ffi::OsStrExt as _;
            ext2_image::disk::copy(from, part.bytes, &out, placed.offset, path.as_os_str().as_bytes())?;
        }
        if is_in_place && disk.table == Table::Mbr {
            // No rest of a GPT, which some tools believe before an MBR.
            out.zero(512, 512)?;
            out.zero(disk.bytes - 512, 512)?;
        }
        disk.write(&out)
    }
}

/// What was made.
pub(super) fn to_json(disk: &Disk) -> Json {
    let parts = disk.parts.iter().enumerate().map(|(index, placed)| {
        object! {
            "number": (index + 1) as u64,
            "name": placed.part.name.as_str(),
            "offset": placed.offset,
            "bytes": placed.len,
            "partuuid": disk.part_uuid(index),
        }
    });
    object! { "bytes": disk.bytes, "partitions": Json::List(parts.collect()) }
}

/// Prints the partitions.
pub(super) fn print(disk: &Disk, context: &mut Context) -> Result<()> {
    for (index, placed) in disk.parts.iter().enumerate() {
        context.out.line(format_args!(
            "partition {}: {} bytes at {}, PARTUUID={}",
            index + 1,
            placed.len,
            placed.offset,
            disk.part_uuid(index),
        ))?;
    }
    Ok(())
}
