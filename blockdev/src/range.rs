//! Arithmetic on byte ranges that come from anywhere.

use crate::{Error, PAGE_SIZE, Result};

/// Refuses a range that does not lie within `size` bytes. An empty range lies anywhere up to the end.
#[inline(always)]
pub(crate) fn check(offset: u64, len: u64, size: u64) -> Result<()> {
    // Written so that one comparison each suffices and nothing can overflow.
    if len <= size && offset <= size - len { Ok(()) } else { Err(out_of_range(offset, len, size)) }
}

/// As [`check`], for words at a multiple of their size.
#[inline]
pub(crate) fn check_words(offset: u64, words: &[u32], size: u64) -> Result<()> {
    check(offset, size_of_val(words) as u64, size)?;
    if offset.is_multiple_of(4) { Ok(()) } else { Err(Error::Unsupported("an unaligned word access")) }
}

#[cold]
fn out_of_range(offset: u64, len: u64, size: u64) -> Error {
    Error::OutOfRange { offset, len, size }
}

/// The bytes `offset..offset + len` of a run of `count` pages from `page`, cut at the device's end.
///
/// A device whose size is no multiple of a page has a last page that is shorter.
pub(crate) fn page_run(page: u64, count: u64, size: u64) -> Result<(u64, u64)> {
    let pages = size.div_ceil(PAGE_SIZE);
    if count == 0 || page >= pages || count > pages - page {
        return Err(out_of_range(page.saturating_mul(PAGE_SIZE), count.saturating_mul(PAGE_SIZE), size));
    }
    let offset = page * PAGE_SIZE;
    // OK to add: `page + count <= pages`, and the last page's end is at most a page past `size`.
    let end = (page + count).saturating_mul(PAGE_SIZE).min(size);
    Ok((offset, end - offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_inside_or_refused_without_overflow() {
        assert!(check(0, 0, 0).is_ok());
        assert!(check(10, 0, 10).is_ok());
        assert!(check(10, 1, 10).is_err());
        assert!(check(u64::MAX, 1, u64::MAX).is_err());
        assert!(check(u64::MAX, u64::MAX, u64::MAX).is_err());
        assert!(check(1, u64::MAX, u64::MAX).is_err());
        assert!(check(0, u64::MAX, u64::MAX).is_ok());
    }

    #[test]
    fn a_run_of_pages_ends_with_the_device() {
        assert_eq!(page_run(0, 1, 5000), Ok((0, 4096)));
        assert_eq!(page_run(1, 1, 5000), Ok((4096, 904)));
        assert_eq!(page_run(0, 2, 5000), Ok((0, 5000)));
        assert!(page_run(2, 1, 5000).is_err());
        assert!(page_run(0, 3, 5000).is_err());
        assert!(page_run(0, 0, 5000).is_err());
        assert!(page_run(u64::MAX, u64::MAX, 5000).is_err());
    }
}
