//! A bitmap of blocks or inodes: runs of bits, the lowest bit of a byte first.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use super::{Field, Value};

/// Bits beside each other that have one value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BitRun {
    /// The bits, from the bitmap's first one; the end is not of them.
    pub bits: Range<u32>,
    /// Whether they are set: in use.
    pub is_set: bool,
}

/// The runs of the first `count` bits; as many as there are, where there are fewer.
#[must_use]
pub fn bit_runs(bitmap: &[u8], count: u32) -> Vec<BitRun> {
    let mut runs: Vec<BitRun> = Vec::new();
    for bit in 0..count {
        let Some(byte) = bitmap.get(bit as usize / 8) else { break };
        let is_set = byte >> (bit % 8) & 1 != 0;
        match runs.last_mut() {
            Some(run) if run.is_set == is_set => run.bits.end = bit + 1,
            _ => runs.push(BitRun { bits: bit..bit + 1, is_set }),
        }
    }
    runs
}

/// The fields of a bitmap with `count` bits that mean something, whose first one stands for number `first` of `what`
/// (`block`, `inode`): a field a byte, and one for the padding behind, whose bits have to be set.
#[must_use]
pub fn bitmap(bytes: &[u8], count: u32, first: u64, what: &str) -> Vec<Field> {
    let used = (count as usize).div_ceil(8).min(bytes.len());
    let mut fields = Vec::new();
    for (nr, byte) in bytes.iter().take(used).enumerate() {
        let from = first + 8 * nr as u64;
        let bits = (count as usize - 8 * nr).min(8) as u64;
        let free: Vec<String> =
            (0..bits).filter(|bit| byte >> bit & 1 == 0).map(|bit| format!("{}", from + bit)).collect();
        let says = match free.len() as u64 {
            0 => String::from("all used"),
            all if all == bits => "all free".into(),
            _ => format!("free: {}", free.join(" ")),
        };
        let name = format!("{what}[{from}..{}]", from + bits);
        fields.push(Field::new(nr, 1, name, Value::Hex(u64::from(*byte))).says(says));
    }
    if let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
        let says = if rest.iter().all(|&byte| byte == 0xff) { "padding, all set" } else { "padding" };
        fields.push(Field::new(used, rest.len(), "padding", Value::Bytes(rest.to_vec())).says(says));
    }
    fields
}
