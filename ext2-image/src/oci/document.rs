//! Documents in JSON, as far as they are read.

use serde_json::Value;

use super::digest::Digest;
use crate::mkfs::{Error, Result};

/// A document, and what it is called in messages.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) name: String,
    pub(super) value: Value,
}

/// What an index or manifest says of a blob.
#[derive(Clone, Debug)]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl Document {
    pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<Self> {
        let value = serde_json::from_slice(bytes)
            .map_err(|error| Error::source(name.as_bytes(), format!("is no JSON: {error}")))?;
        Ok(Self { name: name.into(), value })
    }

    /// An error about this document.
    pub(super) fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::source(self.name.as_bytes(), what)
    }

    /// The list under a key.
    pub(super) fn list(&self, key: &str) -> Result<&[Value]> {
        let list = self.value.get(key).and_then(Value::as_array);
        list.map(Vec::as_slice).ok_or_else(|| self.error(format_args!("has no list {key:?}")))
    }

    /// A descriptor.
    pub(super) fn descriptor(&self, value: &Value) -> Result<Descriptor> {
        let text = |key| value.get(key).and_then(Value::as_str);
        let digest = text("digest").ok_or_else(|| self.error("has a descriptor without a digest"))?;
        let parsed = Digest::parse(digest)
            .ok_or_else(|| self.error(format_args!("{digest:?} is no digest that is known")))?;
        let size = value.get("size").and_then(Value::as_u64);
        let size = size.ok_or_else(|| self.error(format_args!("does not say the size of {digest}")))?;
        Ok(Descriptor { media_type: text("mediaType").unwrap_or_default().into(), digest: parsed, size })
    }
}
