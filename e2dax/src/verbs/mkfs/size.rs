//! How large an image is to be: bytes, or as it comes with something left free.

use ext2_image::mkfs::{Size, Spare};

use crate::text::parse_bytes;

/// A size and what is left free besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) size: Size,
    pub(super) spare: Spare,
}

/// Reads `64M`, `auto`, `auto+64M`, `auto+10%`, `auto+1000inodes` and sums of them; a sum may begin with its `+`.
pub(super) fn parse(text: &str) -> Result<Wanted, String> {
    let rest = match text.strip_prefix("auto") {
        Some(rest) => rest,
        None if text.starts_with('+') => text,
        None => {
            return parse_bytes(text)
                .map(|bytes| Wanted { size: Size::Bytes(bytes), spare: Spare::default() });
        }
    };
    let wrong = || format!("{text:?}: auto, auto+BYTES, auto+PERCENT% or auto+COUNTinodes");
    let (mut slack, mut spare) = (0_u64, Spare::default());
    if !rest.is_empty() {
        for term in rest.strip_prefix('+').ok_or_else(wrong)?.split('+').map(str::trim) {
            let number = |digits: &str| digits.trim().parse::<u64>().map_err(|_| wrong());
            if let Some(percent) = term.strip_suffix('%') {
                let percent = number(percent)?;
                spare.percent =
                    u16::try_from(percent).ok().filter(|&percent| percent <= 1000).ok_or_else(wrong)?;
            } else if let Some(count) = term.strip_suffix("inodes").or_else(|| term.strip_suffix("inode")) {
                spare.inodes += number(count)?;
            } else {
                slack = slack.saturating_add(parse_bytes(term)?);
            }
        }
    }
    Ok(Wanted { size: Size::Auto { slack }, spare })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_automatic_with_sums_of_what_is_left_free() {
        let auto =
            |slack, percent, inodes| Wanted { size: Size::Auto { slack }, spare: Spare { percent, inodes } };
        assert_eq!(parse("1.5G").unwrap().size, Size::Bytes(3 << 29));
        assert_eq!(parse("auto"), Ok(auto(0, 0, 0)));
        assert_eq!(parse("auto+64M"), Ok(auto(64 << 20, 0, 0)));
        assert_eq!(parse("+10%"), Ok(auto(0, 10, 0)));
        assert_eq!(parse("auto+1GiB+1000 inodes"), Ok(auto(1 << 30, 0, 1000)));
        for bad in ["auto64M", "auto+", "auto+x%", "auto+1e3inodes", "auto-5M", "autoinodes", "auto+5000%"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
