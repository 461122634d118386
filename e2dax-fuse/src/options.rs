//! What stands behind `-o`: the options of mount(8), of FUSE and our own.

use std::fmt;

use ext2_core::OnError;

/// Who may use the mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// The user who mounted it.
    #[default]
    Owner,
    /// That user and root.
    OwnerAndRoot,
    /// Everybody, as far as the permissions of the files allow.
    Everybody,
}

/// When reading a file changes its access time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Atime {
    /// Never.
    Never,
    /// When it is not newer than the last change, or older than a day (Linux: `relatime`).
    #[default]
    Relative,
    /// As `Relative`, but never of a directory.
    RelativeFiles,
    /// Always.
    Always,
}

/// What a crash of the machine may take with it, and what it may leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Each step of a change is on the media before the next: a crash loses little, and every change costs some writes.
    Strict,
    /// Changes reach the media together, once a second and with each fsync, all of them or none: a crash loses what was
    /// not made durable in its last seconds, and leaves an image that e2fsck mends without a question.
    #[default]
    Ordered,
    /// The system writes when and in which order it likes: a crash may leave what only a person can mend. A process
    /// that is killed loses nothing.
    Relaxed,
}

/// How to mount. The default is what `mount` without options gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// Write nothing.
    pub read_only: bool,
    /// Who may use the mount.
    pub access: Access,
    /// Show all files as owned by this user.
    pub uid: Option<u32>,
    /// Show all files as owned by this group.
    pub gid: Option<u32>,
    /// When reading changes access times.
    pub atime: Atime,
    /// What a crash of the machine may do.
    pub durability: Durability,
    /// Every write is durable when it returns.
    pub sync: bool,
    /// Every change of a directory is durable when it returns.
    pub dirsync: bool,
    /// Read an image whose journal needs recovery as if it had no journal.
    pub ignore_journal: bool,
    /// What to do when the image turns out to be broken; `None` for what its superblock says.
    pub errors: Option<OnError>,
    /// Where in the image the file system begins, in bytes.
    pub offset: Option<u64>,
    /// What the table of mounts shows as the source; the image, where it is `None`.
    pub fsname: Option<String>,
    /// What the table of mounts shows behind `fuse.`; `e2dax` where it is `None`.
    pub subtype: Option<String>,
    /// Use no device files.
    pub nodev: bool,
    /// Honour no set-id bits.
    pub nosuid: bool,
    /// Run no programs.
    pub noexec: bool,
    /// Have fusermount3 unmount when the process dies.
    pub auto_unmount: bool,
    /// Log every request.
    pub debug: bool,
    /// Have the kernel gather writes. Small ones are faster then, and a full image is told by `fsync` and `close` alone,
    /// since nothing asks for room when a write is taken.
    pub writeback_cache: bool,
    /// Keep idle processors awake while requests come close together.
    pub awake: bool,
    /// Hand every read and write on as it is, past the kernel's cache of pages: nothing is held twice in memory, large
    /// ones are faster, and each small one waits for its answer.
    pub direct_io: bool,
    /// Change how a mount is seen that is up already, and mount nothing.
    pub remount: bool,
    /// Threads that answer the kernel; `None` for a number that suits the machine.
    pub threads: Option<u16>,
}

/// An option that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionError {
    option: String,
    problem: &'static str,
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "option {}: {}", self.option, self.problem)
    }
}

impl std::error::Error for OptionError {}

/// Options that ask for what is so in any case, or that are for others: mount(8), fusermount3, systemd, the kernel.
const IGNORED: [&str; 29] = [
    "defaults",
    "rw",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "dev",
    "suid",
    "exec",
    "async",
    "default_permissions",
    "loop",
    "norelatime",
    "lazytime",
    "nolazytime",
    "silent",
    "loud",
    "iversion",
    "noiversion",
    "big_writes",
    "nonempty",
    "acl",
    "user_xattr",
    "kernel_cache",
];
/// The same, with a value. The last two are what the kernel shows of a mount that is up: mount(8) repeats them when it mounts
/// again.
const IGNORED_VALUES: [&str; 7] =
    ["comment", "max_read", "max_readahead", "blksize", "max_write", "user_id", "group_id"];

