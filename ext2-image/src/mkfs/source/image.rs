//! A directory as an image file, in one call.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::{Times, Xattrs, read_folder};
use crate::mkfs::{Error, FileOutput, Format, Fresh, Options, Output as _, Plan, Report, Result};

/// Makes the file `image`, which must not exist yet, of the directory `root`: as small as everything fits, durable when this
/// returns. The same directory gives the same bytes; owners, times of the last change and extended attributes are the host's.
/// An image that could not be finished is removed.
///
/// Whoever wants more (other owners, a size, progress, a part of a device) takes [`read_folder`], [`Plan::new`] and
/// [`Plan::write`], which are what this is made of.
///
/// # Errors
/// `Source` for what cannot be read, or where `image` cannot be made; `Entry` for what an ext2 cannot hold; the device's.
///
/// ```
/// use ext2_core::{Ext2, OpenOptions};
/// use ext2_image::mkfs::{Format, source::image_of_directory};
///
/// let work = tempfile::tempdir()?;
/// std::fs::create_dir(work.path().join("root"))?;
/// std::fs::write(work.path().join("root/motd"), "welcome")?;
///
/// let image = work.path().join("disk.img");
/// image_of_directory(&work.path().join("root"), &image, &Format::default())?;
/// assert_eq!(Ext2::open_path(&image, &OpenOptions::read_only())?.read("/motd")?, b"welcome");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn image_of_directory(root: &Path, image: &Path, format: &Format) -> Result<Report> {
    let (tree, mut folder) = read_folder(root, Times::Modified, Xattrs::Keep, &mut |_| ())?;
    let plan = Plan::new(tree, format, &Options::default())?;
    let failed = |error: std::io::Error| Error::source(image.as_os_str().as_bytes(), error);
    let file = File::create_new(image).map_err(failed)?;
    let written = file.set_len(plan.bytes()).map_err(failed).and_then(|()| {
        let out = FileOutput::new(&file, 0, plan.bytes(), Fresh::Zeros);
        let report = plan.write(&mut folder, &out, &mut |_| ())?;
        out.flush()?;
        Ok(report)
    });
    if written.is_err() {
        // The error that is there already says why.
        let _ = std::fs::remove_file(image);
    }
    written
}
