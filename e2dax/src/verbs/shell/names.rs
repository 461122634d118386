//! debugfs' names for the shell's jobs.

use std::ffi::OsStr;

use super::line::Command;
use crate::context::Context;
use crate::describe::join;
use crate::failure::{Failure, Result};
use crate::kept;

/// What debugfs calls a job, how it is called here, and its arguments there. In the template `$1`, `$2`… are arguments,
/// `$*` all from there on, `:$1` an argument as a path of the image, and `@1` as a structure of poke.
const NAMES: &[(&[&str], &str, &[&str])] = &[
    (&["icheck"], "BLOCK…", &["whose : $*"]),
    (&["ncheck"], "INODE…", &["whose : --inode*"]),
    (&["bmap"], "FILE BLOCK", &["map $1 --at $2"]),
    (&["blocks", "filefrag"], "FILE", &["map --blocks $1"]),
    (&["dump"], "[-p] FILE OUT", &["cp :$1 $2"]),
    (&["rdump"], "DIR OUT", &["cp -r :$1 $2"]),
    (&["lsdel", "list_deleted_inodes"], "", &["deleted :"]),
    (&["undel"], "<INODE> NAME", &["undelete $1 $2"]),
    (&["set_inode_field", "sif"], "FILE FIELD VALUE", &["poke : @1 $2 $3 --force"]),
    (&["set_super_value", "ssv"], "FIELD VALUE", &["poke : superblock $1 $2 --force"]),
    (&["set_block_group", "set_bg"], "GROUP FIELD VALUE", &["poke : group:$1 $2 $3 --force"]),
    (&["show_super_stats", "stats"], "", &["info :", "groups :"]),
    (&["show_debugfs_params", "params"], "", &["info :"]),
    (&["feature", "features"], "", &["hex : --superblock"]),
    (&["testb"], "BLOCK", &["whose : $1"]),
    (&["setb"], "BLOCK", &["poke : bit:block $1 used"]),
    (&["freeb"], "BLOCK", &["poke : bit:block $1 free"]),
    (&["seti"], "<INODE>", &["poke : bit:inode #1 used"]),
    (&["freei"], "<INODE>", &["poke : bit:inode #1 free"]),
    (&["find_free_block", "ffb", "find_free_inode", "ffi", "freefrag", "e2freefrag"], "", &["groups :"]),
    (&["dirty", "dirty_filesys"], "", &["poke : superblock s_state 0"]),
    (&["imap", "inode_dump", "idump", "id"], "FILE", &["hex $1"]),
    (&["block_dump", "bdump", "bd"], "BLOCK", &["hex : --block $1 --as contents"]),
    (&["ea_list"], "FILE", &["xattr $1"]),
    (&["ea_get"], "FILE NAME", &["xattr $1 -n $2"]),
    (&["ea_set"], "FILE NAME VALUE", &["setfattr -n $2 -v $3 $1"]),
    (&["ea_rm"], "FILE NAME", &["setfattr -x $2 $1"]),
    (&["symlink"], "NAME TARGET", &["ln -s $2 $1"]),
    (&["link"], "FILE NAME", &["ln $1 $2"]),
    (&["unlink", "kill_file"], "FILE", &["rm $1"]),
    (&["show_inode_info"], "FILE", &["stat $1"]),
    (&["list_directory"], "[DIR]…", &["ls $*"]),
    (&["dump_inode"], "FILE OUT", &["cp :$1 $2"]),
    (&["clri"], "FILE", &["poke : @1 links_count 0 --force", "poke : @1 mode 0 --force"]),
    (&["dirsearch"], "DIR NAME", &["find $1 --name $2"]),
    (&["rmdir"], "DIR", &["rm -d $1"]),
    (&["logdump"], "", &["journal :"]),
    (&["write"], "HOST-FILE NAME", &["cp $1 :$2"]),
];

/// Whether a verb's name is meant as debugfs has it: `write` with two names copies a file into the image.
pub(super) fn is_meant(name: &str, rest: &[String]) -> bool {
    name == "write" && rest.len() == 2 && rest.iter().all(|word| !word.starts_with('-'))
}

/// Whether debugfs has a command of this name that is known here.
#[cfg(test)]
pub(super) fn is_known(name: &str) -> bool {
    NAMES.iter().any(|(names, ..)| names.contains(&name))
}

