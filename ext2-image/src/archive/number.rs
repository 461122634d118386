//! Numbers of a tar archive: octal digits or base 256 in headers, decimal digits in extended headers.

use ext2_core::Timestamp;

/// The number in a field of a header: octal digits between spaces and zeros, or, where the first bit is set, a signed
/// number in base 256 whose bits begin behind that one (GNU and star write so what does not fit). An empty field is 0.
/// Numbers that 64 bits do not hold become the nearest that they do; `None` where it is no number.
pub(super) fn of_field(field: &[u8]) -> Option<i64> {
    match *field.first()? {
        first @ 0x80.. => {
            // The second bit is the sign's: GNU writes 0x80 or 0xff and then two's complement.
            let negative = first & 0x40 != 0;
            let start = if negative { i128::from(first) - 0x100 } else { i128::from(first & 0x7f) };
            let value = field.iter().skip(1).fold(start, |value, &byte| {
                // 12 bytes at most: 96 bits.
                (value << 8) | i128::from(byte)
            });
            Some(value.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
        }
        _ => of_octal(field),
    }
}

fn of_octal(field: &[u8]) -> Option<i64> {
    let start = field.iter().position(|&byte| byte != b' ' && byte != 0).unwrap_or(field.len());
    let digits = field.get(start..)?;
    let (negative, digits) = match digits.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, digits),
    };
    let end = digits.iter().position(|&byte| byte == b' ' || byte == 0).unwrap_or(digits.len());
    let mut value = 0_i64;
    for &digit in digits.get(..end)? {
        if !matches!(digit, b'0'..=b'7') {
            return None;
        }
        value = (value << 3) | i64::from(digit - b'0'); // 12 digits at most: 36 bits
    }
    Some(if negative { -value } else { value })
}

/// A whole number in decimal digits, with a sign where it has one.
pub(super) fn of_decimal(text: &[u8]) -> Option<i64> {
    let text = core::str::from_utf8(text).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Only too many digits are left to fail.
    Some(text.parse().unwrap_or(if text.starts_with('-') { i64::MIN } else { i64::MAX }))
}

/// Seconds since 1970 with a fraction, of which nine digits count, rounded down. Python writes small ones with an exponent.
pub(super) fn of_time(text: &[u8]) -> Option<Timestamp> {
    let plain = match text.iter().position(|&byte| byte == b'e') {
        Some(at) => Some(without_exponent(text.get(..at)?, of_decimal(text.get(at + 1..)?)?)?),
        None => None,
    };
    let text = plain.as_deref().unwrap_or(text);
    let mut parts = text.splitn(2, |&byte| byte == b'.' || byte == b',');
    let whole = parts.next()?;
    let fraction = parts.next().unwrap_or_default();
    // "-.5" has no whole part.
    let sec = if matches!(whole, b"" | b"-") && !fraction.is_empty() { 0 } else { of_decimal(whole)? };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(core::iter::repeat(&b'0')).take(9);
    let nsec = digits.fold(0, |nsec, &digit| nsec * 10 + u32::from(digit - b'0'));
    let rest = fraction.iter().skip(9).any(|&digit| digit != b'0');
    Some(match (whole.starts_with(b"-"), nsec + u32::from(rest)) {
        // The fraction of a time before 1970 counts backwards.
        (true, back @ 1..) => Timestamp { sec: sec.saturating_sub(1), nsec: 1_000_000_000 - back },
        _ => Timestamp { sec, nsec },
    })
}

/// A number that is written with a negative exponent, without one. No time is so large that it needs another.
fn without_exponent(text: &[u8], exponent: i64) -> Option<Vec<u8>> {
    let (sign, text) = match text.strip_prefix(b"-") {
        Some(rest) => (&b"-"[..], rest),
        None => (&b""[..], text),
    };
    let mut parts = text.splitn(2, |&byte| byte == b'.');
    let (whole, fraction) = (parts.next()?, parts.next().unwrap_or_default());
    // One digit stands in front of the point; what is smaller than any double is nothing.
    let zeros = usize::try_from(exponent.checked_neg()?.checked_sub(1)?).ok().filter(|&zeros| zeros < 400)?;
    let is_one_digit = matches!(whole, [b'0'..=b'9']);
    is_one_digit.then(|| [sign, b"0.", &vec![b'0'; zeros], whole, fraction].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_octal_or_base_256_of_either_sign() {
        assert_eq!(of_field(b"0000644\0"), Some(0o644));
        assert_eq!(of_field(b"   644 \0"), Some(0o644));
        assert_eq!(of_field(b"77777777"), Some(0o77_777_777), "no terminator");
        assert_eq!(of_field(&[0; 12]), Some(0));
        assert_eq!(of_field(b"        "), Some(0));
        assert_eq!(of_field(b"00008000"), None);
        assert_eq!(of_field(b"abcdefgh"), None);
        assert_eq!(of_field(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]), Some(0xffff_fffe));
        assert_eq!(of_field(&[0xff; 12]), Some(-1));
        let mut old = [0xff; 12];
        old[4..].copy_from_slice(&(-86_400_i64).to_be_bytes());
        assert_eq!(of_field(&old), Some(-86_400));
        let mut huge = [0x7f; 12];
        huge[0] = 0x80;
        assert_eq!(of_field(&huge), Some(i64::MAX), "more than 64 bits");
        assert_eq!(of_field(&[]), None);
    }

    #[test]
    fn times_have_fractions_and_signs() {
        let time = |sec, nsec| Some(Timestamp { sec, nsec });
        assert_eq!(of_time(b"5"), time(5, 0));
        assert_eq!(of_time(b"5.25"), time(5, 250_000_000));
        assert_eq!(of_time(b"-1.25"), time(-2, 750_000_000));
        assert_eq!(of_time(b"-0.000000001"), time(-1, 999_999_999));
        assert_eq!(of_time(b"1.0000000019"), time(1, 1));
        assert_eq!(of_time(b"-2147483648"), time(-2_147_483_648, 0));
        assert_eq!(of_time(b"1e-09"), time(0, 1));
        assert_eq!(of_time(b"2.5e-07"), time(0, 250));
        assert_eq!(of_time(b"-1e-09"), time(-1, 999_999_999));
        assert_eq!(of_time(b"5e-324"), time(0, 0));
        for bad in [
            &b""[..],
            b"x",
            b"1.x",
            b"1e5",
            b"+1",
            b"e-9",
            b"1e-",
            b"12e-3",
            b"1e-999999999",
            b"1.e--9",
            b"1.-1e-9",
        ] {
            assert_eq!(of_time(bad), None, "{bad:?}");
        }
    }
}
