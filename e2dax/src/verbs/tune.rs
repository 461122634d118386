//! `tune`: what the superblock says.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use ext2_image::rewrite;
use ext2_image::tune::Tune;

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::json::{Json, object};
use crate::settle::open_settled;
use crate::stop::{Stop, explained};
use crate::text::parse_uuid;

/// Change the label, UUID, reserved blocks, limits, times, options and features of an image
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax tune -L rootfs -U 7d4f3c4a-0c4b-4f0e-9a59-3f6a2f1f8a10 disk.img
  e2dax tune -m 1 -u 1000 -e remount-ro disk.img
  e2dax tune -O ^dir_index,sparse_super disk.img
  e2dax tune -T 20261129 -C 0 -i 180d disk.img

Everything is changed in one step, in the superblock and all its copies: after a crash all of it is there or
nothing. Features that can be set and cleared: dir_index (directories become plain ones), ext_attr and large_file (unless
something needs them), sparse_super (what is in the way of the copies moves). Without options nothing is changed.")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMG")]
    image: OsString,

    /// The volume's name, at most 16 bytes
    #[arg(short = 'L', long, value_name = "NAME")]
    label: Option<OsString>,

    /// The UUID: 32 hexadecimal digits, clear, or random
    #[arg(short = 'U', long, value_name = "UUID", value_parser = parse_new_uuid)]
    uuid: Option<Uuid>,

    /// Blocks kept for privileged users, in percent
    #[arg(short = 'm', long, value_name = "PERCENT", conflicts_with = "reserved_blocks")]
    reserved_percent: Option<f64>,

    /// Blocks kept for privileged users
    #[arg(short = 'r', long, value_name = "COUNT")]
    reserved_blocks: Option<u32>,

    /// The user who may use them
    #[arg(short = 'u', long, value_name = "UID")]
    reserved_uid: Option<u16>,

    /// The group that may use them
    #[arg(short = 'g', long, value_name = "GID")]
    reserved_gid: Option<u16>,

    /// What to do when an error is found in the image
    #[arg(short = 'e', long, value_name = "WHAT")]
    errors: Option<OnError>,

    /// Where it was mounted last, at most 63 bytes
    #[arg(short = 'M', long, value_name = "DIRECTORY")]
    last_mounted: Option<OsString>,

    /// Mounts since the last check
    #[arg(short = 'C', long, value_name = "COUNT")]
    mount_count: Option<u16>,

    /// Mounts after which a check is due; 0 or -1 for never
    #[arg(short = 'c', long, value_name = "COUNT", allow_hyphen_values = true)]
    max_mount_count: Option<i16>,

    /// Time after which a check is due, in days, or a number with s, d, w or m; 0 for never
    #[arg(short = 'i', long, value_name = "TIME", value_parser = parse_interval)]
    interval: Option<u32>,

    /// When it was last checked: YYYYMMDD or YYYYMMDDHHMMSS (UTC), seconds since 1970, or now
    #[arg(short = 'T', long, value_name = "TIME", value_parser = parse_time)]
    checked: Option<When>,

    /// When it was last mounted, in the same way
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    mounted: Option<When>,

    /// When it was made, in the same way
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    created: Option<When>,

    /// Default mount options: names with commas, ^ to remove one
    #[arg(short = 'o', long, value_name = "OPTIONS", allow_hyphen_values = true)]
    mount_options: Option<String>,

    /// Features: names with commas, ^ to remove one
    #[arg(short = 'O', long, value_name = "FEATURES")]
    features: Option<String>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A UUID that is asked for.
#[derive(Clone, Copy, Debug)]
enum Uuid {
    Random,
    Given([u8; 16]),
}

/// A time that is asked for.
#[derive(Clone, Copy, Debug)]
enum When {
    Now,
    At(u32),
}

/// `s_errors`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OnError {
    /// Note it and go on
    Continue,
    /// Allow no more changes
    RemountRo,
    /// Stop the machine
    Panic,
}

/// Names of `s_default_mount_opts`, as tune2fs has them.
const MOUNT_OPTIONS: [(u32, &str); 10] = [
    (0x1, "debug"),
    (0x2, "bsdgroups"),
    (0x4, "user_xattr"),
    (0x8, "acl"),
    (0x10, "uid16"),
    (0x20, "journal_data"),
    (0x40, "journal_data_ordered"),
    (0x60, "journal_data_writeback"),
    (0x100, "nobarrier"),
    (0x200, "block_validity"),
];
/// The bits of the ways of journaling, which exclude each other.
const JOURNAL_DATA: u32 = 0x60;

fn parse_new_uuid(text: &str) -> Result<Uuid, String> {
    match text {
        "clear" => Ok(Uuid::Given([0; 16])),
        "random" => Ok(Uuid::Random),
        _ => parse_uuid(text).map(Uuid::Given),
    }
}

