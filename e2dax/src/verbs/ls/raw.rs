//! `ls --raw`: the entries of a directory as they lie in its blocks.

use ext2_core::{DeviceBlock, Ext2, FileKind, Inode};
use ext2_image::fields::{DirRecord, Layout, Structure, records};
use ext2_image::inspect::{Step, pointers, read_inode};

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::json::{Json, object};
use crate::target::Target;
use crate::text::{Align, show, table};

pub(super) fn run(
    json: bool,
    context: &mut Context,
    target: &Target,
    fs: &Ext2,
    inode: &Inode,
) -> Result<()> {
    let name = || target.name();
    if inode.kind() != FileKind::Directory {
        return Err(Failure::text(target.name(), "is not a directory"));
    }
    let device = &**fs.device();
    let layout = Layout::read(device).of(name)?;
    let (_, bytes) = read_inode(device, &layout, inode.nr()).of(name)?;
    let titles = ["block", "offset", "inode", "rec_len", "type", "", "name"];
    let mut rows = vec![titles.map(String::from).to_vec()];
    for step in pointers(device, fs.geometry(), &bytes).of(name)? {
        let Step::Run { count, block, .. } = step else { continue };
        let blocks = u64::from(block)..u64::from(block) + count;
        for block in blocks.filter_map(|block| u32::try_from(block).ok()).filter_map(DeviceBlock::new) {
            let taken = layout.take(device, Structure::Directory(block.get())).of(name)?;
            for record in records(&taken.bytes) {
                if json {
                    context.out.json(&to_json(block.get(), &record))?;
                } else {
                    rows.push(row(block.get(), &record));
                }
            }
        }
    }
    if json {
        return Ok(());
    }
    let columns =
        [Align::Right, Align::Right, Align::Right, Align::Right, Align::Right, Align::Left, Align::Left];
    table(&columns, &rows).into_iter().try_for_each(|line| context.out.line(line))
}

/// What is to be said of an entry.
fn state(record: &DirRecord) -> &'static str {
    match (record.wrong, record.is_deleted) {
        (Some(wrong), _) => wrong,
        (None, true) if record.inode == 0 => "unused",
        (None, true) => "removed",
        (None, false) => "",
    }
}

fn row(block: u32, record: &DirRecord) -> Vec<String> {
    let numbers = [
        block.to_string(),
        record.offset.to_string(),
        record.inode.to_string(),
        record.rec_len.to_string(),
        record.file_type.to_string(),
    ];
    numbers.into_iter().chain([state(record).into(), show(&record.name)]).collect()
}

fn to_json(block: u32, record: &DirRecord) -> Json {
    object! {
        "block": block,
        "offset": record.offset,
        "inode": record.inode,
        "rec_len": record.rec_len,
        "file_type": record.file_type,
        "name": Json::bytes(&record.name),
        "deleted": record.is_deleted,
        "wrong": record.wrong,
    }
}
