//! Connections that are lost, and what of it is noticed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use blockdev::{BlockDevice, Calls, Fault, Faulty, RamDevice, Result};
use e2dax_net::client::{Connect, NbdDevice};
use e2dax_net::server::Export;
use e2dax_tests::need_tools;

use crate::common::{Ours, Theirs, connect, file, impatient};

const SIZE: u64 = 1 << 20;

/// A device that keeps what was written in memory until it is flushed, as a disk does, and can lose it.
#[derive(Debug)]
pub(crate) struct Forgetful {
    media: Arc<RamDevice>,
    held: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl Forgetful {
    fn new() -> Self {
        Self::over(&Arc::new(RamDevice::new(SIZE).unwrap()))
    }

    pub(crate) fn over(media: &Arc<RamDevice>) -> Self {
        Self { media: Arc::clone(media), held: Mutex::new(Vec::new()) }
    }

    pub(crate) fn lose(&self) {
        self.held.lock().unwrap().clear();
    }
}

impl BlockDevice for Forgetful {
    e2dax_tests::forward!(media: size);

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.media.read_at(offset, buf)?;
        for (at, data) in self.held.lock().unwrap().iter() {
            for (byte, place) in data.iter().zip(*at..) {
                if let Some(index) = place.checked_sub(offset)
                    && let Some(to) = buf.get_mut(index as usize)
                {
                    *to = *byte;
                }
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.held.lock().unwrap().push((offset, buf.to_vec()));
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.write_at(offset, &vec![0; len as usize])
    }

    fn fence(&self) -> Result<()> {
        self.flush()
    }

    fn flush(&self) -> Result<()> {
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        held.iter().try_for_each(|(at, data)| self.media.write_at(*at, data))
    }
}

/// A server whose machine loses power does not flush at its end.
#[derive(Debug)]
struct NoFlushAtEnd(Arc<Forgetful>, Arc<Mutex<bool>>);

impl BlockDevice for NoFlushAtEnd {
    fn size(&self) -> u64 {
        SIZE
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.0.write_at(offset, buf)
    }
    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.0.zero(offset, len)
    }
    fn fence(&self) -> Result<()> {
        self.flush()
    }
    fn flush(&self) -> Result<()> {
        if *self.1.lock().unwrap() { Ok(()) } else { self.0.flush() }
    }
}

#[test]
fn what_a_server_answered_and_lost_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Forgetful::new());
    let power_is_off = Arc::new(Mutex::new(false));
    let start = || {
        let device = NoFlushAtEnd(Arc::clone(&disk), Arc::clone(&power_is_off));
        Ours::start(&folder.path().join("s"), vec![Export::new("", Arc::new(device))])
    };
    let mut server = start();
    let device = connect(&server.uri());
    for round in 0..20_u8 {
        let at = u64::from(round) * 8192;
        device.write_at(at, &[round + 1; 4096]).unwrap();
        device.zero(at + 4096, 512).unwrap();
        device.flush().unwrap();
        device.write_at(at + 4096, &[round + 100; 4096]).unwrap();
        *power_is_off.lock().unwrap() = true;
        drop(server);
        disk.lose();
        *power_is_off.lock().unwrap() = false;
        server = start();
        // The connection is gone; nobody notices.
        device.flush().unwrap();
        disk.lose();
        let mut found = [0; 8192];
        disk.read_at(at, &mut found).unwrap();
        assert!(found[..4096] == [round + 1; 4096] && found[4096..] == [round + 100; 4096], "round {round}");
    }
}

#[test]
fn a_flush_that_nobody_asked_for_and_that_fails_is_told_to_who_asks_next() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::new(RamDevice::new(SIZE).unwrap()));
    let server = Ours::of(&folder, disk.clone());
    let device = connect(&server.uri());
    let contents = vec![7; SIZE as usize];
    disk.arm(Fault::once(Calls::FLUSH, 0));
    // More than is remembered: a write has it flushed.
    let written: Vec<_> = (0..65).map(|_| device.write_at(0, &contents)).collect();
    assert_eq!(disk.fired(), 1);
    assert_eq!(written.iter().filter(|written| written.is_err()).count(), 1);
    // Whoever wrote before does not know of it, and must not be told that all is durable.
    assert!(device.flush().is_err());
    device.write_at(0, b"more").unwrap();
    device.flush().unwrap();
}

/// A device whose first write takes until it is let go.
#[derive(Debug)]
pub(crate) struct Stuck {
    media: RamDevice,
    first: AtomicBool,
    pub(crate) gate: Mutex<()>,
}

