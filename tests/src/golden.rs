//! The committed images of `testdata/golden` and what is known of each.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use ext2_image::manifest::{Manifest, parse};
use flate2::read::GzDecoder;

/// An image of the list `testdata/golden/LIST`.
#[derive(Clone, Debug)]
pub struct Golden {
    /// Name without ending: `NAME.img.gz`, and `NAME.manifest` where it can be read.
    pub name: String,
    /// What a reader should make of it.
    pub verdict: Verdict,
    /// First byte of the file system in the image (not 0 inside a partition table).
    pub offset: u64,
    /// Length of the file system's device in bytes; to the end of the image where it is `None`.
    pub length: Option<u64>,
}

/// What a reader should make of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Reads it, and finds what the manifest says; the kernel mounts it where its pages allow.
    Reads,
    /// Reads it like the others, and before the first change mends what a crash left: e2fsck -p does it alone.
    Unclean,
    /// Refuses it and names this word in the error.
    Refuses(String),
}

/// `testdata/` of this workspace.
pub fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is inside the workspace")
        .join("testdata")
}

/// Every image of the list; never empty.
pub fn all() -> Vec<Golden> {
    let path = testdata().join("golden/LIST");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let list: Vec<Golden> =
        lines.map(|line| Golden::from_line(line).unwrap_or_else(|| panic!("LIST: {line}"))).collect();
    assert!(!list.is_empty(), "there are golden images");
    list
}

/// The images that can be read.
pub fn readable() -> Vec<Golden> {
    all().into_iter().filter(Golden::reads).collect()
}

/// The image of a name; panics where there is none.
pub fn image(name: &str) -> Golden {
    all().into_iter().find(|image| image.name == name).unwrap_or_else(|| panic!("no golden image {name}"))
}

/// What is in a gzipped file.
pub fn gunzip(path: &Path) -> Vec<u8> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    GzDecoder::new(file)
        .read_to_end(&mut bytes)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    bytes
}

/// The bytes of the image of a name, the whole file.
pub fn golden(name: &str) -> Vec<u8> {
    image(name).bytes()
}

/// The image of a name, unpacked into a folder.
pub fn golden_path(name: &str, folder: &Path) -> PathBuf {
    image(name).unpack(folder)
}

impl Golden {
    /// Reads `NAME reads|unclean|refuses=WORD [OFFSET+LENGTH]`.
    fn from_line(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let name = words.next()?.to_owned();
        let verdict = match words.next()? {
            "reads" => Verdict::Reads,
            "unclean" => Verdict::Unclean,
            other => Verdict::Refuses(other.strip_prefix("refuses=")?.to_owned()),
        };
        let (offset, length) = match words.next() {
            None => (0, None),
            Some(span) => {
                let (offset, length) = span.split_once('+')?;
                (offset.parse().ok()?, Some(length.parse().ok()?))
            }
        };
        Some(Self { name, verdict, offset, length })
    }

    /// Whether a reader finds in it what the manifest says.
    pub fn reads(&self) -> bool {
        !matches!(self.verdict, Verdict::Refuses(_))
    }

    /// The packed file.
    fn packed(&self) -> PathBuf {
        testdata().join("golden").join(&self.name).with_extension("img.gz")
    }

    /// The bytes of the whole image file, a partition table included.
    pub fn bytes(&self) -> Vec<u8> {
        gunzip(&self.packed())
    }

    /// The bytes of the file system alone.
    pub fn file_system(&self) -> Vec<u8> {
        let mut bytes = self.bytes();
        let start = usize::try_from(self.offset).expect("an image fits memory");
        bytes.drain(..start);
        if let Some(length) = self.length {
            bytes.truncate(usize::try_from(length).expect("an image fits memory"));
        }
        bytes
    }

    /// Whether Linux mounts it where pages have 4 KiB: its blocks are no larger.
    pub fn kernel_mounts(&self) -> bool {
        self.verdict == Verdict::Reads
            && !["-8k", "-16k", "-32k", "-64k"].iter().any(|end| self.name.ends_with(end))
    }

    /// Writes the whole image file into a folder, runs of zeros as holes, and gives its path.
    pub fn unpack(&self, folder: &Path) -> PathBuf {
        let path = folder.join(&self.name).with_extension("img");
        write_sparse(&path, &self.bytes()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// The file system alone, as a file in a folder.
    pub fn unpack_file_system(&self, folder: &Path) -> PathBuf {
        let path = folder.join(&self.name).with_extension("fs");
        write_sparse(&path, &self.file_system())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// The committed manifest; panics where the image has none.
    pub fn manifest(&self) -> Manifest {
        let path = testdata().join("golden").join(&self.name).with_extension("manifest");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// Writes a file and leaves out its blocks of zeros.
pub fn write_sparse(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let file = File::create(path)?;
    let length = |bytes: &[u8]| u64::try_from(bytes.len()).expect("a length fits 64 bits");
    file.set_len(length(bytes))?;
    let mut offset = 0;
    for chunk in bytes.chunks(4096) {
        if chunk.iter().any(|byte| *byte != 0) {
            file.write_all_at(chunk, offset)?;
        }
        offset += length(chunk);
    }
    Ok(())
}
