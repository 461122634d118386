//! `quiz`: the questions of the page, in a terminal.

use std::path::PathBuf;

use e2dax_lab::{Question, TOPICS, ask};

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::json::{Json, object};

/// Ask a question about ext2 and paging; the same number gives the same question
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax quiz --seed 7
  e2dax quiz --seed 7 -c                        the answer, too
  e2dax quiz --seed 7 inodes --image hunt.img   something is broken in there: find it
  e2dax check hunt.img

Topics: superblock, groups, bitmaps, inodes, directories: a field of an image is changed; pointers: which pointer leads to a
byte; paging: how many faults a program takes. Without one, the number chooses. The page of `e2dax lab` asks the same.")]
pub(crate) struct Args {
    /// The number of the question
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// What to ask about
    #[arg(value_name = "TOPIC", value_parser = clap::builder::PossibleValuesParser::new(TOPICS))]
    topic: Option<String>,

    /// Show the answer, too
    #[arg(short = 'c', long)]
    check: bool,

    /// Write the image that the question is about
    #[arg(long, value_name = "OUT.img")]
    image: Option<PathBuf>,

    /// Print one JSON object; the answer is in it with -c
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let (question, image) =
        ask(args.seed, args.topic.as_deref()).map_err(|error| Failure::text("quiz", error))?;
    if let Some(path) = &args.image {
        std::fs::write(path, &image).map_err(|error| Failure::host(path, error))?;
    }
    if args.json { print_json(args, context, &question) } else { print(args, context, &question) }
}

fn letter(nr: usize) -> char {
    // OK to cast: there are at most five choices.
    char::from(b'a' + nr as u8)
}

fn print(args: &Args, context: &mut Context, question: &Question) -> Result<()> {
    context.out.line(format_args!("Question {} ({})\n{}", question.seed, question.topic, question.text))?;
    for (nr, choice) in question.choices.iter().enumerate() {
        context.out.line(format_args!("  {}) {choice}", letter(nr)))?;
    }
    if args.check {
        let right = question.choices.get(question.right).map_or("", String::as_str);
        context.out.line(format_args!(
            "Answer: {}) {right}\n{}",
            letter(question.right),
            question.explanation
        ))?;
    }
    Ok(())
}

fn print_json(args: &Args, context: &mut Context, question: &Question) -> Result<()> {
    let choices = Json::list(question.choices.iter().map(String::as_str));
    let (topic, text) = (question.topic, question.text.as_str());
    let asked = object! { "seed": question.seed, "topic": topic, "text": text, "choices": choices };
    if !args.check {
        return context.out.json(&asked);
    }
    let right = question.choices.get(question.right).map_or("", String::as_str);
    context.out.json(&asked.with("answer", right).with("explanation", question.explanation.as_str()))
}
