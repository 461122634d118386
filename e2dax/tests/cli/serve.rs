//! `serve`, and images that are reached by `nbd://`.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use blockdev::BlockDevice as _;
use e2dax_net::client::{Connect, NbdDevice};
use e2dax_net::uri::NbdUri;
use e2dax_tests::{need_tools, tools};

use crate::common::Folder;
use crate::layers::{Pack, layout, tar_of};

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
fn every_source_is_served_as_the_image_that_mkfs_makes_of_it() {
    need_tools!("nbdcopy", "tar", "gzip");
    let folder = Folder::with(&[]);
    tree(&folder);
    let root = folder.path("tree");
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 1 << 20).unwrap();
    fs::hard_link(root.join("d/large"), root.join("d/same")).unwrap();
    fs::create_dir(folder.path("extra")).unwrap();
    fs::write(folder.path("extra/link"), "over the link").unwrap();
    let shell = |script: &str| {
        let script = format!("cd \"$1\"; {script}");
        tools::run("sh", &["-euc", &script, "sh", folder.path(".").to_str().unwrap()]).unwrap();
    };
    shell("tar -C tree -cf tree.tar .; tar -C tree -Scf sparse.tar .; gzip -k tree.tar");
    let manifest = folder.run(&["manifest", "tree"]).ok();
    fs::write(folder.path("tree/manifest"), manifest).unwrap();
    let layers = [tar_of(&root, &["."]), tar_of(&folder.path("extra"), &["."])];
    layout(&folder, "layout", &layers, Pack::Gzip);
    for (sources, options) in [
        (&["tree"][..], &["--owner", "0:0"][..]),
        (&["tree"], &["--size", "auto+3M", "--sparse", "--dax-align", "on"]),
        (&["tree"], &["--size", "40M", "--block-size", "1024", "--seed", "x"]),
        (&["tree.tar"], &["--owner", "0:0"]),
        (&["tree.tar.gz"], &["--size", "40M", "--block-size", "1024"]),
        (&["sparse.tar"], &[]),
        (&["tree/manifest"], &[]),
        (&["tree/manifest"], &["--contents", "tree", "--size", "auto+1M"]),
        (&["oci:layout"], &[]),
        (&["tree.tar", "extra"], &[]),
        (&["extra", "tree/manifest"], &[]),
    ] {
        let from: Vec<&str> = sources.iter().flat_map(|source| ["--from", source]).collect();
        folder.run(&[&["mkfs", "made.img", "-q", "-f"], &from[..], options].concat());
        let arguments = [&from[..], &["--read-only", "--"], options].concat();
        let (out, err, code) =
            served(&folder, &arguments, "nbdcopy \"$uri\" served.img; $e check -q \"$uri\"");
        assert_eq!(code, 0, "{sources:?} {options:?}: {out}{err}");
        let same = fs::read(folder.path("made.img")).unwrap() == fs::read(folder.path("served.img")).unwrap();
        assert!(same, "{sources:?} {options:?}");
        fs::remove_file(folder.path("served.img")).unwrap();
    }
    // The standard input.
    folder.run(&["mkfs", "made.img", "-q", "-f", "--from", "tree.tar"]);
    let e = env!("CARGO_BIN_EXE_e2dax");
    shell(&format!(
        "{e} serve --from - -r --run 'nbdcopy \"$uri\" served.img' <tree.tar; cmp made.img served.img"
    ));
}

#[test]
fn a_file_that_is_not_what_its_manifest_says_is_an_error_and_the_others_are_served() {
    let folder = Folder::with(&[]);
    tree(&folder);
    let manifest = folder.run(&["manifest", "tree"]).ok();
    fs::write(folder.path("m"), manifest).unwrap();
    fs::write(folder.path("tree/d/small"), "other\n").unwrap();
    let script = "! $e cat \"$uri:/d/small\"; $e cat \"$uri:/d/large\" | wc -c";
    let (out, err, code) = served(&folder, &["--from", "m", "-r", "--", "--contents", "tree"], script);
    assert!(code == 0 && out.contains("700000") && !out.contains("other"), "{out}{err}");
    assert!(err.contains("/d/small") && err.contains("CRC-32"), "{err}");
}

