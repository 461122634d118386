//! The engine, natively, by the requests that the page makes.

use e2dax_lab::{Lab, TOPICS, ask};
use serde_json::{Value, json};

/// The answer to a request, or the error.
fn request(lab: &mut Lab, request: Value) -> Result<Value, String> {
    let answer: Value = serde_json::from_slice(&lab.call(request.to_string().as_bytes())).unwrap();
    assert_eq!(answer["version"], 1);
    match answer.get("error") {
        Some(error) => Err(error.as_str().unwrap().to_owned()),
        None => Ok(answer["ok"].clone()),
    }
}

fn given(wanted: Value) -> Value {
    request(&mut Lab::new(), wanted).unwrap()
}

#[test]
fn what_is_no_request_is_an_error_in_words() {
    let mut lab = Lab::new();
    for wrong in [
        json!({"do": "fly"}),
        json!({"do": "image"}),
        json!({"do": "flight"}),
        json!({"do": "flight", "scenario": "none"}),
        json!({"do": "flight", "script": "fly f"}),
        json!({"do": "flight", "script": "create f", "size": 1_u64 << 40}),
        json!({"do": "flight", "script": "create f", "size": 1}),
        json!({"do": "lesson", "number": 8}),
        json!({"do": "crash", "without": ["None"]}),
        json!({"do": "crash", "order": "chaos"}),
        json!({"do": "quiz", "topic": "weather"}),
        json!({"do": "hello", "version": 2}),
        json!({"do": 7}),
    ] {
        assert!(request(&mut lab, wrong.clone()).is_err(), "{wrong}");
    }
    assert!(String::from_utf8(lab.call(b"{")).unwrap().contains("not understood"));
    assert!(String::from_utf8(lab.call(&[0xff])).unwrap().contains("not understood"));
}

#[test]
fn each_lesson_measures_one_of_its_choices_and_its_mutant_another() {
    let hello = given(json!({"do": "hello"}));
    for lesson in hello["lessons"].as_array().unwrap() {
        let number = &lesson["number"];
        let sound = given(json!({"do": "lesson", "number": number}));
        let right = sound["right"].as_u64();
        assert!(right.is_some(), "lesson {number} measures {}, which is no choice", sound["measured"]);
        let mutant = given(json!({"do": "lesson", "number": number, "mutant": true}));
        assert_ne!(sound["measured"], mutant["measured"], "lesson {number}");
        assert!(!sound["flight"]["script"].as_array().unwrap().is_empty());
    }
}

#[test]
fn a_flight_shows_who_asks_whom_and_what_is_mapped() {
    let flight = given(json!({"do": "flight", "scenario": "begin"}));
    let machines = flight["machines"].as_array().unwrap();
    let step = |machine: usize, step: usize| &machines[machine]["steps"][step];
    let asked = |machine: usize, at: usize| step(machine, at)["calls"][0]["what"].clone();
    // The load of written data.
    assert_eq!(
        (asked(0, 4), asked(1, 4), asked(2, 4)),
        (json!("get_block"), json!("iomap_begin"), json!("iomap_begin"))
    );
    assert_eq!(step(2, 4)["maps"][0]["runs"][0]["size"], "pmd");
    assert_eq!(step(1, 4)["maps"][0]["runs"][0]["size"], "pte");
    // The load of a hole.
    assert_eq!(step(2, 5)["maps"][0]["runs"][1]["kind"], "zero");
    assert!(flight["differs"][4].as_array().unwrap().contains(&json!("table")));
    assert_eq!(flight["differs"][0], json!([]));
    // The load of a hole: a buffer head is believed for one block, an iomap for all of it.
    let call = |machine: usize| &step(machine, 5)["calls"][0];
    assert!(call(0)["differs"][1].as_array().unwrap().contains(&json!("b_size")));
    assert!(call(2)["differs"][1].as_array().unwrap().contains(&json!("length")));
    assert!(!call(2)["differs"][0].as_array().unwrap().contains(&json!("pos")));
}

