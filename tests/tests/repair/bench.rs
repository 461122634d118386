//! One image, repaired by us and by e2fsck, and compared.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use blockdev::BlockDevice;
use e2dax_tests::{Scratch, tools, tree};
use ext2_core::FileKind;
use ext2_image::repair::{Changes, Options, Policy, Report, repair};

/// Seconds since 1970 of all repairs.
pub(crate) const NOW: u32 = 1_700_000_000;

/// What came of an image.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Findings that were mended.
    pub(crate) mended: u64,
    /// Files (and symlinks, devices) that e2fsck leaves, and those of them that we leave.
    pub(crate) theirs: usize,
    pub(crate) kept: usize,
    /// All that we leave.
    pub(crate) ours: usize,
    /// Why it is not as it should be.
    pub(crate) wrong: Option<String>,
    pub(crate) our_time: Duration,
    pub(crate) their_time: Duration,
    /// Neither made anything of it.
    pub(crate) hopeless: bool,
}

/// The folder in which images are compared.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
}

pub(crate) fn options() -> Options<'static> {
    Options { now: NOW, policy: Policy::Asked, progress: &|_| {} }
}

/// Repairs a device to the end.
pub(crate) fn repair_all(device: &dyn BlockDevice) -> Result<Report, String> {
    let changes = Changes::new(device);
    let report = repair(&changes, &options(), &mut |_| true).map_err(|error| error.to_string())?;
    changes.apply().map_err(|error| error.to_string())?;
    Ok(report)
}

pub(crate) fn bytes_of(device: &dyn BlockDevice) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(device.size()).expect("an image fits memory")];
    device.read_at(0, &mut bytes).expect("the whole device is read");
    bytes
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("there is room for images") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        e2dax_tests::golden::write_sparse(&path, bytes).expect("the image is written");
        path
    }

    /// Repairs an image both ways.
    pub(crate) fn compare(&self, name: &str, bytes: &[u8]) -> Row {
        let mut row = Row { name: name.to_owned(), ..Row::default() };
        // Theirs. A second run is forgiven, ours gets none.
        let their_path = self.write("theirs.img", bytes);
        let started = Instant::now();
        let said = fsck_y(&their_path);
        row.their_time = started.elapsed();
        let they_do = tools::e2fsck_fn(&their_path).is_ok() || {
            fsck_y(&their_path);
            tools::e2fsck_fn(&their_path).is_ok()
        };
        let theirs = fs::read(&their_path).expect("e2fsck leaves an image");

        let device = Arc::new(Scratch::new(bytes.to_vec()));
        let started = Instant::now();
        let report = repair_all(&*device);
        row.our_time = started.elapsed();
        let report = match report {
            Ok(report) if report.clean => report,
            Ok(report) => {
                row.hopeless = !they_do;
                row.wrong =
                    Some(format!("is left with {:?}", report.stopped.map(|finding| finding.to_string())));
                return row;
            }
            Err(error) => {
                row.hopeless = !they_do;
                row.wrong = Some(format!("{error}; e2fsck: {}", last_line(&said)));
                return row;
            }
        };
        row.mended = report.mended;
        let ours = bytes_of(&*device);
        let our_path = self.write("ours.img", &ours);
        if let Err(said) = tools::e2fsck_fn(&our_path) {
            row.wrong = Some(format!("e2fsck finds: {said}"));
            return row;
        }
        let changes = Changes::new(&*device);
        let again = repair(&changes, &options(), &mut |_| true).expect("what is sound can be checked");
        let left = changes.list().expect("changes are listed");
        if again.mended != 0 || !left.is_empty() {
            row.wrong = Some(format!("a second run stores {} ranges: {again:?}", left.len()));
            return row;
        }
        let our_tree = match tree::read(device) {
            Ok(tree) => tree,
            // What our reader refuses in a sound image (an access control list that says nothing) it refuses in theirs.
            Err(_) if they_do && tree::read(Arc::new(Scratch::new(theirs.clone()))).is_err() => return row,
            Err(error) => {
                row.wrong = Some(format!("cannot be read: {error}"));
                return row;
            }
        };
        row.ours = files(&our_tree).count();
        if they_do && let Ok(their_tree) = tree::read(Arc::new(Scratch::new(theirs))) {
            self.keep(&mut row, &our_tree, &their_tree);
        }
        row
    }

    /// Counts what of their tree is in ours, under its name or another.
    fn keep(&self, row: &mut Row, ours: &tree::Tree, theirs: &tree::Tree) {
        let mut contents: BTreeMap<(u64, &[u8]), usize> = BTreeMap::new();
        for (_, node) in files(ours) {
            *contents.entry((node.size, &node.content)).or_default() += 1;
        }
        let mut lost = Vec::new();
        for (path, node) in files(theirs) {
            row.theirs += 1;
            let same =
                ours.get(path).is_some_and(|other| other.content == node.content && other.kind == node.kind);
            if same || contents.contains_key(&(node.size, &node.content)) {
                row.kept += 1;
            } else {
                lost.push((path, node));
            }
        }
        // What e2fsck cut in another place is no file that we lost: ours has the name and at least as many bytes that are
        // not zero.
        lost.retain(|(path, node)| {
            let full = |content: &[u8]| content.iter().filter(|byte| **byte != 0).count();
            let more = ours
                .get(*path)
                .is_some_and(|other| other.kind == node.kind && full(&other.content) >= full(&node.content));
            row.kept += usize::from(more);
            !more
        });
        if let Some((path, node)) = lost.first() {
            row.wrong = Some(format!(
                "{} files that e2fsck keeps are gone, among them {} ({:?}, {} bytes)",
                lost.len(),
                path.escape_ascii(),
                node.kind,
                node.size,
            ));
        }
    }
}

