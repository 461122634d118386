//! Our check and e2fsck are of one mind.

use std::{collections::BTreeMap, fs::File, os::unix::fs::FileExt, path::Path, sync::Arc};

use blockdev::BlockDevice;
use e2dax_tests::{Golden, Rng, Scratch, Verdict, golden, need_tools, tools, tree};
use ext2_core::{Ext2, OpenOptions};
use ext2_image::check::{Checker, Finding, Options, Outcome};

/// How many mutations of each image are tried; `E2DAX_CHECK_MUTATIONS` says another number.
const MUTATIONS: u64 = 60;

/// A time of deletion for what is mended.
const NOW: u32 = 1_700_000_000;

/// What our check says, in one word, and what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Opinion {
    Clean,
    Faults(Vec<String>),
    /// There is no file system, or none that is supported.
    Refused(String),
}

fn verdict(checker: &mut Checker, device: &dyn BlockDevice) -> Opinion {
    let mut findings = Vec::new();
    let mut sink = |finding: &Finding| {
        if findings.len() < 20 && !finding.kind.is_remark() {
            findings.push(format!("{finding} [{:?}]", finding.kind));
        }
    };
    match checker.check(device, &Options::default(), &mut sink) {
        Ok(summary) if summary.is_clean() => Opinion::Clean,
        Ok(_) => Opinion::Faults(findings),
        Err(error) => Opinion::Refused(error.to_string()),
    }
}

/// The exit code of `e2fsck -fn`, or what else is asked, and its words.
fn e2fsck(mode: &str, image: &Path) -> (i32, String) {
    let mut command = tools::command("timeout");
    let output = command.args(["60", "e2fsck", mode]).arg(image).output().expect("e2fsck runs");
    let words =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(99), words)
}

/// A folder in memory where there is one: thousands of images are written.
fn folder() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    let made = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
    made.expect("a folder can be made")
}

/// The golden images of which e2fsck has nothing to say.
fn clean_images() -> Vec<Golden> {
    golden::readable().into_iter().filter(|image| image.verdict == Verdict::Reads).collect()
}

#[test]
fn every_golden_image_that_reads_is_clean() {
    let mut checker = Checker::new();
    for image in clean_images() {
        let device = Scratch::new(image.file_system());
        assert_eq!(verdict(&mut checker, &device), Opinion::Clean, "{}", image.name);
        let mut first = None;
        let outcome =
            checker.mend(&device, NOW, &mut |finding| first = first.take().or(Some(finding.clone())));
        assert_eq!(outcome.unwrap(), Outcome::Clean, "{}: {first:?}", image.name);
    }
}

/// One change of some bytes of an image.
#[derive(Clone, Debug)]
struct Mutation {
    offset: usize,
    bytes: Vec<u8>,
}

/// Changes of what a check reads, mostly where there is something.
fn mutate(rng: &mut Rng, image: &[u8], places: &[usize]) -> Mutation {
    let offset = *rng.pick(places);
    let word = offset & !3;
    let old = u32::from_le_bytes(image[word..word + 4].try_into().expect("4 bytes"));
    let near = |rng: &mut Rng| image[(rng.pick(places) & !3)..][..4].to_vec();
    let (offset, bytes) = match rng.below(9) {
        0 => (offset, vec![0]),
        1 => (offset, vec![0xff]),
        2 | 3 => (offset, vec![image[offset] ^ 1 << rng.below(8)]),
        4 => (word, (old.wrapping_add(1)).to_le_bytes().to_vec()),
        5 => (word, (old.wrapping_sub(1)).to_le_bytes().to_vec()),
        6 => (word, vec![0; 4]),
        7 => (word, near(rng)),
        _ => (offset & !1, rng.next().to_le_bytes()[..2].to_vec()),
    };
    Mutation { offset, bytes }
}