#[test]
fn a_listing_has_the_format_of_the_recordings_and_an_export_opens() {
    let script = "create f\nwrite f 0 4096 1\nmap m f 0 4096 shared rw\nload m 0\n";
    let text = given(json!({"do": "listing", "script": script, "machine": "linux-6.1", "size": 4 << 20}));
    let text = text.as_str().unwrap();
    assert!(
        text.contains("op 4 load m 0 => byte=") && text.contains("    dax_pte_fault shared pgoff=0x0"),
        "{text}"
    );
    for format in ["chrome", "ftrace", "json", "markdown"] {
        let wanted = json!({"do": "export", "script": script, "format": format, "size": 4 << 20});
        assert!(given(wanted).as_str().unwrap().contains(if format == "markdown" {
            "this library"
        } else {
            "dax_pte_fault"
        }));
    }
    let wanted = json!({"do": "export", "script": script, "size": 4 << 20});
    let chrome: Value = serde_json::from_str(given(wanted).as_str().unwrap()).unwrap();
    assert!(chrome["traceEvents"].as_array().unwrap().len() > 2);
}

#[test]
fn no_crash_loses_what_fsync_returned_for_until_a_fence_is_left_out() {
    let sound = given(json!({"do": "crash"}));
    assert!(sound["states"].as_array().unwrap().len() > 20);
    assert_eq!((&sound["bad"], &sound["lost"]), (&json!(0), &json!(0)));
    assert!(sound["results"].as_array().unwrap().iter().all(|result| result == "ok" || result == "n=6000"));
    let fences = sound["fences"].as_array().unwrap();
    assert!(fences.iter().any(|fence| fence["name"] == "FileSynced"));
    let broken = given(json!({"do": "crash", "without": ["FileSynced"]}));
    assert_ne!(broken["lost"], json!(0), "fsync needs no fence");
    let left_out = |fence: &&Value| fence["left_out"] == json!(true);
    assert_eq!(broken["fences"].as_array().unwrap().iter().filter(left_out).count(), 1);
}

#[test]
fn an_image_is_shown_and_what_is_broken_is_found_where_it_is() {
    let mut lab = Lab::new();
    for sample in ["small", "units", "groups"] {
        let image = request(&mut lab, json!({"do": "image", "sample": sample})).unwrap();
        assert_eq!(image["findings"], json!([]), "{sample}");
        assert!(image["tree"].as_array().unwrap().len() > 4);
        assert!(!image["runs"].as_array().unwrap().iter().any(|run| run["used"] == "nobody"), "{sample}");
    }
    request(&mut lab, json!({"do": "image", "sample": "small"})).unwrap();
    let set = json!({"do": "set", "what": "inode:14", "field": "i_links_count", "value": "9"});
    let image = request(&mut lab, set).unwrap();
    let finding = &image["findings"][0];
    assert_eq!((&finding["kind"], &finding["what"]), (&json!("Links"), &json!("inode:14")));
    assert_eq!(finding["fields"], json!(["i_links_count"]));
    assert_eq!(
        (&image["faults"], &image["complete"], &finding["preen"]),
        (&json!(1), &json!(true), &json!("mends"))
    );
    let mended = request(&mut lab, json!({"do": "mend"})).unwrap();
    assert_eq!(mended["image"]["findings"], json!([]));
    assert_eq!(mended["stopped"], Value::Null);
    // What needs a person is mended where one says yes, and only there.
    let set = json!({"do": "set", "what": "inode:14", "field": "i_mode", "value": "0"});
    let broken = request(&mut lab, set).unwrap();
    assert_eq!(broken["findings"][0]["preen"], json!("halts"));
    let stopped = request(&mut lab, json!({"do": "mend"})).unwrap();
    assert!(stopped["stopped"].is_string());
    assert_ne!(stopped["image"]["faults"], json!(0));
    let mended = request(&mut lab, json!({"do": "mend", "all": true})).unwrap();
    assert_eq!((&mended["stopped"], &mended["image"]["faults"]), (&Value::Null, &json!(0)));
    assert_eq!(lab.image().len(), 1 << 20);
    request(&mut lab, json!({"do": "image", "sample": "small"})).unwrap();
    // From the inode to its data and to its indirect block.
    let file = request(&mut lab, json!({"do": "file", "ino": 15})).unwrap();
    let indirect = &file["pointers"][12];
    let block = request(&mut lab, json!({"do": "block", "number": indirect})).unwrap();
    assert_eq!(block["what"], json!(format!("ind:{indirect}:1")));
    assert!(block["fields"][0]["to"].is_string());
}

