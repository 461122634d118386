//! The command in a terminal: prompts, completion, Ctrl-C, narrow windows, colours, and pipes that are closed early.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use e2dax_tests::need_tools;

use crate::common::{Folder, is_waiting};
use crate::repair::break_counts;

/// A terminal of its own, gone when it is dropped.
struct Terminal<'f> {
    folder: &'f Folder,
    socket: String,
}

impl<'f> Terminal<'f> {
    /// With a command in it, and a shell that stays when it has ended.
    fn new(folder: &'f Folder, width: u32, command: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("tmux{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let socket = folder.path(&name).to_str().unwrap().to_owned();
        let terminal = Self { folder, socket };
        let e2dax = env!("CARGO_BIN_EXE_e2dax");
        let line = format!("trap : INT; e2dax() {{ {e2dax} \"$@\"; }}; {command}; echo ended $?; sleep 60");
        let width = width.to_string();
        terminal.tmux(&["new-session", "-d", "-x", &width, "-y", "24", "sh", "-c", &line]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-S", &self.socket, "-f", "/dev/null"])
            .args(arguments)
            .current_dir(self.folder.root())
            .env("TERM", "xterm-256color")
            .env_remove("TMUX")
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types a command of the shell, and waits for the prompt behind what it prints: what is typed before may be lost.
    fn command(&self, keys: &[&str]) {
        self.send(keys, "Enter");
    }

    fn send(&self, keys: &[&str], end: &str) {
        let prompts = |screen: &str| screen.lines().filter(|line| line.starts_with("a.img:")).count();
        let before = prompts(&self.screen());
        self.keys(keys);
        self.keys(&[end]);
        let begin = Instant::now();
        while prompts(&self.screen()) == before && begin.elapsed() < Duration::from_secs(20) {
            sleep(Duration::from_millis(20));
        }
    }

    /// The process that the shell in it waits for.
    fn child(&self) -> u32 {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
        children.trim().parse().expect("one child")
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-J"])
    }

    /// The screen as soon as it shows something.
    #[track_caller]
    fn shows(&self, wanted: &str) -> String {
        let begin = Instant::now();
        loop {
            let screen = self.screen();
            if screen.contains(wanted) {
                return screen;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "{wanted:?} is not on the screen:\n{screen}");
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

fn image() -> Folder {
    let folder = Folder::with(&[]);
    folder.run(&["mkfs", "--size", "4M", "a.img"]).code();
    folder
}

fn is_clean(folder: &Folder) {
    let checked = Command::new("e2fsck").args(["-fn", "a.img"]).current_dir(folder.root()).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    assert!(folder.run(&["info", "a.img"]).ok().contains("state:        clean"));
}

#[test]
fn the_shell_has_a_prompt_and_completes_verbs_and_names() {
    need_tools!("tmux", "e2fsck");
    let folder = image();
    let terminal = Terminal::new(&folder, 80, "e2dax shell a.img");
    terminal.shows("a.img:/> ");
    terminal.command(&["mkd", "Tab", "/directory"]);
    terminal.command(&["cd dir", "Tab"]);
    terminal.shows("a.img:/directory> ");
    terminal.command(&["touch a b"]);
    terminal.command(&["ls"]);
    terminal.shows("a\nb\n");
    // A line that is taken back does nothing, and the shell goes on.
    terminal.send(&["rm a"], "C-c");
    terminal.command(&["nonsense"]);
    terminal.shows("is no command");
    terminal.command(&["pwd"]);
    terminal.shows("\n/directory\n");
    terminal.keys(&["C-d"]);
    terminal.shows("ended 0");
    assert_eq!(folder.run(&["ls", "a.img:/directory"]).ok(), "a\nb\n");
    is_clean(&folder);
}

#[test]
fn an_interrupted_change_leaves_a_clean_image() {
    need_tools!("tmux", "e2fsck");
    let folder = image();
    let terminal = Terminal::new(&folder, 80, "e2dax write --wait a.img:/file");
    terminal.keys(&["a line", "Enter"]);
    // It waits for more, with the image open.
    let begin = Instant::now();
    while !folder.run(&["ls", "a.img"]).err().contains("is in use") {
        assert!(begin.elapsed() < Duration::from_secs(20), "{}", terminal.screen());
        sleep(Duration::from_millis(20));
    }
    is_waiting(terminal.child());
    terminal.keys(&["C-c"]);
    terminal.shows("ended 130");
    is_clean(&folder);
}

/// `empty.img` with two faults: the root's links, and free blocks of a group.
fn damaged() -> (Folder, Vec<u8>) {
    let folder = Folder::with(&["empty"]);
    let path = folder.path("empty.img");
    let mut image = std::fs::read(&path).unwrap();
    crate::repair::break_counts(&mut image);
    std::fs::write(&path, &image).unwrap();
    (folder, image)
}

#[test]
fn questions_are_answered_one_by_one_or_for_all_that_come() {
    need_tools!("tmux", "e2fsck");
    let (folder, broken) = damaged();
    {
        let terminal = Terminal::new(&folder, 80, "e2dax check empty.img");
        terminal.shows("i_links_count is 9, should be 3");
        terminal.keys(&["perhaps", "Enter", "y", "Enter"]);
        terminal.shows("bg_free_blocks_count");
        terminal.keys(&["n", "Enter"]);
        // Mended, and left.
        let screen = terminal.shows("ended 5");
        assert!(screen.contains("1 finding mended"), "{screen}");
    }
    let once = std::fs::read(folder.path("empty.img")).unwrap();
    assert!(once != broken, "what was said yes to was not stored");
    {
        let terminal = Terminal::new(&folder, 80, "e2dax check empty.img");
        terminal.shows("mend?");
        terminal.keys(&["q", "Enter"]);
        terminal.shows("ended 4");
    }
    assert!(std::fs::read(folder.path("empty.img")).unwrap() == once, "what was said no to was stored");
    std::fs::write(folder.path("empty.img"), &broken).unwrap();
    let terminal = Terminal::new(&folder, 80, "e2dax check empty.img");
    terminal.shows("mend?");
    terminal.keys(&["a", "Enter"]);
    terminal.shows("ended 1");
    e2dax_tests::tools::e2fsck_fn(&folder.path("empty.img")).unwrap();
}

#[test]
fn ctrl_c_at_a_question_leaves_the_image_and_says_so() {
    need_tools!("tmux");
    let (folder, broken) = damaged();
    let terminal = Terminal::new(&folder, 80, "e2dax check empty.img");
    terminal.shows("mend?");
    terminal.keys(&["y", "Enter"]);
    terminal.shows("bg_free_blocks_count");
    terminal.keys(&["C-c"]);
    let screen = terminal.shows("ended 32");
    assert!(screen.contains("nothing of empty.img was mended; run it again"), "{screen}");
    assert!(std::fs::read(folder.path("empty.img")).unwrap() == broken);
}

#[test]
fn narrow_windows_and_no_colour_are_respected() {
    need_tools!("tmux");
    let folder = image();
    {
        let terminal = Terminal::new(&folder, 40, "e2dax ls --help | head -12");
        let screen = terminal.shows("ended 0");
        assert!(screen.contains("Directories or files, each as\n          IMG:/path"), "{screen}");
    }
    for (setting, coloured) in [("NO_COLOR=1", false), ("CLICOLOR_FORCE=1", true)] {
        let terminal = Terminal::new(&folder, 80, &format!("export {setting}; e2dax ls --nonsense"));
        terminal.shows("ended 2");
        let screen = terminal.tmux(&["capture-pane", "-p", "-e"]);
        assert_eq!(screen.contains("\u{1b}["), coloured, "{setting}: {screen:?}");
    }
}

#[test]
fn a_pipe_that_is_closed_early_is_no_error() {
    let folder = Folder::with(&["names", "two-mib", "xattr-256"]);
    fs::create_dir(folder.path("tree")).unwrap();
    fs::write(folder.path("tree/a"), "a").unwrap();
    fs::write(folder.path("script"), "create f\nstat f\n").unwrap();
    for line in [
        "ls -R names.img",
        "ls --raw names.img",
        "find names.img",
        "manifest names.img",
        "manifest tree",
        "tree names.img",
        "groups names.img",
        "hex names.img --superblock",
        "stat names.img:/",
        "info names.img",
        "df names.img",
        "du -a names.img",
        "xattr xattr-256.img:/acl",
        "whose names.img 1 2 3",
        "map --all two-mib.img",
        "dax-report two-mib.img",
        "deleted names.img",
        "lsattr names.img",
        "tar names.img",
        "check names.img",
        "diff names.img two-mib.img",
        "replay two-mib.img script",
        "quiz",
        "lab",
        "help",
        "cp --help",
        "completions bash",
        "demo",
    ] {
        let mut command = folder.command(&line.split(' ').collect::<Vec<_>>());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Nobody reads, from the beginning on.
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line}");
        let code = output.status.code();
        assert!(
            code == Some(0) || line.starts_with("diff") && code == Some(1),
            "{line}: {:?}",
            output.status
        );
    }
}

/// The code of a run whose output nobody reads, or which a full disk takes.
fn code_of(folder: &Folder, line: &str, out: Stdio) -> (i32, String) {
    let child = folder
        .command(&line.split(' ').collect::<Vec<_>>())
        .stdout(out)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A pipe that nobody reads: the end that is read is closed.
fn unread() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

#[test]
fn a_verdict_is_told_by_the_code_although_nobody_reads_it() {
    let folder = Folder::with(&["empty"]);
    let mut image = fs::read(folder.path("empty.img")).unwrap();
    break_counts(&mut image);
    fs::write(folder.path("b.img"), &image).unwrap();
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    for line in ["check b.img", "check --json b.img", "check -n b.img"] {
        assert_eq!(code_of(&folder, line, unread()), (4, String::new()), "{line}");
        let (code, told) = code_of(&folder, line, full().into());
        // Errors are left, and that could not be told.
        assert_eq!(
            (code, told.as_str()),
            (12, "e2dax: standard output: No space left on device\n"),
            "{line}"
        );
    }
    assert_eq!(code_of(&folder, "check empty.img", full().into()).0, 8);
    assert_eq!(code_of(&folder, "diff b.img empty.img", full().into()).0, 2);
    assert_eq!(fs::read(folder.path("b.img")).unwrap(), image, "nothing was mended");
    for (how, out, code) in [("-p", unread(), 1), ("-y", full().into(), 9)] {
        fs::write(folder.path("b.img"), &image).unwrap();
        assert_eq!(code_of(&folder, &format!("check {how} b.img"), out).0, code, "{how}");
        folder.run(&["check", "b.img"]).ok();
    }
}

/// More lines than what is gathered before it is written.
#[test]
fn many_findings_that_nobody_reads_are_mended() {
    let folder = Folder::with(&[]);
    fs::create_dir(folder.path("tree")).unwrap();
    for nr in 0..1500 {
        fs::write(folder.path(&format!("tree/{nr}")), "").unwrap();
    }
    folder.run(&["mkfs", "a.img", "--from", "tree"]).ok();
    let breaks = |nr| format!("poke inode:{nr} i_links_count 7\n");
    folder.run_with(&["shell", "a.img"], (100..1500).map(breaks).collect::<String>().as_bytes()).code();
    let broken = fs::read(folder.path("a.img")).unwrap();
    assert!(folder.run(&["check", "a.img"]).out().len() > 64 << 10);
    assert_eq!(code_of(&folder, "check a.img", unread()), (4, String::new()));
    assert_eq!(fs::read(folder.path("a.img")).unwrap(), broken);
    assert_eq!(code_of(&folder, "check -y a.img", unread()), (1, String::new()));
    folder.run(&["check", "a.img"]).ok();
}

#[test]
fn a_script_that_ends_early_since_nobody_reads_says_so() {
    let folder = Folder::with(&["names"]);
    fs::write(folder.path("script"), "ls\nls\nls\nmkdir /late\n").unwrap();
    assert_eq!(code_of(&folder, "shell names.img -f script", unread()), (1, String::new()));
    assert_eq!(folder.run(&["stat", "names.img:/late"]).code(), 1);
}

/// What a command writes to a terminal of that many columns, with its controls.
fn typescript(folder: &Folder, columns: u32, line: &str) -> String {
    let e2dax = env!("CARGO_BIN_EXE_e2dax");
    let line = format!("stty rows 24 cols {columns}; {e2dax} {line}");
    let output = Command::new("script")
        .args(["-qefc", &line, "/dev/null"])
        .current_dir(folder.root())
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn progress_is_shown_and_taken_away() {
    need_tools!("script", "stty");
    let folder = Folder::with(&["block-4k"]);
    fs::create_dir(folder.path("tree")).unwrap();
    fs::write(folder.path("tree/big"), vec![7; 12 << 20]).unwrap();
    for (line, what) in [
        ("mkfs --force --size 32M --from tree a.img", "copying"),
        ("cp a.img:/big out", "copying"),
        ("cp out a.img:/again", "copying"),
        ("check a.img", "directories"),
        ("tar a.img -o a.tar", "writing"),
        ("seal --force block-4k.img", "hashing"),
    ] {
        for columns in [80, 40] {
            let _ = fs::remove_file(folder.path("a.tar"));
            let text = typescript(&folder, columns, line);
            // Each drawing of the bar, without what moves the cursor.
            let drawn: Vec<&str> = text.split(['\r', '\n']).filter(|part| part.contains(what)).collect();
            assert!(!drawn.is_empty(), "{line} shows no progress: {text:?}");
            for part in drawn {
                let seen = without_controls(part);
                assert!(seen.chars().count() <= columns as usize, "{line}, {columns} columns: {seen:?}");
            }
            let last = text.rfind(what).unwrap();
            assert!(text[last..].contains("\u{1b}[2K"), "{line} leaves its bar: {text:?}");
        }
    }
    // Where nobody looks there is none.
    assert_eq!(folder.run(&["cp", "a.img:/big", "out"]).err(), "");
}

/// What a terminal shows of it.
fn without_controls(text: &str) -> String {
    let mut shown = String::new();
    let mut signs = text.chars();
    while let Some(sign) = signs.next() {
        if sign == '\u{1b}' {
            // A control ends with a letter.
            let _ = signs.by_ref().skip(1).find(char::is_ascii_alphabetic);
        } else if !sign.is_control() {
            shown.push(sign);
        }
    }
    shown
}

#[test]
fn an_interrupt_leaves_nothing_that_looks_finished() {
    need_tools!("e2fsck", "kill");
    let folder = image();
    folder.run_with(&["write", "a.img:/big"], &vec![7; 1 << 20]).ok();
    // Each waits for somebody: for more of its input, or for who reads its output.
    for (line, waits_on_output, output) in [
        ("mkfs --from - new.img", false, Some("new.img")),
        ("write --wait a.img:/written", false, None),
        ("tar a.img", true, None),
        ("cat a.img:/big", true, None),
        ("shell --wait a.img -f -", false, None),
    ] {
        let mut command = folder.command(&line.split(' ').collect::<Vec<_>>());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        if waits_on_output {
            // The first byte has come, and the pipe holds less than all.
            child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        } else if line.starts_with("shell") {
            input.write_all(b"mkdir /made\n").unwrap();
        } else {
            input.write_all(&[0; 512]).unwrap();
        }
        if line.starts_with("write") || line.starts_with("shell") {
            let begin = Instant::now();
            while !folder.run(&["ls", "a.img"]).err().contains("is in use") {
                assert!(begin.elapsed() < Duration::from_secs(20));
            }
            // It has the image, and waits for its input: a signal in the middle of a change leaves it not clean.
            is_waiting(child.id());
        }
        // Not SIGINT, which who runs this in the background ignores; both are one to us.
        let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let status = child.wait().unwrap();
        assert!(!status.success(), "{line}: {status}");
        if let Some(output) = output {
            assert!(!folder.path(output).exists(), "{line}");
        }
        is_clean(&folder);
    }
}

#[test]
fn no_signal_leaves_an_image_that_is_not_clean_without_a_word() {
    need_tools!("nbdkit", "e2fsck", "kill");
    let folder = image();
    let socket = folder.path("slow");
    // Each store takes so long that a signal falls into the opening, between it and the closing, or into that.
    let mut server = Command::new("nbdkit")
        .args(["-f", "-U"])
        .arg(&socket)
        .args(["--filter=delay", "file"])
        .arg(folder.path("a.img"))
        .arg("wdelay=60ms")
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while !socket.exists() {
        assert!(begin.elapsed() < Duration::from_secs(20));
        sleep(Duration::from_millis(5));
    }
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    let mut interrupted = 0;
    for after in (40..800).step_by(80) {
        let mut command = folder.command(&["mkdir", &format!("{uri}:/made{after}")]);
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        sleep(Duration::from_millis(after));
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        interrupted += u32::from(!output.status.success());
        // In the middle of the directory's making it is said; before and after it, there is nothing to say.
        if String::from_utf8_lossy(&output.stderr).contains("is left as not clean") {
            let mended = Command::new("e2fsck").arg("-p").arg(folder.path("a.img")).output().unwrap();
            assert!(mended.status.code() < Some(2), "{mended:?}");
        }
        is_clean(&folder);
    }
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(interrupted > 0);
}
