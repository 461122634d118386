//! Tests of the text: written, read back, compared.

use alloc::{format, string::ToString, vec, vec::Vec};

use proptest::{collection::vec as list, option, prelude::*};

use super::*;

const SAMPLE: &str = "e2dax-manifest 1
fs block-size=1024 label=a\\x20b
/ d 0755 0 0 1024 3 atime=1 mtime=2 ctime=3
/a\\x20b f 4644 1000 4294967295 8192 2 mtime=-2.500000000 crtime=4294967296 xattr=user.a:00ff,user.b: flags=ia holes=0+1024,2048+6144 crc=0badcafe
/dev d 0755 0 0 - -
/dev/null c 0666 0 0 0 1 dev=1:3
/dev/sda b 0660 0 6 0 1 dev=259:1048575
/dev/pipe p 0600 0 0 0 1
/dev/sock s 0600 0 0 0 1
/link l 0777 0 0 4 1 target=a\\x20b
/other h hardlink=/a\\x20b
";

#[test]
fn a_manifest_reads_back_as_it_was_written() {
    let manifest = parse(SAMPLE).unwrap();
    let text = manifest.to_string();
    assert_eq!(parse(&text).unwrap(), manifest);
    let mut expected: Vec<&str> = SAMPLE.lines().skip(2).collect();
    expected.sort_unstable();
    assert_eq!(text.lines().skip(2).collect::<Vec<_>>(), expected, "the order is the one of LC_ALL=C sort");
}

#[test]
fn comments_empty_lines_and_any_order_are_read() {
    let text = "# first\n\ne2dax-manifest 1\n/z f 0644 0 0 0 1\n#/b\n/ d 0755 0 0 - -\n";
    let manifest = parse(text).unwrap();
    assert_eq!(manifest.entries().iter().map(|e| &e.path[..]).collect::<Vec<_>>(), [&b"/"[..], b"/z"]);
}

#[test]
fn a_later_name_answers_with_the_inode_of_the_first() {
    let manifest = parse(SAMPLE).unwrap();
    assert_eq!(manifest.inode(b"/other"), manifest.inode(b"/a b"));
    assert_eq!(manifest.inode(b"/other").unwrap().mode, 0o4644);
    assert_eq!(manifest.inode(b"/nothing"), None);
}

#[test]
fn every_fault_is_reported_with_its_line() {
    let root = "/ d 0755 0 0 - -";
    let cases = [
        ("", 1, "e2dax-manifest"),
        ("e2dax-manifest 2\n", 1, "e2dax-manifest"),
        ("e2dax-manifest 1\n/ d 755 0 0 - -\n", 2, "mode"),
        ("e2dax-manifest 1\n/ d 0788 0 0 - -\n", 2, "mode"),
        ("e2dax-manifest 1\n/ d 0755 -1 0 - -\n", 2, "uid"),
        ("e2dax-manifest 1\n/ d 0755 0 4294967296 - -\n", 2, "gid"),
        ("e2dax-manifest 1\n/ d 0755 0 0 x -\n", 2, "size"),
        ("e2dax-manifest 1\n/ d 0755 0 0 0\n", 2, "nlink"),
        ("e2dax-manifest 1\n/ x 0755 0 0 - -\n", 2, "type"),
        ("e2dax-manifest 1\n/ d 0755 0 0 - - colour=red\n", 2, "unknown"),
        ("e2dax-manifest 1\n/ d 0755 0 0 - - crc=00000000\n", 2, "unknown"),
        ("e2dax-manifest 1\n/ d 0755 0 0 - - mtime=1.5\n", 2, "time"),
        ("e2dax-manifest 1\n/ d 0755 0 0 - - mtime=1 mtime=1\n", 2, "twice"),
        ("e2dax-manifest 1\n/ d 0755 0 0 - -  mtime=1\n", 2, "space"),
        ("e2dax-manifest 1\n/ f 0755 0 0 - -\n", 2, "root"),
        ("e2dax-manifest 1\nROOT\nROOT\n", 3, "twice"),
        ("e2dax-manifest 1\nROOT\n/a/b f 0644 0 0 0 1\n", 3, "parent"),
        ("e2dax-manifest 1\nROOT\n/a/ f 0644 0 0 0 1\n", 3, "name"),
        ("e2dax-manifest 1\nROOT\n/.. f 0644 0 0 0 1\n", 3, "name"),
        ("e2dax-manifest 1\nROOT\na f 0644 0 0 0 1\n", 3, "path"),
        ("e2dax-manifest 1\nROOT\n/a h hardlink=/b\n/b f 0644 0 0 0 2\n", 3, "hardlink"),
        ("e2dax-manifest 1\nROOT\n/a h hardlink=/\n", 3, "hardlink"),
        ("e2dax-manifest 1\nROOT\n/a h hardlink=/ crc=1\n", 3, "no other"),
        ("e2dax-manifest 1\nROOT\n/a l 0777 0 0 0 1\n", 3, "target"),
        ("e2dax-manifest 1\nROOT\n/a c 0777 0 0 0 1 dev=1\n", 3, "dev"),
        ("e2dax-manifest 1\nROOT\n/a f 0777 0 0 9 1 holes=0+10\n", 3, "past the size"),
        ("e2dax-manifest 1\nROOT\n/a f 0777 0 0 9 1 holes=0+1,1+1\n", 3, "apart"),
        ("e2dax-manifest 1\nROOT\n/a f 0777 0 0 9 1 holes=1+18446744073709551615\n", 3, "holes"),
        ("e2dax-manifest 1\nROOT\n/a f 0777 0 0 9 1 crc=12345\n", 3, "crc"),
        ("e2dax-manifest 1\nROOT\n/a f 0777 0 0 9 1 xattr=b:,a:\n", 3, "xattr"),
        ("e2dax-manifest 1\nROOT\n/a f 0777 0 0 9 1 flags=zz\n", 3, "flags"),
        ("e2dax-manifest 1\nROOT\nfs a=b\n", 3, "fs line"),
        ("e2dax-manifest 1\nfs ROOT\n", 2, "fs line"),
        ("e2dax-manifest 1\nfs A=b\nROOT\n", 2, "fs line"),
    ];
    for (text, line, word) in cases {
        let error = parse(&text.replace("ROOT", root)).expect_err(text);
        assert!(error.line() == line && error.to_string().contains(word), "{text:?} gave {error}");
    }
}

