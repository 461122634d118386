//! An image that is reached over the network: what each step costs in requests and bytes, with nothing held before.

use std::time::Instant;

use ext2_core::{Ext2, FileKind, Follow, OpenOptions};
use ext2_image::Walk;

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::json::object;
use crate::remote::measured;
use crate::target::Target;
use crate::text::{Align, table};

/// Bytes of a call.
const CALL: usize = 1 << 20;

pub(super) fn run(target: &Target, json: bool, context: &mut Context) -> Result<()> {
    if !target.is_whole() {
        return Err(Failure::text(target.image_name(), "is measured as a whole, without a place"));
    }
    let mut steps = Vec::new();
    let mut before = (Instant::now(), 0, 0);
    let image = measured(target.image.as_os_str())?;
    let mut step = |what: &str, count: u64, payload: u64| {
        let now = (image.cost)();
        let (requests, bytes) = (now.requests - before.1, now.bytes - before.2);
        steps.push((what.to_owned(), count, payload, requests, bytes, before.0.elapsed()));
        before = (Instant::now(), now.requests, now.bytes);
    };
    let fs = Ext2::open(image.device.clone(), &OpenOptions::read_only()).of(|| target.image_name())?;
    let start = fs.resolve(target.path(), Follow::Yes).of(|| target.name())?;
    step("open", 1, 0);
    let (mut found, mut files) = (0, Vec::new());
    for item in Walk::new(&start, target.path()) {
        let inode = item.map_err(|error| error.error).of(|| target.name())?.inode;
        found += 1;
        if inode.attr().kind == FileKind::Regular && inode.size() > 0 {
            files.push(inode);
        }
    }
    step("walk", found, 0);
    let (mut buffer, mut payload) = (vec![0; CALL], 0);
    for inode in &files {
        let mut at = 0;
        loop {
            match inode.read_at(at, &mut buffer).of(|| target.name())? {
                0 => break,
                more => at += more as u64,
            }
        }
        payload += at;
    }
    step("read all files", files.len() as u64, payload);
    if json {
        return steps.iter().try_for_each(|(what, count, payload, requests, bytes, took)| {
            context.out.json(&object! {
                "what": what.clone(),
                "files": *count,
                "payload": *payload,
                "requests": *requests,
                "bytes": *bytes,
                "nanoseconds": u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
            })
        });
    }
    let titles = ["what", "files", "bytes in them", "requests", "a file", "bytes fetched", "ms"];
    let rows = steps.iter().map(|(what, count, payload, requests, bytes, took)| {
        let each = *requests as f64 / (*count).max(1) as f64;
        let numbers = [count.to_string(), payload.to_string(), requests.to_string(), format!("{each:.2}")];
        let mut cells = vec![what.clone()];
        cells.extend(numbers);
        cells.extend([bytes.to_string(), format!("{:.1}", took.as_secs_f64() * 1e3)]);
        cells
    });
    let cells: Vec<Vec<String>> = std::iter::once(titles.map(String::from).to_vec()).chain(rows).collect();
    let columns = [Align::Left].into_iter().chain([Align::Right; 6]).collect::<Vec<_>>();
    table(&columns, &cells).into_iter().try_for_each(|line| context.out.line(line))
}
