//! The tables of mounts and of swap space.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

/// What is mounted and swapped to, as this process sees it.
#[derive(Debug, Default)]
pub(super) struct Tables {
    mounts: Vec<Mount>,
    swaps: Vec<PathBuf>,
}

#[derive(Debug)]
struct Mount {
    /// `major:minor` of the device.
    number: String,
    at: PathBuf,
    kind: String,
    source: PathBuf,
}

impl Tables {
    pub(super) fn read(proc: &Path) -> Self {
        let mounts = read(&proc.join("self/mountinfo")).unwrap_or_default();
        let swaps = read(&proc.join("swaps")).unwrap_or_default();
        let lines = |text: &[u8]| text.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
        Self {
            mounts: lines(&mounts).iter().filter_map(|line| mount(line)).collect(),
            // The first line names the columns.
            swaps: lines(&swaps)
                .iter()
                .skip(1)
                .filter_map(|line| Some(unescaped(fields(line).next()?)))
                .collect(),
        }
    }

    /// Where a device is mounted.
    pub(super) fn mounted_at(&self, number: &str) -> Option<String> {
        let found = self.mounts.iter().find(|mount| mount.number == number)?;
        Some(found.at.display().to_string())
    }

    /// What a regular file is used for without a device between: swap space, or a program that serves it as a mount.
    pub(super) fn user_of_file(&self, file: &fs::Metadata) -> Option<String> {
        let is_file = |path: &Path| {
            fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (file.dev(), file.ino()))
        };
        if !file.is_file() {
            return None;
        }
        if self.swaps.iter().any(|path| is_file(path)) {
            return Some(String::from("it is swap space"));
        }
        let serves = |mount: &&Mount| {
            // Others name a host, a pool or nothing as their source, which may hang or mean another file.
            mount.kind.starts_with("fuse") && mount.source.is_absolute() && is_file(&mount.source)
        };
        let found = self.mounts.iter().find(serves)?;
        Some(format!("it is mounted on {} ({})", found.at.display(), found.kind))
    }

    pub(super) fn is_swap(&self, device: &Path) -> bool {
        self.swaps.iter().any(|path| path == device)
    }
}

/// A file of the kernel's, which says that it has no bytes: with room for more than most have, so that it is made up once.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(16 << 10);
    fs::File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// One line of `mountinfo` (proc(5)): numbers of the mount, of its parent and of the device, the root of the mount, where
/// it is mounted, options, a number of further fields, `-`, kind, source.
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = fields(line);
    let number = String::from_utf8(fields.nth(2)?.to_vec()).ok()?;
    let at = unescaped(fields.nth(1)?);
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8_lossy(rest.next()?).to_string();
    Some(Mount { number, at, kind, source: unescaped(rest.next()?) })
}

fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| byte.is_ascii_whitespace()).filter(|field| !field.is_empty())
}

/// A path in which the kernel wrote blanks and backslashes as `\040`.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal =
            after.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal {
            Some(digits) => {
                // OK to cast: three octal digits of a byte; the kernel writes no larger ones.
                path.push(
                    digits.iter().fold(0_u32, |value, digit| value << 3 | u32::from(digit - b'0')) as u8
                );
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                path.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_table_are_read_with_all_their_fields() {
        let line =
            b"36 35 7:0 / /mnt/a\\040b rw,noatime master:1 shared:2 - ext2 /dev/loop0 rw,errors=continue";
        let found = mount(line).unwrap();
        assert_eq!((found.number.as_str(), found.kind.as_str()), ("7:0", "ext2"));
        assert_eq!((found.at, found.source), ("/mnt/a b".into(), "/dev/loop0".into()));
        for bad in [&b""[..], b"1", b"1 2 3:4", b"1 2 3:4 / /mnt rw", b"1 2 3:4 / /mnt rw - ext2"] {
            assert!(mount(bad).is_none(), "{bad:?}");
        }
        assert_eq!(unescaped(b"a\\134\\04"), PathBuf::from("a\\\\04"));
    }
}
