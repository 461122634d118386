//! The language of scripts: one operation a line.

use std::fmt;

use crate::mmu::{Protection, Sharing};

/// No script is longer than this many bytes; the longest recorded one has 5000.
const LONGEST: usize = 16 << 20;

/// What kind of mapping `map` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapMode {
    /// With whom stores are shared.
    pub sharing: Sharing,
    /// What may be done, and what the file is opened for.
    pub protection: Protection,
}

/// One operation. Paths are bytes without a leading slash; numbers are bytes unless they say otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are those of the table in testdata/linux-6.1/README.md
pub enum Op {
    Create { path: String },
    Write { path: String, pos: u64, len: u64, seed: u64, good: Option<u64> },
    Read { path: String, pos: u64, len: u64, good: Option<u64> },
    Truncate { path: String, size: u64 },
    Fsync { path: String },
    Fallocate { path: String, pos: u64, len: u64, mode: u64 },
    Stat { path: String },
    Fiemap { path: String },
    SeekHole { path: String, pos: u64 },
    SeekData { path: String, pos: u64 },
    Mkdir { path: String },
    Rmdir { path: String },
    Unlink { path: String },
    Rename { from: String, to: String },
    Link { from: String, to: String },
    Symlink { target: String, path: String },
    Map { name: String, path: String, pos: u64, len: u64, kind: MapMode, delta: u64 },
    Unmap { name: String },
    Load { name: String, pos: u64 },
    Store { name: String, pos: u64, value: u8 },
    Touch { name: String, pos: u64, len: u64 },
    Mcrc { name: String, pos: u64, len: u64 },
    Msync { name: String, pos: u64, len: u64 },
}

/// An operation and how it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line {
    /// The line without comment and surrounding blanks.
    pub text: String,
    /// What it says.
    pub op: Op,
}

/// A script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// Its operations in order.
    pub lines: Vec<Line>,
}

/// A line that is no operation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for ParseError {}

impl Script {
    /// Parses a script.
    ///
    /// # Errors
    /// The first line that is no operation; a script that is not UTF-8, or of more than 16 MiB.
    pub fn parse(text: &[u8]) -> Result<Self, ParseError> {
        if text.len() > LONGEST {
            return Err(ParseError { line: 1, what: format!("a script has at most {LONGEST} bytes") });
        }
        let mut lines = Vec::new();
        for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let error = |what| ParseError { line: at + 1, what };
            let line = std::str::from_utf8(line).map_err(|_| error("not UTF-8".into()))?;
            let text = line.split('#').next().unwrap_or_default().trim();
            if !text.is_empty() {
                let op = parse_op(text).map_err(error)?;
                lines.push(Line { text: text.to_owned(), op });
            }
        }
        Ok(Self { lines })
    }
}

/// The words of a line, taken one by one.
struct Words<'a>(std::str::SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn word(&mut self, what: &str) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| format!("{what} is missing"))
    }

    fn path(&mut self) -> Result<String, String> {
        self.word("a path").map(str::to_owned)
    }

    fn name(&mut self) -> Result<String, String> {
        self.word("the name of a mapping").map(str::to_owned)
    }

    fn number(&mut self, what: &str) -> Result<u64, String> {
        let word = self.word(what)?;
        number(word).ok_or_else(|| format!("{word:?} is no number for {what}"))
    }

    fn kind(&mut self) -> Result<MapMode, String> {
        let sharing = match self.word("shared, private or sync")? {
            "shared" => Sharing::Shared,
            "private" => Sharing::Private,
            "sync" => Sharing::Synchronous,
            other => return Err(format!("{other:?} is not shared, private or sync")),
        };
        let protection = match self.word("ro or rw")? {
            "ro" => Protection::ReadOnly,
            "rw" => Protection::ReadWrite,
            other => return Err(format!("{other:?} is not ro or rw")),
        };
        Ok(MapMode { sharing, protection })
    }
}

/// A number as C writes it: decimal, `0x` hexadecimal, `0` octal; a minus sign wraps, as `strtoull` has
/// it.
fn number(word: &str) -> Option<u64> {
    let (negative, digits) = match word.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, word),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        (!hex.starts_with('+')).then(|| u64::from_str_radix(hex, 16).ok())??
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(digits, 8).ok()?
    } else {
        digits.parse().ok()?
    };
    Some(if negative { value.wrapping_neg() } else { value })
}