/// The parts of a list between commas; a backslash takes the meaning from the character behind it.
fn split(list: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = list.chars();
    while let Some(char) = chars.next() {
        match (char, parts.last_mut()) {
            (',', _) => parts.push(String::new()),
            ('\\', Some(part)) => part.extend(chars.next()),
            (other, Some(part)) => part.push(other),
            (_, None) => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

impl MountOptions {
    /// Adds the options of a list with commas between them, as after `-o`; later ones win.
    ///
    /// # Errors
    /// The first option that is not known or has a value that makes no sense.
    pub fn add(&mut self, list: &str) -> Result<(), OptionError> {
        split(list).iter().try_for_each(|option| self.add_one(option))
    }

    fn add_one(&mut self, option: &str) -> Result<(), OptionError> {
        let refuse = |problem| Err(OptionError { option: option.to_owned(), problem });
        if let Some((name, value)) = option.split_once('=') {
            let number = || value.parse::<u32>();
            match name {
                "uid" | "gid" => {
                    let Ok(id) = number() else { return refuse("not a number of a user or group") };
                    *(if name == "uid" { &mut self.uid } else { &mut self.gid }) = Some(id);
                }
                "errors" => {
                    self.errors = Some(match value {
                        "continue" => OnError::Continue,
                        "remount-ro" => OnError::RemountRo,
                        "panic" => {
                            return refuse("a process has no machine to halt; remount-ro is the nearest");
                        }
                        _ => return refuse("continue or remount-ro"),
                    });
                }
                "durability" => {
                    self.durability = match value {
                        "strict" => Durability::Strict,
                        "ordered" => Durability::Ordered,
                        "relaxed" => Durability::Relaxed,
                        _ => return refuse("strict, ordered or relaxed"),
                    }
                }
                "offset" => match value.parse() {
                    Ok(offset) => self.offset = Some(offset),
                    Err(_) => return refuse("not a number of bytes"),
                },
                "fsname" => self.fsname = Some(value.to_owned()),
                "subtype" => self.subtype = Some(value.to_owned()),
                "threads" | "max_threads" => match value.parse() {
                    Ok(threads @ 1..=256) => self.threads = Some(threads),
                    _ => return refuse("from 1 to 256"),
                },
                _ if IGNORED_VALUES.contains(&name) || name.starts_with("x-") || name.starts_with("X-") => {}
                _ => return refuse("not known"),
            }
            return Ok(());
        }
        match option {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "allow_other" => self.access = Access::Everybody,
            "allow_root" => self.access = Access::OwnerAndRoot,
            "noatime" => self.atime = Atime::Never,
            "relatime" | "atime" => self.atime = Atime::Relative,
            "strictatime" => self.atime = Atime::Always,
            "nodiratime" => {
                if self.atime == Atime::Relative {
                    self.atime = Atime::RelativeFiles;
                }
            }
            "diratime" | "nostrictatime" => self.atime = Atime::Relative,
            "sync" => self.sync = true,
            "async" => self.sync = false,
            "dirsync" => self.dirsync = true,
            "dev" => self.nodev = false,
            "nodev" => self.nodev = true,
            "suid" => self.nosuid = false,
            "nosuid" => self.nosuid = true,
            "exec" => self.noexec = false,
            "noexec" => self.noexec = true,
            "auto_unmount" => self.auto_unmount = true,
            "debug" => self.debug = true,
            "writeback_cache" => self.writeback_cache = true,
            "no_writeback_cache" => self.writeback_cache = false,
            "awake" => self.awake = true,
            "no_awake" => self.awake = false,
            "direct_io" => self.direct_io = true,
            "norecovery" | "noload" => self.ignore_journal = true,
            "remount" => self.remount = true,
            _ if IGNORED.contains(&option) || option.starts_with("x-") || option.starts_with("X-") => {}
            _ => return refuse("not known"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<MountOptions, String> {
        let mut options = MountOptions::default();
        options.add(list).map(|()| options).map_err(|error| error.to_string())
    }

    #[test]
    fn options_of_mount_and_fuse_are_understood() {
        let options = parse(
            "rw,ro,allow_other,default_permissions,uid=7,gid=8,noatime,sync,errors=remount-ro,offset=1048576,\
             fsname=a\\,b,subtype=x,nodev,nosuid,noexec,_netdev,x-systemd.automount,comment=c",
        )
        .unwrap();
        let expected = MountOptions {
            read_only: true,
            access: Access::Everybody,
            uid: Some(7),
            gid: Some(8),
            atime: Atime::Never,
            sync: true,
            errors: Some(OnError::RemountRo),
            offset: Some(1 << 20),
            fsname: Some("a,b".into()),
            subtype: Some("x".into()),
            nodev: true,
            nosuid: true,
            noexec: true,
            ..MountOptions::default()
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn both_names_of_linux_leave_a_journal_alone() {
        assert!(["norecovery", "noload"].iter().all(|name| parse(name).unwrap().ignore_journal));
    }

    #[test]
    fn the_later_option_wins() {
        assert!(!parse("ro,rw").unwrap().read_only);
        assert_eq!(parse("noatime,strictatime").unwrap().atime, Atime::Always);
        assert_eq!(parse("relatime,nodiratime").unwrap().atime, Atime::RelativeFiles);
    }

    #[test]
    fn an_option_that_means_nothing_is_named() {
        assert_eq!(parse("ro,colour").unwrap_err(), "option colour: not known");
        assert_eq!(parse("uid=me").unwrap_err(), "option uid=me: not a number of a user or group");
        assert!(parse("errors=panic").is_err() && parse("threads=0").is_err() && parse("offset=-1").is_err());
        assert_eq!(parse(",,").unwrap(), MountOptions::default());
    }
}
