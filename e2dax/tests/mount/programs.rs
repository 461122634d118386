//! Real programs inside a mount; after each e2fsck finds nothing.

use std::fs;

use e2dax_tests::{machine, need_tools, walk};

use crate::common::{Image, need_fuse, run};

#[test]
fn sqlite_keeps_its_integrity() {
    need_fuse!();
    need_tools!("sqlite3");
    let image = Image::new(&["-b", "4096"], "64M");
    let mount = image.mount("");
    for mode in ["delete", "wal"] {
        let script = format!(
            "pragma journal_mode={mode}; create table t(a integer primary key, b text);
             with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
               insert into t select i, hex(randomblob(40)) from n;
             delete from t where a % 3 = 0; update t set b = b || 'x' where a % 5 = 0; vacuum;"
        );
        let name = format!("{mode}.db");
        run("sqlite3", &[&name, &script], mount.dir());
        run("sqlite3", &[&name, "delete from t where a % 7 = 0"], mount.dir());
    }
    mount.unmount();
    image.check();
    let mount = image.mount("");
    for mode in ["delete", "wal"] {
        let said = run(
            "sqlite3",
            &[&format!("{mode}.db"), "pragma integrity_check; select count(*) from t"],
            mount.dir(),
        );
        assert_eq!(said, "ok\n11429\n", "{mode}");
    }
    mount.unmount();
    image.check();
}

#[test]
fn git_clones_and_finds_nothing_wrong() {
    need_fuse!();
    need_tools!("git");
    let image = Image::new(&["-b", "1024"], "128M");
    let source = tempfile::tempdir().unwrap();
    let root = source.path();
    machine::build_tree(&root.join("tree"), 800, 8 << 20);
    let git = |arguments: &[&str], dir: &std::path::Path| {
        let own =
            ["-c", "user.name=n", "-c", "user.email=e", "-c", "safe.directory=*", "-c", "core.fsync=all"];
        run("git", &[&own, arguments].concat(), dir)
    };
    git(&["init", "-q", "."], root);
    git(&["add", "."], root);
    git(&["commit", "-qm", "all"], root);
    let mount = image.mount("");
    git(&["clone", "-q", "--no-local", root.to_str().unwrap(), "clone"], mount.dir());
    let clone = mount.join("clone");
    git(&["fsck", "--full", "--strict"], &clone);
    git(&["checkout", "-qb", "other"], &clone);
    fs::remove_dir_all(clone.join("tree")).unwrap();
    git(&["checkout", "-q", "."], &clone);
    git(&["gc", "-q"], &clone);
    assert_eq!(git(&["status", "--porcelain"], &clone), "");
    mount.unmount();
    image.check();
    let mount = image.mount("");
    git(&["fsck", "--full", "--strict"], &mount.join("clone"));
    mount.unmount();
}

#[test]
fn a_tree_goes_in_and_out_by_tar_unchanged() {
    need_fuse!();
    need_tools!("tar");
    let image = Image::new(&["-I", "256"], "128M");
    let source = tempfile::tempdir().unwrap();
    machine::build_tree(source.path(), 2000, 24 << 20);
    let mount = image.mount("");
    let both = |from: &std::path::Path, to: &std::path::Path| {
        let script = "tar -C \"$0\" --xattrs --acls -cf - . | tar -C \"$1\" --xattrs --acls -xpf -";
        run("sh", &["-c", script, from.to_str().unwrap(), to.to_str().unwrap()], source.path());
    };
    let inside = mount.join("inside");
    fs::create_dir(&inside).unwrap();
    both(source.path(), &inside);
    mount.unmount();
    image.check();
    let mount = image.mount("");
    let back = tempfile::tempdir().unwrap();
    both(&mount.join("inside"), back.path());
    run(
        "diff",
        &["-r", "--no-dereference", source.path().to_str().unwrap(), back.path().to_str().unwrap()],
        back.path(),
    );
    let names = |dir: &std::path::Path| walk(dir).unwrap().entries().len();
    assert_eq!(names(source.path()), names(back.path()));
    mount.unmount();
    image.check();
}

#[test]
fn fio_verifies_what_it_wrote() {
    need_fuse!();
    need_tools!("fio");
    let image = Image::new(&["-b", "4096"], "128M");
    let mount = image.mount("");
    for (engine, direct) in [("psync", "0"), ("psync", "1"), ("mmap", "0")] {
        let arguments = [
            "--name=verify",
            "--filename=file",
            "--rw=randwrite",
            "--bsrange=512-64k",
            "--size=24m",
            "--verify=crc32c",
            "--do_verify=1",
            "--verify_fatal=1",
            "--randrepeat=0",
            "--bs_unaligned=0",
            "--fsync_on_close=1",
            &format!("--ioengine={engine}"),
            &format!("--direct={direct}"),
        ];
        run("fio", &arguments, mount.dir());
        fs::remove_file(mount.join("file")).unwrap();
    }
    mount.unmount();
    image.check();
}

#[test]
fn stress_ng_breaks_nothing() {
    need_fuse!();
    need_tools!("stress-ng");
    let image = Image::new(&["-b", "4096"], "256M");
    let mount = image.mount("");
    let stressors = [
        "dentry",
        "dir",
        "filename",
        "rename",
        "link",
        "symlink",
        "hdd",
        "seek",
        "utime",
        "xattr",
        "chmod",
        "copy-file",
        "fpunch",
        "mmap",
    ];
    for chunk in stressors.chunks(2) {
        let mut arguments = vec![
            "--temp-path",
            ".",
            "--timeout",
            "2s",
            "--hdd-bytes",
            "16m",
            "--mmap-bytes",
            "8m",
            "--quiet",
        ];
        let names: Vec<String> = chunk.iter().map(|name| format!("--{name}")).collect();
        names.iter().for_each(|name| arguments.extend([name.as_str(), "1"]));
        run("stress-ng", &arguments, mount.dir());
    }
    mount.unmount();
    image.check();
}
