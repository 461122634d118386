//! Connections to a server that is another than the one before, or thinks that its client is.

use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use blockdev::{BlockDevice, RamDevice, Result};
use e2dax_net::client::{Connect, NbdDevice};
use e2dax_net::server::{Export, Server};
use e2dax_net::stream::{Listener, Stream};
use e2dax_net::uri::NbdUri;

use crate::common::Ours;
use crate::reconnect::{Forgetful, Stuck};

/// Sockets hold less than what is written: the end of a connection that is given up lies behind bytes that the server has not taken.
#[test]
fn what_a_connection_over_tcp_still_had_to_send_when_it_was_given_up_is_written_no_more() {
    const LARGE: usize = 32 << 20;
    let disk = Stuck::new(64 << 20);
    let listener = Listener::tcp("127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
    let uri = NbdUri::parse(&format!("nbd://{}/", listener.address().unwrap())).unwrap();
    let export = Export::new("", Arc::clone(&disk) as Arc<dyn BlockDevice>);
    let server = Ours::listen(listener, Server::new(vec![export]));
    let (timeout, reconnect) = (Duration::from_millis(500), Duration::from_secs(10));
    let device = NbdDevice::open(&uri, &Connect { timeout, reconnect, ..Connect::default() }).unwrap();
    let stuck = disk.gate.lock().unwrap();
    thread::scope(|scope| {
        let written = scope.spawn(|| {
            device.write_at(0, &vec![b'o'; LARGE]).unwrap();
            device.write_at(0, &vec![b'n'; LARGE]).unwrap();
            device.flush().unwrap();
        });
        // Several tries.
        thread::sleep(Duration::from_secs(3));
        drop(stuck);
        written.join().unwrap();
    });
    // Its end is that of all requests.
    drop(device);
    drop(server);
    let mut found = vec![0; LARGE];
    disk.read_at(0, &mut found).unwrap();
    let old = found.iter().filter(|byte| **byte == b'o').count();
    assert_eq!(old, 0, "bytes of before came back after a flush");
}

/// A machine: what is in the cache of its disk goes with its power, and then it answers nothing, and says nothing of its end.
#[derive(Debug)]
struct Machine {
    disk: Forgetful,
    answers: Mutex<bool>,
    /// The network has noticed.
    is_over: AtomicBool,
}

impl Machine {
    fn new(media: &Arc<RamDevice>) -> Arc<Self> {
        let (disk, answers) = (Forgetful::over(media), Mutex::new(true));
        Arc::new(Self { disk, answers, is_over: AtomicBool::new(false) })
    }

    fn set_answers(&self, answers: bool) {
        *self.answers.lock().unwrap() = answers;
    }

    /// The disk, where anything is answered.
    fn disk(&self) -> &Forgetful {
        while !*self.answers.lock().unwrap() && !self.is_over.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        &self.disk
    }
}

impl BlockDevice for Machine {
    e2dax_tests::forward!(disk: size);

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.disk().read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.disk().write_at(offset, buf)
    }
    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.disk().zero(offset, len)
    }
    fn fence(&self) -> Result<()> {
        self.disk().fence()
    }
    fn flush(&self) -> Result<()> {
        self.disk().flush()
    }
}

#[test]
fn a_further_connection_to_a_machine_that_came_back_meanwhile_is_not_used_beside_those_of_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let media = Arc::new(RamDevice::new(1 << 20).unwrap());
    let machines = [Machine::new(&media), Machine::new(&media)];
    let (now, door) = (Arc::new(Mutex::new(0_usize)), Arc::new(Mutex::new(())));
    let listener = UnixListener::bind(&path).unwrap();
    {
        let (machines, now, door) = (machines.clone(), Arc::clone(&now), Arc::clone(&door));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                drop(door.lock().unwrap());
                let machine = Arc::clone(&machines[*now.lock().unwrap()]);
                let server = Server::new(vec![Export::new("", machine as Arc<dyn BlockDevice>)]);
                thread::spawn(move || server.serve(&Stream::from(stream)));
            }
        });
    }
    let options = Connect { timeout: Duration::from_secs(2), ..Connect::default() };
    let device = NbdDevice::open(&NbdUri::unix(&path, ""), &options).unwrap();
    device.write_at(0, b"mine").unwrap();
    thread::scope(|scope| {
        let read = || scope.spawn(|| device.read_at(8192, &mut [0; 512]));
        // It is slow for a moment, so that the fifth who reads makes a further connection, which takes a moment, too.
        let closed = door.lock().unwrap();
        machines[0].set_answers(false);
        let mut readers: Vec<_> = (0..4).map(|_| read()).collect();
        thread::sleep(Duration::from_millis(200));
        let fifth = read();
        thread::sleep(Duration::from_millis(200));
        machines[0].set_answers(true);
        readers.drain(..).for_each(|reader| reader.join().unwrap().unwrap());
        // Power goes, comes back, and the connection is made.
        machines[0].set_answers(false);
        machines[0].disk.lose();
        *now.lock().unwrap() = 1;
        drop(closed);
        thread::sleep(Duration::from_millis(300));
        device.flush().unwrap();
        let mut found = [0; 4];
        media.read_at(0, &mut found).unwrap();
        machines[0].is_over.store(true, Ordering::SeqCst);
        fifth.join().unwrap().unwrap();
        assert_eq!(&found, b"mine", "a flush returned, and what was written before it is lost");
    });
}
