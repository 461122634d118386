//! The device, over HTTP.

use std::time::{Duration, Instant};

use blockdev::{BlockDevice as _, conformance};
use e2dax_net::object::{ObjectDevice, ObjectUri};

use crate::http::{How, Http};

const SIZE: usize = 300_000;

fn bytes(seed: u32) -> Vec<u8> {
    (0..SIZE as u32).map(|at| (at.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn open(url: &str) -> Result<ObjectDevice, String> {
    ObjectDevice::open(&ObjectUri::parse(url).unwrap()).map_err(|error| error.to_string())
}

fn read(device: &ObjectDevice, at: u64, len: usize) -> Result<Vec<u8>, String> {
    let mut buf = vec![0xee; len];
    device.read_at(at, &mut buf).map(|()| buf).map_err(|error| error.to_string())
}

#[test]
fn blocks_are_fetched_once_and_neighbours_together() {
    let http = Http::start(bytes(0));
    let device = open(&http.url("a%20b/disk.img?sign=x#block=4K")).unwrap();
    assert_eq!(device.size(), SIZE as u64);
    assert_eq!(http.asked(), ["HEAD /a%20b/disk.img?sign=x"]);
    assert_eq!(read(&device, 5000, 10_000).unwrap(), bytes(0)[5000..15_000]);
    assert_eq!(http.asked(), ["GET /a%20b/disk.img?sign=x 4096-16383"]);
    assert_eq!(read(&device, 0, 20_000).unwrap(), bytes(0)[..20_000]);
    assert_eq!(http.asked(), ["GET /a%20b/disk.img?sign=x 0-4095", "GET /a%20b/disk.img?sign=x 16384-20479"]);
    assert_eq!(read(&device, SIZE as u64 - 5, 5).unwrap(), bytes(0)[SIZE - 5..]);
    assert_eq!(http.asked(), ["GET /a%20b/disk.img?sign=x 299008-299999"]);
    let cost = device.cost();
    assert_eq!((cost.requests, cost.bytes), (5, 20_480 + 992));
    conformance::check_read_only(&device);
    assert!(read(&device, SIZE as u64, 1).is_err() && read(&device, u64::MAX, 1).is_err());
}

#[test]
fn what_is_kept_is_bounded_in_memory_and_outlives_the_process_in_a_folder() {
    let http = Http::start(bytes(0));
    let device = open(&http.url("disk#block=4K&cache-size=16K")).unwrap();
    for at in (0..SIZE as u64 - 4096).step_by(4096) {
        read(&device, at, 4096).unwrap();
    }
    http.asked();
    read(&device, 0, 4096).unwrap();
    assert_eq!(http.asked().len(), 1, "more was kept than was to be");
    let folder = tempfile::tempdir().unwrap();
    let url = http.url(&format!("disk#block=64K&cache={}", folder.path().display()));
    read(&open(&url).unwrap(), 0, SIZE).unwrap();
    http.asked();
    assert_eq!(read(&open(&url).unwrap(), 0, SIZE).unwrap(), bytes(0));
    assert_eq!(http.asked(), ["HEAD /disk"]);
    // Another object of the same name is not mixed up with it.
    http.set(|state| (state.bytes, state.etag) = (bytes(1), Some("\"two\"".into())));
    assert_eq!(read(&open(&url).unwrap(), 0, SIZE).unwrap(), bytes(1));
}

#[test]
fn threads_that_want_the_same_blocks_fetch_them_once() {
    let http = Http::start(bytes(0));
    let device = open(&http.url("disk#block=16K")).unwrap();
    http.asked();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(read(&device, 0, SIZE).unwrap() == bytes(0)));
        }
    });
    let mut ranges = http.asked();
    ranges.sort();
    ranges.dedup();
    let cost = device.cost();
    assert_eq!((cost.bytes, cost.requests), (SIZE as u64, ranges.len() as u64 + 1));
}

