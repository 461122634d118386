//! Object stores: one of our own that asks who asks as S3, Google and Azure do, and moto's S3, which checks more.

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
    http.set(|state| state.authorization = Some("AWS4-HMAC-SHA256 Credential=key/"));
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

/// An object of a store on this machine, whose scheme and what is said besides are given.
fn of(scheme: &str, options: &[(&str, String)]) -> ObjectUri {
    let mut uri = ObjectUri::parse(&format!("{scheme}://golden/images/a%20b.img#block=16K")).unwrap();
    uri.options = options.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    uri
}

#[test]
fn objects_of_google_and_azure_are_devices() {
    let bytes: Vec<u8> = (0..200_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let http = Http::start(bytes.clone());
    let url = format!("http://127.0.0.1:{}", http.port);
    // As one writes it for an emulator that asks nobody who he is, and with a token.
    let account = format!(
        r#"{{"private_key": "x", "private_key_id": "x", "client_email": "x", "disable_oauth": true, "gcs_base_url": "{url}"}}"#
    );
    let token = [("google_base_url", url.clone()), ("google_bearer_token", "token".into())];
    let name = ("azure_storage_account_name", "account".to_owned());
    let key = ("azure_storage_account_key", "c2VjcmV0".to_owned());
    let endpoint = ("azure_storage_endpoint", url);
    let signature = ("azure_storage_sas_token", "sv=2026-01-01&sig=signed".to_owned());
    for (scheme, options, authorization, query) in [
        ("gs", &[("google_service_account_key", account)][..], None, ""),
        ("gs", &token[..], Some("Bearer token"), ""),
        ("az", &[name.clone(), key, endpoint.clone()][..], Some("SharedKey account:"), ""),
        ("az", &[name, signature, endpoint], None, "sig=signed"),
    ] {
        http.set(|state| {
            state.authorization = authorization;
            state.etag = Some("\"one\"".into());
        });
        let device = ObjectDevice::open(&of(scheme, options)).unwrap();
        assert_eq!(device.size(), bytes.len() as u64);
        let mut found = vec![0; 50_000];
        device.read_at(100_000, &mut found).unwrap();
        assert!(found == bytes[100_000..150_000], "{scheme}");
        let asked = http.asked();
        // Which bytes of a name are escaped is for each store to say.
        let head = asked[0].replace("%2F", "/").replace("%2E", ".");
        assert!(head.starts_with("HEAD /golden/images/a%20b.img"), "{asked:?}");
        assert!(asked[1].starts_with("GET "), "{asked:?}");
        assert!(asked.len() == 2 && asked.iter().all(|request| request.contains(query)), "{asked:?}");
        http.set(|state| state.etag = Some("\"two\"".into()));
        let error = device.read_at(0, &mut found).unwrap_err().to_string();
        assert!(error.contains("has changed") && !error.contains("sig=signed"), "{scheme}: {error}");
        http.set(|state| state.authorization = Some("Nobody"));
        let error = ObjectDevice::open(&of(scheme, options)).unwrap_err().to_string();
        assert!(error.contains("403") && !error.contains("sig=signed"), "{scheme}: {error}");
        http.asked();
    }
}
