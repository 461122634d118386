//! A disk made of a directory, without an image: the memory of a machine is put together from the files' own pages and the
//! structures of a file system around them, and read back by DAX. This is what a VMM gives to its guest as persistent memory.
//!
//! `cargo run -p ext2-dax --example arena -- [DIR]`

use std::error::Error;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use blockdev::BlockDevice as _;
use ext2_core::{BlockSize, Ext2, FileKind, Follow, OpenOptions};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};
use ext2_image::mkfs::source::{Folder, Times, Xattrs, read_directory};
use ext2_image::mkfs::{AlignChoice, Format, Options, Plan, Synthetic};

/// Regular files below a directory of the host.
fn files(dir: &Path, all: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        if kind.is_dir() {
            files(&path, all)?;
        } else if kind.is_file() {
            all.push(path);
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), PathBuf::from);
    let begin = Instant::now();
    let tree = read_directory(&dir, Times::Modified, Xattrs::Keep, &mut |_| ())?;
    // Pages of the guest's are pages of the files', so that all of them can be mapped; in units of 2 MiB where files are large.
    let format = Format { block_size: BlockSize::new(4096), ..Format::default() };
    let plan = Plan::new(tree, &format, &Options { align: AlignChoice::Units, ..Options::default() })?;
    let disk = Synthetic::new(plan, &Folder::new(&dir))?;
    let arena = Arc::new(disk.arena()?);
    println!(
        "{} bytes in {:?}: {} mapped of files, {} held as structures",
        arena.size(),
        begin.elapsed(),
        arena.mapped(),
        disk.held()
    );

    let ext2 = Ext2::open(arena.clone(), &OpenOptions::read_only())?;
    let fs = DaxFs::new(ext2.clone(), DaxOptions::default());
    let mut all = Vec::new();
    files(&dir, &mut all)?;
    let mut bytes = 0;
    for path in &all {
        let inside = path.strip_prefix(&dir)?.as_os_str().as_bytes();
        let inode = ext2.resolve(inside, Follow::No)?;
        assert_eq!(inode.attr().kind, FileKind::Regular);
        let file = File::open(&fs, inode, OpenFor::Reading)?;
        assert!(file.is_dax());
        let wanted = std::fs::read(path)?;
        let mut found = vec![0; wanted.len() + 1];
        let read = file.read_at(0, &mut found)?;
        assert!(found[..read as usize] == wanted[..], "{} differs", path.display());
        bytes += read;
    }
    assert!(disk.changed().is_empty(), "the directory was changed meanwhile");
    println!("{} files of {bytes} bytes read by DAX, each as in the directory", all.len());
    Ok(())
}
