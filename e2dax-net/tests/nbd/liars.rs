//! Servers that break the protocol in one place each: what the client says of it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use blockdev::{BlockDevice as _, Extent};
use e2dax_net::client::{Connect, NbdDevice};
use e2dax_net::uri::NbdUri;

use crate::common::answer;

/// Bytes of the export.
const SIZE: u64 = 1 << 20;
/// The first cookie that a client uses on a connection.
const FIRST: u64 = 1;

/// What comes up to the choice of an export, in order.
fn settled() -> Vec<u8> {
    let info = [&[0, 0][..], &SIZE.to_be_bytes(), &[0, 0x25]].concat();
    [
        b"NBDMAGICIHAVEOPT\0\x03".to_vec(),
        answer(8, 1, b""),
        answer(10, 4, b"\0\0\0\x01base:allocation"),
        answer(10, 1, b""),
        answer(7, 3, &info),
        answer(7, 1, b""),
    ]
    .concat()
}

fn chunk(done: bool, kind: u16, cookie: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = 0x668e_33ef_u32.to_be_bytes().to_vec();
    bytes.extend(u16::from(done).to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

fn data(done: bool, cookie: u64, at: u64, bytes: &[u8]) -> Vec<u8> {
    chunk(done, 1, cookie, &[&at.to_be_bytes()[..], bytes].concat())
}

/// What `ask` gets from a server that says `bytes`, goes on with `more` when it has said them, and then has no more to say.
fn from_server<T>(
    bytes: &[u8],
    more: impl FnOnce(&mut UnixStream) + Send,
    ask: impl FnOnce(&NbdDevice) -> blockdev::Result<T>,
) -> Result<T, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(bytes);
            more(&mut stream);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let options =
            Connect { reconnect: Duration::ZERO, timeout: Duration::from_millis(700), ..Connect::default() };
        let device =
            NbdDevice::open(&NbdUri::unix(&path, ""), &options).map_err(|error| error.to_string())?;
        ask(&device).map_err(|error| error.to_string())
    })
}

/// Lets a client read 8 bytes at 4096 from a server that says `bytes`, and goes on with `more` when it has said them.
fn read_from(bytes: &[u8], more: impl FnOnce(&mut UnixStream) + Send) -> Result<[u8; 8], String> {
    from_server(bytes, more, |device| {
        let mut found = [0xee; 8];
        device.read_at(4096, &mut found).map(|()| found)
    })
}

#[test]
fn chunks_in_any_order_are_put_where_they_belong() {
    let hole = [&4096_u64.to_be_bytes()[..], &2_u32.to_be_bytes()].concat();
    let parts = [
        data(false, FIRST, 4100, b"EF"),
        chunk(false, 2, FIRST, &hole),
        data(false, FIRST, 4102, b"GH"),
        data(false, FIRST, 4098, b"CD"),
        chunk(true, 0, FIRST, b""),
    ];
    assert_eq!(&read_from(&[settled(), parts.concat()].concat(), |_| ()).unwrap(), b"\0\0CDEFGH");
}

#[test]
fn each_break_of_the_protocol_is_an_error_that_says_what() {
    let whole = data(true, FIRST, 4096, b"ABCDEFGH");
    let long = |len: u32| {
        [&0x668e_33ef_u32.to_be_bytes()[..], &[0, 1, 0x80, 1], &FIRST.to_be_bytes(), &len.to_be_bytes()]
            .concat()
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("not asked", data(true, 77, 4096, b"ABCDEFGH")),
        ("data twice", [data(false, FIRST, 4096, b"ABCD"), data(true, FIRST, 4098, b"ABCD")].concat()),
        ("data twice", [data(false, FIRST, 4096, b"ABCD"), data(true, FIRST, 4096, b"ABCD")].concat()),
        ("leaves bytes out", data(true, FIRST, 4097, b"BCDEFGH")),
        ("leaves bytes out", [data(false, FIRST, 4096, b"AB"), data(true, FIRST, 4099, b"DEFGH")].concat()),
        ("leaves bytes out", chunk(true, 0, FIRST, b"")),
        ("not asked for", data(true, FIRST, 4095, b"ABCDEFGH")),
        ("not asked for", data(true, FIRST, 4096, b"ABCDEFGHI")),
        ("not asked for", data(true, FIRST, u64::MAX, b"ABCDEFGH")),
        ("no data", data(true, FIRST, 4096, b"")),
        ("too short", chunk(true, 1, FIRST, b"short")),
        ("too short", chunk(true, 2, FIRST, b"short")),
        ("too long", long(u32::MAX)),
        ("no kind that is known", chunk(true, 99, FIRST, b"")),
        ("no reply", b"\x25\x60\x95\x13 is a request".to_vec()),
        // An error whose text is longer than the chunk: the number counts.
        ("the server", chunk(true, 0x8001, FIRST, b"\0\0\0\x05\xff\xffx")),
    ];
    for (what, bytes) in cases {
        let error = read_from(&[settled(), bytes].concat(), |_| ()).unwrap_err();
        assert!(error.contains(what), "{what}: {error}");
    }
    // A reply to what was answered already.
    let twice = [settled(), whole.clone(), whole].concat();
    assert_eq!(&read_from(&twice, |_| ()).unwrap(), b"ABCDEFGH");
}

