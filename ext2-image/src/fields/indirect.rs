//! An indirect block: pointers to blocks.

use alloc::format;
use alloc::vec::Vec;

use super::{Field, PointsTo, Value};

/// The fields of an indirect block that stands `level` levels above the contents (1: its pointers lead to contents).
#[must_use]
pub fn indirect(block: &[u8], level: u32) -> Vec<Field> {
    let what = match level {
        0 | 1 => "",
        2 => "indirect",
        _ => "double indirect",
    };
    let pointers = block.chunks_exact(4).enumerate().map(|(nr, bytes)| {
        let pointer = bytes.try_into().map(u32::from_le_bytes).unwrap_or_default();
        let field = Field::new(4 * nr, 4, format!("pointer[{nr}]"), Value::Number(pointer.into()));
        let leads = (pointer != 0).then_some(PointsTo::Block(pointer));
        field.says(if pointer == 0 { "hole" } else { what }).leads_to(leads)
    });
    pointers.collect()
}
