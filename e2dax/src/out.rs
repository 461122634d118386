//! The standard output: buffered, and never a panic when it is closed.

use std::fmt;
use std::io::{self, BufWriter, Stdout, Write};

use crate::failure::{Cause, Failure, Result};
use crate::json::Json;

/// The standard output of a verb.
pub(crate) struct Out {
    inner: BufWriter<Stdout>,
}

/// Bytes gathered before they are written.
const BUFFER: usize = 64 << 10;

impl Out {
    /// The process's standard output.
    pub(crate) fn new() -> Self {
        Self { inner: BufWriter::with_capacity(BUFFER, io::stdout()) }
    }

    /// A line.
    pub(crate) fn line(&mut self, text: impl fmt::Display) -> Result<()> {
        writeln!(self.inner, "{text}").map_err(output)
    }

    /// Text without an end of line.
    pub(crate) fn text(&mut self, text: impl fmt::Display) -> Result<()> {
        write!(self.inner, "{text}").map_err(output)
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.write_all(bytes).map_err(output)
    }

    /// One JSON value on a line of its own.
    pub(crate) fn json(&mut self, value: &Json) -> Result<()> {
        self.line(value)
    }

    /// Writes what is gathered.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.inner.flush().map_err(output)
    }
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Out")
    }
}

fn output(error: io::Error) -> Failure {
    Failure::new("standard output", Cause::Output(error))
}
