//! A file system over NBD whose server dies: what fsync returned for is there, and `e2fsck -p` mends the rest alone.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use blockdev::{BlockDevice, CacheOptions, Cached, Error, RamDevice, Result};
use e2dax_tests::crash::{self, Action, Base, History, Moment};
use e2dax_tests::{Rng, Scratch, need_tools, tools, tree};
use ext2_core::Ext2;
use ext2_image::check::{Checker, Outcome};

use crate::common::{Ours, Theirs, impatient};

const LEN: u64 = 60;

fn times(default: u64) -> u64 {
    std::env::var("E2DAX_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What the workload of a seed promises, and after which of its operations all before is durable.
fn history(base: &Base, seed: u64) -> (History, Vec<usize>) {
    let device = Arc::new(RamDevice::from_bytes(&base.image).unwrap());
    let fs = Ext2::open(device, &crash::options()).unwrap();
    let mut history = History::new(tree::of(&fs).unwrap(), base.block_size);
    let mut durable = vec![0];
    for (nr, action) in crash::seeded(&crash::vocabulary(), seed, LEN).into_iter().enumerate() {
        let done = crash::perform(&fs, &action).is_ok();
        if done && matches!(action, Action::Fsync(_) | Action::Sync | Action::Close) {
            durable.push(nr + 1);
        }
        history.push(done.then_some(action), tree::of(&fs).unwrap());
    }
    (history, durable)
}

/// Performs the workload on a device until that fails, and tells how many operations returned, and whether all did.
fn work(device: Arc<dyn BlockDevice>, seed: u64, died: &dyn Fn() -> bool) -> (usize, bool) {
    let Ok(fs) = Ext2::open(device, &crash::options()) else { return (0, false) };
    let actions = crash::seeded(&crash::vocabulary(), seed, LEN);
    for (nr, action) in actions.iter().enumerate() {
        let failed = match crash::perform(&fs, action) {
            Err(error) => matches!(error, ext2_core::Error::Device(_)) || died(),
            Ok(()) => false,
        };
        if failed {
            return (nr, false);
        }
    }
    (actions.len(), true)
}

/// Mends what is left, and compares it with what was promised. Under a cache fences keep order and wait for nothing: then it may be
/// what a crash had left at any moment since the last sync.
fn judge(
    base: &Base,
    seed: u64,
    done: usize,
    is_cached: bool,
    image: Vec<u8>,
    checker: &mut Checker,
    what: &str,
) {
    let device = Arc::new(Scratch::new(image));
    let outcome = checker.mend(&*device, crash::NOW, &mut |_| {}).unwrap();
    assert!(!matches!(outcome, Outcome::Halts(_)), "{what}: {outcome:?}");
    let found = tree::read(device).unwrap();
    let (history, durable) = history(base, seed);
    let Err(problem) = history.judge(Moment::During(done), &found) else { return };
    let synced = durable.iter().rfind(|&&nr| nr <= done).copied().unwrap_or(0);
    let is_earlier = (synced..done).any(|nr| history.judge(Moment::During(nr), &found).is_ok());
    assert!(is_cached && is_earlier, "{what}, after {done} operations: {problem}");
}

/// A disk with a cache: what was not flushed is there in part, after the power went at the n-th store.
#[derive(Debug)]
struct Disk {
    media: RamDevice,
    now: RamDevice,
    held: Mutex<Vec<(u64, Vec<u8>)>>,
    left: AtomicU64,
}

impl Disk {
    fn new(image: &[u8], stores: u64) -> Self {
        let ram = || RamDevice::from_bytes(image).unwrap();
        Self { media: ram(), now: ram(), held: Mutex::new(Vec::new()), left: AtomicU64::new(stores) }
    }

    fn is_off(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    fn power(&self, store: bool) -> Result<()> {
        let next = |left: u64| if store { left.checked_sub(1) } else { (left > 0).then_some(left) };
        let had = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
        let off = |_| Error::Io { op: "store", offset: 0, errno: Some(5), message: "no power".into() };
        had.map(|_| ()).map_err(off)
    }

    /// What is on the media: some of what was not flushed reached it, in any order.
    fn after_the_cut(&self, rng: &mut Rng) -> Vec<u8> {
        for (at, data) in self.held.lock().unwrap().iter() {
            // By sectors, which are whole or not there.
            for (sector, at) in data.chunks(512).zip((*at..).step_by(512)) {
                if rng.below(2) == 0 {
                    self.media.write_at(at, sector).unwrap();
                }
            }
        }
        let mut image = vec![0; self.media.size() as usize];
        self.media.read_at(0, &mut image).unwrap();
        image
    }
}

impl BlockDevice for Disk {
    fn size(&self) -> u64 {
        self.media.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.power(false)?;
        self.now.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.power(true)?;
        self.now.write_at(offset, buf)?;
        self.held.lock().unwrap().push((offset, buf.to_vec()));
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.write_at(offset, &vec![0; len as usize])
    }

    fn fence(&self) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.power(false)?;
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        held.iter().try_for_each(|(at, data)| self.media.write_at(*at, data))
    }
}

/// Over our server, whose disk has a cache of its own and loses power at any store; over the network directly, and through
/// the cache that the command has.
#[test]
fn what_was_synced_is_there_wherever_the_power_of_a_server_fails() {
    let base = Base::of("times");
    let mut checker = Checker::new();
    let mut rng = Rng::named(20, "power");
    let folder = tempfile::tempdir().unwrap();
    let mut in_the_middle = 0;
    let cuts = times(200);
    for seed in 0..cuts {
        let disk = Arc::new(Disk::new(&base.image, 1 + rng.below(200)));
        let server = Ours::of(&folder, Arc::clone(&disk) as Arc<dyn BlockDevice>);
        let device = impatient(&server.uri());
        let device: Arc<dyn BlockDevice> = if seed % 2 == 0 {
            Arc::new(device)
        } else {
            Arc::new(Cached::new(device, CacheOptions { bytes: 256 << 10, block_size: 1024 }).unwrap())
        };
        let (done, _) = work(device, seed, &|| disk.is_off());
        in_the_middle += u64::from(disk.is_off());
        disk.left.store(0, Ordering::SeqCst);
        drop(server);
        judge(
            &base,
            seed,
            done,
            seed % 2 == 1,
            disk.after_the_cut(&mut rng),
            &mut checker,
            &format!("cut {seed}"),
        );
    }
    println!("{cuts} power cuts, {in_the_middle} of them in the middle");
    assert!(in_the_middle * 2 > cuts, "{in_the_middle} of {cuts}");
}

#[test]
fn what_was_synced_is_there_whenever_a_server_of_others_is_killed() {
    need_tools!("qemu-nbd", "nbdkit", "e2fsck");
    let base = Base::of("times");
    let mut checker = Checker::new();
    let mut rng = Rng::named(20, "kill");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let image = path.to_str().unwrap();
    let (mut in_the_middle, kills) = (0, times(60));
    for seed in 0..kills {
        fs::write(&path, &base.image).unwrap();
        let mut server = if seed % 2 == 0 {
            Theirs::qemu_nbd(folder.path(), &["-f", "raw", image])
        } else {
            Theirs::nbdkit(folder.path(), &["file", image])
        };
        let device =
            Cached::new(impatient(&server.uri()), CacheOptions { bytes: 256 << 10, block_size: 1024 });
        let device: Arc<dyn BlockDevice> = Arc::new(device.unwrap());
        let longest = 1 << (6 + rng.below(9));
        let pause = Duration::from_micros(rng.below(longest));
        let killed = AtomicBool::new(false);
        let (done, all) = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(pause);
                killed.store(true, Ordering::SeqCst);
                server.kill();
            });
            work(device, seed, &|| killed.load(Ordering::SeqCst))
        });
        in_the_middle += u64::from(!all);
        judge(&base, seed, done, true, fs::read(&path).unwrap(), &mut checker, &format!("kill {seed}"));
        if seed % 8 == 0 {
            tools::e2fsck_p(&path).unwrap();
        }
    }
    println!("{kills} servers killed, {in_the_middle} of them in the middle");
    assert!(in_the_middle * 3 > kills, "{in_the_middle} of {kills}");
}