#[test]
fn a_server_without_an_end_is_left_in_a_bounded_time() {
    let begin = Instant::now();
    // Information about the export that never ends.
    let start = settled()[..18].to_vec();
    let error = read_from(&[start.clone(), answer(8, 1, b"")].concat(), |stream| {
        for _ in 0..1000 {
            let _ = stream.write_all(&answer(10, 4, b"\0\0\0\x02another:one"));
        }
    });
    assert!(error.unwrap_err().contains("without end"));
    // An answer that is said to be endless.
    let mut endless = answer(8, 1, b"");
    endless[16..].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(read_from(&[start, endless].concat(), |_| ()).unwrap_err().contains("too long"));
    // A byte now and then, in the negotiation and in the middle of a reply: each in time.
    let drip = |bytes: Vec<u8>| {
        move |stream: &mut UnixStream| {
            for byte in bytes {
                thread::sleep(Duration::from_millis(200));
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
            }
        }
    };
    let error = read_from(&settled()[..30], drip(settled()[30..].to_vec())).unwrap_err();
    assert!(error.contains("does not answer"), "{error}");
    let reply = data(true, FIRST, 4096, b"ABCDEFGH");
    let (head, rest) = reply.split_at(22);
    let error = read_from(&[&settled(), head].concat(), drip(rest.to_vec())).unwrap_err();
    assert!(error.contains("does not answer"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());
}

#[test]
fn a_reply_without_an_end_is_left_in_a_bounded_time() {
    let endless = |part: Vec<u8>| {
        let begin = Instant::now();
        let error = read_from(&settled(), |stream| {
            let parts = part.repeat(100);
            while begin.elapsed() < Duration::from_secs(4) && stream.write_all(&parts).is_ok() {}
        });
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
        error.unwrap_err()
    };
    // That there is no more, and more.
    let error = endless(chunk(false, 0, FIRST, b""));
    assert!(error.contains("without end"), "{error}");
    // One reason after the other.
    let error = endless(chunk(false, 0x8001, FIRST, b"\0\0\0\x05\0\0"));
    assert!(error.contains("without end"), "{error}");
}

/// An answer to the first request, by a server that has settled, to somebody who looks for holes.
fn look_for_holes(export: Vec<Vec<u8>>, bytes: &[u8], at: u64) -> Result<Extent, String> {
    let then = |stream: &mut UnixStream| drop(stream.write_all(bytes));
    from_server(&export.concat(), then, |device| device.extent(at, 8).map(|found| found.0))
}

#[test]
fn extents_are_told_once_and_do_not_fill_memory() {
    let some = [&1_u32.to_be_bytes()[..], &512_u32.to_be_bytes(), &[0, 0, 0, 3]].concat();
    let told = |parts: &[bool]| {
        let parts: Vec<u8> = parts.iter().flat_map(|done| chunk(*done, 5, FIRST, &some)).collect();
        look_for_holes(vec![settled()], &parts, 0)
    };
    assert_eq!(told(&[true]), Ok(Extent::Hole));
    let error = told(&[false, true]).unwrap_err();
    assert!(error.contains("extents twice"), "{error}");
}

#[test]
fn an_export_that_ends_behind_the_last_offset_there_is_is_refused() {
    let export = |size: u64| {
        let size = [&[0, 0][..], &size.to_be_bytes(), &[0, 0x25]].concat();
        let blocks = [&[0, 3][..], &[0, 0, 16, 0], &[0, 0, 16, 0], &[2, 0, 0, 0]].concat();
        let before = settled();
        // Up to what the server says of the export.
        let before = before[..before.len() - answer(7, 3, &size).len() - answer(7, 1, b"").len()].to_vec();
        vec![before, answer(7, 3, &size), answer(7, 3, &blocks), answer(7, 1, b"")]
    };
    let hole = [&1_u32.to_be_bytes()[..], &4096_u32.to_be_bytes(), &[0, 0, 0, 3]].concat();
    let hole = chunk(true, 5, FIRST, &hole);
    let largest = i64::MAX as u64;
    assert_eq!(look_for_holes(export(largest), &hole, largest - 8), Ok(Extent::Hole));
    for size in [u64::MAX, largest + 1] {
        let error = look_for_holes(export(size), &hole, size - 8).unwrap_err();
        assert!(error.contains("larger than"), "{error}");
    }
}

/// The next request that a client sends, behind whatever it says before it: its cookie and offset.
fn request(stream: &mut UnixStream, is_new: bool) -> std::io::Result<(u64, u64)> {
    let mut word = [0; 4];
    if is_new {
        // Its flags.
        stream.read_exact(&mut word)?;
    }
    loop {
        stream.read_exact(&mut word)?;
        if word == 0x2560_9513_u32.to_be_bytes() {
            let mut rest = [0; 24];
            stream.read_exact(&mut rest)?;
            let number = |at: usize| u64::from_be_bytes(*rest[at..].first_chunk().unwrap());
            return Ok((number(4), number(12)));
        }
        assert_eq!(&word, b"IHAV");
        let mut rest = [0; 12];
        stream.read_exact(&mut rest)?;
        let len = u32::from_be_bytes(*rest[8..].first_chunk().unwrap());
        stream.read_exact(&mut vec![0; len as usize])?;
    }
}

/// A server that answers reads of 8 bytes, but hangs up instead where `hangs_up` says so of the number of the connection and the
/// offset. Gives what `work` gives, and how many connections there were.
fn unsteady<T>(
    hangs_up: impl Fn(u32, u64) -> bool + Send,
    reconnect: Duration,
    work: impl FnOnce(&NbdDevice) -> T,
) -> (T, u32) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    thread::scope(|scope| {
        let server = scope.spawn(move || {
            let mut connections = 0;
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                connections += 1;
                let _ = stream.write_all(&settled());
                let mut is_new = true;
                while let Ok((cookie, at)) = request(&mut stream, is_new) {
                    if at == u64::MAX {
                        return connections - 1;
                    }
                    if hangs_up(connections, at) {
                        break;
                    }
                    is_new = false;
                    let _ = stream.write_all(&data(true, cookie, at, b"ABCDEFGH"));
                }
            }
        });
        let options = Connect { reconnect, connections: 1, ..Connect::default() };
        let device = NbdDevice::open(&NbdUri::unix(&path, ""), &options).unwrap();
        let done = work(&device);
        drop(device);
        let mut last = UnixStream::connect(&path).unwrap();
        let end = [&3_u32.to_be_bytes()[..], &0x2560_9513_u32.to_be_bytes(), &[0; 12], &[0xff; 8], &[0; 4]];
        last.write_all(&end.concat()).unwrap();
        (done, server.join().unwrap())
    })
}

