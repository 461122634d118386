//! Ends of a file system that somebody still uses: closed under all that everybody holds, or killed.

use std::sync::atomic::{AtomicBool, Ordering};

use blockdev::{Access, PmemSlice};
use ext2_core::{Closed, Ext2, FileKind, InodeFlags, NewInode, sync::turn};
use ext2_dax::{
    File, OpenFor,
    mmu::{
        Protection, Sharing,
        soft::{MapRequest, SoftMap},
    },
    rw::Limits,
    uio::Source,
};
use ext2_image::check::Checker;

use super::{
    Answer, World,
    mend::mend_alone,
    perform::{Done, core},
    schedule::Schedule,
    world::{Held, device},
};
use crate::Rng;

/// A file that is made in an image as a kill left it.
const AFTER: &[u8] = b"made-after-a-kill";

/// A byte to be written, which is there when others have had a turn, and notes where it comes after a close.
struct Late<'c> {
    byte: u8,
    is_clean: &'c AtomicBool,
    is_late: &'c AtomicBool,
}

impl Source for Late<'_> {
    fn take(&mut self, to: &PmemSlice<'_>) -> ext2_dax::Result<u64> {
        turn::pass();
        self.is_late.fetch_or(self.is_clean.load(Ordering::Relaxed), Ordering::Relaxed);
        to.copy_in(0, &[self.byte])?;
        Ok(1)
    }

    fn take_bytes(&mut self, buf: &mut [u8]) -> u64 {
        buf[0] = self.byte;
        1
    }
}

impl World {
    /// Closes it, and tries to change it all the same. What was left unclean is mended.
    pub(super) fn close_under_all(&mut self) -> Done {
        let closed = self.close_while_stored()?;
        let before = self.bytes();
        let went_on = self.change_all_the_same();
        if let Some(words) = went_on.or((self.bytes() != before).then_some("the image changed")) {
            return Err(Answer::Broken(format!("after a close that said {closed:?}: {words}")));
        }
        self.let_go();
        self.fs = None;
        if matches!(closed, Closed::Unclean(_)) {
            self.mend()?;
        }
        core(self.mount(false))?;
        Ok(Answer::Closed(closed))
    }

