//! Whatever a client sends, the server answers or hangs up; whatever a server sends, the client has an answer or an error.
#![no_main]

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use blockdev::{BlockDevice as _, RamDevice};
use e2dax_net::client::{Connect, NbdDevice};
use e2dax_net::server::{Export, Server};
use e2dax_net::stream::Stream;
use e2dax_net::uri::NbdUri;
use libfuzzer_sys::fuzz_target;

/// Bytes of the export.
const SIZE: u64 = 64 << 10;

/// Sends the bytes to a server.
fn to_server(bytes: &[u8]) {
    let device = Arc::new(RamDevice::new(SIZE).expect("memory"));
    let server = Server::new(vec![Export::new("x", device)]);
    let (mine, theirs) = UnixStream::pair().expect("a pair of sockets");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let theirs = Stream::from(theirs);
            let _ = server.serve(&theirs);
            theirs.shut_down();
        });
        scope.spawn(|| {
            let _ = (&mine).write_all(bytes);
            let _ = mine.shutdown(Shutdown::Write);
        });
        let _ = (&mine).read_to_end(&mut Vec::new());
    });
}

/// Answers a client with the bytes.
fn to_client(bytes: &[u8]) {
    let folder = std::env::temp_dir().join(format!("e2dax-fuzz-nbd-{}", std::process::id()));
    let _ = std::fs::remove_file(&folder);
    let listener = UnixListener::bind(&folder).expect("a socket");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let options =
            Connect { reconnect: Duration::ZERO, timeout: Duration::from_secs(1), ..Connect::default() };
        if let Ok(device) = NbdDevice::open(&NbdUri::unix(&folder, "x"), &options) {
            let mut buf = [0; 512];
            let _ = device.read_at(0, &mut buf[..(device.size().min(512)) as usize]);
            let _ = device.extent(0, device.size());
            let _ = device.write_at(0, &buf[..(device.size().min(512)) as usize]);
            let _ = device.flush();
        }
    });
    let _ = std::fs::remove_file(&folder);
}

fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((0..128, rest)) => to_server(rest),
        Some((_, rest)) => to_client(rest),
        None => {}
    }
});
