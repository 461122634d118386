//! Prints the manifest of a directory tree as the kernel shows it: `walk DIR`.
//!
//! `testdata/make-golden.sh` makes the committed manifests with it.

use std::{io::Write, path::Path, process::ExitCode};

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: walk DIR");
        return ExitCode::from(2);
    };
    let written = e2dax_tests::walk(Path::new(&folder))
        .and_then(|manifest| std::io::stdout().write_all(manifest.to_string().as_bytes()));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("walk: {error}");
            ExitCode::FAILURE
        }
    }
}
