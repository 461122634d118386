//! Bytes as one word of printable ASCII.

use alloc::{string::String, vec::Vec};

/// Lower-case hexadecimal digits, by value.
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Whether a byte stands for itself in a manifest: printable ASCII without space and backslash.
pub(super) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'\\'
}

/// Appends two lower-case hexadecimal digits.
pub(super) fn push_hex(out: &mut String, byte: u8) {
    for nibble in [byte >> 4, byte & 15] {
        out.push(char::from(DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'?')));
    }
}

/// Appends `bytes` quoted, and quotes the bytes of `also` too.
pub(super) fn push_quoted(out: &mut String, bytes: &[u8], also: &[u8]) {
    for &byte in bytes {
        if is_plain(byte) && !also.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str("\\x");
            push_hex(out, byte);
        }
    }
}

/// A name, path or target as one word of printable ASCII: control characters, space, backslash and everything from
/// `0x7f` up become `\xHH` in lower case, every other byte stands for itself.
///
/// No byte of the result is below `!`, so that the lines of a manifest sorted by `LC_ALL=C sort` are sorted by path.
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    push_quoted(&mut out, bytes, b"");
    out
}

/// The bytes of [`quote`]'s word, without making it.
pub(super) fn quoted(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'?');
    bytes.iter().flat_map(move |&byte| {
        let (word, len) = if is_plain(byte) {
            ([byte, 0, 0, 0], 1)
        } else {
            ([b'\\', b'x', digit(byte >> 4), digit(byte & 15)], 4)
        };
        word.into_iter().take(len)
    })
}

/// The bytes that [`quote`] was given, or `None` where the word is not one that `quote` writes (a byte left unquoted,
/// a backslash without `x` and two hexadecimal digits). Any plain byte may be quoted too.
pub fn unquote(word: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(word.len());
    let mut bytes = word.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'\\' {
            if bytes.next()? != b'x' {
                return None;
            }
            let high = hex_digit(bytes.next()?)?;
            let low = hex_digit(bytes.next()?)?;
            out.push(high << 4 | low);
        } else if is_plain(byte) {
            out.push(byte);
        } else {
            return None;
        }
    }
    Some(out)
}

/// The value of one hexadecimal digit, of either case.
fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The bytes that a string of pairs of hexadecimal digits stands for.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if !bytes.len().is_multiple_of(2) {
        return None;
    }
    bytes
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(hex_digit(*high)? << 4 | hex_digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn every_byte_survives_quoting() {
        let all: Vec<u8> = (0..=255).collect();
        let word = quote(&all);
        assert!(word.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(unquote(&word).as_deref(), Some(&all[..]));
    }

    #[test]
    fn space_backslash_and_bytes_past_ascii_are_escaped_in_lower_case() {
        assert_eq!(quote(b"a b\\c\xff\x7f"), "a\\x20b\\x5cc\\xff\\x7f");
    }

    #[test]
    fn a_broken_escape_or_a_bare_space_is_refused() {
        for word in ["\\", "\\x", "\\x1", "\\xg0", "\\n", "a b", "\u{e9}"] {
            assert_eq!(unquote(word), None, "{word:?}");
        }
    }

    #[test]
    fn hexadecimal_needs_whole_pairs() {
        assert_eq!(from_hex("00ffA0"), Some(alloc::vec![0, 0xff, 0xa0]));
        assert_eq!(from_hex(""), Some(Vec::new()));
        assert_eq!(from_hex("abc"), None);
        assert_eq!(from_hex("zz"), None);
    }
}
