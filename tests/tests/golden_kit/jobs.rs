//! Common jobs of programs that use images, in ours and in ext4-view's words: both give the same, and the lines that each
//! takes are those of the table in `docs/compared-crates.md`.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

#[path = "ext4_view.rs"]
mod ext4_view;
#[path = "ours.rs"]
mod ours;

const BIG: usize = 3 << 20;

/// Somewhere that bytes come from which is neither a file nor memory, as far as its users know.
struct Store(File);

impl Store {
    fn fetch(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

/// A folder with some files, and what is in the large one.
fn folder(at: &Path) -> (PathBuf, Vec<u8>) {
    let root = at.join("root");
    fs::create_dir_all(root.join("etc/deep/deeper")).unwrap();
    fs::create_dir(root.join("var")).unwrap();
    fs::write(root.join("etc/hostname"), "node1\n").unwrap();
    fs::set_permissions(root.join("etc/hostname"), PermissionsExt::from_mode(0o640)).unwrap();
    fs::write(root.join("etc/deep/deeper/file"), "x").unwrap();
    symlink("hostname", root.join("etc/link")).unwrap();
    let big: Vec<u8> = (0..BIG).map(|at| (at / 251) as u8).collect();
    fs::write(root.join("var/big"), &big).unwrap();
    (root, big)
}

fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort();
    all
}

#[test]
fn both_libraries_give_the_same_for_each_job_that_both_can_do() {
    let work = tempfile::tempdir().unwrap();
    let (root, big) = folder(work.path());
    let image = work.path().join("image");
    ours::image_of(&root, &image).unwrap();
    assert!(ours::is_sound(&image).unwrap());

    assert_eq!(ours::read_file(&image).unwrap(), "node1\n");
    assert_eq!(ext4_view::read_file(&image).unwrap(), "node1\n");
    let names = ["deep", "hostname", "link"];
    assert_eq!(sorted(ours::list(&image).unwrap()), names);
    let theirs = ext4_view::list(&image).unwrap().into_iter().filter(|name| name != "." && name != "..");
    assert_eq!(sorted(theirs.collect()), names);
    let below = ["/etc/deep", "/etc/deep/deeper", "/etc/deep/deeper/file", "/etc/hostname", "/etc/link"];
    let found = ours::every_file(&image).unwrap().into_iter().map(|path| String::from_utf8(path).unwrap());
    assert_eq!(sorted(found.filter(|path| path != "/etc").collect()), below);
    let found = ext4_view::every_file(&image).unwrap();
    assert_eq!(sorted(found.iter().map(|path| path.display().to_string()).collect()), below);
    assert_eq!(ours::part_of_a_file(&image).unwrap(), big[100_000..100_005]);
    assert_eq!(ext4_view::part_of_a_file(&image).unwrap(), big[100_000..100_005]);
    let (mut ours_out, mut theirs_out) = (Vec::new(), Vec::new());
    assert_eq!(ours::to_a_stream(&image, &mut ours_out).unwrap(), BIG as u64);
    assert_eq!(ext4_view::to_a_stream(&image, &mut theirs_out).unwrap(), BIG as u64);
    assert!(ours_out == big && theirs_out == big);
    let attributes = ours::attributes(&image).unwrap();
    assert_eq!((attributes.1, attributes.2), (0o640, 6));
    assert_eq!(ext4_view::attributes(&image).unwrap(), attributes);
    assert_eq!(ours::link_target(&image).unwrap(), "hostname");
    assert_eq!(ext4_view::link_target(&image).unwrap(), "hostname");
    let bytes = fs::read(&image).unwrap();
    assert_eq!(ours::from_memory(bytes.clone()).unwrap(), b"node1\n");
    assert_eq!(ext4_view::from_memory(bytes).unwrap(), b"node1\n");
    let store = || Store(File::open(&image).unwrap());
    assert_eq!(ours::own_device(store(), fs::metadata(&image).unwrap().len()).unwrap(), b"node1\n");
    assert_eq!(ext4_view::own_device(store()).unwrap(), b"node1\n");
}

#[test]
fn the_jobs_that_only_we_do_are_done() {
    let work = tempfile::tempdir().unwrap();
    let (root, big) = folder(work.path());
    let image = work.path().join("image");
    ours::image_of(&root, &image).unwrap();
    assert!(ours::image_of(&root, &image).is_err(), "an image that is there was replaced");

    let (lease, runs) = ours::slots(&image).unwrap();
    assert_eq!(runs.iter().map(|run| run.len).sum::<u64>(), BIG as u64);
    let bytes = fs::read(&image).unwrap();
    for run in runs {
        let (from, len) = (run.device_byte.unwrap() as usize, run.len as usize);
        assert!(bytes[from..][..len] == big[run.start as usize..][..len]);
    }
    drop(lease);

    let fs_of =
        |image: &Path| ext2_core::Ext2::open_path(image, &ext2_core::OpenOptions::read_only()).unwrap();
    let committed = ext2_image::manifest::from_image(&fs_of(&image)).unwrap().to_string();
    assert!(ours::is_as_committed(&image, &committed).unwrap());
    ours::write_file(&image).unwrap();
    assert!(!ours::is_as_committed(&image, &committed).unwrap());
    assert!(ours::is_sound(&image).unwrap());
    let out = work.path().join("out");
    fs::create_dir(&out).unwrap();
    ours::tree_out(&image, &out).unwrap();
    assert_eq!(fs::read(out.join("motd")).unwrap(), b"welcome\n");
    assert_eq!(fs::read(out.join("deep/deeper/file")).unwrap(), b"x");

    // What cannot be finished leaves nothing.
    let broken = ext2_image::mkfs::Format { inode_size: 3, ..Default::default() };
    let other = work.path().join("other");
    ext2_image::mkfs::source::image_of_directory(&root, &other, &broken).unwrap_err();
    assert!(!other.exists());
}

/// The lines between two marks, without empty ones and comments: by the names of the jobs.
fn lines(source: &str) -> Vec<(&str, usize)> {
    let mut jobs: Vec<(&str, usize)> = Vec::new();
    for line in source.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("// job: ") {
            jobs.push((name, 0));
        } else if line == "// end" {
            break;
        } else if let (Some(job), false) = (jobs.last_mut(), line.is_empty() || line.starts_with("//")) {
            job.1 += 1;
        }
    }
    jobs
}

#[test]
fn the_table_of_jobs_has_the_lines_that_the_programs_have() {
    let (ours, theirs) = (lines(include_str!("ours.rs")), lines(include_str!("ext4_view.rs")));
    assert_eq!(ours.len(), 15);
    let rows: Vec<String> = ours
        .iter()
        .map(|(name, ours)| {
            let theirs = theirs.iter().find(|(job, _)| job == name);
            format!("| {name} | {ours} | {} |", theirs.map_or("–".into(), |(_, lines)| lines.to_string()))
        })
        .collect();
    let page = include_str!("../../../docs/compared-crates.md");
    for row in &rows {
        assert!(
            page.contains(row.as_str()),
            "docs/compared-crates.md has not the lines of today:\n{}",
            rows.join("\n")
        );
    }
}
