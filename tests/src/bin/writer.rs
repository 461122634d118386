//! Performs a crash workload on an image file through a mapping of it, and reports each operation that has returned: a
//! byte on the standard output. It is made to be killed.
//!
//! `writer IMAGE SEED LENGTH`

use std::{io::Write, path::PathBuf, sync::Arc};

use blockdev::{DeviceOptions, MmapDevice};
use e2dax_tests::crash;
use ext2_core::Ext2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let image = PathBuf::from(arguments.next().ok_or("no image")?);
    let mut number = || -> Result<u64, Box<dyn std::error::Error>> {
        let text = arguments.next().ok_or("no number")?;
        Ok(text.to_str().ok_or("no number")?.parse()?)
    };
    let (seed, len) = (number()?, number()?);
    let device = MmapDevice::open(&image, &DeviceOptions::read_write())?;
    let fs = Ext2::open(Arc::new(device), &crash::options())?;
    let mut out = std::io::stdout().lock();
    for action in crash::seeded(&crash::vocabulary(), seed, len) {
        // One that makes no sense at the time is refused, here as where the promise is worked out.
        let _ = crash::perform(&fs, &action);
        out.write_all(b".")?;
        out.flush()?;
    }
    Ok(())
}