#[test]
fn an_object_that_changes_is_an_error_and_no_mixture() {
    type Change = fn(&Http);
    let changes: [(&str, Change); 4] = [
        ("ETag", |http| http.set(|state| state.etag = Some("\"two\"".into()))),
        // Servers that do not look at If-Match.
        ("ETag", |http| http.set(|state| (state.etag, state.matches) = (Some("\"two\"".into()), false))),
        ("ETag", |http| http.set(|state| (state.etag, state.matches) = (None, false))),
        ("bytes", |http| http.set(|state| state.bytes.push(0))),
    ];
    for (what, change) in changes {
        let http = Http::start(bytes(0));
        let device = open(&http.url("disk#block=4K")).unwrap();
        read(&device, 0, 4096).unwrap();
        change(&http);
        let error = read(&device, 8192, 1).unwrap_err();
        assert!(error.contains("has changed") && error.contains(what), "{error}");
        // From then on nothing is given, not even what is there.
        assert!(read(&device, 0, 1).unwrap_err().contains("has changed"));
        http.asked();
        read(&device, 100_000, 1).unwrap_err();
        assert!(http.asked().is_empty());
    }
    // Without an ETag by the time; a weak one is compared here, since no server may match it.
    let http = Http::start(bytes(0));
    http.set(|state| state.etag = None);
    let device = open(&http.url("disk#block=4K")).unwrap();
    read(&device, 0, 4096).unwrap();
    http.set(|state| state.modified = "Sun, 02 Nov 2025 00:00:00 GMT");
    assert!(read(&device, 8192, 1).unwrap_err().contains("has changed"));
    http.set(|state| state.etag = Some("W/\"one\"".into()));
    let device = open(&http.url("disk#block=4K")).unwrap();
    assert_eq!(read(&device, 0, 4096).unwrap(), bytes(0)[..4096]);
    http.set(|state| state.etag = Some("W/\"two\"".into()));
    assert!(read(&device, 8192, 1).unwrap_err().contains("has changed"));
}

#[test]
fn a_server_that_fails_for_a_moment_is_asked_again() {
    let http = Http::start(bytes(0));
    let device = open(&http.url("disk#block=64K")).unwrap();
    for how in [How::Busy(2), How::Cut(1000, 2), How::Cut(0, 1)] {
        http.set(|state| state.how = how);
        let at = if how == How::Busy(2) { 0 } else { 70_000 };
        assert_eq!(read(&device, at, 9).unwrap(), bytes(0)[at as usize..][..9], "{how:?}");
    }
    http.set(|state| state.how = How::Cut(5, 1));
    assert_eq!(read(&device, 200_000, 9).unwrap(), bytes(0)[200_000..200_009]);
}

#[test]
fn a_server_that_lies_or_stalls_is_an_error_in_a_bounded_time() {
    let http = Http::start(bytes(0));
    for (how, words) in [
        (How::Silent, &["does not answer", "timed out"][..]),
        (How::Drips, &["does not answer", "timed out"]),
        (How::Busy(1000), &["does not answer", "503"]),
        (How::Whole, &["non-partial", "Range request not supported", "Range"]),
        (How::Beside, &["Requested", "another range"]),
        (How::Short, &["fewer bytes"]),
        (How::Endless, &["more bytes", "Content-Length Header missing"]),
    ] {
        http.set(|state| state.how = How::Right);
        let device = open(&http.url("disk#block=4K&patience=1")).unwrap();
        http.set(|state| state.how = how);
        let begin = Instant::now();
        let error = read(&device, 8192, 9).unwrap_err();
        assert!(words.iter().any(|word| error.contains(word)), "{how:?}: {error}");
        assert!(begin.elapsed() < Duration::from_secs(4), "{how:?}: {:?}", begin.elapsed());
        // It may get better.
        http.set(|state| state.how = How::Right);
        assert_eq!(read(&device, 8192, 9).unwrap(), bytes(0)[8192..8201], "{how:?}");
    }
    http.set(|state| state.how = How::NoSize);
    open(&http.url("disk#patience=1")).unwrap_err();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    open(&format!("http://{closed}/disk#patience=1")).unwrap_err();
}

#[test]
fn objects_that_differ_in_their_query_alone_share_no_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let http = Http::start(bytes(0));
    http.set(|state| state.etag = None);
    let open = |query: &str| {
        open(&http.url(&format!("download?{query}#block=64K&cache={}", folder.path().display()))).unwrap()
    };
    assert_eq!(read(&open("file=a.img&X-Amz-Signature=1"), 0, SIZE).unwrap(), bytes(0));
    // From the same server another file of the same size and time.
    http.set(|state| state.bytes = bytes(1));
    assert!(read(&open("file=b.img"), 0, SIZE).unwrap() == bytes(1), "bytes of another object");
    // Signed anew it is the one of before, which is in the folder.
    assert!(read(&open("file=a.img&X-Amz-Signature=2"), 0, SIZE).unwrap() == bytes(0));
}
