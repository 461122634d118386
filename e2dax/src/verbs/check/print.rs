//! Findings and verdicts as text and JSON.

use ext2_image::check::{Finding, Place, Preen, Summary};

use crate::json::{Json, object};
use crate::text::count;

fn preen(finding: &Finding) -> &'static str {
    match finding.preen() {
        _ if finding.kind.is_remark() => "remark",
        Preen::Mends => "mends",
        Preen::Halts => "halts",
    }
}

pub(super) fn to_text(finding: &Finding) -> String {
    format!("{finding} ({})", preen(finding))
}

pub(super) fn verdict(image: &str, summary: &Summary) -> String {
    let (inodes, blocks) = (summary.inodes, summary.blocks);
    match summary {
        _ if summary.is_clean() => {
            format!("{image}: clean, {}/{} inodes, {}/{} blocks", inodes.0, inodes.1, blocks.0, blocks.1)
        }
        Summary { complete: true, faults, .. } => format!("{image}: {}", count(*faults, "fault")),
        Summary { faults, .. } => {
            format!("{image}: {}, and the layout is too broken to look at the rest", count(*faults, "fault"))
        }
    }
}

fn number(value: Option<u64>) -> Json {
    value.map_or(Json::Null, |value| Json::Number(value.into()))
}

pub(super) fn to_json(finding: &Finding) -> Json {
    let place = match finding.place {
        Place::Group(nr) => object! { "object": "group", "number": nr },
        Place::Inode(nr) => object! { "object": "inode", "number": nr },
        Place::Block(nr) => object! { "object": "block", "number": nr },
        Place::Entry { directory, block, offset } => object! {
            "object": "directory",
            "number": directory,
            "block": block,
            "offset": offset,
            "name": Json::bytes(&finding.name),
        },
        _ => object! { "object": "superblock", "number": Json::Null },
    };
    place
        .with("kind", finding.kind.name())
        .with("text", finding.kind.text())
        .with("found", number(finding.found))
        .with("expected", number(finding.expected))
        .with("preen", preen(finding))
}

pub(super) fn summary_to_json(summary: &Summary, is_clean: bool) -> Json {
    object! {
        "clean": is_clean,
        "complete": summary.complete,
        "faults": summary.faults,
        "inodes_used": summary.inodes.0,
        "inodes": summary.inodes.1,
        "blocks_used": summary.blocks.0,
        "blocks": summary.blocks.1,
    }
}
