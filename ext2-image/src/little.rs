//! Numbers in bytes, the lowest byte first, as everything of ext2 has them. Where the bytes end before, they are 0.

/// The number of 2 bytes that begins at `at`.
pub(crate) fn half(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |half| u16::from_le_bytes(*half))
}

/// The number of 4 bytes that begins at `at`.
pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_le_bytes(*word))
}

/// The number of 8 bytes that begins at `at`.
pub(crate) fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |long| u64::from_le_bytes(*long))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_lie_inside_is_0() {
        let bytes: [u8; 9] = core::array::from_fn(|at| at as u8 + 1);
        assert_eq!((half(&bytes, 7), half(&bytes, 8), half(&bytes, 20)), (0x0908, 0, 0));
        assert_eq!((word(&bytes, 5), word(&bytes, 6)), (0x0908_0706, 0));
        assert_eq!((long(&bytes, 1), long(&bytes, 2)), (0x0908_0706_0504_0302, 0));
    }
}
