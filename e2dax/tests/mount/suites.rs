//! The world's file-system tests, as far as they are installed: pjdfstest (in Rust) and fsx.
//!
//! `E2DAX_LONG=1` runs fsx for a million operations.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use e2dax_tests::{Access, need_mount, need_tools, tools, with_mount};

use crate::common::{Image, need_fuse};

const PJDFSTEST: &str = "
[features]
posix_fallocate = {}
rename_ctime = {}
utimensat = {}
utime_now = {}
[settings]
naptime = 0.02
allow_remount = false
[dummy_auth]
entries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"], [\"bin\", \"bin\"]]
";

/// What each case of pjdfstest came to in a folder: `ok`, `FAILED` or `skipped`.
fn pjdfstest(settings: &Path, dir: &Path) -> BTreeMap<String, String> {
    // The cases with the longest path need a folder whose own path has the right length for them.
    let place = dir.join("work");
    fs::create_dir(&place).unwrap();
    for folder in [dir, &place] {
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let output =
        tools::command("pjdfstest").arg("-c").args([settings, Path::new("-p"), &place]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter_map(|line| {
            let (name, verdict) = line.split_once(char::is_whitespace)?;
            let verdict = verdict.trim();
            ["ok", "FAILED", "skipped"].contains(&verdict).then(|| (name.to_owned(), verdict.to_owned()))
        })
        .collect()
}

#[test]
fn pjdfstest_passes_wherever_it_does_on_the_kernels_ext2() {
    need_fuse!();
    need_mount!();
    need_tools!("pjdfstest");
    let image = Image::new(&["-b", "4096"], "128M");
    let settings = image.folder.path().join("pjdfstest.toml");
    fs::write(&settings, PJDFSTEST).unwrap();
    let kernels = with_mount(&image.path, Access::ReadWrite, |dir| pjdfstest(&settings, dir));
    assert!(kernels.values().filter(|verdict| *verdict == "ok").count() > 300, "{kernels:?}");
    let image = Image::new(&["-b", "4096"], "128M");
    let mount = image.mount("allow_other");
    let ours = pjdfstest(&settings, mount.dir());
    mount.unmount();
    image.check();
    let worse: Vec<_> = kernels
        .iter()
        .filter(|(name, verdict)| *verdict == "ok" && ours.get(*name).map(String::as_str) != Some("ok"))
        // The C library knows the most links by the type of the file system, and none for FUSE: it does not run.
        .filter(|(name, _)| *name != "link::link_count_max")
        .collect();
    assert!(worse.is_empty(), "{worse:?}");
    assert!(
        ours.values().all(|verdict| verdict != "FAILED")
            || kernels.values().any(|verdict| verdict == "FAILED")
    );
}

const FSX: &str = "
flen = 1048576
[opsize]
max = 131072
[weights]
close_open = 1
invalidate = 1
truncate = 5
fsync = 1
fdatasync = 1
punch_hole = 5
read = 10
write = 10
mapread = 10
mapwrite = 10
copy_file_range = 3
sendfile = 2
posix_fallocate = 2
";

#[test]
fn fsx_reads_what_it_wrote_with_maps_holes_and_truncation() {
    need_fuse!();
    need_tools!("fsx");
    let long = std::env::var_os("E2DAX_LONG").is_some();
    let (seeds, operations) = if long { (5, "100000") } else { (2, "25000") };
    for (options, block) in [("", "4096"), ("writeback_cache", "1024"), ("direct_io", "2048")] {
        let image = Image::new(&["-b", block], "64M");
        let settings = image.folder.path().join("fsx.toml");
        fs::write(&settings, FSX).unwrap();
        let mount = image.mount(options);
        for seed in 1..=seeds {
            let output = tools::command("fsx")
                .arg("-f")
                .arg(&settings)
                .args(["-N", operations, "-S", &seed.to_string(), "-P"])
                .arg(image.folder.path())
                .arg(mount.join(&format!("file{seed}")))
                .output()
                .unwrap();
            assert!(output.status.success(), "{options} seed {seed}: {}", tools::words(&output));
        }
        mount.unmount();
        image.check();
    }
}