/// The places that a check reads, those with zeros all around once in a while.
fn places(image: &[u8]) -> Vec<usize> {
    let noting = Scratch::noting(image.to_vec());
    assert_eq!(verdict(&mut Checker::new(), &noting), Opinion::Clean);
    let mut places = Vec::new();
    for range in noting.read_ranges() {
        for start in range.clone().step_by(16) {
            let end = (start + 16).min(range.end);
            if image[start..end].iter().any(|byte| *byte != 0) || start % 4096 == 0 {
                places.extend(start..end);
            }
        }
    }
    places.retain(|place| place + 4 < image.len());
    places
}

/// Disagreements that are meant, by what e2fsck or our check says.
const EXPLAINED: [(&str, &str); 8] = [
    ("HTREE", "the hashes of an indexed directory are not checked, nor is it made anew"),
    ("journal", "a journal is not checked beyond its first block, and never made anew"),
    ("refused", "the image says that it is of a feature that is not ext2's"),
    ("trying backup", "e2fsck takes a backup of the descriptors or the superblock instead"),
    ("lost+found not found", "no lost+found is made"),
    ("Resize inode not valid", "the resize inode is not made anew"),
    ("Resize_inode not enabled", "e2fsck -n does not count it, e2fsck -p stops at it"),
    ("non-unique filename", "names are compared across the blocks of a directory"),
];

/// Disagreements by kind.
#[derive(Default)]
struct Table {
    tried: u64,
    explained: BTreeMap<&'static str, u64>,
    unexplained: Vec<String>,
}

impl Table {
    /// Notes a disagreement, by everything that was said about it.
    fn note(&mut self, said: String) {
        match EXPLAINED.iter().find(|(sign, _)| said.contains(sign)) {
            Some((_, why)) => *self.explained.entry(why).or_default() += 1,
            None => self.unexplained.push(said),
        }
    }

    fn print(&self) {
        println!("{} damaged images, judged otherwise:", self.tried);
        for (why, count) in &self.explained {
            println!("  {count:5}  {why}");
        }
        println!("  {:5}  not explained", self.unexplained.len());
    }

    fn assert_explained(&self) {
        self.print();
        assert!(self.tried > 100, "only {} images", self.tried);
        assert!(self.unexplained.is_empty(), "{}", self.unexplained.join("\n\n"));
    }
}

