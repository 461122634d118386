//! The command in a terminal: prompts, completion, Ctrl-C, narrow windows, colours, and pipes that are closed early.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use e2dax_tests::need_tools;

use crate::common::Folder;

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
    let terminal = Terminal::new(&folder, 80, "e2dax write a.img:/file");
    terminal.keys(&["a line", "Enter"]);
    // It waits for more, with the image open.
    let begin = Instant::now();
    while !folder.run(&["ls", "a.img"]).err().contains("lock") {
        assert!(begin.elapsed() < Duration::from_secs(20), "{}", terminal.screen());
        sleep(Duration::from_millis(20));
    }
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
        assert!(screen.contains("1 findings mended"), "{screen}");
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
    let folder = Folder::with(&["names"]);
    for verb in ["ls -R", "find", "manifest", "tree", "groups", "hex --superblock"] {
        let words = format!("e2dax() {{ {} \"$@\"; }}; e2dax {verb} names.img", env!("CARGO_BIN_EXE_e2dax"));
        let line = format!("set -o pipefail; {{ {words}; echo \"code $?\" >&2; }} | head -c 1");
        let run = Command::new("bash").args(["-c", &line]).current_dir(folder.root()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&run.stderr), "code 0\n", "{verb}");
    }
}
