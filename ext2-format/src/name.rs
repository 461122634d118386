//! Names of files, which are bytes.

use alloc::string::String;
use alloc::vec::Vec;
use core::borrow::Borrow;
use core::fmt::{self, Write};
use core::ops::Deref;

/// A name of a file, or a path. Any byte but 0 and `/` may be in a name; most names are UTF-8, and nothing sees to it.
///
/// It is a slice of bytes for whoever compares, and readable for whoever prints: what is UTF-8 and printable is shown as it
/// is, every other byte as `\xHH` and a backslash as `\\`, so that two names never look the same.
///
/// ```
/// use ext2_format::Name;
///
/// let name = Name::from(b"caf\xc3\xa9\n\xff".to_vec());
/// assert_eq!(name.to_string(), r"café\x0a\xff");
/// assert_eq!(format!("{name:?}"), r#""café\x0a\xff""#);
/// assert_eq!(Name::from("lost+found"), "lost+found");
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Name(Vec<u8>);

impl Name {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, owned.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The name as text; `None` where it is not UTF-8.
    #[must_use]
    pub fn to_str(&self) -> Option<&str> {
        core::str::from_utf8(&self.0).ok()
    }

    /// Whether it is `.` or `..`.
    #[must_use]
    pub fn is_dots(&self) -> bool {
        matches!(&self.0[..], b"." | b"..")
    }
}

/// Writes bytes as [`Name`] shows them.
pub fn show(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\\' => f.write_str("\\\\")?,
                control if control.is_control() => {
                    let mut buffer = [0; 4];
                    control
                        .encode_utf8(&mut buffer)
                        .bytes()
                        .try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
                }
                char => f.write_char(char)?,
            }
        }
        chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
    }
    Ok(())
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.0, f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        show(&self.0, f)?;
        f.write_char('"')
    }
}

impl Deref for Name {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Name {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Name {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for Name {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl From<Name> for Vec<u8> {
    fn from(name: Name) -> Self {
        name.0
    }
}

macro_rules! equal_bytes {
    ($($other:ty),*) => {$(
        impl PartialEq<$other> for Name {
            fn eq(&self, other: &$other) -> bool {
                let other: &[u8] = other.as_ref();
                self.0 == other
            }
        }
    )*};
}

equal_bytes!([u8], &[u8], str, &str, Vec<u8>, String);

impl<const N: usize> PartialEq<[u8; N]> for Name {
    fn eq(&self, other: &[u8; N]) -> bool {
        self.0 == other
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for Name {
    fn eq(&self, other: &&[u8; N]) -> bool {
        self.0 == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn names_that_differ_are_shown_differently() {
        let names: [&[u8]; 9] =
            [b"a", b"a b", b"\\x41", b"A", b"\\", b"\\\\", b"\xff", b"\\xff", "\u{85}".as_bytes()];
        let shown: alloc::collections::BTreeSet<String> =
            names.iter().map(|&name| format!("{}", Name::from(name))).collect();
        assert_eq!(shown.len(), names.len());
        assert_eq!(format!("{}", Name::from(&b"a b\xc3"[..])), "a b\\xc3");
    }

    #[test]
    fn a_name_is_compared_with_bytes_and_text() {
        let name = Name::from("a");
        assert!(name == b"a" && name == *b"a" && name == "a" && name == b"a"[..] && name != "b");
        assert_eq!((name.to_str(), name.is_dots()), (Some("a"), false));
        assert_eq!(Name::from(&b"\xff"[..]).to_str(), None);
    }
}
