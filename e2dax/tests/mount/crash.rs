//! The process that serves a mount is killed under load.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use e2dax_tests::{Rng, tools};
use rustix::process::Signal;

use crate::common::{Image, need_fuse};

/// Writes files and makes them durable, with their names, until the mount is gone; notes those that are. Nothing fails
/// before it is killed.
fn load(dir: &Path, seed: u64, durable: &Mutex<BTreeMap<String, Vec<u8>>>, [stop, killed]: &[AtomicBool; 2]) {
    let mut rng = Rng::new(seed);
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("{seed}-{n}");
        let mut work = || -> std::io::Result<Vec<u8>> {
            let bytes = vec![u8::try_from(n % 251).unwrap(); usize::try_from(rng.below(200_000)).unwrap()];
            let temporary = dir.join(format!("{name}.new"));
            let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, dir.join(&name))?;
            File::open(dir)?.sync_all()?;
            // Something that nobody asked to be durable, to be in the middle of.
            let _ = fs::remove_file(dir.join(format!("{seed}-scratch")));
            fs::write(dir.join(format!("{seed}-scratch")), &bytes)?;
            Ok(bytes)
        };
        match work() {
            Ok(bytes) => drop(durable.lock().unwrap().insert(name, bytes)),
            Err(error) => {
                assert!(killed.load(Ordering::Relaxed), "{name}: {error}");
                return;
            }
        }
    }
}

#[test]
fn what_fsync_returned_for_survives_a_kill() {
    need_fuse!();
    for round in 0..4 {
        // Far more than the fastest machine fills before the kill: a full disk is not what is tried here.
        let image = Image::new(&["-b", "1024"], "1G");
        let mut mount = image.mount("");
        let durable = Arc::new(Mutex::new(BTreeMap::new()));
        let flags = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let (dir, durable, flags) = (mount.dir().to_path_buf(), durable.clone(), flags.clone());
                thread::spawn(move || load(&dir, round * 10 + n, &durable, &flags))
            })
            .collect();
        thread::sleep(Duration::from_millis(300 + 150 * round));
        // A busy machine may need longer for the first file.
        let patience = Instant::now() + Duration::from_secs(20);
        while durable.lock().unwrap().is_empty() && Instant::now() < patience {
            thread::sleep(Duration::from_millis(20));
        }
        let [stop, killed] = &*flags;
        killed.store(true, Ordering::Relaxed);
        mount.signal(Signal::KILL);
        mount.wait();
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        tools::run("umount", &[Path::new("-l"), mount.dir()]).unwrap();
        let durable = durable.lock().unwrap();
        assert!(!durable.is_empty(), "there was time for a file");
        // Once as we mend it, once as e2fsck does.
        if round % 2 == 0 {
            tools::e2fsck_p(&image.path).unwrap_or_else(|error| panic!("round {round}: {error}"));
            image.check();
        }
        let mount = image.mount("");
        for (name, bytes) in durable.iter() {
            assert!(fs::read(mount.join(name)).unwrap() == *bytes, "round {round}: {name}");
        }
        mount.unmount();
        tools::e2fsck_p(&image.path).unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
}
