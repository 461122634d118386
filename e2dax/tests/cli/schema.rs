//! What verbs print as JSON is what `docs/formats.md` says, key by key.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use e2dax_tests::need_tools;

use crate::common::Folder;

/// A reader of JSON or of a type, one byte after the other.
struct Text<'t>(&'t [u8]);

impl Text<'_> {
    fn peek(&self) -> u8 {
        self.0.first().copied().unwrap_or(0)
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_it = self.peek() == byte;
        if is_it {
            self.0 = &self.0[1..];
        }
        is_it
    }

    fn word(&mut self, holds: impl Fn(u8) -> bool) -> String {
        let end = self.0.iter().position(|&byte| !holds(byte)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        String::from_utf8(word.to_vec()).unwrap()
    }

    /// A text in quotes; what is escaped stays so.
    fn quoted(&mut self) -> Result<String, String> {
        if !self.take(b'"') {
            return Err(format!("no text at {}", String::from_utf8_lossy(self.0)));
        }
        let mut text = String::new();
        loop {
            match self.peek() {
                b'"' => break,
                0 => return Err("a text has no end".into()),
                b'\\' => {
                    text.push('\\');
                    self.0 = &self.0[1..];
                    text.push(char::from(self.peek()));
                }
                byte => text.push(char::from(byte)),
            }
            self.0 = &self.0[1..];
        }
        self.take(b'"');
        Ok(text)
    }
}

/// A type.
#[derive(Clone, Debug)]
enum Type {
    Text,
    Number,
    Bool,
    List(Box<Type>),
    Object(Vec<(String, Type)>),
    Either(Vec<Type>),
    OrNull(Box<Type>),
}

fn parse_type(text: &mut Text<'_>) -> Type {
    let mut ways = vec![parse_one(text)];
    while text.take(b'|') {
        ways.push(parse_one(text));
    }
    let all = if ways.len() == 1 { ways.remove(0) } else { Type::Either(ways) };
    if text.take(b'?') { Type::OrNull(Box::new(all)) } else { all }
}

fn parse_one(text: &mut Text<'_>) -> Type {
    match text.peek() {
        b'[' => {
            text.take(b'[');
            let inner = parse_type(text);
            assert!(text.take(b']'), "a list has no end");
            Type::List(Box::new(inner))
        }
        b'{' => {
            text.take(b'{');
            let keys = parse_keys(text);
            assert!(text.take(b'}'), "an object has no end");
            Type::Object(keys)
        }
        _ => match text.word(|byte| byte.is_ascii_lowercase()).as_str() {
            "s" => Type::Text,
            "n" => Type::Number,
            "b" => Type::Bool,
            other => panic!("{other:?} is no type"),
        },
    }
}

fn parse_keys(text: &mut Text<'_>) -> Vec<(String, Type)> {
    let mut keys = Vec::new();
    loop {
        while text.take(b' ') {}
        let key = text.word(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if key.is_empty() {
            return keys;
        }
        assert!(text.take(b':'), "{key} has no type");
        keys.push((key, parse_type(text)));
    }
}

/// Reads a value of a type.
fn read(text: &mut Text<'_>, wanted: &Type) -> Result<(), String> {
    let before = Text(text.0);
    match wanted {
        Type::OrNull(_) if text.0.starts_with(b"null") => {
            text.0 = &text.0[4..];
            Ok(())
        }
        Type::OrNull(inner) => read(text, inner),
        Type::Either(ways) => {
            for way in ways {
                text.0 = before.0;
                if read(text, way).is_ok() {
                    return Ok(());
                }
            }
            Err(format!("none of {ways:?}"))
        }
        Type::Text => text.quoted().map(|_| ()),
        Type::Number => {
            let digits = text.word(|byte| byte.is_ascii_digit() || byte == b'-');
            if digits.is_empty() { Err("no number".into()) } else { Ok(()) }
        }
        Type::Bool => match text.word(|byte| byte.is_ascii_lowercase()).as_str() {
            "true" | "false" => Ok(()),
            other => Err(format!("{other:?} is neither true nor false")),
        },
        Type::List(inner) => {
            if !text.take(b'[') {
                return Err("no list".into());
            }
            while !text.take(b']') {
                read(text, inner)?;
                text.take(b',');
            }
            Ok(())
        }
        Type::Object(keys) => {
            if !text.take(b'{') {
                return Err("no object".into());
            }
            for (nr, (key, wanted)) in keys.iter().enumerate() {
                if nr > 0 && !text.take(b',') {
                    return Err(format!("{key} is not there"));
                }
                let found = text.quoted()?;
                if found != *key || !text.take(b':') {
                    return Err(format!("{found} stands where {key} should"));
                }
                read(text, wanted).map_err(|error| format!("{key}: {error}"))?;
            }
            if text.take(b'}') {
                Ok(())
            } else {
                Err(format!("more keys: {}", String::from_utf8_lossy(text.0)))
            }
        }
    }
}

fn schema() -> BTreeMap<String, Vec<Type>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/formats.md")).unwrap();
    let block = text.split("```schema\n").nth(1).unwrap().split("```").next().unwrap();
    let mut all: BTreeMap<String, Vec<Type>> = BTreeMap::new();
    for line in block.lines() {
        let (verb, keys) = line.split_once(": ").unwrap();
        let mut text = Text(keys.as_bytes());
        all.entry(verb.into()).or_default().push(Type::Object(parse_keys(&mut text)));
        assert!(text.0.is_empty(), "{verb}: {}", String::from_utf8_lossy(text.0));
    }
    all
}