    /// Closes it while another thread stores, to what is mapped in software and to what is open, the bytes that are there.
    fn close_while_stored(&mut self) -> Result<Closed, Answer> {
        self.closes += 1;
        let fs = self.ext2().clone();
        let maps: Vec<&SoftMap> = self.actors.iter().flat_map(Held::stored).collect();
        let files: Vec<&File> = self.actors.iter().flat_map(Held::written).collect();
        if maps.is_empty() && files.is_empty() {
            return core(fs.close());
        }
        let mut rng = Rng::named(self.schedule.wrapping_add(self.closes), "closes");
        let switch = *rng.pick(&[2, 4, 10, 0, 0, 0]);
        // Who is not made to give way would never end.
        let rounds = if switch == 0 { 3 } else { u32::MAX };
        let schedule = Schedule::new(rng, 2, switch);
        let (closing, storing) = (schedule.seat(0), schedule.seat(1));
        let (is_over, is_clean, is_late) =
            (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
        // Where neither can go on both wait for ever, and who watches the run tells of it.
        let closed = std::thread::scope(|scope| {
            let stores = scope.spawn(|| {
                storing.during(|| {
                    for _ in 0..rounds {
                        if is_over.load(Ordering::Relaxed) {
                            break;
                        }
                        turn::pass();
                        for map in &maps {
                            let mut byte = [0];
                            let _ = map.load_bytes(0, &mut byte).and_then(|()| map.store_bytes(0, &byte));
                        }
                        for file in &files {
                            let mut byte = [0];
                            if file.read_at(0, &mut byte) == Ok(1) {
                                let mut source =
                                    Late { byte: byte[0], is_clean: &is_clean, is_late: &is_late };
                                let _ = file.write_from(0, 1, &mut source, Limits::default());
                            }
                        }
                    }
                })
            });
            let closes = scope.spawn(|| {
                closing.during(|| {
                    let closed = fs.close();
                    is_clean.store(closed == Ok(Closed::Clean), Ordering::Relaxed);
                    is_over.store(true, Ordering::Relaxed);
                    closed
                })
            });
            let closed = closes.join().and_then(|closed| closed);
            // A close that panics tells nobody that it is over.
            is_over.store(true, Ordering::Relaxed);
            stores.join().and_then(|stored| stored).and(closed)
        });
        if is_late.load(Ordering::Relaxed) {
            return Err(Answer::Broken("a write went on after a close that said Clean".to_owned()));
        }
        core(closed.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }

    /// Everybody lets go, and two threads close it while a third makes all of it durable, if the seed says so.
    ///
    /// # Errors
    /// Those of each; what is not closed, or still written to, when one of them says that it is closed.
    pub(super) fn close_together(&mut self) -> Result<Closed, String> {
        self.closes += 1;
        let mut rng = Rng::named(self.schedule.wrapping_add(self.closes), "closes");
        if rng.one_in(2) {
            return self.close().map_err(|error| error.to_string());
        }
        self.let_go();
        let fs = self.fs.take().expect("it is open");
        let switch = *rng.pick(&[2, 4, 10]);
        let schedule = Schedule::new(rng, 3, switch);
        let close = |nr| {
            let (seat, fs) = (schedule.seat(nr), fs.ext2().clone());
            let world = &*self;
            move || seat.during(|| fs.close().map(|closed| (closed, world.bytes())))
        };
        let (seat, synced) = (schedule.seat(2), fs.ext2().clone());
        let (sync, closes) = std::thread::scope(|scope| {
            let closes = [0, 1].map(|nr| scope.spawn(close(nr)));
            let sync = scope.spawn(move || seat.during(|| synced.sync()));
            (sync.join().and_then(|went| went), closes.map(|thread| thread.join().and_then(|went| went)))
        });
        let sync = sync.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        sync.map_err(|error| format!("cannot be synced while it is closed: {error}"))?;
        let [one, other] = closes.map(|close| close.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        let ((one, seen), (other, also)) = match (one, other) {
            (Ok(one), Ok(other)) => (one, other),
            both => return Err(format!("cannot be closed by two: {:?}", (both.0.err(), both.1.err()))),
        };
        if [one, other].iter().filter(|closed| **closed == Closed::ReadOnly).count() != 1 && one != other {
            return Err(format!("two closed it: {one:?} and {other:?}"));
        }
        let last = self.bytes();
        if seen != last || also != last {
            return Err("something was stored after a close had returned".to_owned());
        }
        Ok(if one == Closed::ReadOnly { other } else { one })
    }

    /// Tries whatever changes a file, with all that is held. What was done.
    fn change_all_the_same(&self) -> Option<&'static str> {
        let request = MapRequest {
            offset: 0,
            len: 4096,
            sharing: Sharing::Shared,
            protection: Protection::ReadWrite,
            colour: 0,
        };
        for held in &self.actors {
            for map in held.maps.iter().flatten() {
                if map.vma().is_shared() && map.store(0, &[7]).is_ok() {
                    return Some("a mapping was stored to");
                }
            }
            for (file, open_for) in held.files.iter().flatten() {
                if *open_for != OpenFor::Reading && file.write_at(0, b"x").is_ok() {
                    return Some("a file was written to");
                }
                if *open_for == OpenFor::Writing && file.lease(0..1, Access::Write).is_ok() {
                    return Some("memory was lent for storing");
                }
                if *open_for == OpenFor::Writing && held.map(file, &request).is_ok() {
                    return Some("a file was mapped for storing");
                }
            }
            for inode in held.hands.iter().flatten() {
                let changed = match inode.kind() {
                    FileKind::Directory => inode.create(AFTER, &NewInode::new(FileKind::Fifo, 0)).is_ok(),
                    FileKind::Regular => inode.write_at(0, b"x").is_ok(),
                    _ => inode.touch().is_ok(),
                };
                if changed {
                    return Some("an inode in hand was changed");
                }
            }
        }
        None
    }

    /// Ends the process of the file system: what it stored is what there is.
    pub(super) fn kill(&mut self, mended: bool) -> Result<(), Answer> {
        self.die();
        if !mended {
            core(self.mount(false))?;
            self.use_it()?;
            self.die();
        }
        self.mend()?;
        core(self.mount(false))
    }

    /// The device goes on with what was stored so far; what is stored after that is on another.
    fn die(&mut self) {
        let bytes = self.bytes();
        self.let_go();
        self.fs = None;
        (self.device, self.folder) = device(self.kind, &bytes);
    }

    /// Makes a file in the image as it was left, and removes it.
    fn use_it(&self) -> Result<(), Answer> {
        let fs: &Ext2 = self.ext2();
        let root = core(fs.root())?;
        if root.attr().flags.intersects(InodeFlags::IMMUTABLE | InodeFlags::APPEND) {
            return Ok(());
        }
        let made = match core(root.create(AFTER, &NewInode::new(FileKind::Regular, 0o644))) {
            Ok(made) => made,
            // There may be no room.
            Err(Answer::Refused(_)) => return Ok(()),
            Err(answer) => return Err(answer),
        };
        if made.nr().get() < fs.geometry().first_ino {
            return Err(Answer::Broken(format!("inode {} is reserved, and was given out", made.nr())));
        }
        let _ = core(made.write_at(0, &[7; 5000]));
        core(root.unlink(AFTER))
    }

    /// Mends it as `e2fsck -p` would. Nobody uses it.
    fn mend(&self) -> Result<(), Answer> {
        mend_alone(&mut Checker::new(), &*self.device).map_err(Answer::Broken)
    }
}
