//! Blocks that were fetched.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::folder::Folder;
use super::lru::Lru;
use super::uri::Keep;

/// Blocks, by their numbers.
#[derive(Debug)]
pub(super) enum Cache {
    Memory { blocks: HashMap<u64, Arc<[u8]>>, lru: Lru<u64> },
    Folder(Folder),
}

impl Cache {
    /// One for so many bytes. `object` says all that tells one object from another.
    pub(super) fn open(keep: &Keep, object: &str, limit: u64) -> io::Result<Self> {
        Ok(match keep {
            Keep::Memory => Self::Memory { blocks: HashMap::new(), lru: Lru::new(limit) },
            Keep::Folder(path) => Self::Folder(Folder::open(path, object, limit)?),
        })
    }

    pub(super) fn get(&mut self, block: u64, len: usize) -> Option<Arc<[u8]>> {
        match self {
            Self::Memory { blocks, lru } => {
                lru.touch(&block);
                blocks.get(&block).cloned()
            }
            Self::Folder(folder) => folder.get(block, len).map(Arc::from),
        }
    }

    pub(super) fn put(&mut self, block: u64, bytes: &[u8]) {
        match self {
            Self::Memory { blocks, lru } => {
                blocks.insert(block, bytes.into());
                for gone in lru.insert(block, bytes.len() as u64) {
                    blocks.remove(&gone);
                }
            }
            Self::Folder(folder) => folder.put(block, bytes),
        }
    }
}
