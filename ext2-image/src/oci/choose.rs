//! From an index to the layers of one image.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::Wanted;
use super::digest::Digest;
use super::document::{Descriptor, Document};
use super::store::{Store, missing};
use crate::mkfs::{Error, Result};

/// Indexes in indexes that are followed.
const DEPTH_MAX: u32 = 4;

/// What an image runs on: `linux/amd64`, `linux/arm/v7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl FromStr for Platform {
    type Err = String;

    /// `OS/ARCHITECTURE[/VARIANT]`, or an architecture of Linux.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => return Err("OS/ARCHITECTURE[/VARIANT]".into()),
        };
        if parts.iter().any(|part| part.is_empty()) {
            return Err("OS/ARCHITECTURE[/VARIANT]".into());
        }
        Ok(Self { os: os.into(), architecture: architecture.into(), variant })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl Platform {
    fn of(value: &Value) -> Option<Self> {
        let text = |key| value.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Self { os: text("os")?, architecture: text("architecture")?, variant: text("variant") })
    }

    /// Whether an image of this platform is one of `wanted`.
    fn is(&self, wanted: &Self) -> bool {
        let variant = wanted.variant.is_none() || wanted.variant == self.variant;
        self.os == wanted.os && self.architecture == wanted.architecture && variant
    }
}

/// A layer: where its bytes are, and what they have to be.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    /// Its name in the store.
    pub(super) name: String,
    /// Of the bytes as they are stored.
    pub(super) digest: Option<Digest>,
    /// Of the bytes unpacked.
    pub(super) diff_id: Digest,
    pub(super) size: Option<u64>,
}

/// The layers of the image that is wanted, the lowest first.
pub(super) fn layers(store: &Store, wanted: &Wanted) -> Result<Vec<Layer>> {
    if let Some(bytes) = store.document("index.json")? {
        let index = Document::parse("index.json", &bytes)?;
        // Docker's own archives have both, and their index may name nothing.
        let is_empty = index.list("manifests").is_ok_and(<[Value]>::is_empty);
        if !is_empty || store.document("manifest.json")?.is_none() {
            return of_index(store, &index, wanted, true, 0);
        }
    }
    match store.document("manifest.json")? {
        Some(bytes) => of_docker(store, &Document::parse("manifest.json", &bytes)?, wanted),
        None => Err(Error::source(b"", "is no container image: it has neither index.json nor manifest.json")),
    }
}

/// Whether a name in an annotation or a list of tags is the one that is wanted.
fn is_tag(name: &str, wanted: &str) -> bool {
    let rest = name.strip_suffix(wanted);
    name == wanted
        || rest.is_some_and(|rest| rest.ends_with(':') || rest.ends_with('/') && wanted.contains(':'))
}

fn annotation<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get("annotations")?.get(key)?.as_str()
}

/// The names that an entry of an index has.
fn tags(entry: &Value) -> impl Iterator<Item = &str> {
    let keys = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];
    keys.into_iter().filter_map(|key| annotation(entry, key))
}

fn of_index(store: &Store, index: &Document, wanted: &Wanted, top: bool, depth: u32) -> Result<Vec<Layer>> {
    if depth > DEPTH_MAX {
        return Err(index.error("is an index in an index in an index, and so on"));
    }
    let mut entries: Vec<&Value> = index.list("manifests")?.iter().collect();
    if let Some(tag) = wanted.tag.as_deref().filter(|_| top) {
        let known: Vec<&str> = entries.iter().flat_map(|entry| tags(entry)).collect();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        entries.retain(|entry| tags(entry).any(|name| is_tag(name, tag)));
        if entries.is_empty() {
            return Err(index.error(format_args!("has no image {tag:?}; tags: {known}")));
        }
    }
    // Attestations of builders are not images.
    let platform = |entry: &Value| entry.get("platform").and_then(Platform::of);
    let is_image = |entry: &&Value| {
        annotation(entry, "vnd.docker.reference.type").is_none()
            && platform(entry).is_none_or(|platform| platform.os != "unknown")
    };
    entries.retain(is_image);
    if let Some(asked) = &wanted.platform {
        let found: Vec<&Value> = entries
            .iter()
            .copied()
            .filter(|entry| platform(entry).is_some_and(|own| own.is(asked)))
            .collect();
        // An entry that does not say its platform says it in its config.
        let silent = entries.iter().copied().filter(|entry| platform(entry).is_none());
        entries = if found.is_empty() { silent.collect() } else { found };
    }
    let names = |entries: &[&Value]| {
        let all = entries.iter().map(|entry| match (platform(entry), tags(entry).next()) {
            (Some(platform), Some(tag)) => format!("{tag} ({platform})"),
            (Some(platform), None) => platform.to_string(),
            (None, Some(tag)) => tag.to_owned(),
            (None, None) => "one without a name".to_owned(),
        });
        all.collect::<Vec<_>>().join(", ")
    };
    // One image under several names is one.
    let digest = |entry: &Value| entry.get("digest").cloned();
    if entries.windows(2).all(|pair| digest(pair[0]) == digest(pair[1])) {
        entries.truncate(1);
    }
    let entry = match entries[..] {
        [entry] => entry,
        [] => {
            let all: Vec<&Value> = index.list("manifests")?.iter().filter(is_image).collect();
            let asked = wanted.platform.as_ref().map_or(String::new(), |asked| format!(" for {asked}"));
            return Err(index.error(format_args!("has no image{asked}; there are: {}", names(&all))));
        }
        _ => {
            let what = format_args!(
                "has several images, of which one is to be chosen by tag or platform: {}",
                names(&entries)
            )
            .to_string();
            return Err(index.error(what));
        }
    };
    let descriptor = index.descriptor(entry)?;
    let document = read(store, &descriptor)?;
    let is_index = descriptor.media_type.contains("image.index")
        || descriptor.media_type.contains("manifest.list")
        || document.value.get("manifests").is_some();
    if is_index {
        return of_index(store, &document, wanted, false, depth + 1);
    }
    of_manifest(store, &document, wanted)
}

