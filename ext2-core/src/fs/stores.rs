//! Stores into blocks that a transaction may hold an image of: the tables of inodes, and the superblock's block.
//!
//! A replay puts whole blocks in their places. While a transaction holds one that others have something in, nobody else
//! stores there: what was stored, and fenced, since the image was made would be undone by it.
//!
//! # Locking
//! `stores` is shared around each single store, under which nothing is waited for, and exclusive for as long as a
//! transaction stands. Who has it exclusive stores to the device itself.

use super::Fs;
use crate::error::Result;

impl Fs {
    pub(crate) fn store_u16(&self, at: u64, value: u16) -> Result<()> {
        let _pass = self.stores.read();
        Ok(self.dev.write_u16(at, value)?)
    }

    pub(crate) fn store_u32(&self, at: u64, value: u32) -> Result<()> {
        let _pass = self.stores.read();
        Ok(self.dev.write_u32(at, value)?)
    }

    pub(crate) fn store_bytes(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let _pass = self.stores.read();
        Ok(self.dev.write_at(at, bytes)?)
    }
}
