//! A value as text, stored into a field.

use alloc::format;
use alloc::string::String;
use core::fmt;

use super::text::{parse_number, parse_time};
use super::{Field, Order, Value};

/// Why a value cannot be stored, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wrong(pub String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for Wrong {}

/// Prefixes of the kernel's names, which may be left out.
const PREFIXES: [&str; 6] = ["s_", "bg_", "i_", "h_", "e_", "r_"];

/// The field of a name: the kernel's, or that without its prefix; `block[IND]`, `block[DIND]` and `block[TIND]` as debugfs
/// has them.
#[must_use]
pub fn find<'f>(fields: &'f [Field], name: &str) -> Option<&'f Field> {
    let name = match name.trim_start_matches("i_") {
        "block[IND]" => "i_block[12]",
        "block[DIND]" => "i_block[13]",
        "block[TIND]" => "i_block[14]",
        _ => name,
    };
    let exact = fields.iter().find(|field| field.name == name);
    exact.or_else(|| {
        let bare =
            |field: &&Field| PREFIXES.iter().any(|prefix| field.name.strip_prefix(prefix) == Some(name));
        fields.iter().find(bare)
    })
}

/// Stores `text` into `field` of the structure `bytes`. Numbers are decimal, hexadecimal with `0x` or octal with a leading
/// 0; times are seconds, also behind an `@`, or `YYYYMMDDHHMMSS`; sets of bits are a number, or names that are set
/// and, with a `^`, cleared; text is what it is; a UUID and bytes are hexadecimal digits.
///
/// # Errors
/// What is no such value, or does not fit. Nothing is changed then.
pub fn set(bytes: &mut [u8], field: &Field, text: &str) -> Result<(), Wrong> {
    let stored = match &field.value {
        Value::Text(_) => {
            let length = field.length;
            if text.len() > length {
                return Err(Wrong(format!("{}: {text:?} has more than {length} bytes", field.name)));
            }
            let mut stored = text.as_bytes().to_vec();
            stored.resize(length, 0);
            stored
        }
        Value::Uuid(_) | Value::Bytes(_) => hexadecimal(field, text)?,
        Value::Number(_) | Value::Hex(_) | Value::Octal(_) | Value::Time(_) => {
            let number = number(field, text)?;
            let little = number.to_le_bytes();
            let mut stored = little.get(..field.length).unwrap_or_default().to_vec();
            if field.order == Order::Big {
                stored.reverse();
            }
            stored
        }
    };
    let place = bytes.get_mut(field.offset..field.offset + field.length);
    match place.filter(|place| place.len() == stored.len()) {
        Some(place) => place.copy_from_slice(&stored),
        None => return Err(Wrong(format!("{}: lies outside the structure", field.name))),
    }
    Ok(())
}

fn hexadecimal(field: &Field, text: &str) -> Result<alloc::vec::Vec<u8>, Wrong> {
    let digits = text.strip_prefix("0x").unwrap_or(text).bytes().filter(|&byte| byte != b'-');
    let digits: Option<alloc::vec::Vec<u32>> = digits.map(|byte| char::from(byte).to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() == 2 * field.length);
    let wrong = || Wrong(format!("{}: takes {} hexadecimal digits", field.name, 2 * field.length));
    // OK to cast: two hexadecimal digits.
    let bytes = digits.ok_or_else(wrong)?;
    Ok(bytes.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit) as u8).collect())
}

