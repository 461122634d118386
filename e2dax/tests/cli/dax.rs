//! `fault`, `replay`, `bench` and `demo`.

use std::fs;

use e2dax_tests::golden::{self, testdata};

use crate::common::Folder;

#[test]
fn a_hole_of_2_mib_takes_one_fault_and_under_linux_512() {
    let folder = Folder::with(&["two-mib"]);
    let arguments = ["fault", "two-mib.img:/hole", "--at", "0", "--len", "2M"];
    let ours = folder.run(&arguments).ok();
    assert!(ours.starts_with("dax_pmd_fault private pgoff=0x0 max_pgoff=0x200\n"), "{ours}");
    assert!(
        ours.contains("dax_pmd_load_hole private\n") && ours.contains("512 pages touched, 1 fault\n"),
        "{ours}"
    );
    let linux = folder.run(&[&arguments[..], &["--compat", "linux-6.1"]].concat()).ok();
    assert_eq!(linux.matches("dax_load_hole private").count(), 512);
    assert!(linux.contains("512 pages touched, 512 faults\n"));
    let json = folder.run(&[&arguments[..], &["--json"]].concat()).ok();
    assert!(
        json.starts_with(r#"{"pages":512,"faults":1,"pmd_faults":1,"pmd_fallbacks":0,"pte_faults":0,"#),
        "{json}"
    );
}

#[test]
fn a_fault_says_why_it_falls_back_and_that_it_died() {
    let folder = Folder::with(&["two-mib", "block-1k"]);
    let text = folder.run(&["fault", "two-mib.img:/data", "--at", "0"]).ok();
    assert!(text.contains("  falls back: ") && text.contains("-> FALLBACK\n"), "{text}");
    let run = folder.run(&["fault", "two-mib.img:/hole", "--at", "2M"]);
    assert_eq!(run.code(), 1);
    assert!(run.out().contains("SIGBUS at page 512 of the file\n"), "{}", run.out());
    let message = folder.run(&["fault", "block-1k.img:/big", "--at", "0"]).fails(1);
    assert!(message.contains("blocks are smaller than a page"), "{message}");
    folder.run(&["fault", "--device", "file", "two-mib.img:/hole", "--at", "0"]).fails(1);
    folder.run(&["fault", "two-mib.img:/", "--at", "0"]).fails(1);
}

/// The empty image of the recordings, in a folder.
fn with_base() -> Folder {
    let folder = Folder::with(&[]);
    let packed = testdata().join("linux-6.1/images/base-64m.img.gz");
    golden::write_sparse(&folder.path("base.img"), &golden::gunzip(&packed)).unwrap();
    folder
}

#[test]
fn a_replay_under_linux_prints_what_linux_did() {
    let folder = with_base();
    let before = fs::read(folder.path("base.img")).unwrap();
    for name in ["02-hole-2m", "15-short-append", "04-eof-sigbus"] {
        let script = testdata().join(format!("linux-6.1/scripts/{name}.ops"));
        let script = script.to_str().unwrap();
        let run = folder.run(&["replay", "--compat", "linux-6.1", "--events", "base.img", script]);
        let listing = fs::read_to_string(testdata().join(format!("linux-6.1/ext2/{name}.txt"))).unwrap();
        // Where an extent is cut depends on the allocator.
        let without_extents = |text: &str| {
            text.lines()
                .filter(|line| !line.starts_with('#') && !line.contains(" fiemap "))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(without_extents(&run.ok()), without_extents(&listing), "{name}");
    }
    assert!(fs::read(folder.path("base.img")).unwrap() == before, "the image stays as it was");
}

#[test]
fn a_replay_can_be_kept_and_takes_the_old_path_too() {
    let folder = with_base();
    fs::write(folder.path("s.ops"), "create a\nwrite a 0 5000 7 # some bytes\nread a 0 5000\n").unwrap();
    let new = folder.run(&["replay", "--save", "out.img", "--asked", "base.img", "s.ops"]).ok();
    assert!(
        new.starts_with(
            "op 1 create a => ok\nop 2 write a 0 5000 7 => n=5000\nop 3 read a 0 5000 => n=5000 crc="
        ),
        "{new}"
    );
    assert_eq!(folder.run(&["cat", "out.img:/a"]).bytes().len(), 5000);
    let old = folder.run(&["replay", "--path", "buffer-head", "--in-place", "base.img", "s.ops"]).ok();
    assert!(new.starts_with(&old), "{old}");
    assert_eq!(folder.run(&["cat", "base.img:/a"]).bytes(), folder.run(&["cat", "out.img:/a"]).bytes());
    let json = folder.run(&["replay", "--trace-format", "json", "base.img", "s.ops"]).ok();
    assert!(json.starts_with(r#"{"op":1,"line":"create a","result":"errno=17"}"#), "{json}");
    fs::write(folder.path("bad.ops"), "create a\nfly a\n").unwrap();
    let message = folder.run(&["replay", "base.img", "bad.ops"]).fails(1);
    assert!(message.contains("bad.ops: ") && message.contains('2'), "{message}");
}

#[test]
fn bench_measures_in_ram_or_an_image_and_says_what_it_measured() {
    let folder = Folder::with(&["two-mib"]);
    let text = folder.run(&["bench", "--size", "4M"]).ok();
    for what in
        ["write new blocks", "write over", "read in order", "random pages", "fault of 2 MiB", "unlink"]
    {
        assert!(text.contains(what), "{what}: {text}");
    }
    let before = fs::read(folder.path("two-mib.img")).unwrap();
    let json = folder.run(&["bench", "--json", "two-mib.img"]).ok();
    assert!(json.lines().all(|line| line.starts_with(r#"{"what":""#) && line.ends_with('}')), "{json}");
    assert_eq!(json.lines().count(), 4, "{json}");
    assert_eq!(fs::read(folder.path("two-mib.img")).unwrap(), before);
    assert!(folder.run(&["bench", "--size", "1M"]).fails(2).contains("2 MiB at least"));
}

#[test]
fn the_demo_does_what_it_says() {
    let text = Folder::with(&[]).run(&["demo"]).ok();
    let squeezed: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "Linux 6.1's ext2 512 512 0 512",
        "here 1 1 1 0",
        "units of /data that a PMD can map 4 of 4 4 of 4",
        "Linux 6.1's ext2 2048 2048 0 2048",
        "here 4 4 4 0",
        "Both images were closed and checked as e2fsck -fn does: clean.",
    ] {
        assert!(squeezed.iter().any(|have| have == line), "{line}\n{text}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_fault_of_this_process_is_shown_beside_that_of_software() {
    if !ext2_dax::mmu::host::HostMmu::features().faults {
        e2dax_tests::skip!("no userfaultfd");
    }
    let folder = Folder::with(&["two-mib"]);
    let arguments = ["fault", "two-mib.img:/hole", "--at", "0", "--len", "2M", "--host"];
    let text = folder.run(&arguments).ok();
    let row = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(name))
            .unwrap_or_else(|| panic!("{name}: {text}"));
        let mut words: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        words.split_off(words.len() - 2)
    };
    for name in [
        "pages touched",
        "fell back",
        "faults of 4 KiB",
        "iomap_begin asked",
        "bytes mapped",
        "of them zeros",
    ] {
        let both = row(name);
        assert_eq!(both[0], both[1], "{text}");
    }
    assert_eq!(row("of them zeros"), [2 << 20, 2 << 20]);
    assert!(text.contains("page 0+512: 0 data in 0, 512 hole"), "{text}");
    let json = folder.run(&[&arguments[..], &["--json"]].concat()).ok();
    assert!(json.contains(r#""host":{"pages":512,"faults":1,"#), "{json}");
    let past_end = folder.run(&["fault", "two-mib.img:/hole", "--at", "2M", "--host"]);
    assert_eq!(past_end.code(), 1);
    assert!(past_end.out().contains("in this process: SIGBUS at page 512"), "{}", past_end.out());
}

#[cfg(target_os = "linux")]
#[test]
fn a_script_is_played_in_this_process() {
    if !ext2_dax::mmu::host::HostMmu::features().faults {
        e2dax_tests::skip!("no userfaultfd");
    }
    let folder = with_base();
    let before = fs::read(folder.path("base.img")).unwrap();
    let script = testdata().join("linux-6.1/scripts/04-eof-sigbus.ops");
    let script = script.to_str().unwrap();
    let soft = folder.run(&["replay", "base.img", script]).ok();
    let host = folder.run(&["replay", "--mmu", "host", "base.img", script]).ok();
    assert_eq!(host, soft);
    assert!(fs::read(folder.path("base.img")).unwrap() == before, "the image stays as it was");
}
