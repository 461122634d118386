//! The header that Linux's nvdimm driver puts before what a pmem namespace holds (`struct nd_pfn_sb`). An image that
//! begins with one, as Kata Containers ships it, is on an emulated nvdimm a namespace in mode `fsdax` at once.
//!
//! The header lies 4 KiB into the image, what it describes begins [`DATA_OFFSET`] bytes into it.

use blockdev::BlockDevice;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Result;
use crate::UNIT;

/// Where the header lies, in bytes.
pub const HEADER_OFFSET: u64 = 4096;
/// Where the data begins in an image that [`write()`] has made, in bytes.
pub const DATA_OFFSET: u64 = UNIT;
/// What the header begins with.
pub const SIGNATURE: [u8; 16] = *b"NVDIMM_PFN_INFO\0";
/// `PFN_MODE_RAM`: struct pages lie in ordinary memory.
const MODE_RAM: u32 = 1;

/// The header, 4096 bytes, under the kernel's names.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawPfnSb {
    signature: [u8; 16],
    uuid: [u8; 16],
    parent_uuid: [u8; 16],
    flags: U32,
    version_major: U16,
    version_minor: U16,
    dataoff: U64,
    npfns: U64,
    mode: U32,
    start_pad: U32,
    end_trunc: U32,
    align: U32,
    page_size: U32,
    page_struct_size: U16,
    padding: [u8; 3994],
    checksum: U64,
}

const _: () = {
    assert!(size_of::<RawPfnSb>() == 4096);
    assert!(core::mem::offset_of!(RawPfnSb, dataoff) == 56);
    assert!(core::mem::offset_of!(RawPfnSb, align) == 84);
    assert!(core::mem::offset_of!(RawPfnSb, checksum) == 4088);
};

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pfn {
    /// Where the data begins, in bytes.
    pub data_offset: u64,
    /// To what multiple it can be mapped, in bytes.
    pub align: u32,
    /// Whether the checksum is right.
    pub checksum_ok: bool,
}

/// Two running sums over 32-bit words.
fn fletcher64(bytes: &[u8]) -> u64 {
    let (mut low, mut high) = (0u32, 0u64);
    for word in bytes.chunks_exact(4) {
        low = low.wrapping_add(word.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte)));
        high = high.wrapping_add(low.into());
    }
    high << 32 | u64::from(low)
}

/// The checksum of a header, with its own field taken as 0.
fn checksum(header: &RawPfnSb) -> u64 {
    let mut copy = *header;
    copy.checksum.set(0);
    fletcher64(copy.as_bytes())
}

/// The bytes of a header for `data_len` bytes of data, to be written at [`HEADER_OFFSET`].
#[must_use]
pub fn header(uuid: [u8; 16], data_len: u64) -> [u8; 4096] {
    let mut header = RawPfnSb::new_zeroed();
    header.signature = SIGNATURE;
    header.uuid = uuid;
    header.version_major.set(1);
    header.version_minor.set(4);
    header.dataoff.set(DATA_OFFSET);
    header.npfns.set(data_len / 4096);
    header.mode.set(MODE_RAM);
    header.align.set(UNIT as u32); // 2 MiB
    header.page_size.set(4096);
    header.page_struct_size.set(64);
    header.checksum.set(checksum(&header));
    let mut bytes = [0; 4096];
    bytes.copy_from_slice(header.as_bytes());
    bytes
}

/// Writes a header to a device whose data, of `data_len` bytes, begins at [`DATA_OFFSET`].
///
/// # Errors
/// The device's.
pub fn write(device: &dyn BlockDevice, uuid: [u8; 16], data_len: u64) -> Result<()> {
    Ok(device.write_at(HEADER_OFFSET, &header(uuid, data_len))?)
}

/// What the header of a device says, if it has one whose data lies inside the device.
///
/// # Errors
/// The device's.
pub fn find(device: &dyn BlockDevice) -> Result<Option<Pfn>> {
    if device.size() < HEADER_OFFSET + size_of::<RawPfnSb>() as u64 {
        return Ok(None);
    }
    let mut header = RawPfnSb::new_zeroed();
    device.read_at(HEADER_OFFSET, header.as_mut_bytes())?;
    let data_offset = header.dataoff.get();
    if header.signature != SIGNATURE || data_offset >= device.size() {
        return Ok(None);
    }
    let checksum_ok = header.checksum.get() == checksum(&header);
    Ok(Some(Pfn { data_offset, align: header.align.get(), checksum_ok }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockdev::RamDevice;

    #[test]
    fn a_header_is_found_again_and_a_flipped_bit_is_seen() {
        let device = RamDevice::new(4 << 20).unwrap();
        assert_eq!(find(&device).unwrap(), None);
        write(&device, [3; 16], 2 << 20).unwrap();
        let found = find(&device).unwrap().unwrap();
        assert_eq!(found, Pfn { data_offset: 2 << 20, align: 2 << 20, checksum_ok: true });
        device.write_at(HEADER_OFFSET + 64, &[1]).unwrap();
        assert!(!find(&device).unwrap().unwrap().checksum_ok);
    }

    #[test]
    fn the_checksum_is_two_sums_of_words() {
        assert_eq!(fletcher64(&[1, 0, 0, 0, 2, 0, 0, 0]), 4 << 32 | 3);
        assert_eq!(fletcher64(&[0xff; 8]), (0x1_ffff_fffd_u64 & 0xffff_ffff) << 32 | 0xffff_fffe);
    }
}