impl Stuck {
    pub(crate) fn new(size: u64) -> Arc<Self> {
        let media = RamDevice::new(size).unwrap();
        Arc::new(Self { media, first: AtomicBool::new(true), gate: Mutex::new(()) })
    }
}

impl BlockDevice for Stuck {
    e2dax_tests::forward!(media: size, read_at, zero);

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        if self.first.swap(false, Ordering::SeqCst) {
            drop(self.gate.lock().unwrap());
        }
        self.media.write_at(offset, buf)
    }
    fn fence(&self) -> Result<()> {
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_write_of_a_connection_that_was_given_up_does_not_come_after_what_was_written_since() {
    // Until the client has given up altogether, and for as long as it has to ask more than once.
    for (stuck_for, is_done) in [(2000, false), (700, true)] {
        let folder = tempfile::tempdir().unwrap();
        let disk = Stuck::new(SIZE);
        let server = Ours::of(&folder, disk.clone());
        let (timeout, reconnect) = (Duration::from_millis(300), Duration::from_secs(1));
        let options = Connect { timeout, reconnect, ..Connect::default() };
        let device = NbdDevice::open(&server.uri(), &options).unwrap();
        let stuck = disk.gate.lock().unwrap();
        let flushed = thread::scope(|scope| {
            // The server does not answer in time: this is asked for again, on a new connection.
            let flushed = scope.spawn(|| {
                let written = device.write_at(0, b"old").and_then(|()| device.write_at(0, b"new"));
                written.and_then(|()| device.flush())
            });
            thread::sleep(Duration::from_millis(stuck_for));
            drop(stuck);
            flushed.join().unwrap()
        });
        drop(device);
        // Its end is that of all requests.
        drop(server);
        let mut found = [0; 3];
        disk.read_at(0, &mut found).unwrap();
        assert_eq!(flushed.is_ok(), is_done, "{flushed:?}");
        assert!(!is_done || &found == b"new", "{:?}", String::from_utf8_lossy(&found));
    }
}

#[test]
fn an_export_that_comes_back_as_another_is_an_error_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let start = |size| {
        let export = Export::new("", Arc::new(RamDevice::new(size).unwrap()));
        Ours::start(&folder.path().join("s"), vec![export])
    };
    let server = start(SIZE);
    let device = connect(&server.uri());
    device.write_at(0, b"mine").unwrap();
    drop(server);
    let _server = start(2 * SIZE);
    for _ in 0..3 {
        let error = device.read_at(0, &mut [0; 4]).unwrap_err();
        assert!(error.to_string().contains("another export than before"), "{error}");
    }
    assert!(device.flush().is_err());
}

#[test]
fn a_server_that_is_gone_is_an_error_after_a_bounded_time() {
    let folder = tempfile::tempdir().unwrap();
    let server = Ours::of(&folder, Arc::new(RamDevice::new(SIZE).unwrap()));
    let patient = Connect { reconnect: Duration::from_millis(300), ..Connect::default() };
    let (patient, impatient) = (NbdDevice::open(&server.uri(), &patient).unwrap(), impatient(&server.uri()));
    drop(server);
    let begin = Instant::now();
    assert!(patient.write_at(0, &[1]).unwrap_err().to_string().contains("cannot be reached again"));
    assert!(impatient.read_at(0, &mut [1]).is_err());
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(patient.flush().is_err());
}

#[test]
fn threads_that_work_do_not_notice_that_nbdkit_is_killed_and_started_again() {
    need_tools!("nbdkit");
    let folder = tempfile::tempdir().unwrap();
    let image = file(&folder, "image", SIZE);
    let arguments = ["file", image.to_str().unwrap()];
    let mut server = Theirs::nbdkit(folder.path(), &arguments);
    let device = connect(&server.uri());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4_u64)
            .map(|nr| {
                let device = &device;
                scope.spawn(move || {
                    let begin = Instant::now();
                    let mut round = 0_u64;
                    while begin.elapsed() < Duration::from_millis(1500) || round <= 8 {
                        let at = nr * (SIZE / 4) + round % 32 * 4096;
                        let data = [round as u8; 4096];
                        device.write_at(at, &data).unwrap();
                        if round.is_multiple_of(8) {
                            device.flush().unwrap();
                        }
                        let mut found = [0; 4096];
                        device.read_at(at, &mut found).unwrap();
                        assert!(found == data);
                        round += 1;
                    }
                    round
                })
            })
            .collect();
        for _ in 0..4 {
            thread::sleep(Duration::from_millis(200));
            server.kill();
            server = Theirs::nbdkit(folder.path(), &arguments);
        }
        for worker in workers {
            assert!(worker.join().unwrap() > 8);
        }
    });
}
