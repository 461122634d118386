//! `serve`, and images that are reached by `nbd://`.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use e2dax_tests::{need_tools, tools};

use crate::common::Folder;

/// Runs a script of the shell while an image is served; the command is `$e`.
fn served(folder: &Folder, arguments: &[&str], script: &str) -> (String, String, i32) {
    let script = format!("set -eu; e={}; {script}", env!("CARGO_BIN_EXE_e2dax"));
    let mut all = vec!["serve", "--run", &script];
    all.extend(arguments);
    let run = folder.run(&all);
    (run.out(), run.err(), run.code())
}

fn tree(folder: &Folder) {
    let root = folder.path("tree");
    fs::create_dir_all(root.join("d/e")).unwrap();
    fs::write(root.join("d/large"), vec![7; 700_000]).unwrap();
    fs::write(root.join("d/small"), "small\n").unwrap();
    std::os::unix::fs::symlink("d/small", root.join("link")).unwrap();
}

#[test]
fn verbs_take_a_served_image_for_an_image() {
    let folder = Folder::with(&[]);
    tree(&folder);
    folder.run(&["mkfs", "a.img", "--size", "16M", "-q"]).ok();
    let script = "$e cp -r tree \"$uri:/\"; $e ls \"$uri:/tree/d\"; $e cat \"$uri:/tree/d/small\"; \
        $e mv \"$uri:/tree/d/small\" \"$uri:/moved\"; $e rm -r \"$uri:/tree/d/e\"; $e check -q \"$uri\"; \
        $e cp -r \"$uri:/tree\" out; $e cat --device ram \"$uri:/moved\"";
    let (out, err, code) = served(&folder, &["a.img"], script);
    assert_eq!((err.as_str(), code), ("", 0), "{out}");
    assert!(out.contains("large") && out.matches("small\n").count() == 3, "{out}");
    assert_eq!(fs::read(folder.path("out/d/large")).unwrap(), vec![7; 700_000]);
    // What was written is in the image, which is closed.
    assert_eq!(folder.run(&["cat", "a.img:/moved"]).ok(), "small\n");
    folder.run(&["check", "a.img"]).ok();
}

#[test]
fn an_overlay_keeps_what_is_written_and_the_image_stays_as_it_is() {
    let folder = Folder::with(&[]);
    folder.run(&["mkfs", "a.img", "--size", "8M", "-q"]).ok();
    let before = fs::read(folder.path("a.img")).unwrap();
    let arguments = ["a.img", "--overlay", "a.overlay"];
    let (_, err, code) = served(&folder, &arguments, "$e mkdir \"$uri:/made\"");
    assert_eq!((err.as_str(), code), ("", 0));
    assert!(fs::read(folder.path("a.img")).unwrap() == before);
    let (out, err, code) =
        served(&folder, &arguments, "$e ls -d \"$uri:/made\"; $e check -q \"$uri\"; exit 7");
    assert!(out.contains("made"), "{out}");
    assert_eq!((err.as_str(), code), ("", 7));
    // An overlay of another image is none of this one.
    folder.run(&["mkfs", "b.img", "--size", "8M", "-q", "--seed", "other"]).ok();
    let wrong = folder.run(&["serve", "b.img", "--overlay", "a.overlay", "--run", "true"]).fails(1);
    assert!(wrong.contains("a.overlay") && wrong.contains("of another image"), "{wrong}");
}

#[test]
fn a_file_system_is_made_on_a_served_device_as_in_a_file() {
    let folder = Folder::with(&[]);
    tree(&folder);
    fs::write(folder.path("disk"), vec![0; 8 << 20]).unwrap();
    folder.run(&["mkfs", "made.img", "-q", "--from", "tree", "--size", "8M"]).ok();
    let script = "$e mkfs \"$uri\" -q --from tree --size 8M; $e bench --json \"$uri\"; \
        ! $e mkfs \"$uri\" -q --size 4M; $e mkfs \"$uri\" -q -f --from tree";
    let (out, err, code) = served(&folder, &["disk"], script);
    assert!(code == 0 && err.contains("is not empty"), "{out}{err}");
    // As large as the device, where nothing else is said: the same image.
    assert!(fs::read(folder.path("disk")).unwrap() == fs::read(folder.path("made.img")).unwrap());
    let steps: Vec<&str> = out.lines().filter(|line| line.contains("\"requests\"")).collect();
    assert!(steps.len() == 3 && steps[0].contains("\"open\""), "{out}");
}

