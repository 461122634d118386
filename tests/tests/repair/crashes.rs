//! A repair that is killed between two of its stores is finished by the next.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use blockdev::{BlockDevice, Error, Result};
use e2dax_tests::{
    Rng, Scratch, golden,
    hostile::{Damage, Victim},
    need_tools, tools, tree,
};

use crate::bench::{Bench, bytes_of, repair_all};

/// A device that fails every write after so many.
#[derive(Debug)]
pub(crate) struct Killed {
    pub(crate) inner: Scratch,
    pub(crate) left: AtomicU64,
}

impl Killed {
    fn spend(&self) -> Result<()> {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .map(drop)
            .map_err(|_| Error::NoSpace { offset: 0 })
    }
}

impl BlockDevice for Killed {
    e2dax_tests::forward!(inner: size, read_at);

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.spend()?;
        self.inner.write_at(offset, buf)
    }
    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.spend()?;
        self.inner.zero(offset, len)
    }
    fn fence(&self) -> Result<()> {
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_repair_that_is_killed_between_its_stores_is_finished_by_the_next() {
    need_tools!("e2fsck");
    let bench = Bench::new();
    let path = bench.path("killed.img");
    let (mut states, mut images) = (0, 0);
    for name in ["names", "block-1k", "htree", "xattr-256", "specials"] {
        let bytes = golden::golden(name);
        let victim = Victim::new(bytes.clone());
        for number in 0..4 {
            let mut rng = Rng::named(0x6b69_6c6c + number, name);
            let mut bytes = bytes.clone();
            for damage in (0..3).flat_map(|_| victim.damage(&mut rng)) {
                if let Damage::Replace(at, new) = damage {
                    bytes[at..at + new.len()].copy_from_slice(&new);
                }
            }
            let whole = Arc::new(Scratch::new(bytes.clone()));
            match repair_all(&*whole) {
                Ok(report) if report.clean => {}
                _ => continue,
            }
            images += 1;
            let wanted = tree::read(whole).expect("what was repaired can be read");
            let files = |tree: &tree::Tree| tree.values().filter(|node| !node.content.is_empty()).count();
            for kill in 0.. {
                let device = Killed { inner: Scratch::new(bytes.clone()), left: AtomicU64::new(kill) };
                if repair_all(&device).is_ok() {
                    break;
                }
                states += 1;
                let device = Arc::new(Scratch::new(bytes_of(&device)));
                let report =
                    repair_all(&*device).unwrap_or_else(|error| panic!("{name}:{number}, {kill}: {error}"));
                assert!(report.clean, "{name}:{number}, {kill}: {report:?}");
                std::fs::write(&path, bytes_of(&*device)).expect("the image is written");
                tools::e2fsck_fn(&path).unwrap_or_else(|said| panic!("{name}:{number}, {kill}: {said}"));
                let tree =
                    tree::read(device).unwrap_or_else(|error| panic!("{name}:{number}, {kill}: {error}"));
                assert!(
                    files(&tree) >= files(&wanted),
                    "{name}:{number}, killed after {kill}: files are gone"
                );
            }
        }
    }
    println!("{images} images, {states} states");
    assert!(images > 8 && states > 50, "{images} images, {states} states");
}
