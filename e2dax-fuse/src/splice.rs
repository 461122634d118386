//! Reads that are answered with pages of the image's file, without a copy of ours.

use std::cell::RefCell;
use std::io;

use blockdev::BackingFile;
use ext2_core::Piece;

use crate::filesystem::Served;
use crate::pipe::Pipe;
use crate::wire::{Read, Request};

/// The fewest bytes that are spliced: less is copied sooner than pages are handed around.
const LEAST: u32 = 32 << 10;

thread_local! {
    /// An empty pipe; each worker has its own.
    static SPARE: RefCell<Option<Pipe>> = const { RefCell::new(None) };
}

/// The byte of the image's file at which a piece begins; `None` for a hole.
fn place(image: &BackingFile<'_>, piece: &Piece) -> Option<u64> {
    image.offset.checked_add(piece.device_byte?)
}

/// What a read comes to: the bytes, and the pages of the image's file that they touch. `None` if there is a hole.
fn measure(image: &BackingFile<'_>, pieces: &[Piece]) -> Option<(u32, usize)> {
    let page = rustix::param::page_size() as u64;
    let (mut len, mut pages) = (0, 0);
    for piece in pieces {
        let first = place(image, piece)?;
        let end = first.checked_add(piece.len)?;
        pages += end.div_ceil(page) - first / page;
        len += piece.len;
    }
    Some((u32::try_from(len).ok()?, usize::try_from(pages).ok()?))
}

impl Served {
    /// Answers a read of a file. Gives false, and answers nothing, where it is to be
    /// copied: it is short, has a hole, is in many pieces, or the image is no file.
    pub(crate) fn splice(&self, request: &Request<'_>, read: Read) -> bool {
        let Read { offset, size, .. } = read;
        if size < LEAST {
            return false;
        }
        let Some(image) = self.volume.fs.device().backing_file() else { return false };
        let Ok(node) = self.volume.node(request.node) else { return false };
        // The pages are copied, by the kernel, before the pieces may be freed and get other contents.
        let answered = node.inode.with_pieces(offset, size.into(), |pieces| match measure(&image, pieces) {
            Some((len, pages)) if len >= LEAST && self.is_in_file(pieces) => {
                // Before the answer, as everywhere: who has it may ask for the times, or set them.
                self.volume.accessed(&node.inode, read);
                self.answer_with(request, &image, pieces, len, pages)
            }
            _ => Ok(false),
        });
        match answered {
            Ok(Ok(answered)) => answered,
            // What cannot be read is found again by reading it, and told then.
            Ok(Err(error)) => {
                log::debug!("not spliced: {error}");
                false
            }
            Err(_) => false,
        }
    }

    /// Whether the image's file has the bytes of all pieces, and nothing newer waits elsewhere.
    fn is_in_file(&self, pieces: &[Piece]) -> bool {
        let device = self.volume.fs.device();
        pieces.iter().all(|piece| piece.device_byte.is_none_or(|byte| device.is_in_place(byte, piece.len)))
    }

    fn answer_with(
        &self,
        request: &Request<'_>,
        image: &BackingFile<'_>,
        pieces: &[Piece],
        len: u32,
        pages: usize,
    ) -> io::Result<bool> {
        SPARE.with_borrow_mut(|spare| {
            let pipe = spare.take().map_or_else(Pipe::new, Ok)?;
            // One more for the header.
            if pages >= pipe.room() {
                *spare = Some(pipe);
                return Ok(false);
            }
            let fill = |pipe: &Pipe| {
                pieces.iter().try_for_each(|piece| {
                    let byte = place(image, piece).ok_or(io::ErrorKind::InvalidInput)?;
                    pipe.put_from(image.fd, byte, piece.len)
                })
            };
            // A request that was taken back leaves its bytes behind, as does a file that fails.
            if self.channel.answer_from(request.unique, len, &pipe, fill)? {
                *spare = Some(pipe);
            }
            Ok(true)
        })
    }
}