#[test]
fn a_difference_names_the_path_and_the_field() {
    let left = parse(SAMPLE).unwrap();
    let right = SAMPLE
        .replace("label=a\\x20b", "label=c")
        .replace("crc=0badcafe", "crc=0badcaff")
        .replace("4644", "0644")
        .replace("holes=0+1024,2048+6144", "holes=0+1024")
        .replace(",user.b:", "")
        .replace("dev=1:3", "dev=1:5")
        .replace("/dev/pipe p", "/dev/pipf p")
        .replace("/dev/sock s", "/dev/sock p");
    let right = parse(&right).unwrap();
    let found: Vec<_> = diff(&left, &right).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "fs: label: a\\x20b != c",
            "/a\\x20b: mode: 4644 != 0644",
            "/a\\x20b: xattr: user.a:00ff,user.b: != user.a:00ff",
            "/a\\x20b: holes: 0+1024,2048+6144 != 0+1024",
            "/a\\x20b: crc: 0badcafe != 0badcaff",
            "/dev/null: dev: 1:3 != 1:5",
            "/dev/pipe: path: there != missing",
            "/dev/pipf: path: missing != there",
            "/dev/sock: type: s != p",
        ]
    );
}

#[test]
fn what_one_side_does_not_say_is_not_compared() {
    let left = parse("e2dax-manifest 1\n/ d 0755 0 0 4096 2 mtime=1 ctime=9\n").unwrap();
    let right = parse("e2dax-manifest 1\nfs label=x\n/ d 0755 0 0 - - mtime=1\n").unwrap();
    assert_eq!(diff(&left, &right), []);
    assert_ne!(left, right);
}

/// Any tree of up to a few files under the root.
fn manifests() -> impl Strategy<Value = Manifest> {
    let time = || {
        option::of((any::<i64>(), 0_u32..1_000_000_000))
            .prop_map(|time| time.map(|(seconds, nanoseconds)| Time { seconds, nanoseconds }))
    };
    let name = list(any::<u8>().prop_filter("a name has no / or NUL", |b| *b != 0 && *b != b'/'), 1..9)
        .prop_filter("dots are not names", |name| !matches!(&name[..], b"." | b".."));
    let kind = prop_oneof![
        option::of(any::<u32>()).prop_map(|crc| Kind::File { holes: Vec::new(), crc }),
        any::<u32>().prop_map(|crc| Kind::File {
            holes: vec![ByteSpan { offset: 0, length: 7 }, ByteSpan { offset: 9, length: 1 }],
            crc: Some(crc)
        }),
        list(any::<u8>(), 0..9).prop_map(|target| Kind::Symlink { target }),
        (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
        (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| Kind::BlockDevice { major, minor }),
        Just(Kind::Directory),
        Just(Kind::Fifo),
        Just(Kind::Socket),
    ];
    let xattrs = proptest::collection::btree_map(list(any::<u8>(), 1..6), list(any::<u8>(), 0..6), 0..3)
        .prop_map(|map| map.into_iter().map(|(name, value)| Xattr { name, value }).collect());
    let owner = (0_u16..0o10000, any::<u32>(), any::<u32>(), option::of(10_u64..), option::of(any::<u32>()));
    let inode = (kind, owner, (time(), time(), time(), time()), xattrs, any::<u32>()).prop_map(
        |(kind, (mode, uid, gid, size, nlink), (atime, mtime, ctime, crtime), xattrs, flags)| Inode {
            kind,
            mode,
            uid,
            gid,
            size,
            nlink,
            atime,
            mtime,
            ctime,
            crtime,
            xattrs,
            flags: AttributeFlags::from_inode_flags(flags),
        },
    );
    proptest::collection::btree_map(name, inode, 0..6).prop_map(|files| {
        let root = parse("e2dax-manifest 1\n/ d 0755 0 0 - -\n").unwrap().entries()[0].clone();
        let mut entries = vec![root];
        for (name, inode) in files {
            let path = [b"/", &name[..]].concat();
            if inode.kind != Kind::Directory {
                let again = [b"/\xff again ", &name[..]].concat();
                entries.push(Entry { path: again, node: Node::HardLink(path.clone()) });
            }
            entries.push(Entry { path, node: Node::Inode(inode) });
        }
        // A random name may sort after its second name; such a list is rightly refused.
        let mut manifest = Manifest::new(entries.clone()).unwrap_or_else(|_| {
            entries.retain(|entry| matches!(entry.node, Node::Inode(_)));
            Manifest::new(entries).unwrap()
        });
        assert!(manifest.set_filesystem("label", b"any \xfe"));
        manifest
    })
}

proptest! {
    #[test]
    fn any_manifest_survives_its_text(manifest in manifests()) {
        let text = manifest.to_string();
        prop_assert_eq!(parse(&text).unwrap(), manifest);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(?s).{0,200}", tail in "[ -~\n]{0,200}") {
        let _ = parse(&text);
        let _ = parse(&format!("e2dax-manifest 1\n/ d 0755 0 0 - -\n/{tail}"));
    }
}
