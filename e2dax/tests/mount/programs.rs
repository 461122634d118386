//! Real programs inside a mount; after each e2fsck finds nothing.
//!
//! `E2DAX_LONG=1` has stress-ng go on for a minute and more.

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

/// A workspace of three crates, of which the last one uses the others.
fn workspace(dir: &std::path::Path) {
    let names = ["first", "second", "program"];
    for (n, name) in names.iter().enumerate() {
        let source = dir.join(name).join("src");
        fs::create_dir_all(&source).unwrap();
        let uses: String =
            names[..n].iter().map(|name| format!("{name} = {{ path = \"../{name}\" }}\n")).collect();
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[dependencies]\n{uses}"
        );
        fs::write(dir.join(name).join("Cargo.toml"), manifest).unwrap();
        let functions: String =
            (0..50).map(|n| format!("pub fn f{n}(x: u64) -> u64 {{ x ^ {n} }}\n")).collect();
        let (file, text) = match *name {
            "program" => {
                ("main.rs", "fn main() { println!(\"{}\", first::f1(6) + second::f2(1)) }".to_owned())
            }
            _ => ("lib.rs", functions),
        };
        fs::write(source.join(file), text).unwrap();
    }
    fs::write(
        dir.join("Cargo.toml"),
        "[workspace]\nmembers = [\"*\"]\nexclude = [\"target\"]\nresolver = \"2\"\n",
    )
    .unwrap();
}

#[test]
fn cargo_builds_again_only_what_changed() {
    need_fuse!();
    need_tools!("cargo");
    let image = Image::new(&["-b", "4096"], "256M");
    let mount = image.mount("");
    let work = mount.join("work");
    workspace(&work);
    let target = work.join("target");
    let cargo = |how: &[&str]| {
        let all = [&["build", "--offline", "--target-dir", target.to_str().unwrap()], how].concat();
        run("cargo", &all, &work)
    };
    let says = |mode: &str| run(target.join(mode).join("program").to_str().unwrap(), &[], &work);
    cargo(&[]);
    cargo(&["--release"]);
    assert_eq!((says("debug"), says("release")), ("10\n".into(), "10\n".into()));
    let built = |name: &str| fs::metadata(target.join("debug").join(name)).unwrap().modified().unwrap();
    let (first, second) = (built("libfirst.rlib"), built("libsecond.rlib"));
    fs::write(work.join("second/src/lib.rs"), "pub fn f2(x: u64) -> u64 { x + 100 }").unwrap();
    cargo(&[]);
    assert_eq!(says("debug"), "108\n");
    assert!(built("libfirst.rlib") == first && built("libsecond.rlib") > second);
    mount.unmount();
    image.check();
    let mount = image.mount("ro");
    let program = mount.join("work/target/release/program");
    assert_eq!(run(program.to_str().unwrap(), &[], mount.dir()), "10\n");
    mount.unmount();
}

#[test]
fn fio_verifies_what_it_wrote() {
    need_fuse!();
    need_tools!("fio");
    let image = Image::new(&["-b", "4096"], "128M");
    let ways = ["", "direct_io"].into_iter().flat_map(|options| {
        [("psync", "0"), ("psync", "1"), ("mmap", "0")].map(|(engine, direct)| (options, engine, direct))
    });
    for (options, engine, direct) in ways {
        let mount = image.mount(options);
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
        mount.unmount();
    }
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
    let time = if std::env::var_os("E2DAX_LONG").is_some() { "10s" } else { "2s" };
    for chunk in stressors.chunks(2) {
        let mut arguments = vec![
            "--temp-path",
            ".",
            "--timeout",
            time,
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