fn files(tree: &tree::Tree) -> impl Iterator<Item = (&Vec<u8>, &tree::Node)> {
    tree.iter().filter(|(_, node)| node.kind != FileKind::Directory)
}

fn fsck_y(path: &Path) -> String {
    let output = tools::command("e2fsck").arg("-fy").arg(path).output().expect("e2fsck runs");
    tools::words(&output)
}

fn last_line(text: &str) -> &str {
    text.trim().lines().last().unwrap_or_default()
}

/// Prints the rows and fails where one is wrong that e2fsck gets right.
pub(crate) fn judge(rows: &[Row]) {
    let mut wrong = Vec::new();
    let (mut ours, mut theirs, mut kept, mut hopeless) = (0, 0, 0, 0);
    let (mut our_time, mut their_time) = (Duration::ZERO, Duration::ZERO);
    for row in rows {
        ours += row.ours;
        theirs += row.theirs;
        kept += row.kept;
        our_time += row.our_time;
        their_time += row.their_time;
        hopeless += usize::from(row.hopeless);
        let verdict = match &row.wrong {
            None => "clean".to_owned(),
            Some(why) if row.hopeless => format!("neither: {why}"),
            Some(why) => format!("WRONG: {why}"),
        };
        println!(
            "{:<28} mended {:>5}  files {:>4} of {:>4} of e2fsck's, {:>4} in all  {:>6.1} ms, e2fsck {:>6.1} ms  {verdict}",
            row.name,
            row.mended,
            row.kept,
            row.theirs,
            row.ours,
            row.our_time.as_secs_f64() * 1e3,
            row.their_time.as_secs_f64() * 1e3,
        );
        if row.wrong.is_some() && !row.hopeless {
            wrong.push(format!("{}: {verdict}", row.name));
        }
    }
    println!(
        "{} images, {} that neither repairs; files: e2fsck leaves {theirs}, {kept} of them are left by us, who leave {ours}; \
         {:.2} s, e2fsck {:.2} s",
        rows.len(),
        hopeless,
        our_time.as_secs_f64(),
        their_time.as_secs_f64(),
    );
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}
