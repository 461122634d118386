//! Blocks as files of a folder, which several processes may share.
//!
//! A file has the bytes of a block and their CRC-32; it gets its name when it is whole, so that who reads finds all of it or
//! nothing. Its name has a digest of what the object is (address, size, ETag) and of the size of blocks: an object that changes
//! has other names. Of old ones those go first that were used last longest ago; the times of the files say when that was.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use super::lru::Lru;

/// How names of ours end.
const ENDING: &str = ".e2dax-block";

/// Blocks of one object, among those of others.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// How names of this object begin.
    object: String,
    lru: Lru<String>,
    made: u64,
}

impl Folder {
    /// Those in a folder, which is made where there is none. `object` says all that tells one object from another.
    pub(super) fn open(path: &Path, object: &str, limit: u64) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let mut found: Vec<(SystemTime, String, u64)> = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let (Ok(name), Ok(meta)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
            if name.ends_with(ENDING) && meta.is_file() {
                found.push((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), name, meta.len()));
            }
        }
        found.sort_unstable();
        let digest = Sha256::digest(object.as_bytes());
        let object = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let mut folder = Self { path: path.to_path_buf(), object, lru: Lru::new(limit), made: 0 };
        for (_, name, bytes) in found {
            folder.add(name, bytes);
        }
        Ok(folder)
    }

    fn name(&self, block: u64) -> String {
        format!("{}-{block:012x}{ENDING}", self.object)
    }

    fn add(&mut self, name: String, bytes: u64) {
        for gone in self.lru.insert(name, bytes) {
            // Another process may have removed it.
            let _ = fs::remove_file(self.path.join(gone));
        }
    }

    /// A block, if it is there and as it was.
    pub(super) fn get(&mut self, block: u64, len: usize) -> Option<Vec<u8>> {
        let name = self.name(block);
        let path = self.path.join(&name);
        let read = fs::read(&path).ok().and_then(|mut bytes| {
            let sum = u32::from_le_bytes(*bytes.last_chunk()?);
            bytes.truncate(bytes.len() - size_of::<u32>());
            (bytes.len() == len && crc32fast::hash(&bytes) == sum).then_some(bytes)
        });
        if read.is_none() {
            self.lru.remove(&name);
            return None;
        }
        if !self.lru.touch(&name) {
            // Another process fetched it.
            self.add(name, len as u64);
        }
        // For processes that come later. Not having it changes nothing but which goes first.
        let _ =
            fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        read
    }

    /// A file that nobody else writes to, whatever their number is: in containers many have the same.
    fn temporary(&mut self) -> io::Result<(PathBuf, fs::File)> {
        loop {
            self.made += 1;
            let path = self.path.join(format!(".{}-{}-{}", self.object, std::process::id(), self.made));
            match fs::File::options().write(true).create_new(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                file => return Ok((path, file?)),
            }
        }
    }

    /// Keeps a block. Where that fails it is fetched again next time.
    pub(super) fn put(&mut self, block: u64, bytes: &[u8]) {
        let name = self.name(block);
        let written = self.temporary().and_then(|(temporary, mut file)| {
            let written = file
                .write_all(bytes)
                .and_then(|()| file.write_all(&crc32fast::hash(bytes).to_le_bytes()))
                .and_then(|()| fs::rename(&temporary, self.path.join(&name)));
            if written.is_err() {
                let _ = fs::remove_file(&temporary);
            }
            written
        });
        match written {
            Ok(()) => self.add(name, bytes.len() as u64),
            Err(error) => log::warn!("{}: a block is not kept: {error}", self.path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_another_is_writing_does_not_become_one_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let mut ours = Folder::open(folder.path(), "a", 1000).unwrap();
        // In a container of its own the other has the same number as we have, and has kept as many blocks.
        let temporary = format!(".{}-{}-1", ours.object, std::process::id());
        let mut other = fs::File::create(folder.path().join(temporary)).unwrap();
        ours.put(3, &[7; 100]);
        let theirs = [&[5; 100][..], &crc32fast::hash(&[5; 100]).to_le_bytes()].concat();
        other.write_all(&theirs).unwrap();
        assert_eq!(ours.get(3, 100).unwrap(), [7; 100]);
    }

    #[test]
    fn blocks_survive_the_process_and_damaged_ones_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = Folder::open(folder.path(), "a", 1000).unwrap();
        one.put(3, &[7; 100]);
        assert_eq!(one.get(3, 100).unwrap(), [7; 100]);
        let mut again = Folder::open(folder.path(), "a", 1000).unwrap();
        assert_eq!(again.get(3, 100).unwrap(), [7; 100]);
        assert!(again.get(3, 99).is_none() && again.get(4, 100).is_none());
        // Another object is another one.
        assert!(Folder::open(folder.path(), "b", 1000).unwrap().get(3, 100).is_none());
        let file = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let mut bytes = fs::read(&file).unwrap();
        bytes[50] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert!(one.get(3, 100).is_none());
        one.put(3, &[7; 100]);
        for block in 10..30 {
            one.put(block, &[1; 100]);
        }
        let kept: u64 =
            fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(kept <= 1040 && one.get(3, 100).is_none() && one.get(29, 100).is_some(), "{kept}");
    }
}
