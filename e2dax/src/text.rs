//! Text for people: names that cannot harm a terminal, times, modes, tables.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

use ext2_core::{FileKind, Timestamp};

/// A name or path as one line of text: what is printable stands for itself, every other byte and the backslash is
/// `\xHH`.
pub(crate) fn show(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let escape = |text: &mut String, bytes: &[u8]| {
        for byte in bytes {
            // Writing to a String does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    };
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter == '\\' || is_hidden(letter) {
                escape(&mut text, letter.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(letter);
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

/// Controls, line separators, and what turns the direction of writing.
fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// [`show`] of a name of this machine.
pub(crate) fn show_os(name: &OsStr) -> String {
    show(name.as_bytes())
}

/// Type and permissions as `ls -l` prints them: `drwxr-sr-x`.
pub(crate) fn mode_letters(kind: FileKind, mode: u16) -> String {
    ext2_image::fields::mode_letters(kind.mode_bits() | mode)
}

/// A time as the manifest writes it: seconds since 1970, and nine digits where there are nanoseconds.
pub(crate) fn time_number(time: Timestamp) -> String {
    if time.nsec == 0 { time.sec.to_string() } else { format!("{}.{:09}", time.sec, time.nsec) }
}

/// A time in UTC: `2016-08-26 18:03:11`.
pub(crate) fn time_utc(time: Timestamp) -> String {
    ext2_image::fields::utc(time.sec)
}

/// Bytes as `ls -h` shows them: three digits at most and a letter, rounded up; powers of 1024.
pub(crate) fn human(bytes: u64) -> String {
    let (mut unit, mut scale) = (0, 1_u64);
    while bytes.div_ceil(scale) >= 1024 && unit < 6 {
        unit += 1;
        scale <<= 10;
    }
    let letter = ["", "K", "M", "G", "T", "P", "E"].get(unit).copied().unwrap_or_default();
    let tenths = (u128::from(bytes) * 10).div_ceil(u128::from(scale));
    if unit > 0 && tenths < 100 {
        return format!("{}.{}{letter}", tenths / 10, tenths % 10);
    }
    format!("{}{letter}", bytes.div_ceil(scale))
}

/// How many of a thing there are, in words: `1 fault`, `2 faults`. Of several words the first gets the s.
pub(crate) fn count(number: u64, thing: &str) -> String {
    if number == 1 {
        return format!("1 {thing}");
    }
    let (first, rest) = thing.split_at(thing.find(' ').unwrap_or(thing.len()));
    format!("{number} {first}s{rest}")
}

/// A time in UTC to the nanosecond, as `stat` shows it.
pub(crate) fn time_utc_exact(time: Timestamp) -> String {
    format!("{}.{:09} UTC", time_utc(time), time.nsec)
}

/// 16 bytes as a UUID.
pub(crate) fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::new();
    for (nr, byte) in bytes.iter().enumerate() {
        if matches!(nr, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The bytes of a UUID, with dashes anywhere or none.
pub(crate) fn parse_uuid(text: &str) -> Result<[u8; 16], String> {
    let digits: Option<Vec<u32>> = text.chars().filter(|&c| c != '-').map(|c| c.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() == 32).ok_or("a UUID has 32 hexadecimal digits")?;
    let mut uuid = [0; 16];
    for (byte, pair) in uuid.iter_mut().zip(digits.chunks_exact(2)) {
        // OK to cast: two hexadecimal digits.
        *byte = pair.iter().fold(0, |byte, digit| byte << 4 | digit) as u8;
    }
    Ok(uuid)
}

/// A number of bytes as people write it: digits with a fraction, and K, M, G or T for powers of 1024, also as KiB.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let upper = text.to_ascii_uppercase();
    let plain = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
    let (digits, shift) = match plain.as_bytes().last() {
        Some(b'K') => (&plain[..plain.len() - 1], 10),
        Some(b'M') => (&plain[..plain.len() - 1], 20),
        Some(b'G') => (&plain[..plain.len() - 1], 30),
        Some(b'T') => (&plain[..plain.len() - 1], 40),
        _ => (plain, 0),
    };
    let wrong = || format!("{text:?} is not a number of bytes");
    let too_much = || format!("{text} is more bytes than there can be");
    let (whole, fraction) =
        digits.split_once('.').map_or((digits, None), |(whole, part)| (whole, Some(part)));
    let number: u64 = whole.parse().map_err(|_| wrong())?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(too_much)?;
    let Some(fraction) = fraction else { return Ok(bytes) };
    if shift == 0
        || fraction.is_empty()
        || fraction.len() > 15
        || !fraction.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(wrong());
    }
    let part = fraction.parse::<u128>().map_err(|_| wrong())? << shift;
    // Rounded down to whole bytes: less than 2^40 of them.
    let part = part / 10_u128.pow(fraction.len() as u32);
    bytes.checked_add(part as u64).ok_or_else(too_much)
}

/// Permission bits in octal, up to 7777.
pub(crate) fn parse_octal(text: &str) -> Result<u16, String> {
    match u16::from_str_radix(text, 8) {
        Ok(bits) if bits <= 0o7777 && !text.starts_with('+') => Ok(bits),
        _ => Err("not an octal number up to 7777".into()),
    }
}

/// A share in percent with one digit, rounded down so that only all is 100.0; `-` of nothing.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".into();
    }
    let tenths = u128::from(part) * 1000 / u128::from(whole);
    format!("{}.{}%", tenths / 10, tenths % 10)
}

/// How a column of a table is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows of cells in columns of equal width, each line without spaces at its end.
pub(crate) fn table(columns: &[Align], rows: &[Vec<String>]) -> Vec<String> {
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns.len()).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for ((cell, align), width) in row.iter().zip(columns).zip(&widths) {
            let pad = " ".repeat(width - cell.chars().count());
            match align {
                Align::Left => line.extend([cell, pad.as_str(), " "]),
                Align::Right => line.extend([pad.as_str(), cell, " "]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_move_the_cursor_or_look_like_others() {
        assert_eq!(show("a ä\\\n\u{1b}[2J\u{202e}".as_bytes()), "a ä\\x5c\\x0a\\x1b[2J\\xe2\\x80\\xae");
        assert_eq!(show(b"\xff\xc3"), "\\xff\\xc3");
    }

    #[test]
    fn modes_look_as_in_ls() {
        assert_eq!(mode_letters(FileKind::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(mode_letters(FileKind::Regular, 0o6644), "-rwSr-Sr--");
        assert_eq!(mode_letters(FileKind::CharDevice, 0o0), "c---------");
    }

    #[test]
    fn times_are_right_on_both_sides_of_1970_and_in_leap_years() {
        let utc = |sec| time_utc(Timestamp::from_secs(sec));
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(-1), "1969-12-31 23:59:59");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(utc(i64::from(i32::MAX)), "2038-01-19 03:14:07");
        assert_eq!(utc(i64::from(i32::MIN)), "1901-12-13 20:45:52");
        assert_eq!(utc(Timestamp::MAX_SEC), "2446-05-10 22:38:55");
    }

    #[test]
    fn bytes_come_with_and_without_a_unit() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("2M"), Ok(2 << 20));
        assert_eq!(parse_bytes("2MiB"), Ok(2 << 20));
        assert_eq!(parse_bytes("1.5M"), Ok(3 << 19));
        for bad in ["", "K", "-1", "1.5", "1.M", "x", "99999999T"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_for_people_are_those_of_ls() {
        let shown = [0, 1023, 1024, 1025, 10_239, 10_241, 1 << 20, (1 << 20) - 1, u64::MAX].map(human);
        assert_eq!(shown, ["0", "1023", "1.0K", "1.1K", "10K", "11K", "1.0M", "1.0M", "16E"]);
    }

    #[test]
    fn one_is_one_and_two_have_an_s() {
        assert_eq!([0, 1, 2].map(|nr| count(nr, "fault")), ["0 faults", "1 fault", "2 faults"]);
        assert_eq!(count(2, "block of its own"), "2 blocks of its own");
    }

    #[test]
    fn only_all_is_a_hundred_percent() {
        assert_eq!(percent(9999, 10_000), "99.9%");
        assert_eq!(percent(u64::MAX, u64::MAX), "100.0%");
        assert_eq!(percent(0, 0), "-");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "1".into(), "x".into()], vec!["bb".into(), "10".into(), String::new()]];
        assert_eq!(table(&[Align::Left, Align::Right, Align::Left], &rows), ["a   1 x", "bb 10"]);
    }
}