#[test]
fn a_server_prints_where_it_is_and_ends_when_it_is_told_to() {
    let folder = Folder::with(&[]);
    folder.run(&["mkfs", "a.img", "--size", "8M", "-q"]).ok();
    for arguments in [&["serve", "a.img"][..], &["serve", "a.img", "--listen", "127.0.0.1:0", "--read-only"]]
    {
        let mut command = folder.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut uri = String::new();
        out.read_line(&mut uri).unwrap();
        let listed = folder.run(&["ls", uri.trim_end()]).ok();
        assert!(listed.contains("lost+found"), "{listed}");
        if arguments.contains(&"--read-only") {
            let refused = folder.run(&["mkdir", &format!("{}:/x", uri.trim_end())]).fails(1);
            assert!(refused.contains("read-only"), "{refused}");
        } else {
            // Served for writing, nobody else writes.
            folder.run(&["mkdir", "a.img:/x"]).fails(1);
        }
        tools::run("kill", &[child.id().to_string()]).unwrap();
        assert!(child.wait().unwrap().success());
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!(err, "");
        if let Some((_, socket)) = uri.trim_end().split_once("socket=") {
            assert!(!fs::exists(std::path::Path::new(socket).parent().unwrap()).unwrap());
        }
    }
}

#[test]
fn what_cannot_be_reached_or_makes_no_sense_is_said() {
    let folder = Folder::with(&[]);
    folder.run(&["mkfs", "a.img", "--size", "8M", "-q"]).ok();
    for (arguments, code, what) in [
        (&["ls", "nbd+unix:///?socket=/nowhere"][..], 1, "No such file"),
        (&["ls", "nbd://127.0.0.1:1/x"], 1, "refused"),
        (&["ls", "nbd+unix:///x"], 1, "names no socket"),
        (&["serve", "a.img:/d"], 2, "names a file in an image"),
        (&["serve", "nothing.img"], 1, "No such file"),
        (&["serve", "--export", "a.img"], 2, "is not NAME=IMG"),
        (&["serve", "--export", "x=a.img", "--export", "x=a.img"], 2, "already"),
        (&["serve", "--from", ".", "--run", "true", "--", "--nonsense"], 2, "--nonsense"),
    ] {
        let message = folder.run(arguments).fails(code);
        assert!(message.contains(what), "{arguments:?}: {message}");
    }
}

#[test]
fn a_directory_and_an_archive_are_served_as_the_image_that_mkfs_makes_of_them() {
    need_tools!("nbdcopy", "tar");
    let folder = Folder::with(&[]);
    tree(&folder);
    let (root, archive) = (folder.path("tree"), folder.path("tree.tar"));
    let (root, archive) = (root.to_str().unwrap(), archive.to_str().unwrap());
    tools::run("tar", &["-C", root, "-cf", archive, "."]).unwrap();
    for source in ["tree", "tree.tar"] {
        for options in [
            &["--owner", "0:0"][..],
            &["--size", "auto+3M", "--sparse", "--dax-align", "on"],
            &["--size", "40M", "--block-size", "1024", "--seed", "x"],
        ] {
            let made = [&["mkfs", "made.img", "-q", "-f", "--from", source], options].concat();
            folder.run(&made);
            let arguments = [&["--from", source, "--read-only", "--"], options].concat();
            let script = "nbdcopy \"$uri\" served.img; $e check -q \"$uri\"";
            let (out, err, code) = served(&folder, &arguments, script);
            assert_eq!(code, 0, "{source} {options:?}: {out}{err}");
            let same =
                fs::read(folder.path("made.img")).unwrap() == fs::read(folder.path("served.img")).unwrap();
            assert!(same, "{source} {options:?}");
            fs::remove_file(folder.path("served.img")).unwrap();
        }
    }
    // What is written goes to memory or a file, and a file that changes is an error and not other bytes.
    let script = "$e mkdir \"$uri:/made\"; $e ls -d \"$uri:/made\"; $e check -q \"$uri\"; echo changed >> tree/d/small; \
        ! $e cat \"$uri:/d/small\"; $e cat \"$uri:/d/large\" | wc -c";
    let (out, err, code) = served(&folder, &["--from", "tree", "--", "--size", "auto+2M"], script);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("made") && out.contains("700000"), "{out}");
    assert!(err.contains("/d/small") && err.contains("changed"), "{err}");
}
