//! A golden test: what a program made is compared with a manifest, a text that can be reviewed.
//!
//! `cargo run -p ext2-image --example golden`

use ext2_core::{Ext2, OpenOptions};
use ext2_image::manifest::{diff, from_image, parse};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let fs = Ext2::open(ext2_image::mkfs::in_memory(1 << 20)?, &OpenOptions::default())?;
    fs.create_dir("etc")?;
    fs.write("etc/hostname", "node1")?;

    let made = from_image(&fs)?;
    // The manifest as it would be committed, and read again.
    let committed = made.to_string();
    let same = diff(&parse(&committed)?, &made);
    assert_eq!(same.len(), 0, "{same:?}");

    fs.write("etc/hostname", "node2!")?;
    let changed = diff(&parse(&committed)?, &from_image(&fs)?);
    assert!(!changed.is_empty());
    changed.iter().for_each(|difference| println!("{difference}"));
    Ok(())
}
