//! `fault`: a file mapped, touched, and what happened.

use std::ffi::OsString;

use clap::ValueEnum;
use ext2_core::Follow;
use ext2_dax::trace::{Event, Record, chrome, ftrace, json, oracle};

use crate::context::Context;
use crate::dax::{Behaviour, Touched, open, touch};
use crate::failure::{FAILED, Result};
#[cfg(target_os = "linux")]
use crate::json::object;
use crate::target::{Mode, Target};
use crate::text::parse_bytes;

/// Map a file, touch a byte of each page, and show the faults
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax fault disk.img:/data --at 0
  e2dax fault disk.img:/data --at 0 --len 2M --compat linux-6.1
  e2dax fault disk.img:/data --at 0 --len 16M --format chrome > trace.json
  e2dax fault disk.img:/data --at 0 --len 16M --host

The file is mapped shared and read-only in a page table in software, at an address congruent to its offset modulo
2 MiB. Events have the names and fields of the kernel's fs_dax tracepoints; a fault of 2 MiB that falls back says why.
With --host the same is done with memory of this process, through userfaultfd, which needs no privileges; the last
lines say how the kernel maps each unit of 2 MiB, and why not with one page. If a touch ends with a signal, the exit
code is 1. Nothing is written to the image.")]
pub(crate) struct Args {
    /// The file
    #[arg(value_name = "IMG:/PATH")]
    target: OsString,

    /// The first byte to touch
    #[arg(long, value_name = "OFFSET", value_parser = parse_bytes)]
    at: u64,

    /// How many bytes: one of each page is touched
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "1")]
    len: u64,

    /// Whose behaviour to show
    #[arg(long, value_name = "WHOSE", default_value = "full")]
    compat: Behaviour,

    /// How events are printed; chrome and ftrace print nothing else
    #[arg(long, value_name = "FORMAT", default_value = "listing")]
    format: Format,

    /// Only the counts
    #[arg(short, long, conflicts_with = "format")]
    quiet: bool,

    /// Map the file into this process as well, with real page faults, and print both side by side with what
    /// the kernel reports
    #[cfg(target_os = "linux")]
    #[arg(long, conflicts_with = "format")]
    host: bool,

    /// Print one JSON object with the counts
    #[arg(long, conflicts_with_all = ["format", "quiet"])]
    json: bool,
}

/// How events are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line each: name, shared or private, place, result
    Listing,
    /// As the kernel's trace file has them
    Ftrace,
    /// A JSON object each
    Json,
    /// A file for chrome://tracing and Perfetto
    Chrome,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse(&args.target)?;
    let (fs, inode) = target.resolve(&context.image, Mode::Read, Follow::Yes)?;
    let dax = open(fs, args.compat, || target.name())?;
    let touched = touch(&dax, inode.clone(), args.at, args.len, || target.name())?;
    if touched.died.is_some() {
        context.set_exit(FAILED);
    }
    #[cfg(target_os = "linux")]
    if args.host {
        let host = crate::host::touch(&dax, inode, args.at, args.len, || target.name())?;
        if host.has_died() {
            context.set_exit(FAILED);
        }
        if args.json {
            return context.out.json(&object! { "soft": touched.to_json(), "host": host.to_json() });
        }
        return host.beside(&touched).iter().try_for_each(|line| context.out.line(line));
    }
    if args.json {
        return context.out.json(&touched.to_json());
    }
    if !args.quiet {
        print(args.format, context, &touched)?;
    }
    if args.quiet || args.format == Format::Listing {
        return touched.summary().iter().try_for_each(|line| context.out.line(line));
    }
    Ok(())
}

fn print(format: Format, context: &mut Context, touched: &Touched) -> Result<()> {
    let mut text = String::new();
    // Writing to a String does not fail.
    let written = match format {
        Format::Listing => {
            touched.records.iter().filter_map(line).for_each(|line| text.push_str(&(line + "\n")));
            Ok(())
        }
        Format::Ftrace => {
            text.push_str(ftrace::HEADER);
            touched.records.iter().try_for_each(|record| ftrace::write(&mut text, record))
        }
        Format::Json => touched.records.iter().try_for_each(|record| json::write(&mut text, record)),
        Format::Chrome => chrome::write_all(&mut text, &touched.records),
    };
    debug_assert!(written.is_ok());
    context.out.text(text)
}

/// The line of the kernel's events, and of ours that say why.
fn line(record: &Record) -> Option<String> {
    match &record.event {
        Event::Fallback { reason, .. } => Some(format!("  falls back: {}", reason.name())),
        Event::IomapIter { pos, length, offset, answered, kind, .. } => Some(format!(
            "  iomap_begin: asked {pos}+{length}, answered {offset}+{answered} {}",
            format!("{kind:?}").to_lowercase()
        )),
        event => oracle::line(event),
    }
}
