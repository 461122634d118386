//! A file system that is made on a device behind a write-back cache, and whose making ends early.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use blockdev::{BlockDevice, CacheOptions, Cached, Error, RamDevice, Result};
use ext2_core::{Ext2, OpenOptions, Timestamp};
use ext2_image::check::{self, Checker, Finding};
use ext2_image::mkfs::{
    Body, DeviceOutput, Format, Fresh, MemoryContents, NodeAttrs, NodeId, Options, Output as _, Plan, Tree,
};

/// Whose stores end after so many.
#[derive(Debug)]
struct Ends(RamDevice, AtomicU64);

impl Ends {
    fn one(&self) -> Result<()> {
        let left = self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| Error::Io {
            op: "write",
            offset: 0,
            errno: Some(5),
            message: "gone".into(),
        })
    }
}

impl BlockDevice for Ends {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.one()?;
        self.0.write_at(offset, buf)
    }
    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.one()?;
        self.0.zero(offset, len)
    }
    fn fence(&self) -> Result<()> {
        self.one()
    }
    fn flush(&self) -> Result<()> {
        self.one()
    }
}

#[test]
fn there_is_no_file_system_on_a_device_behind_a_cache_before_all_of_it_is_there() {
    let attrs = |mode| NodeAttrs::new(mode, (0, 0), Timestamp::from_secs(1_700_000_000));
    let contents = |nr: u8| vec![nr + 1; 1 << 20];
    let mut whole = 0;
    for ends in 0..80 {
        let mut files = MemoryContents::default();
        let mut tree = Tree::new(attrs(0o755));
        for nr in 0..20 {
            let body = Body::File { size: 1 << 20, data: None, handle: files.push(contents(nr)) };
            tree.add(NodeId::ROOT, format!("f{nr}").as_bytes(), attrs(0o644), body).unwrap();
        }
        let plan = Plan::new(tree, &Format::default(), &Options::default()).unwrap();
        let below = Arc::new(Ends(RamDevice::new(plan.bytes()).unwrap(), AtomicU64::new(ends)));
        let cached = Cached::new(Arc::clone(&below), CacheOptions::default()).unwrap();
        let out = DeviceOutput::new(&cached, Fresh::Unknown);
        let made = plan.write(&mut files, &out, &mut |_| ()).and_then(|_| out.flush());
        drop(cached);
        let Ok(fs) = Ext2::open(Arc::clone(&below), &OpenOptions::read_only()) else {
            assert!(made.is_err(), "{ends}: made, and not there");
            continue;
        };
        whole += 1;
        let mut findings = Vec::new();
        let mut sink = |finding: &Finding| findings.push(finding.to_string());
        Checker::new().check(&below, &check::Options::default(), &mut sink).unwrap();
        assert!(findings.is_empty(), "{ends}: {findings:?}");
        for nr in 0..20 {
            assert!(fs.read(format!("/f{nr}")).unwrap() == contents(nr), "{ends}: f{nr}");
        }
    }
    assert!(whole > 0, "it was never made");
}
