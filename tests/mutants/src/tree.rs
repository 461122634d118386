//! The copy of the workspace that is mutated.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{folder::write_changed, modules::CRATES};

const SWITCH: &str = "mutant-switch";
const SWITCH_TOML: &str = include_str!("../switch/Cargo.toml");
const SWITCH_LIB: &str = include_str!("../switch/src/lib.rs");
/// Mutants are not written well, and may always overflow.
const LINTS: &str = "\n[workspace.lints.rust]\nwarnings = { level = \"allow\", priority = -1 }\n\
    arithmetic_overflow = \"allow\"\nunconditional_panic = \"allow\"\n";
/// What no build of the tests reads.
const PASSED_OVER: &[&str] = &["target", ".git", "fuzz", "corpus", "artifacts"];

/// Makes `to` a copy of the workspace `from`, in which the crates that are mutated know the switch. Files in `mutated` are
/// left as they are.
///
/// # Errors
/// The host's; a manifest that has no place for the switch.
pub fn copy(from: &Path, to: &Path, mutated: &[PathBuf]) -> io::Result<()> {
    copy_folder(from, to, Path::new(""), mutated)?;
    write_changed(&to.join(SWITCH).join("Cargo.toml"), SWITCH_TOML.as_bytes())?;
    write_changed(&to.join(SWITCH).join("src/lib.rs"), SWITCH_LIB.as_bytes())
}

fn copy_folder(from: &Path, to: &Path, within: &Path, mutated: &[PathBuf]) -> io::Result<()> {
    let mut held = Vec::new();
    for entry in fs::read_dir(from.join(within))? {
        let entry = entry?;
        let name = entry.file_name();
        let path = within.join(&name);
        if PASSED_OVER.iter().any(|passed| name == **passed) {
            continue;
        }
        held.push(name);
        if entry.file_type()?.is_dir() {
            copy_folder(from, to, &path, mutated)?;
        } else if entry.file_type()?.is_file() && !mutated.contains(&path) {
            let bytes = with_switch(&path, fs::read(from.join(&path))?)?;
            write_changed(&to.join(&path), &bytes)?;
            fs::set_permissions(to.join(&path), entry.metadata()?.permissions())?;
        }
    }
    // What is gone, goes: a source that is left would be compiled.
    let Ok(copied) = fs::read_dir(to.join(within)) else { return Ok(()) };
    for entry in copied {
        let entry = entry?;
        let name = entry.file_name();
        let own = within.as_os_str().is_empty() && (name == SWITCH || name == "Cargo.lock");
        if !held.contains(&name) && !own && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn with_switch(path: &Path, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let replaced = if path == Path::new("Cargo.toml") {
        &[("\nmembers = [", "\nmembers = [\"mutant-switch\", "), ("\n[workspace.lints.rust]\n", LINTS)][..]
    } else if CRATES.iter().any(|name| path == Path::new(name).join("Cargo.toml")) {
        &[("\n[dependencies]\n", "\n[dependencies]\nmutant-switch = { path = \"../mutant-switch\" }\n")][..]
    } else {
        return Ok(bytes);
    };
    let mut text = String::from_utf8(bytes).map_err(io::Error::other)?;
    for (find, put) in replaced {
        if !text.contains(find) {
            return Err(io::Error::other(format!("{} has no {find:?}", path.display())));
        }
        text = text.replacen(find, put, 1);
    }
    Ok(text.into_bytes())
}