#[test]
fn files_that_change_while_they_are_served_are_errors() {
    let folder = Folder::with(&[]);
    tree(&folder);
    // What is written goes to memory or a file, and a file that changes is an error and not other bytes.
    let script = "$e mkdir \"$uri:/made\"; $e ls -d \"$uri:/made\"; $e check -q \"$uri\"; echo changed >> tree/d/small; \
        ! $e cat \"$uri:/d/small\"; $e cat \"$uri:/d/large\" | wc -c";
    let (out, err, code) = served(&folder, &["--from", "tree", "--", "--size", "auto+2M"], script);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("made") && out.contains("700000"), "{out}");
    assert!(err.contains("/d/small") && err.contains("changed"), "{err}");
    fs::remove_dir_all(folder.path("tree")).unwrap();
    // Told of before anybody reads it, where that is asked for: one that is written to, one that is replaced, one that is gone.
    tree(&folder);
    fs::write(folder.path("tree/third"), "third").unwrap();
    let script = "echo more >> tree/d/small; cp tree/third new; mv new tree/third; rm tree/d/large; \
        for i in $(seq 100); do [ $(wc -l <log) -lt 3 ] || break; sleep 0.05; done";
    let script =
        format!("exec 2>log; {} serve --from tree --watch -r --run '{script}'", env!("CARGO_BIN_EXE_e2dax"));
    let script = format!("cd \"$1\"; {script}");
    tools::run("sh", &["-euc", &script, "sh", folder.path(".").to_str().unwrap()]).unwrap();
    let log = fs::read_to_string(folder.path("log")).unwrap();
    for name in ["/d/small", "/d/large", "/third"] {
        assert_eq!(log.lines().filter(|line| line.contains(name)).count(), 1, "{log}");
    }
}

#[test]
fn addresses_that_other_machines_reach_are_for_those_who_say_so() {
    let folder = Folder::with(&[]);
    folder.run(&["mkfs", "a.img", "--size", "8M", "-q"]).ok();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:1"] {
        let refused = folder.run(&["serve", "a.img", "--listen", address, "--run", "true"]).fails(2);
        assert!(refused.contains("--unencrypted"), "{address}: {refused}");
    }
    for arguments in [&["127.0.0.2:0"][..], &["0.0.0.0:0", "--unencrypted"]] {
        let all = [&["serve", "a.img", "--run", "true", "--listen"], arguments].concat();
        folder.run(&all).ok();
    }
    folder.run(&["serve", "a.img", "--unencrypted", "--run", "true"]).fails(2);
}

/// A server of its own process, which does not outlive a test that fails.
struct Served(std::process::Child);

impl Served {
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Says that it is over, also where a test fails.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A server on a socket.
fn start(folder: &Folder) -> Served {
    let mut command = folder.command(&["serve", "a.img", "--socket", "s"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    // It says where it is when it listens.
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    Served(child)
}

#[test]
fn a_server_that_is_killed_under_load_and_started_again_loses_nothing() {
    let kills = std::env::var("E2DAX_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let blocks = 64_usize;
    let folder = Folder::with(&[]);
    fs::write(folder.path("a.img"), vec![0; blocks * 4096]).unwrap();
    let mut child = start(&folder);
    let uri = NbdUri::unix(&folder.path("s"), "");
    let device = NbdDevice::open(&uri, &Connect::default()).unwrap();
    let (over, flushed) = (AtomicBool::new(false), AtomicU64::new(0));
    // The n-th store is of n, to the block n % 64; every seventh is flushed.
    let writer = || {
        let mut nr = 0_u64;
        while !over.load(Ordering::SeqCst) || nr < 1000 {
            nr += 1;
            device.write_at(nr % blocks as u64 * 4096, &nr.to_le_bytes().repeat(512)).unwrap();
            if nr.is_multiple_of(7) {
                device.flush().unwrap();
                flushed.store(nr, Ordering::SeqCst);
            }
        }
        device.flush().unwrap();
        nr
    };
    let number = |bytes: &[u8]| u64::from_le_bytes(*bytes.first_chunk().unwrap());
    let last = std::thread::scope(|scope| {
        let writer = scope.spawn(writer);
        let over = AtEnd(&over);
        for kill in 0..kills {
            // To flush may take longer than that: every other server lives until one has returned, or the client gives up.
            let (before, begin) = (flushed.load(Ordering::SeqCst), Instant::now());
            while kill % 2 == 1 && flushed.load(Ordering::SeqCst) == before && !writer.is_finished() {
                assert!(begin.elapsed() < Duration::from_secs(60), "kill {kill}: nothing is flushed");
                std::thread::sleep(Duration::from_micros(100));
            }
            std::thread::sleep(Duration::from_micros(300 * (kill % 29)));
            // Asked before: what was flushed then is on the disk afterwards.
            let promised = flushed.load(Ordering::SeqCst);
            child.kill();
            let image = fs::read(folder.path("a.img")).unwrap();
            for nr in promised.saturating_sub(blocks as u64 - 1).max(1)..=promised {
                let at = nr as usize % blocks * 4096;
                assert!(number(&image[at..]) >= nr, "kill {kill}: store {nr} of {promised} is lost");
            }
            child = start(&folder);
        }
        drop(over);
        writer.join().unwrap()
    });
    let image = fs::read(folder.path("a.img")).unwrap();
    for nr in last + 1 - blocks as u64..=last {
        let at = nr as usize % blocks * 4096;
        assert!(image[at..at + 4096] == nr.to_le_bytes().repeat(512), "store {nr} of {last}");
    }
    drop(device);
}
