//! A server of HTTP that serves one object, as well as a test wants.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How answers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Right,
    /// So many times `503`, then right.
    Busy(u32),
    /// The connection is closed after so many bytes of the body, so many times.
    Cut(usize, u32),
    /// Nothing comes.
    Silent,
    /// A byte now and then.
    Drips,
    /// The whole object, whatever is asked for.
    Whole,
    /// The range behind the one that was asked for.
    Beside,
    /// The right range by its header, and fewer bytes.
    Short,
    /// The right range by its header, and bytes without end.
    Endless,
    /// No length of the object.
    NoSize,
}

/// What is served.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) bytes: Vec<u8>,
    pub(crate) etag: Option<String>,
    pub(crate) modified: &'static str,
    pub(crate) how: How,
    /// Whether `If-Match` is looked at.
    pub(crate) matches: bool,
    /// Methods, paths and ranges of the requests.
    pub(crate) asked: Vec<String>,
    /// How the header begins by which a request has to say who asks.
    pub(crate) authorization: Option<&'static str>,
}

/// The server, which ends with the process.
#[derive(Clone)]
pub(crate) struct Http {
    pub(crate) port: u16,
    pub(crate) state: Arc<Mutex<State>>,
}

impl Http {
    pub(crate) fn start(bytes: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State {
            bytes,
            etag: Some("\"one\"".into()),
            modified: "Sat, 01 Nov 2025 00:00:00 GMT",
            how: How::Right,
            matches: true,
            asked: Vec::new(),
            authorization: None,
        }));
        let served = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&served);
                thread::spawn(move || {
                    let _ = serve(&stream, &state);
                });
            }
        });
        Self { port, state }
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    /// The requests since this was asked.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }

    pub(crate) fn url(&self, rest: &str) -> String {
        format!("http://127.0.0.1:{}/{rest}", self.port)
    }
}

struct Request {
    method: String,
    path: String,
    range: Option<(usize, usize)>,
    if_match: Option<String>,
    authorization: String,
}

fn read(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut request = Request { method, path, range: None, if_match: None, authorization: String::new() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((key, value)) = line.trim().split_once(':') else { return Ok(Some(request)) };
        match (key.to_ascii_lowercase().as_str(), value.trim()) {
            ("range", value) => {
                let (from, to) = value.trim_start_matches("bytes=").split_once('-').unwrap();
                request.range = Some((from.parse().unwrap(), to.parse().unwrap()));
            }
            ("if-match", value) => request.if_match = Some(value.to_owned()),
            ("authorization", value) => request.authorization = value.to_owned(),
            _ => {}
        }
    }
}

/// What goes out: status and headers, body, and what is wrong with it.
fn answer(state: &mut State, request: &Request) -> (String, Vec<u8>, How) {
    let range = request.range;
    state.asked.push(match range {
        Some((from, to)) => format!("{} {} {from}-{to}", request.method, request.path),
        None => format!("{} {}", request.method, request.path),
    });
    let error =
        |status: &str| (format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"), Vec::new(), How::Right);
    if state.authorization.is_some_and(|start| !request.authorization.starts_with(start)) {
        return error("403 Forbidden");
    }
    if let How::Busy(left) = state.how {
        state.how = if left > 1 { How::Busy(left - 1) } else { How::Right };
        return error("503 Service Unavailable");
    }
    if state.matches && request.if_match.is_some() && request.if_match != state.etag {
        return error("412 Precondition Failed");
    }
    let etag = state.etag.as_ref().map(|etag| format!("ETag: {etag}\r\n")).unwrap_or_default();
    let headers = format!("Last-Modified: {}\r\n{etag}Accept-Ranges: bytes\r\n", state.modified);
    let size = state.bytes.len();
    if request.method == "HEAD" && state.how == How::NoSize {
        return (
            format!("HTTP/1.1 200 OK\r\n{headers}Connection: close\r\n\r\n"),
            Vec::new(),
            How::Cut(0, 0),
        );
    }
    let Some((from, to)) = range.filter(|_| state.how != How::Whole) else {
        let body = if request.method == "HEAD" { Vec::new() } else { state.bytes.clone() };
        return (format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {size}\r\n\r\n"), body, state.how);
    };
    if from >= size {
        return error("416 Range Not Satisfiable");
    }
    let to = to.min(size - 1);
    let (from, to) = if state.how == How::Beside { (from + 1, (to + 1).min(size - 1)) } else { (from, to) };
    let mut body = state.bytes[from..=to].to_vec();
    let mut len = format!("Content-Length: {}\r\n", body.len());
    match state.how {
        How::Short => {
            body.pop();
            len = format!("Content-Length: {}\r\n", body.len());
        }
        // As long as the connection lives.
        How::Endless => len = "Connection: close\r\n".into(),
        _ => {}
    }
    let how = state.how;
    if let How::Cut(at, left) = how {
        state.how = if left > 1 { How::Cut(at, left - 1) } else { How::Right };
    }
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\n{headers}Content-Range: bytes {from}-{to}/{size}\r\n{len}\r\n"
    );
    (head, body, how)
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut out = stream;
    while let Some(request) = read(&mut reader)? {
        let (head, body, how) = answer(&mut state.lock().unwrap(), &request);
        match how {
            How::Silent => {
                thread::sleep(Duration::from_secs(20));
                return Ok(());
            }
            How::Drips => {
                for byte in head.bytes().chain(body) {
                    out.write_all(&[byte])?;
                    thread::sleep(Duration::from_millis(100));
                }
            }
            How::Cut(at, _) => {
                out.write_all(head.as_bytes())?;
                out.write_all(&body[..at.min(body.len())])?;
                return Ok(());
            }
            How::Endless => {
                out.write_all(head.as_bytes())?;
                loop {
                    out.write_all(&body)?;
                }
            }
            _ => {
                out.write_all(head.as_bytes())?;
                out.write_all(&body)?;
            }
        }
    }
    Ok(())
}
