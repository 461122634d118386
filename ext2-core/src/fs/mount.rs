//! Opening for writing. Linux: `ext2_setup_super`, and what e2fsck has to be run for there.

use alloc::sync::Arc;

use blockdev::{BlockDevice, PAGE_SIZE};
use zerocopy::IntoBytes;

use super::writer::{Behaviour, Writer};
use super::{Ext2, Fs, OpenOptions};
use crate::Errno;
use crate::balloc::{Groups, Place};
use crate::error::{Result, refuse};
use crate::log::Logged;
use crate::raw::{RawSuperblock, SUPERBLOCK_OFFSET};
use crate::sync::Mended;

impl Ext2 {
    /// The device as it is after what a crash left in a log of ours: replayed in place, or in memory alone where nothing is to
    /// be written.
    pub(super) fn after_crash(
        dev: Arc<dyn BlockDevice>,
        options: &OpenOptions,
    ) -> Result<Arc<dyn BlockDevice>> {
        if !options.replays() {
            return Ok(dev);
        }
        if options.read_only || dev.is_read_only() {
            return crate::log::recovered(dev);
        }
        crate::log::replay(&*dev)?;
        Ok(dev)
    }

    /// Opens for writing what was opened so far, with this superblock.
    pub(super) fn open_for_writing(mut fs: Fs, raw: &RawSuperblock, options: &OpenOptions) -> Result<Self> {
        if fs.dev.is_read_only() {
            return refuse(Errno::ROFS, "the device is read-only");
        }
        if options.log || options.batch {
            let log = Arc::new(Logged::new(fs.dev.clone(), fs.geo.block_size.bytes()));
            fs.dev = log.clone();
            fs.log = Some(log);
        }
        let len = u64::from(fs.geo.blocks_count) * fs.geo.block_size.bytes();
        let claim = fs.dev.claim(0, if Mended::OpenTwice.is_back() { 0 } else { len })?;
        if super::open::read_super(&*fs.dev, SUPERBLOCK_OFFSET)?.as_bytes() != raw.as_bytes() {
            return refuse(Errno::BUSY, "the device was another's until now, who has changed what it holds");
        }
        let device_offset =
            fs.dev.dax().map_or(options.device_offset, |dax| dax.pfn(0).wrapping_mul(PAGE_SIZE));
        let policy = options.placement.clone().unwrap_or_else(|| options.policy.placement());
        let place = Place::new(policy, fs.geo.block_size.bytes(), device_offset, !options.keep_reserved);
        let behaviour = Behaviour {
            on_error: options.errors.unwrap_or(fs.sb.on_error),
            strict_rename: options.strict_rename,
            share_xattrs: options.share_xattrs,
        };
        let groups = Groups::load(&fs)?;
        fs.writer = Some(Writer::new(&fs, claim, groups, place, &behaviour));
        let ext2 = Self(Arc::new(fs));
        match ext2.check_root().and_then(|()| ext2.start_writing(options.batch)) {
            Ok(()) => Ok(ext2),
            Err(error) => {
                ext2.0.abandon();
                Err(error)
            }
        }
    }

    /// An image that was not unmounted cleanly has its bitmaps and counts rebuilt before anything is
    /// allocated; then the image is marked as in use.
    fn start_writing(&self, batch: bool) -> Result<()> {
        let fs = &self.0;
        // Before the first store.
        if batch && fs.start_batch()? {
            return fs.begin_writing();
        }
        fs.begin_writing()?;
        if !fs.sb.clean || fs.sb.last_orphan != 0 {
            fs.rebuild()?;
        }
        fs.start_log()
    }
}
