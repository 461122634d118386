//! The folder with all that is made: the mutated copy of the workspace, its build, what was recorded and what came out.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::site::Mutant;

/// The folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder `path`, made where it is not there.
    ///
    /// # Errors
    /// The host's.
    pub fn new(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(Self(path.canonicalize()?))
    }

    /// Something in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The copy of the workspace.
    #[must_use]
    pub fn tree(&self) -> PathBuf {
        self.join("tree")
    }

    /// The mutants that do not compile, by their keys.
    ///
    /// # Errors
    /// The host's, but none where nothing is there.
    pub fn left_out(&self) -> io::Result<BTreeSet<String>> {
        Ok(self.lines("left-out.txt")?.into_iter().collect())
    }

    /// Writes them.
    ///
    /// # Errors
    /// The host's.
    pub fn set_left_out(&self, keys: &BTreeSet<String>) -> io::Result<()> {
        let lines: Vec<&str> = keys.iter().map(|key| &key[..]).collect();
        fs::write(self.join("left-out.txt"), lines.join("\n"))
    }

    /// The mutants that the last build has.
    ///
    /// # Errors
    /// The host's; a file that is not of this program.
    pub fn mutants(&self) -> io::Result<Vec<Mutant>> {
        let row = |line: &String| {
            let mut fields = line.splitn(4, '\t');
            let id = fields.next()?.parse().ok()?;
            let name = fields.next()?;
            let module = crate::modules::ALL.iter().find(|module| module.name == name)?.name;
            let line = fields.next()?.parse().ok()?;
            Some(Mutant { id, module, line, key: fields.next()?.to_owned(), text: String::new() })
        };
        let rows: Option<Vec<Mutant>> = self.lines("mutants.tsv")?.iter().map(row).collect();
        rows.ok_or_else(|| io::Error::other("mutants.tsv is not understood: build again"))
    }

    /// Writes them.
    ///
    /// # Errors
    /// The host's.
    pub fn set_mutants(&self, mutants: &[&Mutant]) -> io::Result<()> {
        let row = |of: &&Mutant| format!("{}\t{}\t{}\t{}\n", of.id, of.module, of.line, of.key);
        fs::write(self.join("mutants.tsv"), mutants.iter().map(row).collect::<String>())
    }

    /// The lines of a file; none where it is not there.
    ///
    /// # Errors
    /// The host's.
    pub fn lines(&self, name: &str) -> io::Result<Vec<String>> {
        match fs::read_to_string(self.join(name)) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// Writes a file, unless that is what it holds: so the build sees what changed.
///
/// # Errors
/// The host's.
pub fn write_changed(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|held| held == bytes) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, bytes)
}
