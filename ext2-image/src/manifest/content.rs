//! The CRC-32 that stands for the bytes of a file.

use crc32fast::Hasher;

/// CRC-32 (IEEE, as gzip and zip use it) of the bytes of a file, fed front to back, holes by their length alone.
///
/// A hole of any length costs at most 64 steps, so that a sparse file of terabytes is summed at once.
#[derive(Clone, Debug, Default)]
pub struct ContentCrc {
    hasher: Hasher,
}

impl ContentCrc {
    /// The sum of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Adds `length` zero bytes.
    pub fn update_zeros(&mut self, length: u64) {
        let zeros = Hasher::new_with_initial_len(crc_of_zeros(length), length);
        self.hasher.combine(&zeros);
    }

    /// The CRC-32 of everything added.
    pub fn finish(self) -> u32 {
        self.hasher.finalize()
    }
}

/// The CRC-32 of `length` zero bytes, by doubling.
pub fn crc_of_zeros(length: u64) -> u32 {
    let mut sum = Hasher::new();
    let mut power = {
        let mut one = Hasher::new();
        one.update(&[0]);
        one
    };
    for bit in 0..u64::BITS {
        if length >> bit & 1 == 1 {
            sum.combine(&power);
        }
        if bit == 63 || length >> (bit + 1) == 0 {
            break;
        }
        let half = power.clone();
        power.combine(&half);
    }
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn the_check_value_of_the_crc_is_the_one_of_gzip() {
        let mut crc = ContentCrc::new();
        crc.update(b"123456789");
        assert_eq!(crc.finish(), 0xcbf4_3926);
    }

    #[test]
    fn zeros_by_length_equal_zeros_by_byte() {
        for length in [0_usize, 1, 2, 3, 511, 4096, 4097, 100_000] {
            assert_eq!(crc_of_zeros(length as u64), crc32fast::hash(&vec![0; length]), "{length}");
        }
    }

    #[test]
    fn a_hole_between_data_sums_as_its_zeros() {
        let mut crc = ContentCrc::new();
        crc.update(b"head");
        crc.update_zeros(5000);
        crc.update(b"tail");
        let mut bytes = b"head".to_vec();
        bytes.extend(vec![0; 5000]);
        bytes.extend(b"tail");
        assert_eq!(crc.finish(), crc32fast::hash(&bytes));
    }

    #[test]
    fn the_longest_hole_is_summed_without_reading_it() {
        let mut crc = ContentCrc::new();
        crc.update_zeros(u64::MAX - 1);
        crc.update_zeros(1);
        assert_eq!(crc.finish(), crc_of_zeros(u64::MAX));
    }
}
