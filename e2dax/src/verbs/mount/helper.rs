//! Being called by mount(8), as `mount.fuse.e2dax IMG DIR [-sfnv] [-o OPTS] [-t TYPE]`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::called_as;

/// The names under which mount(8) finds a helper.
const NAMES: [&[u8]; 3] = [b"mount.fuse.e2dax", b"mount.fuse3.e2dax", b"mount.e2dax"];

/// The arguments of this process, as those of `e2dax mount` if mount(8) called it.
pub(super) fn arguments() -> Vec<OsString> {
    as_helper(std::env::args_os().collect())
}

/// Turns what mount(8) calls into what a person would have typed; other arguments stay as they are.
pub(crate) fn as_helper(arguments: Vec<OsString>) -> Vec<OsString> {
    if !NAMES.contains(&called_as(&arguments)) {
        return arguments;
    }
    let mut given = arguments.into_iter();
    let mut turned: Vec<OsString> = given.next().into_iter().chain(["mount".into()]).collect();
    while let Some(argument) = given.next() {
        match argument.as_bytes() {
            // Sloppy, no entry in mtab, verbose: all the same to us.
            [b'-', letters @ ..] if !letters.is_empty() && letters.iter().all(|c| b"snv".contains(c)) => {}
            // Types and namespaces were mount's business.
            b"-t" | b"-N" => drop(given.next()),
            _ => turned.push(argument),
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(line: &str) -> String {
        let turned = as_helper(line.split(' ').map(OsString::from).collect());
        turned.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_call_by_mount_becomes_the_verb() {
        assert_eq!(
            turn("/sbin/mount.fuse.e2dax a.img /mnt -n -sv -o rw,dev -t fuse.e2dax"),
            "/sbin/mount.fuse.e2dax mount a.img /mnt -o rw,dev"
        );
        assert_eq!(turn("mount.e2dax a /b"), "mount.e2dax mount a /b");
    }

    #[test]
    fn other_calls_stay_as_they_are() {
        assert_eq!(turn("e2dax ls -n a.img"), "e2dax ls -n a.img");
    }
}