/// A command of debugfs as ours.
pub(super) fn translate(name: &str, rest: &[String]) -> Result<Vec<Command>> {
    if matches!(name, "dirty" | "dirty_filesys") && rest == ["-clean"] {
        let words = ["poke", ":", "superblock", "s_state", "1"];
        return Ok(vec![Command::Verb(words.map(String::from).to_vec())]);
    }
    let known = NAMES.iter().find(|(names, ..)| names.contains(&name));
    let Some((_, arguments, templates)) = known else {
        return Err(Failure::usage(
            OsStr::new(name),
            "is no command; help lists them, help debugfs those of debugfs",
        ));
    };
    // dump -p keeps owner and mode, which cp does.
    let rest: Vec<&str> =
        rest.iter().map(String::as_str).filter(|word| !(name == "dump" && *word == "-p")).collect();
    let wrong = || Failure::usage(OsStr::new(name), format!("takes {arguments}"));
    let (least, is_many) = (
        arguments.split_whitespace().filter(|word| !word.starts_with('[')).count(),
        arguments.ends_with('…'),
    );
    if rest.len() < least || (rest.len() > least && !is_many) {
        return Err(if arguments.is_empty() {
            Failure::usage(OsStr::new(name), "takes no arguments")
        } else {
            wrong()
        });
    }
    let commands = templates.iter().map(|template| {
        let mut words = Vec::new();
        for word in template.split(' ') {
            match word {
                "$*" => words.extend(rest.iter().map(|&word| String::from(word))),
                "--inode*" => {
                    words.extend(rest.iter().flat_map(|nr| ["--inode".into(), bare(nr)]));
                }
                _ => words.push(fill(word, &rest)),
            }
        }
        Command::Verb(words)
    });
    Ok(commands.collect())
}

/// A number without the angle brackets of debugfs.
fn bare(nr: &str) -> String {
    nr.trim_start_matches('<').trim_end_matches('>').into()
}

/// A word of a template with its argument in place.
fn fill(word: &str, rest: &[&str]) -> String {
    let Some(at) = word.find(['$', '@', '#']) else { return word.into() };
    let (before, sign) = word.split_at(at);
    let (sign, digits) = sign.split_at(1);
    let nr: usize = digits.parse().unwrap_or(1);
    let argument = rest.get(nr - 1).copied().unwrap_or_default();
    match sign {
        "@" if argument.starts_with('<') => format!("inode:{argument}"),
        "@" => {
            let path = match argument.strip_prefix('/') {
                Some(_) => argument.into(),
                None => join(&kept::directory().unwrap_or_default(), argument.as_bytes()),
            };
            format!("inode:{}", String::from_utf8_lossy(&path))
        }
        "#" => bare(argument),
        _ => format!("{before}{argument}"),
    }
}

/// All names.
pub(super) fn help(context: &mut Context) -> Result<()> {
    for (names, arguments, templates) in NAMES {
        let there = format!("{} {arguments}", names.join(" "));
        context.out.line(format_args!("{there:<44} {}", templates.join("; ")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(name: &str, rest: &[&str]) -> Vec<String> {
        let rest: Vec<String> = rest.iter().map(|&word| word.into()).collect();
        let commands = translate(name, &rest).unwrap();
        let text = commands.into_iter().map(|command| match command {
            Command::Verb(words) => words.join(" "),
            other => format!("{other:?}"),
        });
        text.collect()
    }

    #[test]
    fn commands_of_debugfs_become_verbs() {
        assert_eq!(words("icheck", &["3", "4"]), ["whose : 3 4"]);
        assert_eq!(words("ncheck", &["12", "<13>"]), ["whose : --inode 12 --inode 13"]);
        assert_eq!(words("sif", &["<12>", "links_count", "0"]), ["poke : inode:<12> links_count 0 --force"]);
        assert_eq!(words("dump", &["-p", "a", "b"]), ["cp :a b"]);
        assert_eq!(words("seti", &["<12>"]), ["poke : bit:inode 12 used"]);
        assert!(translate("icheck", &[]).is_err());
        assert!(translate("lsdel", &["x".into()]).is_err());
        assert_eq!(words("dirty", &["-clean"]), ["poke : superblock s_state 1"]);
        assert_eq!(words("list_directory", &[]), ["ls"]);
        assert!(translate("nonsense", &[]).is_err());
    }
}
