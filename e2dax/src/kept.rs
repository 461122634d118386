//! The image of a shell: open across commands, with a current directory.
//!
//! # Invariants
//! There is at most one, on the thread that runs the commands. Outside a shell nothing here does anything. The image is
//! opened when a command first changes it, as a file system or, by `poke`, as a device; never as both. It is closed before
//! anything opens its device in another way, so that its lock and its log are never in the way.

use std::cell::RefCell;
use std::sync::Arc;

use blockdev::{BlockDevice, Claim};
use ext2_core::Ext2;

use crate::context::Context;
use crate::describe::join;
use crate::failure::{Of as _, Result};
use crate::images::Images;
use crate::target::Target;

/// What a shell works in.
struct Shell {
    /// The image, with the path of its root.
    image: Target,
    /// The current directory.
    directory: Vec<u8>,
    images: Images,
    /// The device that `poke` changes.
    raw: Option<(Arc<dyn BlockDevice>, Arc<Claim>)>,
}

thread_local! {
    static SHELL: RefCell<Option<Shell>> = const { RefCell::new(None) };
}

/// Begins a shell in an image.
pub(crate) fn begin(image: &Target) {
    let shell = Shell {
        image: image.with_path(b"/"),
        directory: b"/".to_vec(),
        images: Images::for_much(),
        raw: None,
    };
    SHELL.with(|cell| cell.replace(Some(shell)));
}

/// Closes the image as far as it is open; whatever goes wrong is complained of.
pub(crate) fn close(context: &mut Context) {
    let taken = SHELL.with(|cell| {
        let mut shell = cell.borrow_mut();
        let shell = shell.as_mut()?;
        let images = std::mem::replace(&mut shell.images, Images::for_much());
        Some((images, shell.raw.take(), shell.image.clone()))
    });
    let Some((images, raw, image)) = taken else { return };
    if let Some((device, claim)) = raw {
        let flushed = device.flush().of(|| image.image_name());
        drop(claim);
        // No output is written here that could be closed.
        let _ = context.or_complain(flushed);
    }
    images.close(context);
}

/// Closes the image before its device is opened in another way.
pub(crate) fn make_way(target: &Target) {
    let is_it =
        SHELL.with(|cell| cell.borrow().as_ref().is_some_and(|shell| shell.image.is_same_image(target)));
    if is_it {
        close(&mut Context::new(crate::target::ImageOptions::default()));
    }
}

/// The device of a target, where it is the shell's and was poked.
pub(crate) fn device(target: &Target) -> Option<Arc<dyn BlockDevice>> {
    SHELL.with(|cell| {
        let shell = cell.borrow();
        let shell = shell.as_ref().filter(|shell| shell.image.is_same_image(target))?;
        shell.raw.as_ref().map(|(device, _)| Arc::clone(device))
    })
}

/// Whether the shell's image is open as a device.
pub(crate) fn is_poked() -> bool {
    SHELL.with(|cell| cell.borrow().as_ref().is_some_and(|shell| shell.raw.is_some()))
}

/// Keeps the device of a target open, where it is the shell's; false where it is not.
pub(crate) fn keep(target: &Target, device: &Arc<dyn BlockDevice>, claim: Option<&Arc<Claim>>) -> bool {
    SHELL.with(|cell| {
        let mut shell = cell.borrow_mut();
        let shell = shell.as_mut().filter(|shell| shell.image.is_same_image(target));
        let Some((shell, claim)) = shell.zip(claim) else { return false };
        shell.raw = Some((Arc::clone(device), Arc::clone(claim)));
        true
    })
}

/// The current directory; none outside a shell.
pub(crate) fn directory() -> Option<Vec<u8>> {
    SHELL.with(|cell| cell.borrow().as_ref().map(|shell| shell.directory.clone()))
}

/// Goes to another directory, by its whole path.
pub(crate) fn set_directory(path: Vec<u8>) {
    SHELL.with(|cell| {
        if let Some(shell) = cell.borrow_mut().as_mut() {
            shell.directory = path;
        }
    });
}

/// A path of the shell's image, from the current directory; none outside a shell.
pub(crate) fn target(path: &[u8]) -> Option<Target> {
    SHELL.with(|cell| {
        let shell = cell.borrow();
        let shell = shell.as_ref()?;
        let whole = match path {
            b"" => shell.directory.clone(),
            [b'/' | b'<', ..] => path.to_vec(),
            _ => join(&shell.directory, path),
        };
        Some(shell.image.with_path(&whole))
    })
}

/// The root of the shell's image; none outside a shell.
pub(crate) fn image() -> Option<Target> {
    SHELL.with(|cell| cell.borrow().as_ref().map(|shell| shell.image.clone()))
}

/// The file system of a target, where it is the shell's; opened for changes with `open`, and else only where it is open
/// already.
pub(crate) fn file_system(target: &Target, open: Option<&Context>) -> Result<Option<Ext2>> {
    // Taken out for as long as it is opened, which asks here again.
    let taken = SHELL.with(|cell| {
        let mut shell = cell.borrow_mut();
        let shell = shell.as_mut()?;
        shell
            .image
            .is_same_image(target)
            .then(|| (shell.image.clone(), std::mem::replace(&mut shell.images, Images::for_much())))
    });
    let Some((image, mut images)) = taken else { return Ok(None) };
    let found = match open {
        Some(context) => images.get_own(context, &image).map(Some),
        None => Ok(images.find(&image)),
    };
    SHELL.with(|cell| {
        if let Some(shell) = cell.borrow_mut().as_mut() {
            shell.images = images;
        }
    });
    found
}