fn number(field: &Field, text: &str) -> Result<u64, Wrong> {
    let wrong = |what: &str| Wrong(format!("{}: {text:?} is no {what}", field.name));
    let bits = 8 * field.length.min(8) as u32;
    let most = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    if let Value::Time(_) = field.value {
        let seconds = parse_time(text).ok_or_else(|| wrong("time"))?;
        // What does not fit in 32 bits as it is may still be an unsigned number of them.
        let fits = (i64::from(i32::MIN)..=i64::from(u32::MAX)).contains(&seconds);
        // OK to cast: in range.
        return if fits { Ok(u64::from(seconds as u32)) } else { Err(wrong("time of 32 bits")) };
    }
    let is_names = !field.bits.is_empty() && !text.starts_with(|first: char| first.is_ascii_digit());
    let number = if is_names {
        let mut value = field.value.number().unwrap_or_default();
        for name in text.split([',', ' ']).filter(|name| !name.is_empty()) {
            let (is_set, plain) = match name.strip_prefix(['^', '-']) {
                Some(plain) => (false, plain),
                None => (true, name.strip_prefix('+').unwrap_or(name)),
            };
            let known = field.bits.iter().find(|(_, known)| known.eq_ignore_ascii_case(plain));
            let (bit, _) = known.ok_or_else(|| Wrong(format!("{}: has no {plain:?}", field.name)))?;
            value = if is_set { value | u64::from(*bit) } else { value & !u64::from(*bit) };
        }
        value
    } else {
        parse_number(text).ok_or_else(|| wrong("number"))?
    };
    if number > most {
        return Err(Wrong(format!("{}: {text} does not fit in {bits} bits", field.name)));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::super::{
        directory, group_descriptor, indirect, inode, journal_block, superblock, xattr_block,
    };
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;
    use alloc::vec::Vec;

    fn stored(fields: fn(&[u8]) -> Vec<Field>, len: usize, name: &str, text: &str) -> Result<String, Wrong> {
        let mut bytes = vec![0; len];
        let all = fields(&bytes);
        set(&mut bytes, find(&all, name).expect(name), text)?;
        Ok(find(&fields(&bytes), name).expect(name).value.to_string())
    }

    #[test]
    fn what_is_stored_is_what_is_read_under_either_name() {
        for name in ["s_free_blocks_count", "free_blocks_count"] {
            assert_eq!(stored(superblock, 1024, name, "0x1234").as_deref(), Ok("4660"));
        }
        assert_eq!(stored(superblock, 1024, "feature_incompat", "filetype,meta_bg").as_deref(), Ok("0x12"));
        assert_eq!(stored(superblock, 1024, "volume_name", "a b").as_deref(), Ok("\"a\\x20b\""));
        assert_eq!(stored(superblock, 1024, "mtime", "20231114221320").as_deref(), Ok("1700000000"));
        assert_eq!(stored(inode, 256, "mode", "0100644").as_deref(), Ok("0o100644"));
        assert_eq!(stored(inode, 128, "block[IND]", "77").as_deref(), Ok("77"));
        assert_eq!(stored(group_descriptor, 32, "flags", "3").as_deref(), Ok("0x3"));
        let uuid = "00112233-4455-6677-8899-aabbccddeeff";
        assert_eq!(stored(superblock, 1024, "uuid", uuid).as_deref(), Ok(uuid));
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        for (name, text) in
            [("links_count", "65536"), ("links_count", "x"), ("mtime", "5000000000"), ("mode", "-1")]
        {
            assert!(stored(inode, 128, name, text).is_err(), "{name} {text}");
        }
        assert!(stored(superblock, 1024, "volume_name", "seventeen letters").is_err());
        assert!(stored(superblock, 1024, "uuid", "12").is_err());
        assert!(stored(superblock, 1024, "state", "nonsense").is_err());
    }

    #[test]
    fn any_bytes_can_be_taken_apart_and_fields_neither_overlap_nor_leave_them() {
        let mut seed = 1_u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        };
        for round in 0..2000 {
            let len = [0, 3, 31, 128, 160, 256, 1024][round % 7];
            let mut bytes: Vec<u8> = (0..len).map(|_| random()).collect();
            if round % 3 == 0 {
                // Small numbers make chains that go on.
                bytes.iter_mut().for_each(|byte| *byte &= 0x1f);
            }
            if round % 2 == 0 && len >= 160 {
                bytes[0..4].copy_from_slice(&ext2_format::journal::MAGIC.to_be_bytes());
                bytes[128..132].copy_from_slice(&[32, 0, 0, 0]);
            }
            let fields = [
                superblock(&bytes),
                group_descriptor(&bytes),
                inode(&bytes),
                xattr_block(&bytes),
                directory(&bytes),
                indirect(&bytes, 1),
                journal_block(&bytes),
                super::super::bitmap(&bytes, 100, 1, "block"),
            ];
            for (kind, fields) in fields.iter().enumerate() {
                let mut end = 0;
                for field in fields {
                    assert!(
                        field.length > 0 && field.offset >= end,
                        "structure {kind}: {field:?} after {end}"
                    );
                    end = field.offset + field.length;
                }
                assert!(end <= bytes.len(), "structure {kind} leaves its {len} bytes");
            }
        }
    }
}
