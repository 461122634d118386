//! `hex`: any structure, field by field.

use std::ffi::OsString;

use clap::ValueEnum;
use ext2_core::{Follow, GroupNr, InodeNr, SuperblockAt};
use ext2_image::fields::{Field, PointsTo, Structure, Taken, Value};
use ext2_image::inspect::structure_of;

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::json::{Json, object};
use crate::target::{Mode, Raw, SuperblockFrom, Target};
use crate::text::{Align, table};

/// Show the bytes of a structure with the names and values of its fields
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax hex disk.img --superblock
  e2dax hex disk.img --superblock=group:1
  e2dax hex disk.img --inode 12
  e2dax hex disk.img --block 34                  as what it is used for
  e2dax hex disk.img --block 34 --as directory
  e2dax hex disk.img:/etc/passwd                 its inode

The image need not be sound enough to open. Runs of equal fields share a line.")]
pub(crate) struct Args {
    /// The image; with a path, the inode that the path leads to
    #[arg(value_name = "IMG[:/PATH]")]
    target: OsString,

    /// The superblock, or its copy in a group (group:N)
    #[arg(
        long,
        value_name = "WHERE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "group:0",
        value_parser = crate::target::parse_superblock,
        group = "what"
    )]
    superblock: Option<SuperblockFrom>,

    /// The descriptor of a group
    #[arg(long, value_name = "GROUP", group = "what")]
    group: Option<u32>,

    /// The bitmap of a group's blocks
    #[arg(long, value_name = "GROUP", group = "what")]
    block_bitmap: Option<u32>,

    /// The bitmap of a group's inodes
    #[arg(long, value_name = "GROUP", group = "what")]
    inode_bitmap: Option<u32>,

    /// An inode
    #[arg(long, value_name = "NR", group = "what")]
    inode: Option<u32>,

    /// A block
    #[arg(long, value_name = "BLOCK", group = "what")]
    block: Option<u32>,

    /// Interpret the block as this
    #[arg(long = "as", value_name = "KIND", requires = "block")]
    kind: Option<Kind>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// As what a block is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Pointers to blocks
    Pointers,
    /// Entries of a directory
    Directory,
    /// Extended attributes
    Xattrs,
    /// A block of a journal
    Journal,
    /// Bytes
    Contents,
}

impl Kind {
    /// The block as that.
    pub(crate) fn of(self, block: u32) -> Structure {
        match self {
            Self::Pointers => Structure::Indirect(block, 1),
            Self::Directory => Structure::Directory(block),
            Self::Xattrs => Structure::Xattrs(block),
            Self::Journal => Structure::Journal(block),
            Self::Contents => Structure::Contents(block),
        }
    }
}

/// A structure's name.
pub(crate) fn name_of(what: Structure) -> String {
    match what {
        Structure::Superblock(group) if group.get() == 0 => "superblock".into(),
        Structure::Superblock(group) => format!("superblock of group {group}"),
        Structure::Group(group) => format!("descriptor of group {group}"),
        Structure::BlockBitmap(group) => format!("block bitmap of group {group}"),
        Structure::InodeBitmap(group) => format!("inode bitmap of group {group}"),
        Structure::Inode(nr) => format!("inode {nr}"),
        Structure::Indirect(block, _) => format!("pointers in block {block}"),
        Structure::Directory(block) => format!("directory block {block}"),
        Structure::Xattrs(block) => format!("attributes in block {block}"),
        Structure::Journal(block) => format!("journal block {block}"),
        Structure::Contents(block) => format!("block {block}"),
    }
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse(&args.target)?;
    let name = || target.image_name();
    let has_path = target.path() != b"/";
    if has_path && !args.names_nothing() {
        let what = "a path and an option name two structures; give one of them";
        return Err(Failure::usage(&args.target, what));
    }
    let by_path = if args.names_nothing() && target.number().is_none() {
        let (_fs, inode) = target.resolve(&context.image, Mode::Read, Follow::No)?;
        Some(inode.nr())
    } else {
        target.number()
    };
    // What a block is used for is found by a walk; all else is one structure.
    let is_one = by_path.is_none() && (args.block.is_none() || args.kind.is_some());
    let mode = if is_one { Mode::Glance } else { Mode::Read };
    let raw = target.open_raw(&context.image, mode)?;
    let what = args.structure(&raw, by_path, name)?;
    let taken = raw.layout.take(&*raw.device, what).of(name)?;
    if args.json {
        return context.out.json(&to_json(what, &taken));
    }
    let title = format!("{}, {} bytes at byte {}", name_of(what), taken.bytes.len(), taken.offset);
    context.out.line(title)?;
    print(context, &taken)
}

impl Args {
    fn names_nothing(&self) -> bool {
        let numbers = [self.group, self.block_bitmap, self.inode_bitmap, self.inode, self.block];
        self.superblock.is_none() && numbers.iter().all(Option::is_none)
    }

