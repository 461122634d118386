//! An image that another changes until it is claimed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use blockdev::{BlockDevice, Claim, RamDevice, Result};
use ext2_core::{Ext2, FileKind, NewInode, OpenOptions};
use ext2_image::check::{self, Checker, Finding};
use ext2_image::mkfs;
use ext2_image::tune::Tune;

/// At the first claim somebody else, who has just been given the device, writes and closes.
#[derive(Debug)]
struct Meanwhile {
    inner: Arc<RamDevice>,
    first: AtomicBool,
}

impl BlockDevice for Meanwhile {
    fn size(&self) -> u64 {
        self.inner.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.inner.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.inner.write_at(offset, buf)
    }
    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.zero(offset, len)
    }
    fn fence(&self) -> Result<()> {
        self.inner.fence()
    }
    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }
    fn claim(&self, offset: u64, len: u64) -> Result<Claim> {
        if self.first.swap(false, Ordering::SeqCst) {
            let fs = Ext2::open(Arc::clone(&self.inner), &OpenOptions::default()).unwrap();
            let root = fs.root().unwrap();
            for nr in 0..20 {
                let file = root
                    .create(format!("f{nr}").as_bytes(), &NewInode::new(FileKind::Regular, 0o644))
                    .unwrap();
                file.write_at(0, &vec![7; 300_000]).unwrap();
            }
            fs.close().unwrap();
        }
        self.inner.claim(offset, len)
    }
}

#[test]
fn what_was_written_until_the_image_is_claimed_to_be_tuned_stays() {
    let inner = Arc::new(mkfs::in_memory(64 << 20).unwrap());
    let device = Meanwhile { inner: Arc::clone(&inner), first: AtomicBool::new(true) };
    let tune = Tune { label: Some(b"rootfs".to_vec()), ..Tune::default() };
    assert!(tune.apply(&device, &Default::default()).unwrap());
    let mut findings = Vec::new();
    let mut sink = |finding: &Finding| findings.push(finding.to_string());
    Checker::new().check(&inner, &check::Options::default(), &mut sink).unwrap();
    assert!(findings.is_empty(), "{findings:?}");
    let fs = Ext2::open(Arc::clone(&inner), &OpenOptions::read_only()).unwrap();
    for nr in 0..20 {
        assert!(fs.read(format!("/f{nr}")).unwrap() == vec![7; 300_000], "f{nr}");
    }
}
