//! Layers and layouts of container images, made for tests.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use e2dax_tests::tools;
use sha2::{Digest as _, Sha256};

use crate::common::Folder;

/// How a layer is stored.
#[derive(Clone, Copy)]
pub(crate) enum Pack {
    Plain,
    Gzip,
    Zstd,
}

/// What a descriptor says of a blob.
#[derive(Clone)]
pub(crate) struct Blob {
    pub(crate) digest: String,
    pub(crate) size: usize,
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Blob {
    pub(crate) fn put(layout: &Path, bytes: &[u8]) -> Self {
        let digest = sha256(bytes);
        fs::write(Self::path_of(layout, &digest), bytes).unwrap();
        Self { digest, size: bytes.len() }
    }

    pub(crate) fn path_of(layout: &Path, digest: &str) -> std::path::PathBuf {
        layout.join("blobs").join(digest.replace(':', "/"))
    }

    pub(crate) fn descriptor(&self, media_type: &str, more: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}{more}}}"#, self.digest, self.size)
    }
}

impl Pack {
    fn pack(self, bytes: &[u8]) -> (Vec<u8>, &'static str) {
        match self {
            Self::Plain => (bytes.to_vec(), "application/vnd.oci.image.layer.v1.tar"),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                (encoder.finish().unwrap(), "application/vnd.oci.image.layer.v1.tar+gzip")
            }
            Self::Zstd => {
                (zstd::encode_all(bytes, 1).unwrap(), "application/vnd.oci.image.layer.v1.tar+zstd")
            }
        }
    }
}

/// An empty layout.
pub(crate) fn new_layout(folder: &Folder, name: &str) -> std::path::PathBuf {
    let layout = folder.path(name);
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    layout
}

/// Adds an image of these layers, for this architecture; gives its manifest.
pub(crate) fn add_image(layout: &Path, layers: &[Vec<u8>], pack: Pack, architecture: &str) -> Blob {
    let mut listed = Vec::new();
    for layer in layers {
        let (bytes, media_type) = pack.pack(layer);
        listed.push(Blob::put(layout, &bytes).descriptor(media_type, ""));
    }
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("\"{}\"", sha256(layer))).collect();
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}},"history":[]}}"#,
        diff_ids.join(",")
    );
    let config = Blob::put(layout, config.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
        config.descriptor("application/vnd.oci.image.config.v1+json", ""),
        listed.join(",")
    );
    Blob::put(layout, manifest.as_bytes())
}

/// Writes `index.json` with these manifests, each with what its descriptor says besides.
pub(crate) fn write_index(layout: &Path, manifests: &[(Blob, String)]) {
    fs::write(layout.join("index.json"), index(manifests)).unwrap();
}

pub(crate) fn index(manifests: &[(Blob, String)]) -> String {
    let listed: Vec<String> = manifests
        .iter()
        .map(|(blob, more)| blob.descriptor("application/vnd.oci.image.manifest.v1+json", more))
        .collect();
    format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, listed.join(","))
}

/// What says that a manifest has a tag.
pub(crate) fn tagged(tag: &str) -> String {
    format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{tag}"}}"#)
}

/// A layout with one image, tagged `v1`.
pub(crate) fn layout(folder: &Folder, name: &str, layers: &[Vec<u8>], pack: Pack) {
    let layout = new_layout(folder, name);
    let image = add_image(&layout, layers, pack, "amd64");
    write_index(&layout, &[(image, tagged("v1"))]);
}

/// The bytes of an archive of a directory by GNU tar, as a layer is.
pub(crate) fn tar_of(root: &Path, names: &[&str]) -> Vec<u8> {
    let mut words = vec!["--format=posix", "--sort=name", "--numeric-owner", "--owner=0", "--group=0", "-C"];
    words.push(root.to_str().unwrap());
    words.extend(["-cf", "-"]);
    words.extend(names);
    tools::run("tar", &words).unwrap()
}
