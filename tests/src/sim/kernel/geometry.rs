//! The file systems that lists begin with: made by mke2fs.

use std::{collections::BTreeMap, path::Path, sync::Mutex};

use crate::{
    sim::{Mode, Options, base::BEGIN},
    tools,
};

use super::left_out::LeftOut;

/// What mke2fs is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Geometry {
    /// Bytes of a block.
    pub block: u64,
    /// Bytes of an inode.
    pub inode_size: u16,
    /// KiB of the image.
    pub kib: u64,
    /// Inodes.
    pub inodes: u64,
    /// Features, separated by commas.
    pub features: &'static str,
}

/// Features that mke2fs gives to ext2 by itself.
const USUAL: &str = "ext_attr,resize_inode,dir_index,filetype,sparse_super,large_file";
/// Those that an embedded system asks for.
const FEW: &str = "ext_attr,filetype,sparse_super,large_file";

impl Geometry {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self { block: 4096, inode_size: 256, kib: 8 << 10, inodes: 128, features: FEW },
        Self { block: 4096, inode_size: 128, kib: 4 << 10, inodes: 64, features: FEW },
        Self { block: 1024, inode_size: 128, kib: 9 << 10, inodes: 256, features: "ext_attr" },
        Self { block: 1024, inode_size: 256, kib: 9 << 10, inodes: 256, features: USUAL },
        Self { block: 4096, inode_size: 256, kib: 8 << 10, inodes: 128, features: USUAL },
        Self { block: 2048, inode_size: 128, kib: 4 << 10, inodes: 128, features: "none" },
        // Soon full.
        Self { block: 1024, inode_size: 128, kib: 160, inodes: 32, features: FEW },
        Self { block: 4096, inode_size: 128, kib: 512, inodes: 32, features: FEW },
    ];

    /// Whether it has a feature.
    #[must_use]
    pub fn has(&self, feature: &str) -> bool {
        self.features.split(',').any(|own| own == feature)
    }

    /// Whether an inode has room for attributes, and for parts of seconds.
    #[must_use]
    pub fn has_large_inodes(&self) -> bool {
        self.inode_size > 128
    }

    /// The name that the driver goes by, and its options: equal attributes share no block, and blocks are given at once. Only as `ext4` it has parts of seconds that grow with each change.
    pub(super) fn mounted_as(&self) -> (&'static str, &'static str) {
        if self.has_large_inodes() { ("ext4", ",nombcache,nodelalloc") } else { ("ext2", ",nombcache") }
    }

    /// An empty file system, without `lost+found`; each kind is made once.
    ///
    /// # Panics
    /// Where mke2fs or debugfs fails.
    pub(super) fn image(&self) -> Vec<u8> {
        static MADE: Mutex<BTreeMap<Geometry, Vec<u8>>> = Mutex::new(BTreeMap::new());
        let mut made = MADE.lock().expect("who makes one does not panic in between");
        made.entry(*self).or_insert_with(|| self.make()).clone()
    }

    fn make(&self) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("image");
        let mut command = tools::command("mke2fs");
        command.env("E2FSPROGS_FAKE_TIME", BEGIN.to_string()).env("MKE2FS_CONFIG", "/dev/null");
        command.args(["-q", "-F", "-t", "ext2", "-m", "0", "-E", "root_owner=0:0"]);
        command.args(["-O", &format!("none,{}", self.features)]);
        command.args(["-b", &self.block.to_string(), "-I", &self.inode_size.to_string()]);
        command.args(["-N", &self.inodes.to_string()]).arg(&path).arg(format!("{}K", self.kib));
        let output = command.output().expect("mke2fs runs");
        assert!(output.status.success(), "{self:?}: {}", tools::words(&output));
        tools::run("debugfs", &[Path::new("-w"), Path::new("-R"), Path::new("rmdir lost+found"), &path])
            .expect("debugfs removes a directory");
        std::fs::read(&path).expect("just made")
    }

    /// What the simulator chooses steps with: words and names from the seed, the rest from here.
    pub(super) fn options(&self, seed: u64) -> Options {
        let options = Options::of_mode(seed, Mode::Plain).bare();
        let mut shares = options.shares;
        shares.retain(|(word, _)| LeftOut::word(*word).is_none());
        Options {
            has_lost_and_found: false,
            block: self.block,
            kib: self.kib,
            inode_size: self.inode_size,
            inodes: self.inodes,
            shares,
            ..options
        }
    }
}
