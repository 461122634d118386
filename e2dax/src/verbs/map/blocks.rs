//! `map --blocks`: a block map as it lies on the device.

use ext2_core::{Ext2, Inode};
use ext2_image::fields::Layout;
use ext2_image::inspect::{Step, pointers, read_inode};

use crate::context::Context;
use crate::failure::{Of, Result};
use crate::json::object;
use crate::target::Target;
use crate::text::{Align, table};

/// The name of an indirect block, by the levels that it stands above the contents.
fn kind(level: u32) -> &'static str {
    match level {
        1 => "indirect",
        2 => "double indirect",
        _ => "triple indirect",
    }
}

pub(super) fn run(
    json: bool,
    context: &mut Context,
    target: &Target,
    fs: &Ext2,
    inode: &Inode,
) -> Result<()> {
    let name = || target.name();
    let layout = Layout::read(&**fs.device()).of(name)?;
    let (_, bytes) = read_inode(&**fs.device(), &layout, inode.nr()).of(name)?;
    let steps = pointers(&**fs.device(), fs.geometry(), &bytes).of(name)?;
    let mut rows = vec![["logical", "blocks", "kind", "physical"].map(String::from).to_vec()];
    for step in steps {
        let (first, count, block, kind, level, is_wrong) = match step {
            Step::Run { first, count, block } => (first, count, block, "contents", 0, false),
            Step::Indirect { level, block, first, is_wrong } => {
                (first, 1, block, kind(level), level, is_wrong)
            }
        };
        if json {
            let object = object! {
                "logical": first,
                "blocks": count,
                "kind": kind,
                "level": level,
                "physical": block,
                "wrong": is_wrong,
            };
            context.out.json(&object)?;
        } else {
            let wrong = if is_wrong { ", wrong" } else { "" };
            rows.push(vec![
                first.to_string(),
                count.to_string(),
                format!("{kind}{wrong}"),
                block.to_string(),
            ]);
        }
    }
    if json {
        return Ok(());
    }
    let columns = [Align::Right, Align::Right, Align::Left, Align::Right];
    table(&columns, &rows).into_iter().try_for_each(|line| context.out.line(line))
}
