//! The mail of 26 August 2016 in lessons: a question first, then the flight that answers it, then the behaviour that the
//! point speaks against. The right answer is what the flight measures, never what a table says.

mod run;
mod text;

use serde::Serialize;

use crate::flight::Flight;
use crate::source::Knows;

pub(crate) use run::run;
pub(crate) use text::LESSONS;

/// What a lesson says.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Lesson {
    /// From 1; six are the mail's points.
    pub(crate) number: usize,
    /// In a few words.
    pub(crate) title: &'static str,
    /// What the mail says, word for word; empty for the seventh.
    pub(crate) quote: &'static str,
    /// What one has to know first.
    pub(crate) before: &'static str,
    /// What is asked.
    pub(crate) question: &'static str,
    /// What could be the answer; each begins with what is measured.
    pub(crate) choices: &'static [&'static str],
    /// What it means, once it was seen.
    pub(crate) after: &'static str,
    /// The mutant in a few words.
    pub(crate) mutant: &'static str,
    /// What the mutant does wrong.
    pub(crate) mutant_after: &'static str,
    /// The script, where one is flown.
    #[serde(skip)]
    pub(crate) script: &'static str,
}

/// What a lesson came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ran {
    /// The lesson.
    pub(crate) lesson: &'static Lesson,
    /// Whether the mutant flew.
    pub(crate) mutant: bool,
    /// What was measured, as the choices begin.
    pub(crate) measured: String,
    /// The choice that says so, without the mutant.
    pub(crate) right: Option<usize>,
    /// The flight.
    pub(crate) flight: Flight,
    /// What sources know, where that is the point.
    pub(crate) knowledge: Vec<Knows>,
}
