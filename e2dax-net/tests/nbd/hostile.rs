//! Peers that break the protocol: errors and closed connections, and the others are served on.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use blockdev::{BlockDevice, RamDevice};
use e2dax_net::client::{Connect, NbdDevice};
use e2dax_net::server::{Export, Server};
use e2dax_net::stream::Listener;
use e2dax_net::uri::NbdUri;
use e2dax_tests::Rng;

use crate::common::{Ours, connect};

const SIZE: u64 = 1 << 20;

/// How many conversations are made up: E2DAX_NBD_ROUNDS, or so many.
fn rounds(default: usize) -> usize {
    std::env::var("E2DAX_NBD_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let head = [&b"IHAVEOPT"[..], &number.to_be_bytes(), &(data.len() as u32).to_be_bytes()].concat();
    [head, data.to_vec()].concat()
}

fn request(flags: u16, command: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes
}

/// A connection in which the default export was chosen; replies are simple.
fn chosen(server: &Ours) -> UnixStream {
    let mut stream = UnixStream::connect(&server.socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.read_exact(&mut [0; 18]).unwrap();
    stream.write_all(&3_u32.to_be_bytes()).unwrap();
    stream.write_all(&option(1, b"")).unwrap();
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..8], SIZE.to_be_bytes());
    stream
}

fn simple(stream: &mut UnixStream) -> (u32, u64) {
    let mut reply = [0; 16];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..4], 0x6744_6698_u32.to_be_bytes());
    let error = u32::from_be_bytes(*reply[4..].first_chunk().unwrap());
    (error, u64::from_be_bytes(*reply[8..].first_chunk().unwrap()))
}

#[test]
fn requests_that_make_no_sense_are_refused_and_the_connection_lives_on() {
    let folder = tempfile::tempdir().unwrap();
    let device = Arc::new(RamDevice::new(SIZE).unwrap());
    let server = Ours::of(&folder, device.clone());
    let mut stream = chosen(&server);
    let mut refused = |request: Vec<u8>, data: &[u8], code: u32| {
        let cookie = u64::from_be_bytes(*request[8..].first_chunk().unwrap());
        stream.write_all(&request).unwrap();
        stream.write_all(data).unwrap();
        assert_eq!(simple(&mut stream), (code, cookie));
    };
    let (inval, nospc) = (22, 28);
    refused(request(0, 0, 1, SIZE, 1), b"", inval);
    refused(request(0, 0, 2, u64::MAX, u32::MAX), b"", inval);
    refused(request(0, 0, 3, 0, u32::MAX), b"", inval);
    refused(request(0, 1, 4, SIZE - 1, 2), b"ab", nospc);
    refused(request(0, 1, 5, u64::MAX - 1, 100_000), &[7; 100_000], nospc);
    refused(request(0x4000, 1, 6, 0, 3), b"abc", inval);
    refused(request(0, 77, 7, 0, 0), b"", inval);
    refused(request(0, 7, 8, 0, 512), b"", inval);
    refused(request(0, 6, 9, 1, u32::MAX), b"", nospc);
    // What needs no room is never short of it.
    refused(request(0, 4, 10, SIZE, 1), b"", inval);
    refused(request(0, 4, 10, SIZE - 1, 2), b"", inval);
    refused(request(0, 5, 10, SIZE - 1, 2), b"", inval);
    // In one piece: nothing else is known without structured replies.
    refused(request(4, 0, 10, 0, 8), b"", inval);
    // More than one request may have, all of which comes.
    refused(request(0, 1, 11, 0, (32 << 20) + 1), &vec![1; (32 << 20) + 1], nospc);
    let mut first = [1; 4];
    device.read_at(0, &mut first).unwrap();
    assert_eq!(first, [0; 4], "something of a refused request was written");
    refused(request(0, 3, 12, 0, 0), b"", 0);
}

