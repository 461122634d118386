use std::io::Write as _;

use super::*;

/// Numbers that look like chance, the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len())]
    }
}

fn member(archive: &mut Vec<u8>, kind: u8, path: &str, link: &str, data: &[u8], mode: usize) {
    let mut header = [0; 512];
    header[..path.len()].copy_from_slice(path.as_bytes());
    header[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
    header[108..115].copy_from_slice(b"0000012");
    header[116..123].copy_from_slice(b"0000017");
    header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
    header[136..147].copy_from_slice(format!("{:011o}", 1_600_000_000 + mode).as_bytes());
    header[148..156].fill(b' ');
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    archive.extend(header);
    archive.extend(data);
    archive.resize(archive.len().next_multiple_of(512), 0);
}

/// What an archive that was made of an image says of it.
const OF_IMAGE: &str = "e2dax-image 1 block-size=4096";

/// A record of an extended header.
fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let len = (1..).find(|len: &usize| len.to_string().len() + rest.len() == *len).unwrap();
    format!("{len}{rest}").into_bytes()
}

fn opened(bytes: &[u8]) -> Opened {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Opened { file, len: bytes.len() as u64, is_device: false }
}

/// What is lost, and the entries, by the tree in memory.
fn by_tree(bytes: &[u8]) -> Result<(Warnings, Vec<Entry>)> {
    let read = read_opened(opened(bytes), None)?;
    let warnings = read.tree.warnings().clone();
    Ok((warnings, TreeEntries::new(read.tree, Box::new(read.contents))?.collect::<Result<_>>()?))
}

#[test]
fn both_ways_give_the_same_entries() {
    let names = [
        "a", "a-b", "a/x", "a/x/y", "a b/", "b", "b/x", "./a", "a/", "c\\d", "\u{e9}/f", "a/x-y", "a0/z/z/z",
        ".", "d/e", "a/../b",
    ];
    let (mut dice, mut sorted) = (Dice(7), 0);
    for round in 0..4000 {
        let mut archive = Vec::new();
        // Few kinds in some rounds, so that whole archives are met too.
        let kinds: &[u8] = [b"0500".as_slice(), b"05152", b"0001", b"g0x5L612"][round % 4];
        for nr in 0..dice.roll(9) {
            let path = dice.one(&names);
            let mode = 0o600 + dice.roll(64);
            let data = vec![nr as u8; dice.roll(3) * 700];
            match kinds[dice.roll(kinds.len())] {
                kind @ (b'g' | b'x') => {
                    let keys = [
                        "comment",
                        "mtime",
                        "SCHILY.xattr.user.k",
                        "SCHILY.acl.access",
                        "SCHILY.xattr.odd",
                        "SCHILY.fflags",
                        "SCHILY.acl.ace",
                    ];
                    let key = dice.one(&keys);
                    let value = match key {
                        "SCHILY.acl.access" => "user::rwx,group::r-x,other::r-x",
                        "comment" => dice.one(&["17", OF_IMAGE]),
                        _ => "17",
                    };
                    member(&mut archive, kind, "pax", "", &record(key, value), mode);
                }
                b'L' => member(&mut archive, b'L', "long", "", b"a/long-name\0", mode),
                b'0' => member(&mut archive, b'0', path, "", &data, mode),
                kind @ (b'1' | b'2') => member(&mut archive, kind, path, dice.one(&names), b"", mode),
                kind => member(&mut archive, kind, path, "", b"", mode),
            }
        }
        archive.extend([0; 1024]);
        let wanted = by_tree(&archive).map_err(|error| error.to_string());
        let found = ArchiveEntries::of(opened(&archive), &std::env::temp_dir(), None);
        let found = found.and_then(|entries| {
            sorted += usize::from(entries.is_streamed());
            Ok((entries.warnings().clone(), entries.collect::<Result<Vec<Entry>>>()?))
        });
        assert_eq!(found.map_err(|error| error.to_string()), wanted, "round {round}");
    }
    assert!(sorted > 1000, "only {sorted} archives were sorted");
}

#[test]
fn an_archive_as_tar_writes_it_needs_no_tree() {
    let mut archive = Vec::new();
    member(&mut archive, b'g', "pax_global_header", "", &record("comment", "1234"), 0o644);
    for path in ["./", "./z/", "./z/f", "./a/", "./a/g"] {
        let kind = if path.ends_with('/') { b'5' } else { b'0' };
        member(&mut archive, kind, path, "", b"", 0o755);
    }
    member(&mut archive, b'1', "./z/link", "./a/g", b"", 0o644);
    member(&mut archive, b'2', "./z/soft", "../a", b"", 0o777);
    let entries = ArchiveEntries::of(opened(&archive), &std::env::temp_dir(), None).unwrap();
    assert!(entries.is_streamed());
    let entries: Vec<Entry> = entries.map(Result::unwrap).collect();
    assert_eq!(entries, by_tree(&archive).unwrap().1);
    assert_eq!(entries.last().unwrap().path, b"/z/soft");
    assert!(entries.iter().any(|entry| entry.node == Node::HardLink(b"/a/g".to_vec())));
}

#[test]
fn links_of_an_archive_of_an_image_keep_their_permissions() {
    let mut archive = Vec::new();
    member(&mut archive, b'g', "pax_global_header", "", &record("comment", OF_IMAGE), 0o644);
    member(&mut archive, b'0', "f", "", b"", 0o644);
    member(&mut archive, b'2', "l", "f", b"", 0o700);
    let entries = ArchiveEntries::of(opened(&archive), &std::env::temp_dir(), None).unwrap();
    assert!(entries.is_streamed());
    let entries: Vec<Entry> = entries.map(Result::unwrap).collect();
    assert!(matches!(&entries.last().unwrap().node, Node::Inode(inode) if inode.mode == 0o700));
    assert_eq!(entries, by_tree(&archive).unwrap().1);
}
