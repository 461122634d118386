//! What every verb gets.

use std::io::Write as _;

use crate::failure::Failure;
use crate::out::Out;
use crate::target::ImageOptions;

/// Tells what a person should know, although nothing failed.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "e2dax: note: {text}");
}

/// Tells what was lost or changed on the way, although the whole did not fail.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "e2dax: warning: {text}");
}

/// The options that all verbs share, the output, and the exit code so far.
#[derive(Debug)]
pub(crate) struct Context {
    /// How images are opened.
    pub(crate) image: ImageOptions,
    /// The standard output.
    pub(crate) out: Out,
    exit: u8,
}

impl Context {
    /// With nothing printed and nothing failed.
    pub(crate) fn new(image: ImageOptions) -> Self {
        Self { image, out: Out::new(), exit: 0 }
    }

    /// Prints a failure and remembers its exit code: for what is no reason to stop.
    pub(crate) fn complain(&mut self, failure: &Failure) {
        self.exit = self.exit.max(failure.code());
        self.tell(failure);
    }

    /// Prints a failure.
    pub(crate) fn tell(&self, failure: &Failure) {
        // There is nobody left to tell when the standard error is gone.
        let _ = writeln!(std::io::stderr(), "e2dax: {failure}");
    }

    /// Tells what a person should know, although nothing failed.
    pub(crate) fn note(&self, text: &str) {
        note(text);
    }

    /// Tells what was lost or changed on the way, although the whole did not fail.
    pub(crate) fn warn(&self, text: &str) {
        warn(text);
    }

    /// Complains of a failure, or gives the value; a closed output is passed on, because it ends everything.
    pub(crate) fn or_complain<T>(&mut self, result: Result<T, Failure>) -> Result<Option<T>, Failure> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(failure) if failure.is_closed_output() => Err(failure),
            Err(failure) => {
                self.complain(&failure);
                Ok(None)
            }
        }
    }

    /// Ends with this code, or a higher one that a failure asks for.
    pub(crate) fn set_exit(&mut self, code: u8) {
        self.exit = self.exit.max(code);
    }

    /// Ends with this code, whatever a failure asked for.
    pub(crate) fn lower_exit(&mut self, code: u8) {
        self.exit = code;
    }

    /// The code to end with.
    pub(crate) fn exit_code(&self) -> u8 {
        self.exit
    }
}
