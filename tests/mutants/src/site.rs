//! Places in a source at which it can be changed, and the changes.

use std::ops::Range;

/// Bytes of a source.
pub type Span = Range<usize>;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// The number that switches it on, from 1.
    pub id: u32,
    /// The module in which it is.
    pub module: &'static str,
    /// File, function, code and change, and a number where several have the same: it stays as long as the code does.
    pub key: String,
    /// The line, from 1.
    pub line: usize,
    /// What it puts in the place of what is there: an operator, or a value.
    pub text: String,
}

/// A place, with its changes.
#[derive(Clone, Debug)]
pub struct Site {
    /// The bytes that it covers; none for a body, which begins there.
    pub span: Span,
    /// What is there.
    pub what: What,
    /// The changes.
    pub mutants: Vec<Mutant>,
}

/// What can be changed.
#[derive(Clone, Debug)]
pub enum What {
    /// The body of a function: left at its beginning with a value.
    Body,
    /// `left op right`, a comparison.
    Compare { left: Span, op: String, right: Span },
    /// `left op right`, of numbers or bits.
    Arithmetic { left: Span, op: String, right: Span },
    /// `left op right`, which evaluates the right side only where it has to.
    Logic { left: Span, op: String, right: Span },
    /// `left op= right`.
    Assign { left: Span, op: String, right: Span },
    /// `op operand`.
    Unary { op: String, operand: Span },
    /// The end of a range: one more, one less.
    End,
    /// A match arm beside a wildcard, and its guard: passed over, or the guard is something else.
    Arm { guard: Option<Span> },
}

/// What else is put in the place of an operator.
#[must_use]
pub fn others(op: &str) -> &'static [&'static str] {
    match op {
        "==" => &["!="],
        "!=" => &["=="],
        "<" => &["<=", "==", ">"],
        ">" => &[">=", "==", "<"],
        "<=" => &["<", ">"],
        ">=" => &[">", "<"],
        "+" => &["-", "*"],
        "-" => &["+", "/"],
        "*" => &["+", "/"],
        "/" => &["%", "*"],
        "%" => &["/", "+"],
        "<<" => &[">>"],
        ">>" => &["<<"],
        "&" => &["|", "^"],
        // Bits that are put together are different ones: `^` does the same.
        "|" => &["&"],
        "^" => &["|", "&"],
        "&&" => &["||"],
        "||" => &["&&"],
        _ => &[],
    }
}