    fn structure(&self, raw: &Raw, by_path: Option<InodeNr>, name: impl Fn() -> String) -> Result<Structure> {
        if let Some(at) = self.superblock {
            return match at {
                SuperblockFrom::At(SuperblockAt::Primary) => Ok(Structure::Superblock(GroupNr::new(0))),
                SuperblockFrom::At(SuperblockAt::Group(group)) => Ok(Structure::Superblock(group)),
                _ => Err(Failure::text(name(), "a copy of the superblock is named by its group: group:N")),
            };
        }
        if let Some(group) = self.group {
            return Ok(Structure::Group(GroupNr::new(group)));
        }
        if let Some(group) = self.block_bitmap {
            return Ok(Structure::BlockBitmap(GroupNr::new(group)));
        }
        if let Some(group) = self.inode_bitmap {
            return Ok(Structure::InodeBitmap(GroupNr::new(group)));
        }
        if let Some(block) = self.block {
            return match self.kind {
                Some(kind) => Ok(kind.of(block)),
                None => structure_of(&*raw.device, &raw.layout, block).of(name),
            };
        }
        let nr = self.inode.and_then(InodeNr::new).or(by_path);
        nr.map(Structure::Inode).ok_or_else(|| Failure::text(name(), "there is no inode 0"))
    }
}

/// Bytes of a field that are shown on its line.
const SHOWN: usize = 8;

fn print(context: &mut Context, taken: &Taken) -> Result<()> {
    if taken.fields.is_empty() {
        return dump(context, &taken.bytes);
    }
    let mut rows = vec![["offset", "bytes", "field", "value", "meaning"].map(String::from).to_vec()];
    let mut fields = taken.fields.iter().peekable();
    while let Some(first) = fields.next() {
        let mut last = first;
        while let Some(next) = fields.next_if(|next| is_more_of(last, next)) {
            last = next;
        }
        rows.push(row(taken, first, last));
    }
    let columns = [Align::Left, Align::Left, Align::Left, Align::Left, Align::Left];
    table(&columns, &rows).into_iter().try_for_each(|line| context.out.line(line))
}

/// Whether a field of a list goes on with the same value and meaning.
fn is_more_of(one: &Field, next: &Field) -> bool {
    one.name.ends_with(']')
        && next.name.ends_with(']')
        && one.name.split('[').next() == next.name.split('[').next()
        && (one.value == next.value && one.meaning == next.meaning)
}

fn row(taken: &Taken, first: &Field, last: &Field) -> Vec<String> {
    let bytes = taken.bytes.get(first.offset..first.offset + first.length).unwrap_or_default();
    let hex: Vec<String> = bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
    let more = if bytes.len() > SHOWN { " …" } else { "" };
    let name = match first == last {
        true => first.name.clone().into_owned(),
        false => format!("{} to {}", first.name, last.name),
    };
    let value = match &first.value {
        Value::Bytes(bytes) if bytes.iter().all(|&byte| byte == 0) => "zeros".into(),
        Value::Bytes(bytes) if bytes.len() > 32 => format!("{} bytes", bytes.len()),
        value => value.to_string(),
    };
    let leads = match first.points_to {
        Some(PointsTo::Byte(byte)) => format!("at {byte:#06x}"),
        _ => String::new(),
    };
    let comma = if leads.is_empty() || first.meaning.is_empty() { "" } else { ", " };
    vec![
        format!("{:#06x}", first.offset),
        format!("{}{more}", hex.join(" ")),
        name,
        value,
        format!("{}{comma}{leads}", first.meaning),
    ]
}

/// Bytes without a structure, 16 a line, with their letters; lines that repeat are one `*`.
fn dump(context: &mut Context, bytes: &[u8]) -> Result<()> {
    let (mut before, mut skipped): (Option<&[u8]>, bool) = (None, false);
    for (nr, line) in bytes.chunks(16).enumerate() {
        if before == Some(line) {
            if !skipped {
                context.out.line("*")?;
            }
            skipped = true;
            continue;
        }
        (before, skipped) = (Some(line), false);
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let letter = |&byte: &u8| if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '.' };
        let letters: String = line.iter().map(letter).collect();
        context.out.line(format_args!("{:#06x} {:<47} {letters}", nr * 16, hex.join(" ")))?;
    }
    Ok(())
}

fn to_json(what: Structure, taken: &Taken) -> Json {
    let fields = taken.fields.iter().map(|field| {
        let value = match &field.value {
            Value::Number(number) | Value::Hex(number) | Value::Octal(number) => Json::from(*number),
            Value::Time(seconds) => Json::from(*seconds),
            Value::Text(text) => Json::bytes(text),
            value @ (Value::Uuid(_) | Value::Bytes(_)) => Json::from(value.to_string()),
        };
        let points_to = field.points_to.map(|to| match to {
            PointsTo::Block(block) => object! { "block": block },
            PointsTo::Inode(inode) => object! { "inode": inode },
            PointsTo::Byte(byte) => object! { "byte": byte },
        });
        object! {
            "offset": field.offset,
            "length": field.length,
            "name": &*field.name,
            "value": value,
            "meaning": &*field.meaning,
            "points_to": points_to,
        }
    });
    let bytes: String = taken.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    object! {
        "structure": name_of(what),
        "offset": taken.offset,
        "bytes": bytes,
        "fields": Json::list(fields),
    }
}
