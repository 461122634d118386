//! Devices behind pointers are devices.

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::{BlockDevice, Claim, DaxDevice, Media, Result};

macro_rules! forward {
    ($(#[$doc:meta])* $pointer:ty) => {
        $(#[$doc])*
        impl<D: BlockDevice + ?Sized> BlockDevice for $pointer {
            #[inline]
            fn size(&self) -> u64 {
                (**self).size()
            }

            #[inline]
            fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
                (**self).read_at(offset, buf)
            }

            #[inline]
            fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
                (**self).write_at(offset, buf)
            }

            #[inline]
            fn zero(&self, offset: u64, len: u64) -> Result<()> {
                (**self).zero(offset, len)
            }

            #[inline]
            fn fence(&self) -> Result<()> {
                (**self).fence()
            }

            #[inline]
            fn flush(&self) -> Result<()> {
                (**self).flush()
            }

            #[inline]
            fn fence_tagged(&self, tag: u64) -> Result<()> {
                (**self).fence_tagged(tag)
            }

            #[inline]
            fn flush_tagged(&self, tag: u64) -> Result<()> {
                (**self).flush_tagged(tag)
            }

            fn claim(&self, offset: u64, len: u64) -> Result<Claim> {
                (**self).claim(offset, len)
            }

            #[inline]
            fn is_read_only(&self) -> bool {
                (**self).is_read_only()
            }

            #[inline]
            fn dax(&self) -> Option<&dyn DaxDevice> {
                (**self).dax()
            }

            fn media(&self) -> Media {
                (**self).media()
            }

            #[cfg(feature = "std")]
            fn backing_file(&self) -> Option<crate::BackingFile<'_>> {
                (**self).backing_file()
            }

            fn extent(&self, offset: u64, len: u64) -> Result<(crate::Extent, u64)> {
                (**self).extent(offset, len)
            }

            fn populate(&self, offset: u64, len: u64) -> Result<()> {
                (**self).populate(offset, len)
            }

            #[inline]
            fn write_contents(&self, offset: u64, buf: &[u8]) -> Result<()> {
                (**self).write_contents(offset, buf)
            }

            #[inline]
            fn zero_contents(&self, offset: u64, len: u64) -> Result<()> {
                (**self).zero_contents(offset, len)
            }

            #[inline]
            fn freed(&self, offset: u64, len: u64) {
                (**self).freed(offset, len);
            }

            #[inline]
            fn hold(&self, begin: bool) {
                (**self).hold(begin);
            }

            #[inline]
            fn is_in_place(&self, offset: u64, len: u64) -> bool {
                (**self).is_in_place(offset, len)
            }

            #[inline]
            fn discard(&self, offset: u64, len: u64) -> Result<()> {
                (**self).discard(offset, len)
            }

            #[inline]
            fn read_u32(&self, offset: u64) -> Result<u32> {
                (**self).read_u32(offset)
            }

            #[inline]
            fn write_u32(&self, offset: u64, value: u32) -> Result<()> {
                (**self).write_u32(offset, value)
            }

            #[inline]
            fn write_words(&self, offset: u64, words: &[u32]) -> Result<()> {
                (**self).write_words(offset, words)
            }

            #[inline]
            fn write_u16(&self, offset: u64, value: u16) -> Result<()> {
                (**self).write_u16(offset, value)
            }
        }
    };
}

forward!(&D);
forward!(Box<D>);
forward!(Arc<D>);