#[test]
fn requests_of_nothing_are_done_and_what_follows_a_goodbye_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let device = Arc::new(RamDevice::new(SIZE).unwrap());
    let server = Ours::of(&folder, device.clone());
    let mut stream = chosen(&server);
    for command in [0, 1, 4, 5, 6] {
        for at in [0, 1, SIZE - 1, SIZE] {
            stream.write_all(&request(0, command, at, at, 0)).unwrap();
            assert_eq!(simple(&mut stream), (0, at), "{command} at {at}");
        }
        stream.write_all(&request(0, command, 7, SIZE + 1, 0)).unwrap();
        assert!(matches!(simple(&mut stream), (22 | 28, 7)), "{command}");
    }
    // Two stores of the same bytes, neither of which waits for the other: one of them is there, and whole.
    let mut both = Vec::new();
    for nr in [1, 2] {
        both.extend(request(0, 1, nr, 100, 3000));
        both.extend([nr as u8; 3000]);
    }
    stream.write_all(&both).unwrap();
    let mut answered = [simple(&mut stream), simple(&mut stream)];
    answered.sort_unstable();
    assert_eq!(answered, [(0, 1), (0, 2)]);
    let mut found = [0; 3000];
    device.read_at(100, &mut found).unwrap();
    assert!(found == [1; 3000] || found == [2; 3000]);
    let mut last = request(0, 1, 8, 0, 4);
    last.extend(b"kept");
    last.extend(request(0, 2, 9, 0, 0));
    last.extend(request(0, 1, 10, 0, 4));
    last.extend(b"lost");
    stream.write_all(&last).unwrap();
    assert_eq!(simple(&mut stream), (0, 8));
    // It may be reset: there is what nobody has read.
    assert!(!stream.read(&mut [0; 16]).is_ok_and(|read| read > 0), "it goes on after the goodbye");
    drop(server);
    let mut found = [0; 4];
    device.read_at(0, &mut found).unwrap();
    assert_eq!(&found, b"kept");
}

#[test]
fn a_choice_of_contexts_that_fails_leaves_none_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let server = Ours::of(&folder, Arc::new(RamDevice::new(SIZE).unwrap()));
    let chosen = b"\0\0\0\0\0\0\0\x01\0\0\0\x0fbase:allocation";
    let unknown = b"\0\0\0\x04gone\0\0\0\x01\0\0\0\x0fbase:allocation";
    for (again, has_status) in
        [(&chosen[..], true), (&chosen[..10], false), (&unknown[..], false), (&[0; 8], false)]
    {
        let mut stream = UnixStream::connect(&server.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let all = [
            3_u32.to_be_bytes().to_vec(),
            option(8, b""),
            option(10, chosen),
            option(10, again),
            option(7, &[0; 6]),
            request(0, 7, 1, 0, 4096),
        ];
        stream.write_all(&all.concat()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).unwrap();
        let at = answers.windows(4).position(|four| four == 0x668e_33ef_u32.to_be_bytes()).unwrap();
        let kind = u16::from_be_bytes(*answers[at + 6..].first_chunk().unwrap());
        assert_eq!(kind == 5, has_status, "{again:?}: {kind:#x}");
    }
}

#[test]
fn what_is_no_protocol_ends_the_connection_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let server = Ours::of(&folder, Arc::new(RamDevice::new(SIZE).unwrap()));
    let mut rng = Rng::named(20, "hostile");
    let sound = [
        option(8, b""),
        option(3, b""),
        option(10, b"\0\0\0\0\0\0\0\x01\0\0\0\x0fbase:allocation"),
        option(7, b"\0\0\0\0\0\0"),
    ];
    for round in 0..rounds(400) {
        let mut bytes = 3_u32.to_be_bytes().to_vec();
        bytes.extend(sound.iter().take(1 + round % 4).flatten());
        for command in 0..8 {
            bytes.extend(request(0, command, command.into(), rng.below(SIZE), rng.below(5000) as u32));
            if command == 1 {
                bytes.extend([9; 64]);
            }
        }
        for _ in 0..rng.below(6) {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] = rng.below(256) as u8;
        }
        bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
        let mut stream = UnixStream::connect(&server.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // The server may have closed it before all is sent.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answers = Vec::new();
        let end = stream.read_to_end(&mut answers);
        let hung = end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!hung, "round {round}: the server waits for more of what is no more");
    }
    let device = connect(&server.uri());
    device.write_at(0, b"still there").unwrap();
}

/// All that a client says from its greeting to its end, every kind of request among it.
fn conversation() -> Vec<u8> {
    let mut bytes = 3_u32.to_be_bytes().to_vec();
    let named = b"\0\0\0\x04disk\0\x01\0\x03";
    for (number, data) in [
        (3, &b""[..]),
        (8, b""),
        (10, b"\0\0\0\x04disk\0\0\0\x01\0\0\0\x0fbase:allocation"),
        (6, named),
        (7, named),
    ] {
        bytes.extend(option(number, data));
    }
    for command in [1, 0, 3, 4, 5, 6, 7, 2] {
        bytes.extend(request(0, command, command.into(), 0, if command == 3 { 0 } else { 8 }));
        if command == 1 {
            bytes.extend(b"contents");
        }
    }
    bytes
}

