//! Object stores: one that speaks as S3 does, of our own, and moto's, which checks more.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use blockdev::BlockDevice as _;
use e2dax_net::object::{ObjectDevice, ObjectUri};
use e2dax_tests::need_tools;

use crate::http::Http;

/// An object of an S3 on this machine.
fn object(port: u16, rest: &str) -> ObjectUri {
    let mut uri = ObjectUri::parse(&format!("s3://golden/{rest}")).unwrap();
    uri.options = [
        ("aws_endpoint", format!("http://127.0.0.1:{port}")),
        ("aws_access_key_id", "key".into()),
        ("aws_secret_access_key", "secret".into()),
        ("aws_region", "us-east-1".into()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    uri
}

struct Moto(Child);

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Puts an object; moto looks at who asks, and not at the signature.
const PUT: &str = "PUT /golden/disk.img HTTP/1.1\r\nAuthorization: AWS4-HMAC-SHA256 \
    Credential=AKIAIOSFODNN7EXAMPLE/20261129/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00\r\n";

/// A request of HTTP, and the answer.
fn request(port: u16, head: &str, body: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "{head}Host: 127.0.0.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(body)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn objects_of_s3_are_devices() {
    let bytes: Vec<u8> = (0..200_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let http = Http::start(bytes.clone());
    http.set(|state| state.signed = true);
    let device = ObjectDevice::open(&object(http.port, "images/a%20b.img#block=16K")).unwrap();
    let mut found = vec![0; 50_000];
    device.read_at(100_000, &mut found).unwrap();
    assert!(found == bytes[100_000..150_000]);
    let asked = http.asked();
    assert!(asked[0].starts_with("HEAD /golden/images/a%20b.img"), "{asked:?}");
    assert_eq!(asked.len(), 2);
    need_tools!("moto_server");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new("moto_server");
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let _moto = Moto(command.spawn().unwrap());
    let begin = Instant::now();
    while !request(port, "PUT /golden HTTP/1.1\r\n", b"").is_ok_and(|answer| answer.contains("200 OK")) {
        assert!(begin.elapsed() < Duration::from_secs(60), "moto_server does not listen");
        std::thread::sleep(Duration::from_millis(100));
    }
    let put = |bytes: &[u8]| {
        let answer = request(port, PUT, bytes).unwrap();
        assert!(answer.contains("200 OK"), "{answer}");
    };
    put(&bytes);
    let device = ObjectDevice::open(&object(port, "disk.img#block=16K")).unwrap();
    device.read_at(100_000, &mut found).unwrap();
    assert!(found == bytes[100_000..150_000]);
    let cost = device.cost();
    assert_eq!(cost.requests, 2, "{cost:?}");
    put(&vec![1; bytes.len()]);
    let error = device.read_at(0, &mut found).unwrap_err().to_string();
    assert!(error.contains("has changed"), "{error}");
    assert!(ObjectDevice::open(&object(port, "other.img")).is_err());
}
