//! Somebody swaps directories of the host for links while a tree is copied: nothing outside the tree is read or made.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

use blockdev::RamDevice;
use ext2_core::{Ext2, FileKind, Follow, Inode, NewInode, OpenOptions};
use ext2_image::copy::{Destination, Observer, Owner, Problem, extract, insert};
use ext2_image::mkfs::{self, Format, Fresh};

/// Does something when the first bytes were moved, and keeps what it is told.
struct Swap<F: FnMut()> {
    swap: Option<F>,
    problems: Vec<String>,
}

impl<F: FnMut()> Observer for Swap<F> {
    fn moved(&mut self, _: u64) {
        if let Some(mut swap) = self.swap.take() {
            swap();
        }
    }

    fn problem(&mut self, problem: Problem) {
        self.problems.push(problem.to_string());
    }

    fn left_out(&mut self, _: &[u8], _: u64) {}
}

fn image() -> Ext2 {
    let device = Arc::new(RamDevice::new(4 << 20).unwrap());
    mkfs::format(&*device, &Format::default(), Fresh::Zeros).unwrap();
    Ext2::open(device, &OpenOptions::default()).unwrap()
}

fn make(parent: &Inode, name: &[u8], kind: FileKind) -> Inode {
    parent.create(name, &NewInode::new(kind, 0o755)).unwrap()
}

fn turn_into_link(directory: &Path, away: &Path, target: &Path) {
    fs::rename(directory, away).unwrap();
    symlink(target, directory).unwrap();
}

#[test]
fn a_second_name_is_of_the_file_and_not_of_what_a_swapped_directory_leads_to() {
    let fs = image();
    let root = fs.root().unwrap();
    let (first, second) = (make(&root, b"d", FileKind::Directory), make(&root, b"e", FileKind::Directory));
    let file = make(&first, b"a", FileKind::Regular);
    file.write_at(0, b"ours").unwrap();
    second.link(&file, b"z").unwrap();

    let folder = tempfile::tempdir().unwrap();
    let (out, victim) = (folder.path().join("out"), folder.path().join("victim"));
    fs::create_dir(&out).unwrap();
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("a"), "theirs").unwrap();
    let mut swap = Swap {
        swap: Some(|| turn_into_link(&out.join("d"), &out.join("moved"), &victim)),
        problems: Vec::new(),
    };
    extract(&root, b"/", &out, None, &mut swap).unwrap();

    assert_eq!(fs::metadata(victim.join("a")).unwrap().nlink(), 1);
    assert_eq!(fs::read(out.join("e/z")).unwrap(), b"ours");
    assert_eq!(swap.problems, Vec::<String>::new());
}

#[test]
fn a_file_that_is_made_anew_under_a_first_name_gets_no_second_one() {
    let fs = image();
    let root = fs.root().unwrap();
    let (first, second) = (make(&root, b"d", FileKind::Directory), make(&root, b"e", FileKind::Directory));
    let file = make(&first, b"a", FileKind::Regular);
    file.write_at(0, b"ours").unwrap();
    make(&first, b"b", FileKind::Regular).write_at(0, b"next").unwrap();
    second.link(&file, b"z").unwrap();

    let out = tempfile::tempdir().unwrap();
    // The bytes of `b` are the second that are moved: then `a` is whole.
    struct Second<'a>(u32, &'a Path, Vec<String>);
    impl Observer for Second<'_> {
        fn moved(&mut self, _: u64) {
            self.0 += 1;
            if self.0 == 2 {
                fs::remove_file(self.1.join("d/a")).unwrap();
                fs::write(self.1.join("d/a"), "theirs").unwrap();
            }
        }
        fn problem(&mut self, problem: Problem) {
            self.2.push(problem.to_string());
        }
        fn left_out(&mut self, _: &[u8], _: u64) {}
    }
    let mut observer = Second(0, out.path(), Vec::new());
    extract(&root, b"/", out.path(), None, &mut observer).unwrap();

    assert_eq!(fs::metadata(out.path().join("d/a")).unwrap().nlink(), 1);
    assert!(!out.path().join("e/z").exists());
    assert_eq!(observer.2.len(), 1, "{:?}", observer.2);
}

#[test]
fn a_directory_that_becomes_a_link_before_it_is_read_is_copied_as_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let (tree, secret) = (folder.path().join("tree"), folder.path().join("secret"));
    fs::create_dir_all(tree.join("b")).unwrap();
    fs::create_dir(&secret).unwrap();
    fs::write(tree.join("a"), "first").unwrap();
    fs::write(tree.join("b/inside"), "ours").unwrap();
    fs::write(secret.join("inside"), "secret").unwrap();

    let fs = image();
    let root = fs.root().unwrap();
    let mut swap = Swap {
        swap: Some(|| turn_into_link(&tree.join("b"), &folder.path().join("moved"), &secret)),
        problems: Vec::new(),
    };
    let into = Destination { directory: &root, path: b"/", name: Some(b"t"), owner: Owner::default() };
    insert(&tree, false, &into, &mut swap).unwrap();

    let copied = fs.resolve(b"/t/b", Follow::No).unwrap();
    assert_eq!(copied.kind(), FileKind::Symlink);
    assert_eq!(swap.problems, Vec::<String>::new());
}
