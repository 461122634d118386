//! The page, recordings in it, and the quiz.

use crate::common::Folder;

#[test]
fn the_page_is_printed_whole_and_a_recording_goes_into_it() {
    let folder = Folder::with(&["two-mib"]);
    let page = folder.run(&["lab"]).ok();
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    assert!(page.len() < 1 << 20, "{} bytes", page.len());
    for outside in ["src=\"http", "href=\"http", "fetch(", "import(", "@import"] {
        assert!(!page.contains(outside), "the page asks for {outside}");
    }
    std::fs::write(folder.path("my.ops"), "stat hole\nmap m hole 0 0x200000 shared ro\ntouch m 0 0x200000\n")
        .unwrap();
    folder.run(&["replay", "--html", "out.html", "two-mib.img", "my.ops"]).ok();
    let out = std::fs::read_to_string(folder.path("out.html")).unwrap();
    let start = out.find("id=\"recording\" type=\"application/json\">{").expect("the recording is in it");
    assert!(out[start..].contains("\"name\":\"my.ops on two-mib.img\""));
    std::fs::write(folder.path("bad.ops"), "fly hole\n").unwrap();
    let bad = folder.run(&["replay", "--html", "bad.html", "two-mib.img", "bad.ops"]);
    assert_eq!(bad.code(), 1);
    assert!(bad.err().contains("line 1"), "{}", bad.err());
    assert!(!folder.path("bad.html").exists());
}

#[test]
fn a_question_is_the_same_each_time_and_keeps_its_answer_until_it_is_asked_for() {
    let folder = Folder::with(&[]);
    let question = folder.run(&["quiz", "--seed", "5", "inodes"]).ok();
    assert_eq!(question, folder.run(&["quiz", "--seed", "5", "inodes"]).ok());
    assert!(!question.contains("Answer"));
    let answer = folder.run(&["quiz", "--seed", "5", "inodes", "-c", "--image", "hunt.img"]).ok();
    assert!(answer.starts_with(&question) && answer.contains("Answer: "));
    // What is hidden is found by the checker.
    assert_ne!(folder.run(&["check", "hunt.img"]).code(), 0);
    let json = folder.run(&["quiz", "--seed", "5", "inodes", "--json"]).ok();
    assert!(json.contains("\"choices\":[") && !json.contains("answer"));
    assert_eq!(folder.run(&["quiz", "weather"]).code(), 2);
}

#[test]
fn the_page_finds_what_the_command_finds() {
    let folder = Folder::with(&["unclean", "block-1k", "ext3-recover"]);
    for seed in 0..6 {
        let name = format!("hunt-{seed}.img");
        folder.run(&["quiz", "--seed", &seed.to_string(), "groups", "--image", &name]).ok();
    }
    let hunts = (0..6).map(|seed| format!("hunt-{seed}.img"));
    let mut told = 0;
    for name in ["unclean.img", "block-1k.img", "ext3-recover.img"].map(String::from).into_iter().chain(hunts)
    {
        let checked = folder.run(&["check", &name]).out();
        let mut lab = e2dax_lab::Lab::new();
        lab.take_image(std::fs::read(folder.path(&name)).unwrap());
        let page = String::from_utf8(lab.call(b"{\"do\":\"image\"}")).unwrap();
        // The last line is the verdict; each other ends with what repair does.
        let lines: Vec<&str> = checked.lines().collect();
        for line in lines.iter().take(lines.len().saturating_sub(1)) {
            let finding = line.rsplit_once(" (").expect("what repair does stands at the end").0;
            let text = format!("\"text\":\"{}\"", finding.replace('\\', "\\\\").replace('"', "\\\""));
            assert!(page.contains(&text), "{name}: {text} is not in {page}");
            told += 1;
        }
        assert_eq!(page.matches("\"mends\":").count(), lines.len().saturating_sub(1), "{name}");
    }
    assert!(told > 6, "{told}");
}
