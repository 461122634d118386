//! The model of a file system, held against the kernel itself: what `posix.rs` asks of us is what Linux does.
//!
//! Random operations are done in a mounted ext2 image and in the model; each gives the same error number or works in
//! both, and the trees are equal at the end, to the last hole.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
};

use e2dax_tests::{
    Access, Rng, need_mount,
    posix::{Contents, Id, Model},
    tools, with_mount,
};
use ext2_core::{Errno, RenameFlags};
use ext2_image::manifest::diff;
use rustix::fs::{CWD, FallocateFlags, Mode, OFlags};

/// A list of operations ends after so many.
const OPERATIONS: usize = 150;

/// Names that collide often, and one that is too long.
fn name(rng: &mut Rng) -> Vec<u8> {
    match rng.below(9) {
        0 => vec![b'n'; 255],
        1 => vec![b'n'; 256],
        2 => b"\xff not text".to_vec(),
        letter => vec![b'a' + u8::try_from(letter).unwrap()],
    }
}

/// Both sides of one list of operations.
struct Both<'a> {
    root: &'a Path,
    model: Model,
    rng: Rng,
    done: String,
}

impl Both<'_> {
    /// One of the directories that are there.
    fn dir(&mut self) -> (PathBuf, Id) {
        let mut dirs = self.model.directories();
        dirs.retain(|(path, _)| path != b"/lost+found");
        let (path, id) = self.rng.pick(&dirs).clone();
        (self.root.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(&path))), id)
    }

    /// A name in one of the directories, there or not.
    fn place(&mut self) -> (PathBuf, Id, Vec<u8>) {
        let (dir, id) = self.dir();
        let name = name(&mut self.rng);
        (dir.join(OsStr::from_bytes(&name)), id, name)
    }

    /// A regular file that is there.
    fn file(&mut self) -> Option<(PathBuf, Id)> {
        let (path, dir, name) = self.place();
        let id = self.model.lookup(dir, &name).ok()?;
        matches!(self.model.file(id).contents, Contents::File(..)).then_some((path, id))
    }

    /// Compares the answers, which are of a call that the log names.
    #[track_caller]
    fn same<T>(&mut self, call: String, kernel: rustix::io::Result<T>, model: Result<(), Errno>) {
        let kernel = kernel.map(|_| ()).map_err(|errno| errno.raw_os_error());
        let model = model.map_err(|errno| errno.get());
        self.done.push_str(&format!("{call} => {kernel:?}\n"));
        assert_eq!(kernel, model, "kernel and model differ at the end of:\n{}", self.done);
    }

    fn offset(&mut self) -> u64 {
        let edges = [0_u64, 0, 12 << 10, 268 << 10, (268 + 65_536) << 10];
        self.rng.pick(&edges).saturating_sub(2000) + self.rng.below(9000)
    }

    /// One operation on both.
    fn step(&mut self) {
        match self.rng.below(16) {
            0..=2 => {
                let (path, dir, name) = self.place();
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
                let kernel = rustix::fs::openat(CWD, &path, flags, Mode::from_raw_mode(0o644));
                let model = self.model.create(dir, &name, Contents::File(0, [].into()), 0o644, (0, 0));
                self.same(format!("create {path:?}"), kernel, model.map(|_| ()));
            }
            3 | 4 => {
                let (path, dir, name) = self.place();
                let kernel = rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755));
                let model = self.model.create(dir, &name, Contents::Directory([].into()), 0o755, (0, 0));
                self.same(format!("mkdir {path:?}"), kernel, model.map(|_| ()));
            }
            5 => {
                let (path, dir, name) = self.place();
                let target = vec![b't'; usize::try_from(self.rng.below(1000) + 1).unwrap()];
                let kernel = rustix::fs::symlink(OsStr::from_bytes(&target), &path);
                let model = self.model.create(dir, &name, Contents::Symlink(target), 0o777, (0, 0));
                self.same(format!("symlink {path:?}"), kernel, model.map(|_| ()));
            }
            6 => {
                let ((old, old_dir, old_name), (new, dir, name)) = (self.place(), self.place());
                let Ok(id) = self.model.lookup(old_dir, &old_name) else { return };
                let kernel = rustix::fs::link(&old, &new);
                let model = self.model.link(id, dir, &name);
                self.same(format!("link {old:?} {new:?}"), kernel, model);
            }
            7 => {
                let (path, dir, name) = self.place();
                let (kernel, model) = (rustix::fs::unlink(&path), self.model.unlink(dir, &name));
                self.same(format!("unlink {path:?}"), kernel, model);
            }
            8 => {
                let (path, dir, name) = self.place();
                let (kernel, model) = (rustix::fs::rmdir(&path), self.model.rmdir(dir, &name));
                self.same(format!("rmdir {path:?}"), kernel, model);
            }
            9..=11 => {
                let ((old, old_dir, old_name), (new, dir, name)) = (self.place(), self.place());
                let (flags, kernels) = match self.rng.below(4) {
                    0 => (RenameFlags::NOREPLACE, rustix::fs::RenameFlags::NOREPLACE),
                    1 => (RenameFlags::EXCHANGE, rustix::fs::RenameFlags::EXCHANGE),
                    _ => (RenameFlags::empty(), rustix::fs::RenameFlags::empty()),
                };
                let kernel = rustix::fs::renameat_with(CWD, &old, CWD, &new, kernels);
                let model = self.model.rename((old_dir, &old_name), (dir, &name), flags);
                self.same(format!("rename {old:?} {new:?} {flags:?}"), kernel, model);
            }
            _ => self.contents(),
        }
    }

    /// One operation on the bytes of a file.
    fn contents(&mut self) {
        let Some((path, id)) = self.file() else { return };
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let offset = self.offset();
        match self.rng.below(5) {
            0 => {
                file.set_len(offset).unwrap();
                self.model.truncate(id, offset);
                self.done.push_str(&format!("truncate {path:?} {offset}\n"));
            }
            1 => {
                let length = 1 + self.rng.below(100_000);
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let kernel = rustix::fs::fallocate(&file, flags, offset, length);
                if kernel != Err(rustix::io::Errno::OPNOTSUPP) {
                    self.model.punch(id, offset, length);
                    self.same(format!("punch {path:?} {offset} {length}"), kernel, Ok(()));
                }
            }
            _ => {
                let mut data = vec![0; usize::try_from(self.rng.below(9000)).unwrap()];
                self.rng.fill(&mut data);
                file.write_all_at(&data, offset).unwrap();
                self.model.write(id, offset, &data);
                self.done.push_str(&format!("write {path:?} {offset} {}\n", data.len()));
            }
        }
    }
}

#[test]
fn the_kernel_does_what_the_model_says() {
    need_mount!();
    let lists = std::env::var("E2DAX_KERNEL_LISTS").map_or(30, |n| n.parse().expect("a number of lists"));
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    // Modes are given to the calls, and what the process takes away from them is put back.
    let mask = rustix::process::umask(Mode::from_raw_mode(0o022));
    for list in 0..lists {
        let _ = fs::remove_file(&image);
        let options = ["-t", "ext2", "-b", "1024", "-N", "400"].map(OsStr::new);
        tools::mke2fs(&[&options[..], &[image.as_os_str(), "8M".as_ref()]].concat());
        with_mount(&image, Access::ReadWrite, |root| {
            let model = Model::new(1024);
            let mut both = Both { root, model, rng: Rng::named(list, "kernel"), done: String::new() };
            (0..OPERATIONS).for_each(|_| both.step());
            let sync = File::open(root).unwrap();
            rustix::fs::syncfs(&sync).unwrap();
            let found = e2dax_tests::walk(root).unwrap();
            let differences = diff(&found, &both.model.manifest());
            assert!(differences.is_empty(), "list {list}: {:?}\n{}", &differences[0], both.done);
        });
    }
    rustix::process::umask(mask);
}
