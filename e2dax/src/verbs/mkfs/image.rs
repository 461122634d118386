//! Where a new file system goes: a file that is made beside the old one and takes its name when it is whole, a device,
//! or a part of either.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use blockdev::Partition;

use crate::beside::{NewFile, Output};
use crate::failure::{Failure, Of, Result};
use crate::target::Place;
use crate::text::show_os;

/// What the new file system is written to.
#[derive(Clone, Debug)]
pub(super) struct Where {
    /// The file or device.
    output: Output,
    place: Place,
}

impl Where {
    /// Reads `IMG`, `IMG@OFFSET` or `IMG@pN`; a file that is named so as a whole comes first.
    ///
    /// # Errors
    /// What is neither a file nor a block device, and what makes no sense.
    pub(super) fn find(argument: &Path) -> Result<Self> {
        if argument == Path::new("-") {
            return Err(Failure::usage(
                argument.as_os_str(),
                "an image is written here and there, and cannot go to the standard output: name a file",
            ));
        }
        let bytes = argument.as_os_str().as_bytes();
        let mut found = (argument.to_path_buf(), Place::Whole);
        if !argument.exists()
            && let Some(at) = bytes.iter().rposition(|&byte| byte == b'@')
            && let Some(place) = Place::parse(bytes.get(at + 1..).unwrap_or_default())
        {
            let path = PathBuf::from(OsString::from(OsStr::from_bytes(&bytes[..at])));
            if path.exists() {
                found = (path, place);
            }
        }
        let (path, place) = found;
        if place == Place::Pfn {
            return Err(Failure::usage(
                argument.as_os_str(),
                "the header is made with the image: --pfn-header",
            ));
        }
        let output = Output::find(&path)?;
        output.need_storage()?;
        Ok(Self { output, place })
    }

    /// The name of the file or device.
    pub(super) fn path(&self) -> &Path {
        self.output.path()
    }

    pub(super) fn is_device(&self) -> bool {
        self.output.is_device()
    }

    /// Whether it is a part of what is there.
    pub(super) fn is_part(&self) -> bool {
        self.place != Place::Whole
    }

    /// Whether it is a part of what is there, or a device: written in place, and of a size that is given.
    pub(super) fn is_in_place(&self) -> bool {
        self.is_part() || self.is_device()
    }

    /// Whether this is the file of these attributes.
    pub(super) fn is(&self, other: &std::fs::Metadata) -> bool {
        self.output.is(other)
    }

    /// First byte and number of bytes of what is there; none for a new file.
    ///
    /// # Errors
    /// No such partition.
    pub(super) fn bounds(&self) -> Result<Option<(u64, u64)>> {
        let Some(existing) = self.output.existing() else { return Ok(None) };
        let path = self.path();
        let name = || show_os(path.as_os_str());
        let open = || {
            blockdev::open_image(
                path,
                &blockdev::DeviceOptions {
                    kind: blockdev::Backend::File,
                    ..blockdev::DeviceOptions::read_only()
                },
            )
        };
        match self.place {
            Place::Whole if self.is_device() => {
                use std::io::{Seek as _, SeekFrom};
                let size = File::open(path).and_then(|mut file| file.seek(SeekFrom::End(0)));
                Ok(Some((0, size.map_err(|error| Failure::host(path, error))?)))
            }
            Place::Whole | Place::Pfn => Ok(Some((0, existing.len()))),
            Place::Offset(offset) => {
                let part = Partition::from_offset(open().of(name)?, offset).of(name)?;
                Ok(Some((offset, blockdev::BlockDevice::size(&part))))
            }
            Place::Partition(number) => {
                let part = Partition::numbered(open().of(name)?, number).of(name)?;
                Ok(Some((part.offset(), blockdev::BlockDevice::size(&part))))
            }
        }
    }
}

/// The image in the making.
pub(super) struct Image {
    new: NewFile,
    /// The byte of the file at which it begins.
    pub(super) base: u64,
}

impl Image {
    /// Opens what is written to: from byte `start` on, the file system from byte `base` on.
    ///
    /// # Errors
    /// What is not empty without `force`, what is in use, and the system's.
    pub(super) fn create(place: &Where, start: u64, base: u64, force: bool, wait: bool) -> Result<Self> {
        let path = place.path();
        if place.output.existing().is_some() && !force && !is_empty(path, start) {
            return Err(place.output.refused("is not empty: --force replaces it"));
        }
        Ok(Self { new: place.output.open(place.is_part(), wait)?, base })
    }

    /// The file, for whoever fills it.
    pub(super) fn file(&self) -> &File {
        self.new.file()
    }

    /// Whether what is there may be anything but zeros.
    pub(super) fn is_in_place(&self) -> bool {
        self.new.is_in_place()
    }

    /// Gives the image, which is whole, its name.
    ///
    /// # Errors
    /// The system's; what was there is there still, or the message says otherwise.
    pub(super) fn publish(self) -> Result<()> {
        self.new.publish()
    }
}

/// Whether nothing is lost when an image is made from byte `start` of this file on: it has no byte, or none but zeros
/// at its beginning.
fn is_empty(path: &Path, start: u64) -> bool {
    let mut bytes = vec![0; 1 << 16];
    let read = File::open(path).and_then(|file| file.read_at(&mut bytes, start));
    read.is_ok_and(|len| bytes.iter().take(len).all(|&byte| byte == 0))
}
