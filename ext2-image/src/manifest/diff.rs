//! Two manifests compared, file by file and field by field.

use alloc::{format, string::String, vec::Vec};
use core::{cmp::Ordering, fmt, fmt::Write};

use super::{Entry, Inode, Kind, Manifest, Node, quote, text::xattr_list};

/// One field of one file that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Path of the file; empty for a key of the `fs` line.
    pub path: Vec<u8>,
    /// Name of the field as the manifest spells it, or `path` where the file is missing on one side.
    pub field: String,
    /// The field on the left, as text; `-` where it is not there.
    pub left: String,
    /// The field on the right.
    pub right: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "fs".into() } else { quote(&self.path) };
        write!(f, "{path}: {}: {} != {}", self.field, self.left, self.right)
    }
}

/// What differs between two manifests, in the order of the paths; empty where they say the same.
///
/// What only one side says of a file (`None`: times, size, link count, CRC; a key of the `fs` line) is not compared.
/// Everything else is, so that a missing xattr or hole is a difference.
pub fn diff(left: &Manifest, right: &Manifest) -> Vec<Difference> {
    let mut found = Vec::new();
    for (key, a) in left.filesystem() {
        if let Some(b) = right.filesystem().get(key).filter(|b| *b != a) {
            found.push(Difference { path: Vec::new(), field: key.clone(), left: quote(a), right: quote(b) });
        }
    }
    let all = |manifest: &Manifest| manifest.entries().to_vec().into_iter().map(Ok::<_, Never>);
    match diff_entries(all(left), all(right), &mut |difference| found.push(difference)) {
        Ok(()) => found,
        Err(never) => match never {},
    }
}

/// An error that cannot be.
enum Never {}

/// As [`diff`], of entries as they come, both in the order of a manifest. Only one entry of each side is held.
///
/// # Errors
/// The first error of either side.
pub fn diff_entries<E>(
    left: impl Iterator<Item = Result<Entry, E>>,
    right: impl Iterator<Item = Result<Entry, E>>,
    each: &mut dyn FnMut(Difference),
) -> Result<(), E> {
    let (mut left, mut right) = (left, right);
    let (mut a, mut b) = (left.next().transpose()?, right.next().transpose()?);
    loop {
        let order = match (&a, &b) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => quote(&a.path).cmp(&quote(&b.path)),
        };
        let one = if order.is_le() { a.take() } else { None };
        let other = if order.is_ge() { b.take() } else { None };
        match (&one, &other) {
            (Some(one), Some(other)) => diff_entry(one, other, each),
            (Some(only), None) => each(missing(only, "there", "missing")),
            (None, Some(only)) => each(missing(only, "missing", "there")),
            (None, None) => return Ok(()),
        }
        if one.is_some() {
            a = left.next().transpose()?;
        }
        if other.is_some() {
            b = right.next().transpose()?;
        }
    }
}

/// A file that one side does not have.
fn missing(entry: &Entry, left: &str, right: &str) -> Difference {
    Difference { path: entry.path.clone(), field: "path".into(), left: left.into(), right: right.into() }
}

/// Compares two entries of the same path.
fn diff_entry(a: &Entry, b: &Entry, each: &mut dyn FnMut(Difference)) {
    let mut compare = Comparison { path: &a.path, each };
    match (&a.node, &b.node) {
        (Node::Inode(a), Node::Inode(b)) => diff_inode(a, b, &mut compare),
        (a, b) => {
            let first = |node: &Node| match node {
                Node::HardLink(first) => quote(first),
                Node::Inode(_) => "-".into(),
            };
            compare.texts("hardlink", first(a), first(b));
        }
    }
}

/// Compares two inodes of the same path.
fn diff_inode(a: &Inode, b: &Inode, compare: &mut Comparison<'_>) {
    compare.texts("type", a.kind.letter().into(), b.kind.letter().into());
    compare.texts("mode", format!("{:04o}", a.mode), format!("{:04o}", b.mode));
    compare.said("uid", Some(a.uid), Some(b.uid));
    compare.said("gid", Some(a.gid), Some(b.gid));
    compare.said("size", a.size, b.size);
    compare.said("nlink", a.nlink, b.nlink);
    compare.said("atime", a.atime, b.atime);
    compare.said("mtime", a.mtime, b.mtime);
    compare.said("ctime", a.ctime, b.ctime);
    compare.said("crtime", a.crtime, b.crtime);
    compare.texts("xattr", xattr_list(&a.xattrs), xattr_list(&b.xattrs));
    compare.texts("flags", a.flags.letters(), b.flags.letters());
    match (&a.kind, &b.kind) {
        (Kind::File { holes: a, crc: x }, Kind::File { holes: b, crc: y }) => {
            if a != b {
                compare.texts("holes", span_list(a), span_list(b));
            }
            compare.said("crc", x.map(|x| format!("{x:08x}")), y.map(|y| format!("{y:08x}")));
        }
        (Kind::Symlink { target: a }, Kind::Symlink { target: b }) => {
            compare.texts("target", quote(a), quote(b));
        }
        (Kind::CharDevice { major: a, minor: x }, Kind::CharDevice { major: b, minor: y })
        | (Kind::BlockDevice { major: a, minor: x }, Kind::BlockDevice { major: b, minor: y }) => {
            compare.texts("dev", format!("{a}:{x}"), format!("{b}:{y}"));
        }
        _ => {}
    }
}

/// `offset+length,…`, as the `holes` field has it.
fn span_list(spans: &[super::ByteSpan]) -> String {
    let mut out = String::new();
    for (index, span) in spans.iter().enumerate() {
        let lead = if index == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(out, "{lead}{}+{}", span.offset, span.length);
    }
    out
}

/// Where the differences of one file go.
struct Comparison<'a> {
    path: &'a [u8],
    each: &'a mut dyn FnMut(Difference),
}

impl Comparison<'_> {
    /// Compares a field that is always said; the empty text is shown as `-`.
    fn texts(&mut self, field: &str, left: String, right: String) {
        if left != right {
            let shown = |text: String| if text.is_empty() { "-".into() } else { text };
            let (left, right) = (shown(left), shown(right));
            (self.each)(Difference { path: self.path.to_vec(), field: field.into(), left, right });
        }
    }

    /// Compares a field where both sides say it.
    fn said<T: PartialEq + fmt::Display>(&mut self, field: &str, left: Option<T>, right: Option<T>) {
        if let (Some(left), Some(right)) = (left, right)
            && left != right
        {
            self.texts(field, format!("{left}"), format!("{right}"));
        }
    }
}
