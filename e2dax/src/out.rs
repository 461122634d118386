//! The standard output: buffered, and never a panic when it is closed.

use std::fmt;
use std::io::{self, Write};

use crate::failure::{Cause, Failure, Result};
use crate::json::Json;

/// The standard output of a verb. What a verb of a shell does not print costs it nothing: there is one of these for each.
pub(crate) struct Out {
    gathered: Vec<u8>,
}

/// Bytes gathered before they are written.
const BUFFER: usize = 64 << 10;

impl Out {
    /// The process's standard output.
    pub(crate) fn new() -> Self {
        Self { gathered: Vec::new() }
    }

    /// A line.
    pub(crate) fn line(&mut self, text: impl fmt::Display) -> Result<()> {
        writeln!(self.gathered, "{text}").map_err(output)?;
        self.write_much()
    }

    /// Text without an end of line.
    pub(crate) fn text(&mut self, text: impl fmt::Display) -> Result<()> {
        write!(self.gathered, "{text}").map_err(output)?;
        self.write_much()
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() >= BUFFER {
            self.write()?;
            return io::stdout().write_all(bytes).map_err(output);
        }
        self.gathered.extend_from_slice(bytes);
        self.write_much()
    }

    /// One JSON value on a line of its own.
    pub(crate) fn json(&mut self, value: &Json) -> Result<()> {
        self.line(value)
    }

    /// Writes what is gathered.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.write()?;
        io::stdout().flush().map_err(output)
    }

    fn write_much(&mut self) -> Result<()> {
        if self.gathered.len() < BUFFER { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let written = io::stdout().write_all(&self.gathered).map_err(output);
        self.gathered.clear();
        written
    }
}

impl Drop for Out {
    /// What is still gathered is written, and nobody is left to tell where that fails.
    fn drop(&mut self) {
        let _ = self.flush();
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
