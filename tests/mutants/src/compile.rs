//! One build with all mutants. Which do not compile is told by the compiler: they are left out, and it is built again.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    find,
    folder::{Folder, write_changed},
    killers, modules,
    render::{Owner, Rendered, render},
    site::{Mutant, Site},
    tree,
};

/// A file that is mutated.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    text: String,
    sites: Vec<Site>,
    rendered: Rendered,
}

/// Builds all mutants of the workspace `root` in `folder`, and what kills them. Objects go to `target`.
///
/// # Errors
/// The host's; an error of the compiler that is of no mutant.
pub fn compile(root: &Path, folder: &Folder, target: &Path) -> io::Result<()> {
    let mut sources = read(root)?;
    let paths: Vec<PathBuf> = sources.iter().map(|source| source.path.clone()).collect();
    tree::copy(root, &folder.tree(), &paths)?;
    let mut left_out = folder.left_out()?;
    let found: usize = all(&sources).count();
    println!("{found} mutants in {} files", sources.len());
    loop {
        for source in &mut sources {
            source.rendered = render(&source.text, &source.sites, &left_out);
            write_changed(&folder.tree().join(&source.path), source.rendered.text.as_bytes())?;
        }
        let messages = cargo(&folder.tree(), target)?;
        let errors: Vec<&Value> = messages.iter().filter_map(error).collect();
        if errors.is_empty() {
            finish(folder, &sources, &left_out, &messages)?;
            return Ok(());
        }
        let before = left_out.len();
        for error in &errors {
            leave_out(error, &sources, &mut left_out);
        }
        println!("{} errors, {} mutants left out so far", errors.len(), left_out.len());
        if left_out.len() == before {
            for error in errors.iter().take(5) {
                println!("{}", error["rendered"].as_str().unwrap_or_default());
            }
            return Err(io::Error::other("the compiler's errors are of no mutant"));
        }
        folder.set_left_out(&left_out)?;
    }
}

fn read(root: &Path) -> io::Result<Vec<Source>> {
    let mut next = 1;
    let mut sources = Vec::new();
    for module in modules::ALL {
        for path in module.files(root)? {
            let text = std::fs::read_to_string(root.join(&path))?;
            let sites = find::sites(module.name, &path.to_string_lossy(), &text, &mut next)
                .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
            sources.push(Source { path, text, sites, rendered: Rendered::default() });
        }
    }
    Ok(sources)
}

fn all(sources: &[Source]) -> impl Iterator<Item = &Mutant> {
    sources.iter().flat_map(|source| &source.sites).flat_map(|site| &site.mutants)
}

/// What the compiler and cargo say, a message a line.
fn cargo(tree: &Path, target: &Path) -> io::Result<Vec<Value>> {
    let output = Command::new("cargo")
        .args(["test", "--no-run", "--message-format=json"])
        .args(killers::build_arguments())
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .stderr(Stdio::inherit())
        .output()?;
    let lines = output.stdout.split(|byte| *byte == b'\n');
    let messages: Vec<Value> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    if !output.status.success() && messages.iter().find_map(error).is_none() {
        return Err(io::Error::other("cargo failed without an error of the compiler"));
    }
    Ok(messages)
}

/// An error of the compiler.
fn error(message: &Value) -> Option<&Value> {
    let is = message["reason"] == "compiler-message" && message["message"]["level"] == "error";
    is.then(|| &message["message"])
}

/// Leaves out the mutants that an error is about: those at its main places, or else at the others that it names.
fn leave_out(error: &Value, sources: &[Source], left_out: &mut BTreeSet<String>) {
    let spans = error["spans"].as_array().map_or(&[][..], |spans| &spans[..]);
    for primary in [true, false] {
        let before = left_out.len();
        for span in spans.iter().filter(|span| (span["is_primary"] == true) == primary) {
            let file = span["file_name"].as_str().unwrap_or_default();
            let Some(source) = sources.iter().find(|source| source.path == Path::new(file)) else { continue };
            let byte =
                |name: &str| usize::try_from(span[name].as_u64().unwrap_or_default()).unwrap_or_default();
            let owned = source.rendered.owner(&(byte("byte_start")..byte("byte_end")));
            let of = |mutant: &&Mutant| match owned {
                Some(Owner::Mutant(id)) => mutant.id == id,
                Some(Owner::Site(index)) => source.sites[index].mutants.contains(mutant),
                None => false,
            };
            let mutants = source.sites.iter().flat_map(|site| &site.mutants).filter(of);
            left_out.extend(mutants.map(|mutant| mutant.key.clone()));
        }
        if left_out.len() > before {
            return;
        }
    }
}

fn finish(
    folder: &Folder,
    sources: &[Source],
    left_out: &BTreeSet<String>,
    messages: &[Value],
) -> io::Result<()> {
    let kept: Vec<&Mutant> = all(sources).filter(|mutant| !left_out.contains(&mutant.key)).collect();
    folder.set_mutants(&kept)?;
    let program = |message: &Value| {
        let name = message["target"]["name"].as_str()?;
        // The simulator is built as a program, and as its own unit tests, of which there are none.
        let wanted = (message["profile"]["test"] == true) != (name == killers::SIMULATOR);
        let path = message["executable"].as_str().filter(|_| wanted)?;
        Some(format!("{name}\t{path}\n"))
    };
    let built = messages.iter().filter(|message| message["reason"] == "compiler-artifact");
    let programs: Vec<String> = built.filter_map(program).collect();
    std::fs::write(folder.join("programs.tsv"), programs.concat())?;
    println!("{} mutants compile; {} programs", kept.len(), programs.len());
    Ok(())
}
