//! Attribute flags as libarchive spells them in `SCHILY.fflags`: words apart by commas.

/// Bits of `i_flags` (Linux: `EXT2_*_FL`).
const WORDS: [(&[u8], u32); 16] = [
    (b"sappnd", 0x20),
    (b"sappend", 0x20),
    (b"schg", 0x10),
    (b"schange", 0x10),
    (b"simmutable", 0x10),
    (b"nodump", 0x40),
    (b"noatime", 0x80),
    (b"sync", 0x8),
    (b"securedeletion", 0x1),
    (b"undel", 0x2),
    (b"dirsync", 0x1_0000),
    (b"topdir", 0x2_0000),
    (b"compress", 0x4),
    (b"journal-data", 0x4000),
    (b"notail", 0x8000),
    (b"projinherit", 0x2000_0000),
];

/// Words that are told of; what a hostile archive has above that counts as one.
const WORDS_MAX: usize = 20;

/// The flags, and the words that mean none of ext2's.
pub(super) fn parse(text: &[u8]) -> (u32, Vec<Vec<u8>>) {
    let (mut flags, mut unknown) = (0, Vec::new());
    for word in text.split(|&byte| byte == b',').filter(|word| !word.is_empty()) {
        match WORDS.iter().find(|(known, _)| *known == word) {
            Some((_, bit)) => flags |= bit,
            None if unknown.len() < WORDS_MAX => unknown.push(word.to_vec()),
            None if unknown.len() == WORDS_MAX => unknown.push(b"...".to_vec()),
            None => {}
        }
    }
    (flags, unknown)
}