fn parse_op(text: &str) -> Result<Op, String> {
    let mut words = Words(text.split_whitespace());
    let verb = words.word("an operation")?;
    let op = match verb {
        "create" => Op::Create { path: words.path()? },
        "write" | "writefault" => Op::Write {
            path: words.path()?,
            pos: words.number("the offset")?,
            len: words.number("the length")?,
            seed: words.number("the seed")?,
            good: (verb == "writefault").then(|| words.number("the good bytes")).transpose()?,
        },
        "read" => Op::Read {
            path: words.path()?,
            pos: words.number("the offset")?,
            len: words.number("the length")?,
            good: None,
        },
        "readfault" => {
            let (path, pos, len) = (words.path()?, words.number("the offset")?, words.number("the length")?);
            words.number("the seed")?;
            Op::Read { path, pos, len, good: Some(words.number("the good bytes")?) }
        }
        "truncate" => Op::Truncate { path: words.path()?, size: words.number("the size")? },
        "fsync" => Op::Fsync { path: words.path()? },
        "fallocate" => Op::Fallocate {
            path: words.path()?,
            pos: words.number("the offset")?,
            len: words.number("the length")?,
            mode: words.number("the mode")?,
        },
        "stat" => Op::Stat { path: words.path()? },
        "fiemap" => Op::Fiemap { path: words.path()? },
        "seekhole" => Op::SeekHole { path: words.path()?, pos: words.number("the offset")? },
        "seekdata" => Op::SeekData { path: words.path()?, pos: words.number("the offset")? },
        "mkdir" => Op::Mkdir { path: words.path()? },
        "rmdir" => Op::Rmdir { path: words.path()? },
        "unlink" => Op::Unlink { path: words.path()? },
        "rename" => Op::Rename { from: words.path()?, to: words.path()? },
        "link" => Op::Link { from: words.path()?, to: words.path()? },
        "symlink" => Op::Symlink { target: words.path()?, path: words.path()? },
        "map" => Op::Map {
            name: words.name()?,
            path: words.path()?,
            pos: words.number("the offset")?,
            len: words.number("the length")?,
            kind: words.kind()?,
            delta: words.0.clone().next().map_or(Ok(0), |_| words.number("the delta"))?,
        },
        "unmap" => Op::Unmap { name: words.name()? },
        "load" => Op::Load { name: words.name()?, pos: words.number("the offset")? },
        "store" => Op::Store {
            name: words.name()?,
            pos: words.number("the offset")?,
            // OK to cast: a byte is stored, as in C.
            value: words.number("the value")? as u8,
        },
        "touch" => Op::Touch {
            name: words.name()?,
            pos: words.number("the offset")?,
            len: words.number("the length")?,
        },
        "mcrc" => Op::Mcrc {
            name: words.name()?,
            pos: words.number("the offset")?,
            len: words.number("the length")?,
        },
        "msync" => Op::Msync {
            name: words.name()?,
            pos: words.number("the offset")?,
            len: words.number("the length")?,
        },
        other => return Err(format!("{other:?} is no operation")),
    };
    match words.0.next() {
        Some(extra) => Err(format!("{extra:?} is one word too many")),
        None => Ok(op),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_c() {
        let cases =
            [("0", Some(0)), ("10", Some(10)), ("0x1F", Some(31)), ("010", Some(8)), ("-1", Some(u64::MAX))];
        for (word, value) in cases {
            assert_eq!(number(word), value, "{word}");
        }
        for word in ["", "-", "0x", "0x+1", "+1", "--1", "08", "1k", "18446744073709551616"] {
            assert_eq!(number(word), None, "{word}");
        }
    }

    #[test]
    fn a_script_is_its_lines_without_comments() {
        let script =
            Script::parse(b"# all of it\n create f  # now\n\nmap m f 0 4096 sync ro 0x1000\n").unwrap();
        assert_eq!(script.lines.len(), 2);
        assert_eq!(script.lines[0].text, "create f");
        assert!(matches!(script.lines[1].op, Op::Map { delta: 4096, .. }));
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        for (text, what) in [
            ("create f\nfly f", "line 2: \"fly\" is no operation"),
            ("write f 0 1", "line 1: the seed is missing"),
            ("load m x", "line 1: \"x\" is no number for the offset"),
            ("stat f g", "line 1: \"g\" is one word too many"),
            ("map m f 0 1 open rw", "line 1: \"open\" is not shared, private or sync"),
        ] {
            assert_eq!(Script::parse(text.as_bytes()).unwrap_err().to_string(), what);
        }
        assert!(Script::parse(b"create \xff").is_err());
    }
}