/// A document that a descriptor is about.
fn read(store: &Store, descriptor: &Descriptor) -> Result<Document> {
    let bytes = store.checked_document(&descriptor.digest)?;
    let name = descriptor.digest.path();
    if bytes.len() as u64 != descriptor.size {
        let what = format!("has {} bytes, not {}", bytes.len(), descriptor.size);
        return Err(Error::source(name.as_bytes(), what));
    }
    Document::parse(&name, &bytes)
}

fn of_manifest(store: &Store, manifest: &Document, wanted: &Wanted) -> Result<Vec<Layer>> {
    let config = manifest.value.get("config").ok_or_else(|| manifest.error("names no config"))?;
    let config = read(store, &manifest.descriptor(config)?)?;
    check_platform(&config, wanted)?;
    let listed = manifest.list("layers")?;
    let diff_ids = diff_ids(&config, listed.len())?;
    let mut layers = Vec::new();
    for (value, diff_id) in listed.iter().zip(diff_ids) {
        let Descriptor { media_type, digest, size } = manifest.descriptor(value)?;
        // A layer is told by its bytes; what is not one at all is refused by its type.
        if !media_type.is_empty() && !media_type.contains("tar") || media_type.contains("encrypted") {
            let what =
                format_args!("the layer {digest} is of a type that is not known: {media_type}").to_string();
            return Err(manifest.error(what));
        }
        layers.push(Layer { name: digest.path(), digest: Some(digest), diff_id, size: Some(size) });
    }
    Ok(layers)
}

fn check_platform(config: &Document, wanted: &Wanted) -> Result<()> {
    let Some(asked) = &wanted.platform else { return Ok(()) };
    match Platform::of(&config.value) {
        Some(own) if !own.is(asked) => {
            Err(config.error(format_args!("the image is for {own}, not for {asked}")))
        }
        _ => Ok(()),
    }
}

/// What each of so many layers is, unpacked.
fn diff_ids(config: &Document, layers: usize) -> Result<Vec<Digest>> {
    let ids = config.value.get("rootfs").and_then(|rootfs| rootfs.get("diff_ids")).and_then(Value::as_array);
    let ids =
        ids.ok_or_else(|| config.error("has no list of diff_ids: it is no config of a container image"))?;
    if ids.len() != layers {
        return Err(config.error(format_args!("has {} diff_ids for {layers} layers", ids.len())));
    }
    let id = |id: &Value| id.as_str().and_then(Digest::parse);
    let all = ids
        .iter()
        .map(|value| id(value).ok_or_else(|| config.error("has a diff_id that is no digest that is known")));
    all.collect()
}

/// What `docker save` writes.
fn of_docker(store: &Store, manifest: &Document, wanted: &Wanted) -> Result<Vec<Layer>> {
    let all = manifest.value.as_array().ok_or_else(|| manifest.error("is no list of images"))?;
    let tags = |image: &Value| -> Vec<String> {
        let tags = image.get("RepoTags").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        tags.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut images: Vec<&Value> = all.iter().collect();
    if let Some(tag) = &wanted.tag {
        images.retain(|image| tags(image).iter().any(|name| is_tag(name, tag)));
    }
    let [image] = images[..] else {
        let known: Vec<String> = all.iter().flat_map(tags).collect();
        let what = if images.is_empty() { "has no image of that tag" } else { "has several images" };
        return Err(manifest.error(format_args!("{what}; tags: {}", known.join(", "))));
    };
    let text = |value: Option<&Value>, what: &str| -> Result<String> {
        let text = value.and_then(Value::as_str).filter(|name| is_inside(name));
        text.map(str::to_owned)
            .ok_or_else(|| manifest.error(format_args!("names no {what} inside the archive")))
    };
    let name = text(image.get("Config"), "config")?;
    let bytes = store.document(&name)?.ok_or_else(|| missing(&name))?;
    let config = Document::parse(&name, &bytes)?;
    check_platform(&config, wanted)?;
    let names = image.get("Layers").and_then(Value::as_array);
    let names = names.ok_or_else(|| manifest.error("has no list of layers"))?;
    let diff_ids = diff_ids(&config, names.len())?;
    let mut layers = Vec::new();
    for (layer, diff_id) in names.iter().zip(diff_ids) {
        let name = text(Some(layer), "layer")?;
        layers.push(Layer { name, digest: None, diff_id, size: None });
    }
    Ok(layers)
}

/// Whether a name leads to something inside, whatever is there.
fn is_inside(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('/') && !name.split('/').any(|part| part == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_without_a_variant_takes_any() {
        let parse = |text: &str| text.parse::<Platform>().unwrap();
        assert!(parse("linux/arm/v7").is(&parse("arm")));
        assert!(!parse("linux/arm").is(&parse("linux/arm/v7")));
        assert!(!parse("linux/arm64").is(&parse("linux/arm")));
        assert_eq!(parse("amd64").to_string(), "linux/amd64");
        for bad in ["", "/", "a/b/c/d", "linux/"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tag_is_the_whole_name_or_what_follows_its_colon() {
        assert!(is_tag("docker.io/library/a:v1", "a:v1") && is_tag("docker.io/a:v1", "v1"));
        assert!(is_tag("v1", "v1") && is_tag("host:5000/a:v1", "v1") && is_tag("a:v1", "a:v1"));
        assert!(!is_tag("a:v1", "1") && !is_tag("v1", "v"));
    }
}
