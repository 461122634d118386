//! Images behind HTTP, by a server that can also fail, stall and lie.
#![cfg(feature = "object-store")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use blockdev::{BlockDevice as _, conformance};
use e2dax_net::object::{ObjectDevice, ObjectOptions};

/// What the server does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Sound,
    /// Another image under the same name.
    Changed,
    /// The same, without looking at If-Match.
    ChangedAndDeaf,
    /// Every other request fails.
    Fails,
    /// No answer.
    Stalls,
    /// Half of the bytes.
    Short,
    /// The whole object, whatever was asked for.
    Whole,
    /// No ETag, and another time from the second request on.
    Older,
}

struct Server {
    port: u16,
    mood: Arc<Mutex<Mood>>,
    requests: Arc<AtomicU64>,
}

fn image() -> Vec<u8> {
    (0..1_000_003_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn answer(mut stream: TcpStream, mood: &Mutex<Mood>, requests: &AtomicU64) {
    let data = image();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    loop {
        let head: Vec<String> =
            lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let Some(first) = head.first() else { return };
        let nr = requests.fetch_add(1, Ordering::SeqCst);
        let mood = *mood.lock().unwrap();
        let header = |name: &str| {
            head.iter().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let changed = matches!(mood, Mood::Changed | Mood::ChangedAndDeaf);
        let tag = if changed { "\"second\"" } else { "\"first\"" };
        let seconds = if mood == Mood::Older && nr > 0 { 59 } else { 0 };
        let mut about =
            format!("Last-Modified: Sat, 28 Nov 2026 21:00:{seconds:02} GMT\r\nAccept-Ranges: bytes\r\n");
        if mood != Mood::Older {
            about += &format!("ETag: {tag}\r\n");
        }
        if mood == Mood::Stalls {
            std::thread::sleep(Duration::from_secs(3));
            return;
        }
        let mut reply = |status: &str, more: &str, body: &[u8], len: usize| {
            let head = format!("HTTP/1.1 {status}\r\n{about}{more}Content-Length: {len}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(body);
        };
        if !first.contains(" /dir/disk.img ") {
            reply("404 Not Found", "", b"", 0);
        } else if mood == Mood::Fails && nr.is_multiple_of(2) {
            reply("503 Service Unavailable", "", b"", 0);
        } else if first.starts_with("HEAD") {
            reply("200 OK", "", b"", data.len());
        } else if mood == Mood::Changed && header("if-match").is_some_and(|wanted| wanted != tag) {
            reply("412 Precondition Failed", "", b"", 0);
        } else if mood == Mood::Whole {
            reply("200 OK", "", &data, data.len());
        } else {
            let range = header("range").unwrap();
            let (from, to) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
            let body = &data[from..=to];
            let sent = if mood == Mood::Short { &body[..body.len() / 2] } else { body };
            let more = format!("Content-Range: bytes {from}-{to}/{}\r\n", data.len());
            reply("206 Partial Content", &more, sent, body.len());
            if mood == Mood::Short {
                return;
            }
        }
    }
}

impl Server {
    fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mood, requests) = (Arc::new(Mutex::new(mood)), Arc::new(AtomicU64::new(0)));
        let (moods, counts) = (Arc::clone(&mood), Arc::clone(&requests));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (mood, requests) = (Arc::clone(&moods), Arc::clone(&counts));
                std::thread::spawn(move || answer(stream, &mood, &requests));
            }
        });
        Self { port, mood, requests }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/dir/disk.img", self.port)
    }

    fn open(&self) -> ObjectDevice {
        let options = ObjectOptions {
            block: 16 << 10,
            cache: 256 << 10,
            timeout: Duration::from_millis(800),
            retries: 2,
        };
        ObjectDevice::open(&self.url(), &options).unwrap()
    }
}

#[test]
fn an_image_behind_http_is_read_in_blocks_that_are_kept() {
    let server = Server::start(Mood::Sound);
    let device = server.open();
    conformance::check_read_only(&device);
    let data = image();
    assert_eq!(device.size(), data.len() as u64);
    for (offset, len) in [(0, 10), (16_380, 10), (500_000, 200_000), (1_000_000, 3), (999_990, 13)] {
        let mut found = vec![0; len];
        device.read_at(offset, &mut found).unwrap();
        assert!(found == data[offset as usize..offset as usize + len], "{len} at {offset}");
    }
    let before = device.stats();
    assert_eq!(before.requests, server.requests.load(Ordering::SeqCst));
    // What is held is not asked for again, and more than the cache holds is not held.
    device.read_at(999_000, &mut [0; 1000]).unwrap();
    assert_eq!(device.stats(), before);
    let mut found = vec![0; data.len()];
    device.read_at(0, &mut found).unwrap();
    assert!(found == data);
    device.read_at(0, &mut [0; 10]).unwrap();
    let after = device.stats();
    assert!(after.requests - before.requests <= 8, "{after:?}");
}

#[test]
fn an_image_that_changes_is_an_error_and_no_mixture() {
    for mood in [Mood::Changed, Mood::ChangedAndDeaf, Mood::Older] {
        let server = Server::start(if mood == Mood::Older { Mood::Older } else { Mood::Sound });
        let device = server.open();
        if mood != Mood::Older {
            device.read_at(0, &mut [0; 100]).unwrap();
            *server.mood.lock().unwrap() = mood;
        }
        for _ in 0..2 {
            let error = device.read_at(600_000, &mut [0; 100]).unwrap_err();
            assert!(error.to_string().contains("has changed since it was opened"), "{error}");
        }
    }
}

#[test]
fn servers_that_fail_stall_or_lie_are_errors_in_a_bounded_time() {
    let server = Server::start(Mood::Sound);
    let data = image();
    let device = server.open();
    // A failure that passes is not noticed.
    *server.mood.lock().unwrap() = Mood::Fails;
    let mut found = [0; 100];
    device.read_at(0, &mut found).unwrap();
    assert_eq!(found, data[..100]);
    for (nr, mood) in [Mood::Stalls, Mood::Short, Mood::Whole].into_iter().enumerate() {
        *server.mood.lock().unwrap() = mood;
        let begin = Instant::now();
        let place = 300_000 * (nr as u64 + 1);
        assert!(device.read_at(place, &mut [0; 10]).is_err(), "{nr}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    }
    *server.mood.lock().unwrap() = Mood::Sound;
    device.read_at(300_000, &mut found).unwrap();
    assert_eq!(found, data[300_000..300_100]);
    let missing = ObjectDevice::open(&server.url().replace("disk", "other"), &ObjectOptions::default());
    let missing = missing.unwrap_err().to_string();
    assert!(missing.to_lowercase().contains("not found"), "{missing}");
    assert!(
        ObjectDevice::open("http://127.0.0.1:1/x", &ObjectOptions { retries: 0, ..ObjectOptions::default() })
            .is_err()
    );
}
