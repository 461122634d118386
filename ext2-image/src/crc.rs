//! The two checksums of Linux's journals, as its `crc32c` and `crc32_be` give them: begun with any value, and not inverted at
//! the end.

const fn table(reflected: bool) -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        // OK to cast: below 256.
        let mut crc = if reflected { byte as u32 } else { (byte as u32) << 24 };
        let mut bit = 0;
        while bit < 8 {
            crc = match reflected {
                true if crc & 1 != 0 => crc >> 1 ^ 0x82f6_3b78,
                true => crc >> 1,
                false if crc >> 31 != 0 => crc << 1 ^ 0x04c1_1db7,
                false => crc << 1,
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

static CASTAGNOLI: [u32; 256] = table(true);
static BIG_ENDIAN: [u32; 256] = table(false);

/// CRC-32C, least significant bit first (Linux: `crc32c_le`).
pub(crate) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |crc, &byte| crc >> 8 ^ CASTAGNOLI[(crc as u8 ^ byte) as usize])
}

/// CRC-32, most significant bit first (Linux: `crc32_be`).
pub(crate) fn crc32_be(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |crc, &byte| crc << 8 ^ BIG_ENDIAN[((crc >> 24) as u8 ^ byte) as usize])
}

/// CRC-16 of descriptors, least significant bit first (Linux: `crc16`).
pub(crate) fn crc16(seed: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(seed, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte), |crc, _| if crc & 1 != 0 { crc >> 1 ^ 0xa001 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_catalogue() {
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        // CRC-32/MPEG-2.
        assert_eq!(crc16(0, b"123456789"), 0xbb3d);
        assert_eq!(crc32_be(!0, b"123456789"), 0x0376_e6e7);
    }
}