#[test]
fn a_request_is_sent_again_as_often_as_connections_are_lost_under_it() {
    let patient = Connect::default().reconnect;
    let (found, connections) = unsteady(
        |connection, _| connection <= 9,
        patient,
        |device| {
            let mut found = [0; 8];
            device.read_at(4096, &mut found).map(|()| found)
        },
    );
    assert_eq!((found.unwrap(), connections), (*b"ABCDEFGH", 10));
}

#[test]
fn a_request_that_ends_every_connection_is_an_error_and_others_are_done() {
    let begin = Instant::now();
    let (done, connections) = unsteady(
        |_, at| at == 4096,
        Duration::from_millis(300),
        |device| {
            let error = device.read_at(4096, &mut [0; 8]).unwrap_err().to_string();
            let mut found = [0; 8];
            (error, device.read_at(8192, &mut found).map(|()| found))
        },
    );
    assert!(done.0.contains("closed the connection"), "{}", done.0);
    assert_eq!(&done.1.unwrap(), b"ABCDEFGH");
    // Not as fast as it goes: with a pause that grows.
    assert!((3..=14).contains(&connections), "{connections}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn a_server_that_comes_back_and_says_nothing_is_given_up_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let begin = Instant::now();
    let error = thread::scope(|scope| {
        scope.spawn(|| {
            let (mut first, _) = listener.accept().unwrap();
            first.write_all(&settled()).unwrap();
            request(&mut first, true).unwrap();
            drop(first);
            let (mut silent, _) = listener.accept().unwrap();
            let _ = silent.read_to_end(&mut Vec::new());
        });
        // A minute for an answer of a server that is known to live.
        let options = Connect { reconnect: Duration::from_millis(300), ..Connect::default() };
        let device = NbdDevice::open(&NbdUri::unix(&path, ""), &options).unwrap();
        device.read_at(4096, &mut [0; 8]).unwrap_err().to_string()
    });
    assert!(error.contains("cannot be reached again"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}
