//! Peers that break the protocol: errors and closed connections, and the others are served on.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use blockdev::{BlockDevice, RamDevice};
use e2dax_net::client::{Connect, NbdDevice};
use e2dax_net::uri::NbdUri;
use e2dax_tests::Rng;

use crate::common::{Ours, connect};

const SIZE: u64 = 1 << 20;

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
    refused(request(0, 4, 10, SIZE, 1), b"", nospc);
    // More than one request may have, all of which comes.
    refused(request(0, 1, 11, 0, (32 << 20) + 1), &vec![1; (32 << 20) + 1], nospc);
    let mut first = [1; 4];
    device.read_at(0, &mut first).unwrap();
    assert_eq!(first, [0; 4], "something of a refused request was written");
    refused(request(0, 3, 12, 0, 0), b"", 0);
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
    for round in 0..400 {
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
    for round in 0..300 {
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