#[test]
fn a_client_that_goes_at_any_byte_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let export = Export::new("disk", Arc::new(RamDevice::new(SIZE).unwrap()));
    let server = Ours::start(&folder.path().join("s"), vec![export]);
    let all = conversation();
    let mut longest = 0;
    for len in 0..=all.len() {
        let mut stream = UnixStream::connect(&server.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(&all[..len]).unwrap();
        // Half of them wait for the end, the others are gone with answers under way.
        if len % 2 == 0 {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answers = Vec::new();
            stream.read_to_end(&mut answers).unwrap();
            assert!(answers.len() >= longest, "{len} bytes are answered by {}", answers.len());
            longest = answers.len();
        }
    }
    assert!(longest > 400, "{longest}");
    // There were more of them than the server takes at a time.
    assert!(all.len() > 300);
    connect(&server.uri()).read_at(0, &mut [0; 4]).unwrap();
}

#[test]
fn a_client_that_says_a_byte_now_and_then_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let device = Arc::new(RamDevice::new(SIZE).unwrap());
    let patience = (Duration::from_millis(400), Duration::from_millis(1000));
    let server = Server::new(vec![Export::new("disk", device)]).patience(patience.0, patience.1);
    let server = Ours::listen(Listener::unix(&folder.path().join("s")).unwrap(), server);
    let begin = Instant::now();
    let mut stream = UnixStream::connect(&server.socket).unwrap();
    // Each in time, and all of them not.
    let ended = conversation().iter().position(|byte| {
        std::thread::sleep(Duration::from_millis(20));
        stream.write_all(&[*byte]).is_err()
    });
    assert!(ended.is_some() && begin.elapsed() < Duration::from_secs(7), "{ended:?} {:?}", begin.elapsed());
    // And one that says nothing at all.
    let mut stream = UnixStream::connect(&server.socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 18);
    // Once an export is chosen a client may be silent for as long as it likes.
    let client = connect(&server.uri());
    std::thread::sleep(Duration::from_millis(1100));
    client.read_at(0, &mut [0; 4]).unwrap();
}

#[test]
fn a_hundred_clients_at_once_are_all_served() {
    let folder = tempfile::tempdir().unwrap();
    let server = Ours::of(&folder, Arc::new(RamDevice::new(100 * 8192).unwrap()));
    let together = std::sync::Barrier::new(100);
    std::thread::scope(|scope| {
        for client in 0..100_u64 {
            let (server, together) = (&server, &together);
            scope.spawn(move || {
                let device = connect(&server.uri());
                together.wait();
                let wanted = vec![client as u8; 8192];
                for _ in 0..10 {
                    device.write_at(client * 8192, &wanted).unwrap();
                    device.flush().unwrap();
                    let mut found = vec![0; 8192];
                    device.read_at(client * 8192, &mut found).unwrap();
                    assert!(found == wanted);
                }
            });
        }
    });
}

#[test]
fn a_server_that_lies_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("liar.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut rng = Rng::named(21, "liar");
    let info = |size: u64| {
        let mut data = vec![0, 0];
        data.extend(size.to_be_bytes());
        data.extend([0, 0x25]);
        data
    };
    let answer = |option: u32, kind: u32, data: &[u8]| {
        let mut bytes = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
        bytes.extend(option.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        bytes
    };
    for round in 0..rounds(300) {
        let mut bytes = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
        bytes.extend(answer(8, 1, b""));
        bytes.extend(answer(10, 4, b"\0\0\0\x01base:allocation"));
        bytes.extend(answer(10, 1, b""));
        bytes.extend(answer(7, 3, &info(SIZE)));
        bytes.extend(answer(7, 1, b""));
        let settled = bytes.len();
        for _ in 0..4 {
            bytes.extend(0x668e_33ef_u32.to_be_bytes());
            bytes.extend(((rng.below(2)) as u16).to_be_bytes());
            let kinds = [0_u16, 1, 2, 5, 0x8001, 0x8002, 77];
            bytes.extend(kinds[rng.below(7) as usize].to_be_bytes());
            bytes.extend((1 + rng.below(2)).to_be_bytes());
            let len = rng.below(40) as u32;
            bytes.extend(len.to_be_bytes());
            bytes.extend((0..len).map(|_| rng.below(3) as u8));
        }
        if round % 3 == 0 {
            let at = rng.below(settled as u64) as usize;
            bytes[at] ^= 1 << rng.below(8);
        }
        let uri = NbdUri::unix(&path, "");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.write_all(&bytes);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
            });
            let options =
                Connect { reconnect: Duration::ZERO, timeout: Duration::from_secs(2), ..Connect::default() };
            if let Ok(device) = NbdDevice::open(&uri, &options) {
                let _ = device.read_at(0, &mut [0; 8]);
                let _ = device.extent(0, SIZE.min(device.size()));
                let _ = device.write_at(0, &[0; 8]);
            }
        });
    }
}
