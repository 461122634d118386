//! How an image is sealed: for `seal` and `mkfs --seal`.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ext2_image::seal::{self, Algorithm, Params, Sealed, hex, parse_hex};

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::json::{Json, object};
use crate::text::{parse_bytes, parse_uuid, show_os, uuid};

/// How an image is sealed.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "The seal")]
pub(crate) struct SealOptions {
    /// Write the hash tree to this file, not behind the file system
    #[arg(long, value_name = "FILE")]
    pub(crate) hash_file: Option<PathBuf>,

    /// The hash function: sha256 or sha512
    #[arg(long, value_name = "NAME", default_value = "sha256", value_parser = parse_hash)]
    hash: Algorithm,

    /// The salt in hexadecimal digits, - for none [default: derived from the UUID of the file system]
    #[arg(long, value_name = "HEX", value_parser = parse_salt, allow_hyphen_values = true)]
    salt: Option<std::vec::Vec<u8>>,

    /// The UUID of the hash tree [default: derived from that of the file system]
    #[arg(long, value_name = "UUID", value_parser = parse_uuid)]
    hash_uuid: Option<[u8; 16]>,

    /// Bytes of a block of data that is hashed
    #[arg(long, value_name = "BYTES", default_value = "4096", value_parser = parse_block)]
    data_block_size: u32,

    /// Bytes of a block of the hash tree
    #[arg(long, value_name = "BYTES", default_value = "4096", value_parser = parse_block)]
    hash_block_size: u32,

    /// The name of the device in the line for the kernel
    #[arg(long, value_name = "DEVICE", default_value = "/dev/vda")]
    data_device: String,

    /// The name of the device with the file of --hash-file
    #[arg(long, value_name = "DEVICE", default_value = "/dev/vdb", requires = "hash_file")]
    hash_device: String,
}

fn parse_hash(text: &str) -> Result<Algorithm, String> {
    Algorithm::from_name(text).ok_or_else(|| "sha256 or sha512".into())
}

fn parse_salt(text: &str) -> Result<Vec<u8>, String> {
    match text {
        "-" => Ok(Vec::new()),
        text => parse_hex(text).ok_or_else(|| "hexadecimal digits in pairs, or -".into()),
    }
}

fn parse_block(text: &str) -> Result<u32, String> {
    u32::try_from(parse_bytes(text)?).map_err(|_| "more than 524288 bytes".into())
}

/// A root hash.
pub(crate) fn parse_root(text: &str) -> Result<Vec<u8>, String> {
    match parse_hex(text) {
        Some(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err("a root hash is hexadecimal digits in pairs".into()),
    }
}

/// An error of sealing.
pub(crate) fn failed(object: String, error: seal::Error) -> Failure {
    match error {
        seal::Error::Device(error) => Failure::new(object, error),
        other => Failure::text(object, other.to_string()),
    }
}

/// Refuses a file for the hash tree that is the image.
pub(crate) fn refuse_the_image(tree: &Path, image: &Path) -> Result<()> {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let id = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let is_same = real(tree) == real(image) || matches!((id(tree), id(image)), (Ok(a), Ok(b)) if a == b);
    if is_same {
        return Err(Failure::text(
            show_os(tree.as_os_str()),
            "is the image: its hash tree needs another file",
        ));
    }
    Ok(())
}

impl SealOptions {
    /// The parameters, for a file system with this UUID.
    pub(crate) fn params(&self, fs_uuid: &[u8; 16]) -> Result<Params> {
        let mut params = Params {
            algorithm: self.hash,
            data_block: self.data_block_size,
            hash_block: self.hash_block_size,
            ..Params::default()
        }
        .with_identity(fs_uuid);
        if let Some(salt) = &self.salt {
            params.salt.clone_from(salt);
        }
        params.uuid = self.hash_uuid.unwrap_or(params.uuid);
        // What is wrong with them is said before anything is written.
        seal::Layout::new(&params, 1).map_err(|error| failed(String::new(), error))?;
        Ok(params)
    }

    /// The option that was given though nothing is sealed.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let all = [
            (self.hash_file.is_some(), "--hash-file"),
            (self.salt.is_some(), "--salt"),
            (self.hash_uuid.is_some(), "--hash-uuid"),
            (self.hash != Algorithm::default(), "--hash"),
            (self.data_block_size != 4096, "--data-block-size"),
            (self.hash_block_size != 4096, "--hash-block-size"),
            (self.data_device != "/dev/vda", "--data-device"),
        ];
        all.into_iter().find(|option| option.0).map(|option| option.1)
    }

    fn devices(&self) -> (&str, &str) {
        let tree = if self.hash_file.is_some() { &self.hash_device } else { &self.data_device };
        (&self.data_device, tree)
    }
}

/// What was made.
pub(crate) fn to_json(sealed: &Sealed, options: &SealOptions) -> Json {
    let (data, tree) = options.devices();
    object! {
        "root_hash": hex(&sealed.root),
        "salt": hex(&sealed.params.salt),
        "uuid": uuid(&sealed.params.uuid),
        "algorithm": sealed.params.algorithm.name(),
        "data_block_size": sealed.params.data_block,
        "hash_block_size": sealed.params.hash_block,
        "data_blocks": sealed.data_blocks,
        "hash_offset": sealed.tree_offset,
        "hash_bytes": sealed.tree_bytes,
        "table": sealed.table(data, tree),
        "command_line": sealed.command_line(data, tree),
    }
}

/// Prints the root hash and the line for the kernel.
pub(crate) fn print(sealed: &Sealed, options: &SealOptions, context: &mut Context) -> Result<()> {
    let (data, tree) = options.devices();
    context.out.line(format_args!("root hash: {}", hex(&sealed.root)))?;
    context.out.line(format_args!("kernel: {}", sealed.command_line(data, tree)))
}
