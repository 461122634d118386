//! Where an object is, and how it is fetched.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

/// Bytes of a block where nothing else is said, and at least and at most.
const BLOCK: u64 = 256 << 10;
const BLOCKS: (u64, u64) = (4 << 10, 64 << 20);
/// Bytes that are kept where nothing else is said: in memory and in a folder.
const IN_MEMORY: u64 = 256 << 20;
const IN_FOLDER: u64 = 4 << 30;
/// What one request may take, with all that is tried again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where fetched blocks are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// In memory.
    Memory,
    /// As files of a folder, for other processes and later ones too.
    Folder(PathBuf),
}

/// The address of an object. Behind a `#`, which no server sees, it says how to fetch: `block=BYTES`, a power of two from 4K to
/// 64M; `cache=DIR`; `cache-size=BYTES`; `patience=SECONDS`, which one request may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectUri {
    pub(super) url: Url,
    /// Bytes of a block: what is fetched at least.
    pub block: u64,
    /// Where blocks are kept.
    pub keep: Keep,
    /// Bytes of them at most; no fewer than four blocks.
    pub keep_bytes: u64,
    /// What one request may take, with all that is tried again.
    pub patience: Duration,
    /// What is said to the store besides the variables of the environment, and over them: names (`aws_endpoint`,
    /// `google_service_account`, `azure_storage_account_name` and their kind) and values, as `object_store` knows them. None are
    /// read from a text.
    pub options: Vec<(String, String)>,
}

impl ObjectUri {
    /// Whether a text is meant as one: it begins with one of the schemes.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        matches!(scheme, Some("http" | "https" | "s3" | "gs" | "az"))
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence that begins with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !Self::is_one(text) {
            return Err("is no address of HTTP or of an object store".into());
        }
        let mut url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err("names no host or bucket".into());
        }
        if url.path().trim_start_matches('/').is_empty() {
            return Err("names no file".into());
        }
        let fragment = url.fragment().unwrap_or_default().to_owned();
        url.set_fragment(None);
        let (mut block, mut keep, mut bytes, mut patience) = (BLOCK, Keep::Memory, None, PATIENCE);
        for pair in fragment.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8().map_err(|_| "says what is no UTF-8")?;
            match key {
                "block" => block = number(&value)?,
                "cache" if !value.is_empty() => keep = Keep::Folder(value.as_ref().into()),
                "cache-size" => bytes = Some(number(&value)?),
                "patience" => {
                    let seconds = value.parse().ok().filter(|seconds| (1..=3600).contains(seconds));
                    patience = Duration::from_secs(seconds.ok_or("has a patience of no 1 to 3600 seconds")?);
                }
                _ => {
                    return Err(format!(
                        "says {pair:?}: what is known is block, cache, cache-size, patience"
                    ));
                }
            }
        }
        if !block.is_power_of_two() || block < BLOCKS.0 || block > BLOCKS.1 {
            return Err(format!("has blocks of {block} bytes: a power of two from 4K to 64M"));
        }
        let usual = if keep == Keep::Memory { IN_MEMORY } else { IN_FOLDER };
        let keep_bytes = bytes.unwrap_or(usual).max(4 * block);
        Ok(Self { url, block, keep, keep_bytes, patience, options: Vec::new() })
    }
}

/// Bytes, with K, M, G behind them.
fn number(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (text.get(..at), 10),
        Some((at, 'M' | 'm')) => (text.get(..at), 20),
        Some((at, 'G' | 'g')) => (text.get(..at), 30),
        _ => (Some(text), 0),
    };
    let number = digits.and_then(|digits| digits.parse::<u64>().ok());
    let bytes = number.and_then(|number| number.checked_mul(1 << unit));
    bytes.ok_or_else(|| format!("has {text:?} where a number of bytes is expected"))
}

/// Parameters of a query that say who may read until when, and nothing of what is read: those of AWS, Google Cloud Storage,
/// CloudFront and Azure.
fn signs(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let of_signatures = [
        "awsaccesskeyid",
        "googleaccessid",
        "signature",
        "expires",
        "policy",
        "key-pair-id",
        "sig",
        "se",
        "st",
        "sp",
        "spr",
        "sip",
        "sv",
        "sr",
        "skoid",
        "sktid",
        "skt",
        "ske",
        "sks",
        "skv",
    ];
    name.starts_with("x-amz-") || name.starts_with("x-goog-") || of_signatures.contains(&name.as_str())
}

impl ObjectUri {
    /// What tells the object from others: the address with all of its query but what signs it, which is another each time.
    pub(super) fn name(&self) -> String {
        self.told(|parameter| !signs(parameter)).into()
    }

    /// The address without what may be a password, and of its query only these parameters.
    fn told(&self, is_told: impl Fn(&str) -> bool) -> Url {
        let mut url = self.url.clone();
        let _ = url.set_password(None);
        let all = self.url.query().into_iter().flat_map(|query| query.split('&'));
        let told: Vec<&str> =
            all.filter(|pair| is_told(pair.split('=').next().unwrap_or_default())).collect();
        url.set_query(Some(told.join("&")).filter(|query| !query.is_empty()).as_deref());
        url
    }
}

impl fmt::Display for ObjectUri {
    /// Without what may be a password, and without what signs it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.told(|_| false).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_say_how_to_fetch_behind_a_hash() {
        let uri = ObjectUri::parse("https://u:p@host/a%20b?sign=1#block=1M&cache=/var/c%20d&cache-size=1G")
            .unwrap();
        assert_eq!((uri.block, uri.keep_bytes), (1 << 20, 1 << 30));
        assert_eq!(uri.keep, Keep::Folder("/var/c d".into()));
        assert_eq!(uri.to_string(), "https://u@host/a%20b");
        assert_eq!(ObjectUri::parse("s3://bucket/key#patience=5").unwrap().patience, Duration::from_secs(5));
    }

    #[test]
    fn what_signs_an_address_is_no_part_of_its_name_and_all_else_is() {
        let name = |text: &str| ObjectUri::parse(text).unwrap().name();
        assert_eq!(name("https://u:p@h/x?file=a&X-Amz-Signature=1&v=2#block=1M"), "https://u@h/x?file=a&v=2");
        assert_eq!(name("https://h/x?sv=2020&sig=1%3D"), "https://h/x");
        assert_ne!(name("https://h/x?file=a.img"), name("https://h/x?file=b.img"));
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        for (text, what) in [
            ("ftp://host/x", "is no address"),
            ("https:///x", "names no file"),
            ("s3://bucket", "names no file"),
            ("s3://bucket/", "names no file"),
            ("http://h/x#block=5000", "a power of two"),
            ("http://h/x#block=1G", "a power of two"),
            ("http://h/x#block=99999999999G", "a number of bytes"),
            ("http://h/x#patience=0", "no 1 to 3600"),
            ("http://h/x#nonsense=1", "what is known"),
        ] {
            let error = ObjectUri::parse(text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
