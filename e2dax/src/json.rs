//! JSON, written. The schema of each verb is in `docs/formats.md`.
//!
//! Names are bytes and JSON is text: [`Json::bytes`] writes a byte that is not part of valid UTF-8 as `\xHH`, and the
//! backslash itself as `\x5c`, so that every name has one form and no two names share one.

use std::fmt::{self, Write as _};

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    /// `null`: not known, or not there.
    Null,
    /// `true` and `false`.
    Bool(bool),
    /// A whole number. There are no others here.
    Number(i128),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// Keys and values, in this order.
    Object(Vec<(&'static str, Json)>),
}

/// An object: `object! { "key": value, … }`.
macro_rules! object {
    ($($key:literal: $value:expr),* $(,)?) => {
        $crate::json::Json::Object(vec![$(($key, $crate::json::Json::from($value))),*])
    };
}
pub(crate) use object;

impl Json {
    /// A name, path, target or label.
    pub(crate) fn bytes(bytes: &[u8]) -> Self {
        let mut text = String::new();
        for chunk in bytes.utf8_chunks() {
            for letter in chunk.valid().chars() {
                if letter == '\\' { text.push_str("\\x5c") } else { text.push(letter) }
            }
            for byte in chunk.invalid() {
                // Writing to a String does not fail.
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
        Self::Text(text)
    }

    /// A list of the values.
    pub(crate) fn list<T: Into<Json>>(values: impl IntoIterator<Item = T>) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }

    /// The object with more keys at its end; any other value as it is.
    pub(crate) fn with(mut self, key: &'static str, value: impl Into<Json>) -> Self {
        if let Self::Object(pairs) = &mut self {
            pairs.push((key, value.into()));
        }
        self
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(text) => write_text(f, text),
            Self::List(values) => {
                f.write_char('[')?;
                for (nr, value) in values.iter().enumerate() {
                    let comma = if nr > 0 { "," } else { "" };
                    write!(f, "{comma}{value}")?;
                }
                f.write_char(']')
            }
            Self::Object(pairs) => {
                f.write_char('{')?;
                for (nr, (key, value)) in pairs.iter().enumerate() {
                    let comma = if nr > 0 { "," } else { "" };
                    write!(f, "{comma}\"{key}\":{value}")?;
                }
                f.write_char('}')
            }
        }
    }
}

/// Text in quotes, with what JSON does not allow in them escaped.
fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for letter in text.chars() {
        match letter {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            '\u{7f}'..='\u{9f}' | '\0'..='\u{1f}' => write!(f, "\\u{:04x}", u32::from(letter))?,
            _ => f.write_char(letter)?,
        }
    }
    f.write_char('"')
}

macro_rules! from_number {
    ($($type:ty),*) => {$(
        impl From<$type> for Json {
            fn from(value: $type) -> Self {
                Self::Number(i128::from(value))
            }
        }
    )*};
}
from_number!(u8, u16, i16, u32, i32, u64, i64);

impl From<usize> for Json {
    fn from(value: usize) -> Self {
        // OK to cast: no machine's usize has more than 128 bits.
        Self::Number(value as i128)
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Json {
    fn from(value: &str) -> Self {
        Self::Text(value.into())
    }
}

impl From<String> for Json {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<Vec<Json>> for Json {
    fn from(value: Vec<Json>) -> Self {
        Self::List(value)
    }
}

impl<T: Into<Json>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_nest_and_keep_the_order_of_their_keys() {
        let value = object! { "b": 1_u64, "a": Json::list([true, false]), "none": None::<u64> };
        assert_eq!(value.to_string(), r#"{"b":1,"a":[true,false],"none":null}"#);
        assert_eq!(value.with("c", "x").to_string(), r#"{"b":1,"a":[true,false],"none":null,"c":"x"}"#);
    }

    #[test]
    fn names_that_are_no_text_have_a_form_of_their_own() {
        assert_eq!(Json::bytes(b"a\xffb").to_string(), r#""a\\xffb""#);
        assert_eq!(Json::bytes(b"a\\xffb").to_string(), r#""a\\x5cxffb""#);
        assert_eq!(Json::bytes("ä".as_bytes()).to_string(), "\"ä\"");
    }

    #[test]
    fn control_characters_and_quotes_are_escaped() {
        assert_eq!(Json::from("\"\n\u{1}\u{9b}").to_string(), r#""\"\n\u0001\u009b""#);
    }
}
