//! Times that e2fsck takes for others.

use std::{ffi::OsStr, fs, path::Path};

use e2dax_tests::{need_tools, tools};
use ext2_image::check::Kind;

use crate::{
    bench::Bench,
    kinds::{base, debugfs, repaired},
};

#[test]
fn a_time_that_old_kernels_stored_for_one_before_1970_is_found_and_mended_as_by_e2fsck() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    let bench = Bench::new();
    // In the last span of 136 years: 2318 and 2400. In the first: 1910.
    for (low, span) in [(0x8fa6_ae00_u32, 3), (0x0fa6_ae00, 3), (0x8fa6_ae00, 0), (0x8fa6_ae00, 2)] {
        for field in ["atime", "ctime", "mtime", "crtime"] {
            for (file, extra_size) in
                [("d/f", 32), ("d/f", 4), ("d/f", 120), ("d/f", 124), ("/", 32), ("<7>", 32)]
            {
                let path = base(&bench, &["-t", "ext2", "-I", "256"]);
                debugfs(
                    &path,
                    &format!(
                        "sif {file} extra_isize {extra_size}\nsif {file} {field} {low:#x}\nsif {file} {field}_extra {span}\n"
                    ),
                );
                let what =
                    format!("{field} of {file}, {low:#x} in span {span}, {extra_size} bytes of fields");
                let said = tools::run("e2fsck", &[OsStr::new("-fn"), path.as_os_str()]).unwrap();
                let theirs = String::from_utf8_lossy(&said).contains("beyond 2310-04-04");
                let (_, kinds) = repaired(&bench, fs::read(&path).unwrap(), &what);
                assert!(kinds.iter().all(|&kind| kind == Kind::FarTimes), "{what}: {kinds:?}");
                assert_eq!(!kinds.is_empty(), theirs, "{what}");
                let is_wanted = low >> 31 == 1 && span == 3 && file != "<7>" && extra_size < 124;
                assert_eq!(theirs, is_wanted, "{what}");
                if theirs {
                    tools::e2fsck_p(&path).unwrap();
                    let shown = |image: &Path| tools::debugfs(image, &format!("stat {file}")).unwrap();
                    assert_eq!(shown(&bench.path("repaired.img")), shown(&path), "{what}");
                }
            }
        }
    }
}
