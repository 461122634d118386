//! PAX records: `LENGTH KEYWORD=VALUE\n`, where the length counts itself.

use ext2_core::Timestamp;

/// Bits of `i_flags` and their names in `SCHILY.fflags`, as bsdtar writes them on Linux; where it has none, as `FS_*_FL` is
/// called.
const FFLAGS: [(u32, &str); 13] = [
    (0x0000_0020, "sappnd"),
    (0x0000_0010, "schg"),
    (0x0000_0040, "nodump"),
    (0x0000_0080, "noatime"),
    (0x0000_0004, "compress"),
    (0x0000_0008, "sync"),
    (0x0001_0000, "dirsync"),
    (0x0000_4000, "journal-data"),
    (0x0000_0001, "securedeletion"),
    (0x0000_0002, "undel"),
    (0x0000_8000, "notail"),
    (0x0002_0000, "topdir"),
    (0x2000_0000, "projinherit"),
];

/// Records in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Records(Vec<u8>);

impl Records {
    /// Adds one.
    pub(super) fn add(&mut self, keyword: &[u8], value: &[u8]) {
        // A blank, an equals sign, a newline.
        let rest = keyword.len() + value.len() + 3;
        let mut len = rest + 1;
        while rest + len.to_string().len() > len {
            len += 1;
        }
        self.0.extend_from_slice(len.to_string().as_bytes());
        self.0.push(b' ');
        self.0.extend_from_slice(keyword);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    /// The bytes of all.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A time as a decimal number of seconds: nanoseconds only where there are some.
pub(super) fn decimal(time: Timestamp) -> String {
    let Timestamp { sec, nsec } = time;
    if nsec == 0 {
        return sec.to_string();
    }
    // Before 1970 the fraction goes the other way: -1 s and 250 ms are -0.75.
    let (sign, sec, nsec) = if sec < 0 {
        ("-", (sec + 1).unsigned_abs(), 1_000_000_000 - nsec)
    } else {
        ("", sec.unsigned_abs(), nsec)
    };
    format!("{sign}{sec}.{nsec:09}").trim_end_matches('0').to_owned()
}

/// Names of flags, for `SCHILY.fflags`.
pub(super) fn fflags(flags: u32) -> String {
    let names: Vec<&str> = FFLAGS.iter().filter(|flag| flags & flag.0 != 0).map(|flag| flag.1).collect();
    names.join(",")
}

/// The keyword of an attribute: `=` and `%` of its name as GNU tar writes them, because a keyword ends at `=`.
pub(super) fn xattr_keyword(name: &[u8]) -> Vec<u8> {
    let mut keyword = b"SCHILY.xattr.".to_vec();
    for &byte in name {
        match byte {
            b'=' => keyword.extend_from_slice(b"%3D"),
            b'%' => keyword.extend_from_slice(b"%25"),
            byte => keyword.push(byte),
        }
    }
    keyword
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_counts_its_own_digits() {
        for len in [1, 85, 86, 87, 88, 89, 980, 985, 990, 995, 99_980, 99_990] {
            let mut records = Records::default();
            records.add(b"comment", &vec![b'x'; len]);
            let text = records.bytes();
            let digits = text.iter().position(|&byte| byte == b' ').unwrap();
            let said: usize = core::str::from_utf8(&text[..digits]).unwrap().parse().unwrap();
            assert_eq!(said, text.len(), "{len}");
        }
    }

    #[test]
    fn times_are_decimal_numbers_on_both_sides_of_1970() {
        let decimal = |sec, nsec| decimal(Timestamp { sec, nsec });
        assert_eq!(decimal(5, 0), "5");
        assert_eq!(decimal(5, 250_000_000), "5.25");
        assert_eq!(decimal(0, 1), "0.000000001");
        assert_eq!(decimal(-1, 0), "-1");
        assert_eq!(decimal(-1, 250_000_000), "-0.75");
        assert_eq!(decimal(-5, 999_999_999), "-4.000000001");
    }
}
