//! `poke`: one field of one structure.

use std::ffi::{OsStr, OsString};

use clap::ValueEnum;
use ext2_core::{Follow, GroupNr, InodeNr};
use ext2_image::fields::Structure;
use ext2_image::inspect::{Refused, poke, poke_bit, structure_of};

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::json::object;
use crate::kept;
use crate::target::{Mode, Raw, Target};
use crate::verbs::hex::name_of;

/// Set a field of a structure, to damage an image on purpose or to repair it by hand
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax poke disk.img superblock s_free_blocks_count 7
  e2dax poke disk.img superblock:1 s_magic 0 --force
  e2dax poke disk.img group:0 bg_free_inodes_count 3
  e2dax poke disk.img inode 12 links_count 0
  e2dax poke disk.img inode:/etc/passwd i_mode 0100600
  e2dax poke disk.img block 34 'entry[2].inode' 99 --force
  e2dax poke disk.img block 34 'pointer[0]' 35 --as pointers
  e2dax poke disk.img bit:block 34 free

STRUCTURE is superblock[:GROUP], group:N, inode:N, inode:/path, block:N, block-bitmap:N, inode-bitmap:N, bit:block or
bit:inode; a space may stand in place of the colon. e2dax hex shows the fields of each. Numbers are decimal, 0x…
or 0…; bit sets also take names, with ^ before those to clear; a time may be YYYYMMDDHHMMSS.
Nothing else is changed: no count, no copy, no checksum. Without --force, a value that makes the structure invalid
in itself is refused: a superblock of no file system, a pointer outside it, an unknown type.")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMG")]
    image: OsString,

    /// STRUCTURE FIELD VALUE
    #[arg(value_name = "WORD", num_args = 3..=4, required = true, allow_negative_numbers = true)]
    words: Vec<OsString>,

    /// Accept values that make no sense
    #[arg(long)]
    force: bool,

    /// Interpret a block as this, whatever it is used for
    #[arg(long = "as", value_name = "KIND")]
    kind: Option<super::hex::Kind>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse_image(&args.image)?;
    let mut words = Vec::new();
    for word in &args.words {
        words.push(word.to_str().ok_or_else(|| Failure::usage(word, "is not text"))?);
    }
    let (structure, field, value) = match words.as_slice() {
        [structure, field, value] => (String::from(*structure), *field, *value),
        [kind, number, field, value] => (format!("{kind}:{number}"), *field, *value),
        _ => return Err(Failure::usage(OsStr::new("poke"), "takes STRUCTURE FIELD VALUE")),
    };
    if let Some(of) = structure.strip_prefix("bit:") {
        return bit(args, context, &target, of, field, value);
    }
    let by_path = by_path(context, &target, &structure)?;
    let raw = target.open_to_poke(&context.image)?;
    let what = match by_path {
        Some(nr) => Structure::Inode(nr),
        None => parse(args, &raw, &target, &structure)?,
    };
    let done = poke(&*raw.device, &raw.layout, what, field, value, args.force).of(|| target.image_name())?;
    let poked = done.map_err(|refused| {
        let hint = match refused {
            Refused::Wrong(_) => "",
            Refused::Impossible(_) => "; --force does it all the same",
        };
        Failure::text(format!("{}: {}", target.image_name(), name_of(what)), format!("{refused}{hint}"))
    })?;
    raw.end_of_poke().of(|| target.image_name())?;
    if args.json {
        return context.out.json(&object! {
            "structure": name_of(what),
            "field": poked.field.as_str(),
            "offset": poked.offset,
            "before": poked.before.as_str(),
            "after": poked.after.as_str(),
        });
    }
    context.out.line(format_args!("{}: {}: {} -> {}", name_of(what), poked.field, poked.before, poked.after))
}

/// The inode of `inode:/path`.
fn by_path(context: &Context, target: &Target, structure: &str) -> Result<Option<InodeNr>> {
    match structure.strip_prefix("inode:") {
        Some(path) if path.starts_with('/') => {
            let place = target.with_path(path.as_bytes());
            let fs = match kept::device(target) {
                Some(device) => target.open_on(device, &context.image, Mode::Read, false)?,
                None => place.open(&context.image, Mode::Read)?,
            };
            Ok(Some(place.find_in(&fs, Follow::No).of(|| place.name())?.nr()))
        }
        _ => Ok(None),
    }
}

fn parse(args: &Args, raw: &Raw, target: &Target, text: &str) -> Result<Structure> {
    let wrong = |what: &str| Failure::usage(OsStr::new(text), what);
    let (kind, number) = text.split_once(':').map_or((text, None), |(kind, number)| (kind, Some(number)));
    let number = number.map(|number| number.trim_start_matches('<').trim_end_matches('>').parse::<u32>());
    let number = number.transpose().map_err(|_| wrong("has no number behind its colon"))?;
    let needs = || number.ok_or_else(|| wrong("needs a number, as in inode:12"));
    let group = || needs().map(GroupNr::new);
    Ok(match kind {
        "superblock" => Structure::Superblock(GroupNr::new(number.unwrap_or(0))),
        "group" => Structure::Group(group()?),
        "block-bitmap" => Structure::BlockBitmap(group()?),
        "inode-bitmap" => Structure::InodeBitmap(group()?),
        "inode" => Structure::Inode(InodeNr::new(needs()?).ok_or_else(|| wrong("there is no inode 0"))?),
        "block" => match args.kind {
            Some(kind) => kind.of(needs()?),
            None => structure_of(&*raw.device, &raw.layout, needs()?).of(|| target.image_name())?,
        },
        _ => {
            return Err(wrong(
                "is no structure; there are superblock, group, inode, block, block-bitmap, inode-bitmap, bit",
            ));
        }
    })
}

/// What a bit says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bit {
    /// Nobody's
    Free,
    /// In use
    Used,
}

fn bit(
    args: &Args,
    context: &mut Context,
    target: &Target,
    of: &str,
    number: &str,
    value: &str,
) -> Result<()> {
    let wrong = |word: &str, what: &str| Failure::usage(OsStr::new(word), what);
    let nr: u32 = number.parse().map_err(|_| wrong(number, "is no number"))?;
    let what = match of {
        "block" => Structure::Contents(nr),
        "inode" => Structure::Inode(InodeNr::new(nr).ok_or_else(|| wrong(number, "is no inode"))?),
        _ => return Err(wrong(of, "has no bit; block and inode have")),
    };
    let is_used = match value {
        "0" => false,
        "1" => true,
        _ => Bit::from_str(value, false).map_err(|_| wrong(value, "is neither free nor used"))? == Bit::Used,
    };
    let raw = target.open_to_poke(&context.image)?;
    let before = poke_bit(&*raw.device, &raw.layout, what, is_used).of(|| target.image_name())?;
    raw.end_of_poke().of(|| target.image_name())?;
    let word = |used: bool| if used { "used" } else { "free" };
    if args.json {
        return context.out.json(&object! {
            "structure": format!("bit of {of} {nr}"),
            "field": "bit",
            "offset": None::<u64>,
            "before": word(before),
            "after": word(is_used),
        });
    }
    context.out.line(format_args!("bit of {of} {nr}: {} -> {}", word(before), word(is_used)))
}
