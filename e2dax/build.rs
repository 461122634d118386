//! Tells the command which commit it is built from, for `e2dax --version`.
//!
//! In order: `E2DAX_COMMIT` (packagers, whose sources have no history), what `cargo package` notes of the commit, and git.
//! Without any of them the version stands alone. Nothing here depends on the time or the place of the build. Only builds that
//! are handed out ask git: it would build the command anew after each commit.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Digits of a commit that are shown: enough to be unique, few enough to read aloud.
const DIGITS: usize = 12;

fn main() {
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let version = env::var("CARGO_PKG_VERSION").expect("cargo sets it");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=E2DAX_COMMIT");
    let commit = env::var("E2DAX_COMMIT")
        .ok()
        .or_else(|| packaged(&folder))
        .or_else(|| handed_out().then(|| checked_out(&folder))?);
    match commit
        .filter(|commit| commit.len() >= DIGITS && commit.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        Some(commit) => println!("cargo::rustc-env=E2DAX_VERSION={version} ({})", &commit[..DIGITS]),
        None => println!("cargo::rustc-env=E2DAX_VERSION={version}"),
    }
}

/// Whether the profile is `release` or made of it.
fn handed_out() -> bool {
    env::var("PROFILE").is_ok_and(|profile| profile == "release")
}

/// The commit that `cargo package` wrote down.
fn packaged(folder: &Path) -> Option<String> {
    let note = fs::read_to_string(folder.join(".cargo_vcs_info.json")).ok()?;
    let (_, rest) = note.split_once("\"sha1\"")?;
    rest.split('"').nth(1).map(str::to_owned)
}

/// The commit of the checkout that holds this very file; a package unpacked inside somebody's repository is not of it.
fn checked_out(folder: &Path) -> Option<String> {
    git(folder, &["ls-files", "--error-unmatch", "build.rs"])?;
    // Both change with a commit or a checkout: where HEAD points, and what was last put there.
    for name in ["HEAD", "logs/HEAD"] {
        let path = folder.join(git(folder, &["rev-parse", "--git-path", name])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(folder, &["rev-parse", "HEAD"])
}

fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
