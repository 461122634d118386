//! What e2fsck says of an image, and makes of it.

use std::path::Path;

use crate::{golden, tools};

/// Does something with a file that holds an image.
fn with_file<T>(image: &[u8], work: impl FnOnce(&Path) -> Result<T, String>) -> Result<T, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = folder.path().join("image");
    golden::write_sparse(&path, image).map_err(|error| error.to_string())?;
    work(&path)
}

/// Whether it finds nothing.
///
/// # Errors
/// What it finds.
pub(super) fn e2fsck(image: &[u8]) -> Result<(), String> {
    with_file(image, |path| tools::e2fsck_fn(path).map_err(|said| format!("e2fsck: {said}")))
}

/// What `e2fsck -fp` makes of it.
///
/// # Errors
/// What needs a person.
pub(super) fn e2fsck_p(image: &[u8]) -> Result<Vec<u8>, String> {
    with_file(image, |path| {
        tools::e2fsck_p(path).map_err(|said| format!("e2fsck -p: {said}"))?;
        std::fs::read(path).map_err(|error| error.to_string())
    })
}

/// Whether `e2fsck -p` mends what says that it was unmounted cleanly: that is looked at as far as its superblock goes, and its
/// journal.
///
/// # Errors
/// What is still wrong after that; where there is no e2fsck, that there is none.
pub(super) fn mended_unasked(image: &[u8]) -> Result<(), String> {
    with_file(image, |path| {
        let output = tools::command("e2fsck").arg("-p").arg(path).output();
        let output = output.map_err(|error| error.to_string())?;
        match output.status.code() {
            Some(0 | 1) => tools::e2fsck_fn(path).map_err(|said| format!("after e2fsck -p: {said}")),
            _ => Err(format!("e2fsck -p: {}", tools::words(&output))),
        }
    })
}