fn parse_interval(text: &str) -> Result<u32, String> {
    const DAY: u32 = 86_400;
    let (digits, unit) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'd' | b'D') => (&text[..text.len() - 1], DAY),
        Some(b'w' | b'W') => (&text[..text.len() - 1], 7 * DAY),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 30 * DAY),
        _ => (text, DAY),
    };
    let count: u32 = digits.parse().map_err(|_| format!("{text:?} is no time"))?;
    count.checked_mul(unit).ok_or_else(|| format!("{text:?} is too long"))
}

fn parse_time(text: &str) -> Result<When, String> {
    match text {
        "now" => Ok(When::Now),
        _ => ext2_image::fields::parse_time(text)
            .and_then(|seconds| u32::try_from(seconds).ok())
            .map(When::At)
            .ok_or_else(|| format!("{text:?} is neither a date nor a number of seconds")),
    }
}

/// The options after a change by a list of names.
fn changed_options(mut bits: u32, names: &str) -> Result<u32, String> {
    for name in names.split(',').filter(|name| !name.is_empty()) {
        let (set, plain) = match name.strip_prefix('^') {
            Some(plain) => (false, plain),
            None => (true, name),
        };
        let row = MOUNT_OPTIONS.iter().find(|row| row.1 == plain);
        let bit = row.ok_or_else(|| format!("{plain:?} is no option of a mount that an image can have"))?.0;
        if bit & JOURNAL_DATA != 0 {
            bits &= !JOURNAL_DATA;
        }
        bits = if set { bits | bit } else { bits & !bit };
    }
    Ok(bits)
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let (target, device, fs) = open_settled(&args.image, context)?;
    let name = target.image_name();
    let tune = wanted(args, fs.superblock(), &name)?;
    drop(fs);
    let now = crate::clock::now()?.encode(false).0;
    let stop = Stop::new();
    let changed = stop.watched(|watch| {
        let options = rewrite::Options { bias: target.bias(&*device), spill: None, now: Some(now), watch };
        tune.apply(&*device, &options)
    });
    let changed = explained(changed, &name, "run it again to begin anew")?;
    if args.json {
        return context.out.json(&object! { "image": Json::bytes(name.as_bytes()), "changed": changed });
    }
    Ok(())
}

fn wanted(args: &Args, sb: &ext2_core::Superblock, name: &str) -> Result<Tune> {
    let now = crate::clock::now()?.encode(false).0;
    let time = |when: Option<When>| {
        when.map(|when| match when {
            When::Now => now,
            When::At(seconds) => seconds,
        })
    };
    let bytes = |text: &Option<OsString>| text.as_ref().map(|text| text.as_bytes().to_vec());
    let percent = match args.reserved_percent {
        Some(percent) if !(0.0..=50.0).contains(&percent) => {
            return Err(Failure::usage(&args.image, "at most 50 percent can be reserved"));
        }
        // OK to cast: at most half of the blocks.
        percent => percent.map(|percent| (percent * f64::from(sb.blocks_count) / 100.0) as u32),
    };
    let features = match &args.features {
        None => None,
        Some(names) => {
            let mut features = sb.features;
            features.apply(names).map_err(|unknown| {
                Failure::usage(&args.image, format!("{unknown:?} is no feature that is known"))
            })?;
            Some(features)
        }
    };
    let options = match &args.mount_options {
        None => None,
        Some(names) => Some(
            changed_options(sb.default_mount_options, names)
                .map_err(|what| Failure::usage(&args.image, what))?,
        ),
    };
    let uuid = match args.uuid {
        None => None,
        Some(Uuid::Given(uuid)) => Some(uuid),
        Some(Uuid::Random) => Some(random_uuid().of(|| name.to_owned())?),
    };
    Ok(Tune {
        label: bytes(&args.label),
        uuid,
        reserved_blocks: args.reserved_blocks.or(percent),
        reserved_uid: args.reserved_uid,
        reserved_gid: args.reserved_gid,
        errors: args.errors.map(|what| what as u16 + 1),
        last_mounted: bytes(&args.last_mounted),
        mount_count: args.mount_count,
        // As tune2fs stores it.
        max_mount_count: args.max_mount_count.map(|count| if count == 0 { -1 } else { count }),
        check_interval: args.interval,
        checked: time(args.checked),
        mounted: time(args.mounted),
        created: time(args.created),
        default_mount_options: options,
        features,
    })
}

/// A random UUID, version 4.
fn random_uuid() -> std::io::Result<[u8; 16]> {
    use std::io::Read as _;
    let mut uuid = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut uuid)?;
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_units() {
        let read = |text| parse_interval(text).ok();
        assert_eq!(
            ["0", "90s", "2", "2d", "3w", "1M"].map(read),
            [0, 90, 172_800, 172_800, 1_814_400, 2_592_000].map(Some)
        );
        assert_eq!(["", "d", "-1", "9999999m"].map(read), [None; 4]);
    }

    #[test]
    fn options_of_mounts_are_set_and_cleared_by_name() {
        assert_eq!(changed_options(0xc, "^acl,debug"), Ok(0x5));
        assert_eq!(changed_options(0x60, "journal_data"), Ok(0x20));
        assert!(changed_options(0, "nonsense").is_err());
    }
}