#[test]
fn each_verb_prints_the_objects_that_are_documented() {
    need_tools!("mke2fs", "debugfs");
    let folder = Folder::with(&["xattr-256", "two-mib", "deleted"]);
    let make = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).current_dir(folder.root()).output().unwrap();
    };
    make("mke2fs", &["-q", "-t", "ext3", "-b", "1024", "j.img", "8M"]);
    fs::write(folder.path("big"), vec![7; 300_000]).unwrap();
    make("debugfs", &["-w", "-R", "write big big", "j.img"]);
    make("cp", &["j.img", "gone.img"]);
    make("debugfs", &["-w", "-R", "rm big", "gone.img"]);
    make("cp", &["j.img", "broken.img"]);
    folder.run(&["poke", "broken.img", "inode:/big", "links_count", "9"]).ok();
    folder.run(&["poke", "broken.img", "superblock", "free_blocks_count", "9"]).ok();
    make("cp", &["two-mib.img", "sealed.img"]);
    let sealed = folder.run(&["seal", "sealed.img"]).out();
    let root = sealed.lines().find_map(|line| line.strip_prefix("root hash: ")).unwrap();
    let seal = format!("check --seal={root} sealed.img");
    fs::write(folder.path("script"), "create f\nstat f\n").unwrap();
    fs::write(folder.path("part.img"), vec![1; 1 << 20]).unwrap();
    let runs: Vec<Vec<&str>> = [
        "ls j.img",
        "ls -lR two-mib.img",
        "ls --raw j.img",
        "find j.img",
        "stat j.img:/big j.img:/",
        "tree j.img",
        "info j.img",
        "df j.img",
        "du j.img",
        "xattr xattr-256.img:/acl",
        "map j.img:/big",
        "map --blocks j.img:/big",
        "map --at 3 j.img:/big",
        "map --all two-mib.img",
        "whose j.img 1 34 700 --inode 11",
        "groups j.img",
        "groups --bad j.img",
        "hex j.img --superblock",
        "hex j.img --inode 8",
        "hex j.img --block 700",
        "poke broken.img superblock mnt_count 3",
        "poke broken.img bit:block 7000 free",
        "journal j.img",
        "deleted gone.img",
        "diff j.img gone.img",
        "diff --bits j.img broken.img",
        "check broken.img",
        "check j.img",
        "mkfs --size 2M new.img",
        "seal two-mib.img",
        "dax-report two-mib.img",
        "manifest --check m j.img",
        "resize --dry-run j.img 16M",
        "tune -L label j.img",
        "align two-mib.img",
        "sparsify j.img",
        "lsattr j.img",
        "quiz --seed 3",
        "quiz --seed 3 -c 0",
        "replay --trace-format=json two-mib.img script",
        "serve j.img --run true",
        "check -y --dry-run broken.img",
        &seal,
        "mkfs disk.img --size 2M --disk gpt --partition BOOT=part.img",
    ]
    .iter()
    .map(|line| line.split(' ').collect())
    .collect();
    let manifest = folder.run(&["manifest", "gone.img"]).ok();
    fs::write(folder.path("m"), manifest).unwrap();
    let schema = schema();
    let mut met: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for mut run in runs {
        if run[0] != "replay" {
            run.insert(1, "--json");
        }
        let output = folder.run(&run);
        let verb = run[0];
        let known = schema.get(verb).unwrap_or_else(|| panic!("{verb} has no schema"));
        for line in output.out().lines() {
            let way = known.iter().position(|wanted| {
                let mut text = Text(line.as_bytes());
                read(&mut text, wanted).is_ok() && text.0.is_empty()
            });
            let Some(way) = way else {
                let errors: Vec<_> =
                    known.iter().map(|wanted| read(&mut Text(line.as_bytes()), wanted).err()).collect();
                panic!("{run:?}: {line}\nis none of the schema: {errors:?}{}", output.err());
            };
            met.entry(verb.into()).or_default().insert(way);
        }
    }
    // Speed, and faults in a mapping, have tests of their own; directories broken in their entries too.
    let elsewhere = ["bench", "fault"];
    for verb in schema.keys().filter(|verb| !elsewhere.contains(&verb.as_str())) {
        assert!(met.contains_key(verb), "nothing was printed by {verb}");
    }
    for (verb, ways) in [("ls", 2), ("map", 4), ("whose", 2), ("diff", 2), ("check", 2)] {
        assert!(met[verb].len() >= ways, "{verb}: {:?}", met[verb]);
    }
}

#[test]
fn each_verb_that_can_print_json_has_a_schema() {
    let folder = Folder::with(&[]);
    let help = folder.run(&["--help"]).ok();
    let verbs = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let verbs = verbs.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let schema = schema();
    let mut missing = Vec::new();
    for verb in verbs.filter_map(|line| line.split_whitespace().next()) {
        let has_json = folder.run(&[verb, "--help"]).out().contains("--json");
        if has_json && !schema.contains_key(verb) {
            missing.push(verb);
        }
    }
    assert!(missing.is_empty(), "docs/formats.md has no schema for {missing:?}");
}