#[test]
fn no_damage_makes_a_request_panic() {
    let mut lab = Lab::new();
    for seed in 0..60 {
        let (_, mut bytes) = ask(seed, Some("inodes")).unwrap();
        // Besides the hidden fault, bytes all over the structures.
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for _ in 0..=seed % 9 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = 1024 + (state >> 33) as usize % 30_000;
            bytes[at] = (state >> 20) as u8;
        }
        if seed % 7 == 0 {
            bytes.truncate(bytes.len() / (seed as usize % 5 + 2));
        }
        lab.take_image(bytes);
        // Answers and errors are both fine; the engine lives.
        let overview = request(&mut lab, json!({"do": "image"}));
        assert!(overview.is_ok());
        for what in
            ["sb", "group:0", "inode:2", "inode:14", "bbitmap:0", "ind:50:3", "dir:40", "xattr:40", "?"]
        {
            let _ = request(&mut lab, json!({"do": "structure", "what": what}));
        }
        let _ = request(&mut lab, json!({"do": "file", "ino": 15}));
        let _ = request(&mut lab, json!({"do": "block", "number": 70}));
        let _ = request(
            &mut lab,
            json!({"do": "flight", "script": "stat docs/small\nread sparse 0 99999", "taken": true}),
        );
        let _ = request(&mut lab, json!({"do": "mend"}));
    }
    for bytes in [vec![], vec![0; 10], vec![0xff; 5000]] {
        lab.take_image(bytes);
        let overview = request(&mut lab, json!({"do": "image"})).unwrap();
        assert!(overview["refused"].is_string());
    }
}

#[test]
fn a_seed_asks_one_question_whoever_asks() {
    for topic in TOPICS {
        for seed in [1, 7, 1234] {
            let (question, image) = ask(seed, Some(topic)).unwrap();
            assert_eq!((question.clone(), image), ask(seed, Some(topic)).unwrap());
            assert!(question.right < question.choices.len() && question.choices.len() >= 3, "{question:?}");
            let right = &question.choices[question.right];
            assert_eq!(question.choices.iter().filter(|choice| *choice == right).count(), 1);
        }
    }
    let topics: std::collections::BTreeSet<&str> =
        (0..40).map(|seed| ask(seed, None).unwrap().0.topic).collect();
    assert!(topics.len() >= 6, "{topics:?}");
}

#[test]
fn a_file_grows_from_direct_pointers_to_the_double_indirect_one() {
    let mut lab = Lab::new();
    for (blocks, last) in
        [(0, None), (1, Some(0)), (12, Some(11)), (13, Some(12)), (268, Some(12)), (269, Some(13))]
    {
        let image = request(&mut lab, json!({"do": "grow", "number": blocks})).unwrap();
        assert_eq!(image["findings"], json!([]));
        let file = request(&mut lab, json!({"do": "file", "ino": 12})).unwrap();
        let pointers = file["pointers"].as_array().unwrap();
        assert_eq!(pointers.iter().rposition(|pointer| pointer != &json!(0)), last, "{blocks} blocks");
    }
    assert!(request(&mut lab, json!({"do": "grow", "number": 1 << 20})).is_err());
}
