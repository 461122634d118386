//! The `fs` line of a manifest as a [`Format`], and the other way round.

use crate::manifest::{Manifest, quote};
use crate::mkfs::{Error, Format, Inodes, Result, Revision};
use ext2_core::Features;
use ext2_core::{BlockSize, Timestamp};

/// Lets `format` be what the manifest's `fs` line says; gives the size of the file system in bytes, if it is there.
///
/// # Errors
/// `Format` for a value that makes no sense.
pub fn format_of_manifest(manifest: &Manifest, format: &mut Format) -> Result<Option<u64>> {
    let value = |key: &str| manifest.filesystem().get(key);
    let bad = |key: &str| {
        let text = value(key).map(|text| quote(text)).unwrap_or_default();
        Error::Format(format!("the manifest's fs line says {key}={text}, which makes no sense"))
    };
    let number = |key: &str| -> Result<Option<u64>> {
        let Some(text) = value(key) else { return Ok(None) };
        let parsed = core::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        parsed.map(Some).ok_or_else(|| bad(key))
    };
    let words = |key: &str| -> Result<Option<[u8; 16]>> {
        let Some(text) = value(key) else { return Ok(None) };
        parse_uuid(text).map(Some).ok_or_else(|| bad(key))
    };
    if let Some(bytes) = number("block-size")? {
        format.block_size = Some(BlockSize::new(bytes).ok_or_else(|| bad("block-size"))?);
    }
    if let Some(bytes) = number("inode-size")? {
        format.inode_size = u16::try_from(bytes).map_err(|_| bad("inode-size"))?;
    }
    if let Some(count) = number("inodes")? {
        format.inodes = Inodes::Count(count);
    }
    match number("revision")? {
        Some(0) => format.revision = Revision::Original,
        Some(1) | None => {}
        Some(_) => return Err(bad("revision")),
    }
    if let Some(label) = value("label") {
        format.label.clone_from(label);
    }
    if let Some(path) = value("last-mounted") {
        format.last_mounted.clone_from(path);
    }
    if let Some(count) = number("blocks-per-group")? {
        format.blocks_per_group = Some(u32::try_from(count).map_err(|_| bad("blocks-per-group"))?);
    }
    if let Some(uuid) = words("uuid")? {
        format.uuid = uuid;
    }
    if let Some(bytes) = words("hash-seed")? {
        for (word, bytes) in format.hash_seed.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
        }
    }
    if let Some(text) = value("features") {
        let names = core::str::from_utf8(text).map_err(|_| bad("features"))?;
        format.features = Features::default();
        format.features.apply(names).map_err(|_| bad("features"))?;
    }
    if let Some(text) = value("created") {
        let seconds = core::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        format.created = Timestamp::from_secs(seconds.ok_or_else(|| bad("created"))?);
    }
    let blocks = number("blocks")?;
    if let (Some(blocks @ 1..), Some(reserved)) = (blocks, number("reserved-blocks")?) {
        // Nearly a block more, so that rounding down gives the number again, twice where blocks at the end are left out.
        format.reserved_percent = (reserved as f64 + 0.999) * 100.0 / blocks as f64;
    }
    let bytes = number("bytes")?;
    Ok(bytes.or_else(|| {
        blocks.and_then(|blocks| blocks.checked_mul(format.block_size.map_or(4096, BlockSize::bytes)))
    }))
}

/// 16 bytes from 32 hexadecimal digits with dashes.
fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    let digits = text.iter().filter(|&&byte| byte != b'-');
    let digits: Option<Vec<u32>> = digits.map(|&byte| char::from(byte).to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() == 32)?;
    let mut uuid = [0; 16];
    for (byte, pair) in uuid.iter_mut().zip(digits.chunks_exact(2)) {
        // Two digits: fits.
        *byte = pair.iter().fold(0, |byte, digit| byte << 4 | digit) as u8;
    }
    Some(uuid)
}
