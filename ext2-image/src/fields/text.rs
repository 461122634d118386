//! Words for numbers.

use alloc::format;
use alloc::string::String;

/// A time in UTC: `2016-08-26 18:03:11`. `seconds` are since 1970, negative before.
#[must_use]
pub fn utc(seconds: i64) -> String {
    const DAY: i64 = 86_400;
    let (year, month, day) = civil(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day of a day counted from 1970-01-01.
///
/// Counted in eras of 400 years that begin on the first of March, so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The day of a date, counted from 1970-01-01; the reverse of [`civil`]. Month and day count from 1.
fn day_of(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let march_month = (month + 9) % 12;
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// A time as debugfs and tune2fs take it: `@SECONDS`, seconds, `YYYYMMDD` or `YYYYMMDDHHMMSS` in UTC. Gives seconds since 1970.
#[must_use]
pub fn parse_time(text: &str) -> Option<i64> {
    if !matches!(text.len(), 8 | 14) || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.strip_prefix('@').unwrap_or(text).parse().ok();
    }
    let part = |from: usize, to: usize| text.get(from..to).and_then(|digits| digits.parse::<i64>().ok());
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = match text.len() {
        8 => (0, 0, 0),
        _ => (part(8, 10)?, part(10, 12)?, part(12, 14)?),
    };
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&day);
    (is_date && hour < 24 && minute < 60 && second < 60)
        .then(|| day_of(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// A number in decimal, in hexadecimal with `0x`, or in octal with a leading 0, as C has them.
pub(super) fn parse_number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (text.get(2..)?, 16),
        [b'0', b'o', ..] => (text.get(2..)?, 8),
        [b'0', _, ..] => (text.get(1..)?, 8),
        _ => (text, 10),
    };
    let starts_well = digits.bytes().next().is_some_and(|byte| byte.is_ascii_hexdigit());
    starts_well.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

/// Type and permissions as `ls -l` prints them: `drwxr-sr-x`; `?` for a type that there is not.
#[must_use]
pub fn mode_letters(mode: u16) -> String {
    let kind = match mode >> 12 {
        0o14 => 's',
        0o12 => 'l',
        0o10 => '-',
        0o6 => 'b',
        0o4 => 'd',
        0o2 => 'c',
        0o1 => 'p',
        _ => '?',
    };
    let mut text = String::from(kind);
    for (shift, special, set, bare) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => bare,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// The names of the bits that are set, and the rest as a number.
pub(super) fn bit_names(value: u64, names: &[(u32, &str)]) -> String {
    let mut all = String::new();
    let mut rest = value;
    let mut push = |text: &str| {
        if !all.is_empty() {
            all.push(' ');
        }
        all.push_str(text);
    };
    for (bit, name) in names {
        if value & u64::from(*bit) != 0 {
            push(name);
            rest &= !u64::from(*bit);
        }
    }
    if rest != 0 {
        push(&format!("{rest:#x}"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_seconds_lead_back_to_each_other() {
        for seconds in [0, 951_782_400, 1_700_000_000, -1, i64::from(i32::MAX), i64::from(i32::MIN)] {
            let date: String = utc(seconds).chars().filter(char::is_ascii_digit).collect();
            assert_eq!(parse_time(&date), Some(seconds), "{date}");
        }
        assert_eq!(parse_time("@1700000000"), Some(1_700_000_000));
        assert_eq!(parse_time("-5"), Some(-5));
        assert_eq!(parse_time("20231340000000"), None);
    }

    #[test]
    fn numbers_are_spelled_as_in_c() {
        assert_eq!(parse_number("0"), Some(0));
        assert_eq!(parse_number("0100644"), Some(0o100_644));
        assert_eq!(parse_number("0xEF53"), Some(0xef53));
        for bad in ["", "0x", "x", "-1", "+1", "08", "0x+1"] {
            assert_eq!(parse_number(bad), None, "{bad}");
        }
    }
}
