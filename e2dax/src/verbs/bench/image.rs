//! An image: opened, walked and read.

use ext2_core::{FileKind, Follow, Inode};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};
use ext2_image::Walk;

use super::{Row, Work, row, time};
use crate::context::Context;
use crate::failure::{Of, Result};
use crate::target::{Mode, Target};

/// Bytes of a call.
const CALL: usize = 1 << 20;

pub(super) fn rows(target: &Target, context: &Context) -> Result<Vec<Row>> {
    let open = || target.open(&context.image, Mode::Read);
    let opening = row("open", Work::Calls(1), &mut || time(open), None)?;
    let fs = open()?;
    let start = target.find_in(&fs, Follow::Yes).of(|| target.name())?;
    let walk = || -> Result<(u64, Vec<Inode>)> {
        let (mut found, mut files) = (0, Vec::new());
        for item in Walk::new(&start, target.path()) {
            let inode = item.map_err(|error| error.error).of(|| target.name())?.inode;
            found += 1;
            if inode.attr().kind == FileKind::Regular && inode.size() > 0 {
                files.push(inode);
            }
        }
        Ok((found, files))
    };
    let (found, files) = walk()?;
    let walking = row("walk, a file with its attributes", Work::Calls(found), &mut || time(walk), None)?;
    let dax = DaxFs::new(fs.clone(), DaxOptions::default());
    let mut buffer = vec![0; CALL];
    let bytes: u64 = files.iter().map(Inode::size).sum();
    let device = fs.device();
    let same = bytes.min(device.size());
    let reading = row(
        "read all files, 1 MiB a call",
        Work::Bytes(bytes),
        &mut || {
            time(|| {
                for inode in &files {
                    let file = File::open(&dax, inode.clone(), OpenFor::Reading).of(|| target.name())?;
                    let mut at = 0;
                    loop {
                        match file.read_at(at, &mut buffer).of(|| target.name())? {
                            0 => break,
                            more => at += more,
                        }
                    }
                }
                Ok(())
            })
        },
        None,
    )?;
    let copying = row(
        "copy as many bytes of the image",
        Work::Bytes(same),
        &mut || {
            let mut copy = vec![0; CALL];
            time(|| {
                let mut at = 0;
                while at < same {
                    let len = (same - at).min(CALL as u64);
                    device.read_at(at, &mut copy[..len as usize]).of(|| target.image_name())?; // at most CALL
                    at += len;
                }
                Ok(())
            })
        },
        None,
    )?;
    Ok(vec![opening, walking, reading, copying])
}
