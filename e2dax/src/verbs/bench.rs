//! `bench`: a quick look at how fast this machine is at it.

mod image;
mod memory;
mod remote;

use std::ffi::OsString;
use std::time::{Duration, Instant};

use crate::context::Context;
use crate::failure::Result;
use crate::json::{Json, object};
use crate::target::Target;
use crate::text::{Align, parse_bytes, table};

/// Run a quick benchmark: reads, writes, lookups, faults and names in RAM, or how fast an image is read
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax bench                 in RAM, against memcpy; takes some seconds
  e2dax bench nbd://host/x    what opening, walking and reading cost in requests and bytes, once
  e2dax bench disk.img        opening, walking and reading that image, against plain copies of its bytes

An image is only read. Each figure is the median of five rounds. Comparisons with other file systems and programs
are in the source tree: cargo bench -p bench.")]
pub(crate) struct Args {
    /// The image, or a part of its tree
    #[arg(value_name = "IMG[:PATH]")]
    image: Option<OsString>,

    /// Bytes of the file in RAM
    #[arg(long, value_name = "BYTES", default_value = "128M", value_parser = parse_bytes, conflicts_with = "image")]
    size: u64,

    /// Print a JSON object for each row; times are nanoseconds for the whole row
    #[arg(long)]
    json: bool,
}

/// How often each is measured.
const ROUNDS: usize = 5;

/// What a row counts.
#[derive(Clone, Copy)]
enum Work {
    /// Bytes moved.
    Bytes(u64),
    /// Calls made.
    Calls(u64),
}

/// A row: what was done, how long it took, and beside what.
struct Row {
    what: String,
    work: Work,
    ours: Duration,
    beside: Option<(&'static str, Duration)>,
}

/// Something that is measured; says how long it took.
type Run<'a> = &'a mut dyn FnMut() -> Result<Duration>;

/// How long `work` takes.
fn time<T>(work: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed())
}

/// Measures ours and its peers in turn, and takes the median of each.
fn row(what: &str, work: Work, ours: Run<'_>, beside: Option<(&'static str, Run<'_>)>) -> Result<Row> {
    let (name, mut other) = beside.map_or((None, None), |(name, run)| (Some(name), Some(run)));
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        own.push(ours()?);
        if let Some(run) = &mut other {
            others.push(run()?);
        }
    }
    let beside = name.map(|name| (name, median(others)));
    Ok(Row { what: what.to_owned(), work, ours: median(own), beside })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

impl Work {
    /// The figure of so long a time.
    fn rate(self, took: Duration) -> String {
        let seconds = took.as_secs_f64().max(1e-9);
        match self {
            Self::Bytes(bytes) => format!("{:.2} GB/s", bytes as f64 / seconds / 1e9),
            Self::Calls(calls) => {
                let each = seconds / calls.max(1) as f64;
                if each < 1e-6 { format!("{:.0} ns", each * 1e9) } else { format!("{:.2} us", each * 1e6) }
            }
        }
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.what.clone(), self.work.rate(self.ours)];
        if let Some((name, other)) = self.beside {
            let ratio = other.as_secs_f64() / self.ours.as_secs_f64().max(1e-9);
            cells.extend([name.to_owned(), self.work.rate(other), format!("{ratio:.2} x")]);
        } else {
            cells.extend(["", "", ""].map(String::from));
        }
        cells
    }

    fn to_json(&self) -> Json {
        let nanoseconds = |took: Duration| u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let (bytes, calls) = match self.work {
            Work::Bytes(bytes) => (Some(bytes), None),
            Work::Calls(calls) => (None, Some(calls)),
        };
        object! {
            "what": self.what.clone(),
            "bytes": bytes,
            "calls": calls,
            "ours": nanoseconds(self.ours),
            "beside": self.beside.map(|(name, _)| name.to_owned()),
            "theirs": self.beside.map(|(_, took)| nanoseconds(took)),
        }
    }
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    if let Some(image) = args.image.as_deref().filter(|image| crate::remote::is_remote(image)) {
        return remote::run(&Target::parse(image)?, args.json, context);
    }
    let rows = match &args.image {
        Some(image) => image::rows(&Target::parse(image)?, context)?,
        None => memory::rows(args.size)?,
    };
    if args.json {
        return rows.iter().try_for_each(|row| context.out.json(&row.to_json()));
    }
    let titles = ["what", "ours", "beside", "it", "ours is"].map(String::from).to_vec();
    let cells: Vec<Vec<String>> = std::iter::once(titles).chain(rows.iter().map(Row::cells)).collect();
    let columns = [Align::Left, Align::Right, Align::Left, Align::Right, Align::Right];
    table(&columns, &cells).into_iter().try_for_each(|line| context.out.line(line))
}
