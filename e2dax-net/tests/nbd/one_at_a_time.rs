//! A server that does one thing at a time: it sends a reply, or takes a request, and waits until it is done with that.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use blockdev::BlockDevice as _;
use e2dax_net::client::{Connect, NbdDevice};
use e2dax_net::uri::NbdUri;

use crate::common::answer;

const SIZE: u64 = 64 << 20;
/// More than a socket holds.
const LARGE: usize = 4 << 20;
const WRITERS: usize = 8;

/// Settles with a client that asks for structured replies, which there are none of, and for the export.
fn settle(stream: &mut UnixStream) {
    let info = [&[0, 0][..], &SIZE.to_be_bytes(), &[0, 1]].concat();
    let hello = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
    stream.write_all(&[hello, answer(8, 0x8000_0001, b"")].concat()).unwrap();
    stream.write_all(&[answer(7, 3, &info), answer(7, 1, b"")].concat()).unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    loop {
        let mut header = [0; 16];
        stream.read_exact(&mut header).unwrap();
        let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        stream.read_exact(&mut vec![0; word(12) as usize]).unwrap();
        if word(8) == 7 {
            return;
        }
    }
}

/// The next request's cookie and length.
fn request(stream: &mut UnixStream) -> ([u8; 8], usize) {
    let mut request = [0; 28];
    stream.read_exact(&mut request).unwrap();
    let len = u32::from_be_bytes(request[24..].try_into().unwrap());
    (request[8..16].try_into().unwrap(), len as usize)
}

fn reply(stream: &mut UnixStream, cookie: [u8; 8], data: &[u8]) -> std::io::Result<()> {
    stream.write_all(&[&0x6744_6698_u32.to_be_bytes()[..], &[0; 4], &cookie, data].concat())
}

/// Reads a little and then much, begins to send much, and gets the two replies only then.
fn serve(listener: &UnixListener, asked: &mpsc::Sender<()>) -> std::io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    settle(&mut stream);
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    let small = request(&mut stream);
    asked.send(()).unwrap();
    let large = request(&mut stream);
    asked.send(()).unwrap();
    // A large write begins to come, and others wait for their turn to be sent.
    let mut next = request(&mut stream);
    thread::sleep(Duration::from_millis(100));
    reply(&mut stream, small.0, &vec![1; small.1])?;
    thread::sleep(Duration::from_millis(100));
    reply(&mut stream, large.0, &vec![2; large.1])?;
    for left in (0..WRITERS).rev() {
        stream.read_exact(&mut vec![0; next.1])?;
        reply(&mut stream, next.0, b"")?;
        if left > 0 {
            next = request(&mut stream);
        }
    }
    Ok(())
}

#[test]
fn a_reply_is_read_while_other_threads_wait_for_the_server_to_take_what_they_send() {
    // Who read next was up to the order of a hash table: once may be luck.
    for _ in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (asked, came) = mpsc::channel();
        let server = thread::spawn(move || serve(&listener, &asked));
        let options =
            Connect { reconnect: Duration::ZERO, timeout: Duration::from_secs(4), ..Connect::default() };
        let device = NbdDevice::open(&NbdUri::unix(&path, ""), &options).unwrap();
        let read = |len: usize| {
            let mut buf = vec![0; len];
            device.read_at(0, &mut buf).map(|()| buf)
        };
        thread::scope(|scope| {
            let small = scope.spawn(|| read(512));
            came.recv().unwrap();
            let large = scope.spawn(|| read(LARGE));
            came.recv().unwrap();
            let writers: Vec<_> =
                (0..WRITERS).map(|_| scope.spawn(|| device.write_at(0, &vec![3; LARGE]))).collect();
            assert_eq!(small.join().unwrap(), Ok(vec![1; 512]));
            assert!(large.join().unwrap().is_ok_and(|found| found == vec![2; LARGE]), "nobody read");
            assert!(writers.into_iter().all(|writer| writer.join().unwrap() == Ok(())));
        });
        server.join().unwrap().unwrap();
    }
}