fn count() -> u64 {
    std::env::var("E2DAX_CHECK_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(MUTATIONS)
}

#[test]
fn damaged_images_are_judged_as_e2fsck_judges_them() {
    need_tools!("e2fsck");
    let folder = folder();
    let mut checker = Checker::new();
    let mut table = Table::default();
    for image in clean_images() {
        let bytes = image.file_system();
        let path = image.unpack_file_system(folder.path());
        let file = File::options().write(true).open(&path).expect("the image opens");
        let places = places(&bytes);
        let device = Scratch::new(bytes.clone());
        let mut rng = Rng::named(7, &image.name);
        for nr in 0..count() {
            let mutation = mutate(&mut rng, &bytes, &places);
            let (at, end) = (mutation.offset, mutation.offset + mutation.bytes.len());
            if bytes[at..end] == mutation.bytes {
                continue;
            }
            device.write_at(at as u64, &mutation.bytes).expect("inside");
            let ours = verdict(&mut checker, &device);
            device.restore();
            file.write_all_at(&mutation.bytes, at as u64).expect("the image can be written");
            let (code, words) = e2fsck("-fn", &path);
            file.write_all_at(&bytes[at..end], at as u64).expect("the image can be written");
            table.tried += 1;
            if (ours == Opinion::Clean) != (code == 0) {
                let ours = match ours {
                    Opinion::Refused(why) => format!("refused: {why}"),
                    other => format!("{other:?}"),
                };
                let former = &bytes[at..end];
                table.note(format!(
                    "{} #{nr}: {mutation:x?}, was {former:x?}\nours: {ours}\ne2fsck: {code}: {words}",
                    image.name
                ));
            }
        }
    }
    table.assert_explained();
}

/// The first path that two trees have not the same, with what it is in each.
fn difference(a: &tree::Tree, b: &tree::Tree) -> String {
    let changed = a.iter().find(|(path, node)| b.get(*path) != Some(*node)).map(|(path, _)| path);
    let path = changed.or_else(|| b.keys().find(|path| !a.contains_key(*path))).cloned().unwrap_or_default();
    format!("{}: {:?} and {:?}", path.escape_ascii(), a.get(&path), b.get(&path))
}

#[test]
fn damaged_images_are_mended_as_e2fsck_mends_them() {
    need_tools!("e2fsck");
    let folder = folder();
    let mut checker = Checker::new();
    let mut table = Table::default();
    for image in clean_images() {
        let bytes = image.file_system();
        let path = folder.path().join("mend.img");
        // The superblock is left alone: without a good one e2fsck begins with a backup.
        let places: Vec<usize> = places(&bytes).into_iter().filter(|place| *place >= 2048).collect();
        let device = Arc::new(Scratch::new(bytes.clone()));
        let mut rng = Rng::named(11, &image.name);
        for nr in 0..count() / 4 {
            let mutation = mutate(&mut rng, &bytes, &places);
            device.write_at(mutation.offset as u64, &mutation.bytes).expect("inside");
            device.with(|bytes| golden::write_sparse(&path, bytes)).expect("the image can be written");
            let mut findings = Vec::new();
            let ours = checker.mend(&*device, NOW, &mut |finding| findings.push(finding.to_string()));
            let (code, words) = e2fsck("-fp", &path);
            table.tried += 1;
            let halts = !matches!(ours, Ok(Outcome::Clean | Outcome::Mended(_)));
            let problem = if halts != (code >= 4) {
                Some(format!("ours halts: {halts}"))
            } else if halts {
                None
            } else {
                let theirs = Arc::new(Scratch::new(std::fs::read(&path).expect("the image can be read")));
                let after = verdict(&mut checker, &*device);
                let (a, b) = (tree::read(device.clone()), tree::read(theirs));
                match (a, b) {
                    _ if after != Opinion::Clean => Some(format!("not clean after mending: {after:?}")),
                    (Ok(a), Ok(b)) if a == b => None,
                    (Ok(a), Ok(b)) => Some(format!("trees differ: {}", difference(&a, &b))),
                    (a, b) => Some(format!("{:?}, {:?}", a.err(), b.err())),
                }
            };
            device.restore();
            if let Some(problem) = problem {
                let findings = findings.join(", ");
                table.note(format!(
                    "{} #{nr}: {mutation:x?}\n{problem}\nours: {findings}\ne2fsck: {code}: {words}",
                    image.name
                ));
            }
        }
    }
    table.assert_explained();
}

/// Two names that FNV-1a has one number for.
const SAME_FINGERPRINT: [&str; 2] = ["8yn0iYCKYHlIj4-BwPqk", "GReLUrM4wMqfg9yzV3KQ"];

#[test]
fn names_that_look_alike_hide_none_that_is_there_twice() {
    need_tools!("e2fsck");
    let device = Arc::new(ext2_image::mkfs::in_memory(1 << 20).unwrap());
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
    for name in SAME_FINGERPRINT.into_iter().chain(["twice-a", "twice-b"]) {
        fs.write(name, name).unwrap();
    }
    fs.close().unwrap();
    let mut bytes = vec![0; 1 << 20];
    device.read_at(0, &mut bytes).unwrap();
    let mut checker = Checker::new();
    assert_eq!(verdict(&mut checker, &Scratch::new(bytes.clone())), Opinion::Clean);
    let at = bytes.windows(7).position(|window| window == b"twice-b").unwrap();
    bytes[at + 6] = b'a';
    let Opinion::Faults(findings) = verdict(&mut checker, &Scratch::new(bytes.clone())) else {
        panic!("the second name is not found");
    };
    assert!(findings.len() == 1 && findings[0].contains("DuplicateName"), "{findings:?}");
    let folder = folder();
    let path = folder.path().join("image");
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(e2fsck("-fn", &path).0, 4);
}
