//! A header of 512 bytes, as POSIX has it (`ustar`).

/// Bytes of a header, and what everything is a multiple of.
pub(super) const BLOCK: usize = 512;

/// What a header says. Numbers that do not fit are 0, and a PAX record has them.
#[derive(Clone, Debug, Default)]
pub(super) struct Header {
    pub(super) kind: u8,
    pub(super) mode: u16,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) size: u64,
    pub(super) mtime: u64,
    pub(super) device: (u32, u32),
}

/// The most that a field of 7 octal digits holds.
pub(super) const MAX_7: u64 = 0o777_7777;
/// The most that a field of 11 octal digits holds.
pub(super) const MAX_11: u64 = 0o777_7777_7777;

/// Where a path is cut so that it fits a header: bytes of the prefix, which a `/` follows; 0 for none.
pub(super) fn cut(path: &[u8]) -> Option<usize> {
    if path.len() <= 100 {
        return Some(0);
    }
    // The last name of a directory keeps its slash, so the cut is never at the end.
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    slashes.filter(|&at| (1..=155).contains(&at)).find(|&at| (1..=100).contains(&(path.len() - at - 1)))
}

impl Header {
    /// The bytes. `path` and `link` are cut off where they do not fit.
    pub(super) fn to_bytes(&self, path: &[u8], link: &[u8]) -> [u8; BLOCK] {
        let mut bytes = [0; BLOCK];
        let mut put = |at: usize, field: &[u8]| {
            for (to, from) in bytes.iter_mut().skip(at).zip(field) {
                *to = *from;
            }
        };
        let octal = |number: u64, digits: usize, max: u64| {
            let number = if number > max { 0 } else { number };
            format!("{number:0digits$o}").into_bytes()
        };
        let (prefix, name) = match cut(path) {
            Some(0) | None => (&[][..], path),
            Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        };
        put(0, name.get(..100).unwrap_or(name));
        put(100, &octal(self.mode.into(), 7, MAX_7));
        put(108, &octal(self.uid, 7, MAX_7));
        put(116, &octal(self.gid, 7, MAX_7));
        put(124, &octal(self.size, 11, MAX_11));
        put(136, &octal(self.mtime, 11, MAX_11));
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, link.get(..100).unwrap_or(link));
        put(257, b"ustar\x0000");
        put(329, &octal(self.device.0.into(), 7, MAX_7));
        put(337, &octal(self.device.1.into(), 7, MAX_7));
        put(345, prefix);
        let sum: u32 = bytes.iter().map(|&byte| u32::from(byte)).sum();
        let sum = format!("{sum:06o}\0 ").into_bytes();
        for (to, from) in bytes.iter_mut().skip(148).zip(sum) {
            *to = from;
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cut_at_a_slash_or_not_at_all() {
        let name = |len: usize| "n".repeat(len);
        assert_eq!(cut(name(100).as_bytes()), Some(0));
        assert_eq!(cut(name(101).as_bytes()), None);
        assert_eq!(cut(format!("{}/{}", name(155), name(100)).as_bytes()), Some(155));
        assert_eq!(cut(format!("{}/{}", name(156), name(100)).as_bytes()), None);
        assert_eq!(cut(format!("{}/{}", name(155), name(101)).as_bytes()), None);
        // A directory.
        assert_eq!(cut(format!("{}/{}/", name(50), name(99)).as_bytes()), Some(50));
        assert_eq!(cut(format!("{}/", name(100)).as_bytes()), None);
    }

    #[test]
    fn the_sum_is_that_of_the_bytes_with_blanks_in_its_place() {
        let header = Header { kind: b'0', mode: 0o644, mtime: 5, ..Header::default() };
        let mut bytes = header.to_bytes(b"name", b"");
        let sum = u32::from_str_radix(core::str::from_utf8(&bytes[148..154]).unwrap(), 8).unwrap();
        bytes[148..156].fill(b' ');
        assert_eq!(sum, bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>());
    }
}
