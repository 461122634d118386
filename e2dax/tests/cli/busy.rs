//! Images that somebody has open: what can be looked at all the same, who is named, and waiting.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use e2dax_tests::{need_tools, tools};

use crate::common::{Folder, is_waiting};

/// Somebody who has an image open for writing until the standard input is closed.
struct Writer {
    child: Child,
    input: ChildStdin,
}

impl Writer {
    /// A verb that writes what it reads into a file of `a.img`.
    fn begin(folder: &Folder) -> Self {
        // The one who asks whether it has begun has the image open, too.
        let mut command = folder.command(&["write", "--wait", "a.img:/file"]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let begin = Instant::now();
        while folder.run(&["ls", "a.img"]).code() == 0 {
            assert!(begin.elapsed() < Duration::from_secs(20));
        }
        Self { child, input }
    }

    fn name(&self) -> String {
        format!("e2dax write (process {})", self.child.id())
    }

    fn end(mut self) {
        self.input.write_all(b"contents").unwrap();
        drop(self.input);
        assert!(self.child.wait().unwrap().success());
    }
}

fn image() -> Folder {
    let folder = Folder::with(&[]);
    folder.run(&["mkfs", "--size", "4M", "a.img"]).ok();
    folder.run_with(&["write", "a.img:/file"], b"before").ok();
    folder
}

#[test]
fn a_look_beside_a_writer_is_safe_or_refused_with_the_writers_name() {
    let folder = image();
    let writer = Writer::begin(&folder);
    let name = writer.name();
    let line = |verb: &str| verb.split(' ').map(str::to_owned).collect::<Vec<_>>();
    for verb in [
        "ls a.img",
        "tree a.img",
        "stat a.img:/file",
        "cat a.img:/file",
        "check a.img",
        "find a.img",
        "du a.img",
        "xattr a.img:/file",
        "cp a.img:/file out",
        "map a.img:/file",
        "whose a.img 30",
        "groups a.img",
        "hex a.img:/file",
        "hex a.img --block 30",
        "journal a.img",
        "deleted a.img",
        "manifest a.img",
        "tar a.img -o out.tar",
        "dax-report a.img",
        "diff a.img a.img",
        "lsattr a.img:/file",
        "fault --at 0 a.img:/file",
        "replay a.img -",
        "serve a.img --read-only --run true",
        // Those that write.
        "mkdir a.img:/d",
        "rm a.img:/file",
        "mkfs --force --size 4M a.img",
        "poke a.img superblock mnt_count 3",
        "resize a.img 8M",
        "tune -L label a.img",
        "align a.img",
        "sparsify a.img",
        "seal a.img",
        "serve a.img --run true",
        "shell a.img -c ls",
        "undelete a.img:<12> a.img:/x",
    ] {
        let run = folder.run(&line(verb));
        let said = run.err();
        assert!(said.contains(&name) && said.contains("--wait"), "{verb}: {said}");
        let code = match verb.split(' ').next() {
            Some("diff") => 2,
            Some("check") => 8,
            _ => 1,
        };
        assert_eq!(run.code(), code, "{verb}: {said}");
    }
    assert!(!folder.path("out").exists() && !folder.path("out.tar").exists());
    // Single structures are what they are at some moment.
    for (verb, shown) in [
        ("info a.img", "block size:"),
        ("df a.img", "a.img"),
        ("hex a.img --superblock", "s_magic"),
        ("hex a.img --inode 2", "i_mode"),
        ("hex a.img --group 0", "bg_"),
        ("hex a.img --block 1 --as contents", "0x"),
    ] {
        let run = folder.run(&line(verb));
        assert_eq!(run.code(), 0, "{verb}: {}", run.err());
        assert!(run.out().contains(shown), "{verb}: {}", run.out());
        assert!(run.err().contains(&name) && run.err().starts_with("e2dax: note: "), "{verb}: {}", run.err());
    }
    writer.end();
    assert_eq!(folder.run(&["cat", "a.img:/file"]).ok(), "contents");
}

#[test]
fn who_waits_sees_what_the_writer_left() {
    let folder = image();
    let writer = Writer::begin(&folder);
    let spawn = |words: &[&str]| folder.command(words).stdout(Stdio::piped()).spawn().unwrap();
    let mut waiting = spawn(&["--wait", "cat", "a.img:/file"]);
    let changing = spawn(&["mkdir", "--wait", "a.img:/later"]);
    assert!(waiting.try_wait().unwrap().is_none());
    writer.end();
    assert_eq!(waiting.wait_with_output().unwrap().stdout, b"contents");
    assert!(changing.wait_with_output().unwrap().status.success());
    assert!(folder.run(&["ls", "a.img"]).ok().contains("later"));
}

#[test]
fn many_look_at_once_and_a_writer_is_told_of_one_of_them() {
    let folder = image();
    let mut server = folder.command(&["serve", "--read-only", "a.img"]);
    let mut server = server.stdout(Stdio::piped()).spawn().unwrap();
    let mut uri = String::new();
    BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut uri).unwrap();
    assert!(folder.run(&["ls", "a.img"]).ok().contains("file"));
    assert!(folder.run(&["check", "a.img"]).ok().contains("clean"));
    let before = fs::read(folder.path("a.img")).unwrap();
    let said = folder.run(&["touch", "a.img:/x"]).fails(1);
    assert!(said.contains(&format!("e2dax serve (process {}) has the image open", server.id())), "{said}");
    assert_eq!(fs::read(folder.path("a.img")).unwrap(), before);
    server.kill().unwrap();
    server.wait().unwrap();
    folder.run(&["touch", "a.img:/x"]).ok();
}

#[test]
fn an_image_that_a_machine_has_is_not_changed_and_one_that_is_changed_is_no_machines() {
    need_tools!("qemu-nbd", "qemu-io");
    let folder = Folder::with(&["block-4k"]);
    let before = fs::read(folder.path("block-4k.img")).unwrap();
    let socket = folder.path("socket");
    let mut machine = tools::command("qemu-nbd")
        .args(["--format=raw", "--persistent", "--socket"])
        .arg(&socket)
        .arg(folder.path("block-4k.img"))
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while !socket.exists() {
        assert!(begin.elapsed() < Duration::from_secs(20), "the machine's disk is served");
        sleep(Duration::from_millis(10));
    }
    for line in ["mkdir block-4k.img:/new", "mkfs block-4k.img --force", "check -y block-4k.img"] {
        let run = folder.run(&line.split(' ').collect::<Vec<_>>());
        assert_ne!(run.code(), 0, "{line}");
        let name = "block-4k.img: is in use: qemu-nbd (process ";
        assert!(run.err().contains(name), "{line}: {}", run.err());
    }
    folder.run(&["ls", "block-4k.img:/"]).ok();
    machine.kill().unwrap();
    machine.wait().unwrap();
    assert!(fs::read(folder.path("block-4k.img")).unwrap() == before);
    // And the other way round: while it is written to, and not any more after that.
    let mut command = folder.command(&["write", "block-4k.img:/new"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    is_waiting(child.id());
    let path = folder.path("block-4k.img");
    let words = ["-f".as_ref(), "raw".as_ref(), "-c".as_ref(), "write 0 512".as_ref(), path.as_os_str()];
    let write = || tools::run("qemu-io", &words);
    let refused = write().unwrap_err();
    assert!(refused.contains("lock"), "{refused}");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    write().unwrap();
}
