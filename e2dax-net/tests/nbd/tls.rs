//! TLS: our server with clients of others, our client with servers of others, and who is let in.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use blockdev::{BlockDevice as _, RamDevice, conformance};
use e2dax_net::client::{Connect, NbdDevice};
use e2dax_net::server::{Export, Server};
use e2dax_net::stream::Listener;
use e2dax_net::tls::ServerTls;
use e2dax_net::uri::{NbdUri, Place};
use e2dax_tests::{need_tools, tools};
use tempfile::TempDir;

use crate::certificates::{make, revoke, some};
use crate::common::{Ours, Theirs, connect};

const SIZE: u64 = 2 << 20;

fn encrypted(folder: &Path, device: Arc<RamDevice>) -> Server {
    Server::new(vec![Export::new("", device)]).encrypted(ServerTls::from_folder(folder).unwrap())
}

/// A server of ours on a socket of this machine.
fn ours(folder: &TempDir, certificates: &Path, device: Arc<RamDevice>) -> Ours {
    // Several may have the same certificates.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let socket = folder.path().join(format!("{}.sock", NEXT.fetch_add(1, Ordering::Relaxed)));
    Ours::listen(Listener::unix(&socket).unwrap(), encrypted(certificates, device))
}

fn uri(place: Place, certificates: &Path) -> NbdUri {
    NbdUri {
        tls: true,
        place,
        export: String::new(),
        certificates: Some(certificates.into()),
        hostname: None,
    }
}

fn at(server: &Ours, certificates: &Path) -> NbdUri {
    uri(Place::Unix(server.socket.clone()), certificates)
}

fn refusal(uri: &NbdUri) -> String {
    let options = Connect { reconnect: Duration::ZERO, ..Connect::default() };
    NbdDevice::open(uri, &options).unwrap_err().to_string()
}

#[test]
fn the_device_conforms_over_encrypted_connections() {
    need_tools!("openssl");
    let folder = tempfile::tempdir().unwrap();
    let pki = make(folder.path(), "pki");
    let device = Arc::new(RamDevice::new(SIZE).unwrap());
    let server = ours(&folder, &pki, device);
    let client = connect(&at(&server, &pki));
    conformance::check(&client);
    // Long ones in both directions at once, over several connections.
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let client = &client;
            scope.spawn(move || {
                let at = u64::from(thread) * (SIZE / 8);
                let data = vec![thread; 256 << 10];
                for _ in 0..8 {
                    client.write_at(at, &data).unwrap();
                    let mut found = vec![0; data.len()];
                    client.read_at(at, &mut found).unwrap();
                    assert!(found == data);
                }
            });
        }
    });
    client.flush().unwrap();
}

#[test]
fn clients_of_others_reach_our_server() {
    need_tools!("openssl", "nbdinfo", "nbdcopy", "qemu-img", "qemu-io");
    let folder = tempfile::tempdir().unwrap();
    let pki = make(folder.path(), "pki");
    let device = Arc::new(RamDevice::new(SIZE).unwrap());
    let data: Vec<u8> = (0..SIZE as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    device.write_at(0, &data).unwrap();
    let server = ours(&folder, &pki, Arc::clone(&device));
    let copy = folder.path().join("copy");
    let name = at(&server, &pki).to_string();
    let info = tools::run("nbdinfo", &["--json", &name]).unwrap();
    let info = String::from_utf8(info).unwrap();
    assert!(info.contains("\"TLS\": true") && info.contains("\"export-size\": 2097152"), "{info}");
    tools::run("nbdcopy", &[&name, copy.to_str().unwrap()]).unwrap();
    assert!(std::fs::read(&copy).unwrap() == data);
    drop(server);
    let listener = Listener::tcp(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let port = listener.address().unwrap().port();
    let _server = Ours::listen(listener, encrypted(&pki, Arc::clone(&device)));
    let credentials = format!("tls-creds-x509,id=tls0,endpoint=client,dir={}", pki.display());
    let image = format!("driver=nbd,host=localhost,port={port},tls-creds=tls0");
    let compare = ["compare", "--object", &credentials, "--image-opts", &image];
    let raw = format!("driver=raw,file.driver=file,file.filename={}", copy.display());
    tools::run("qemu-img", &[&compare[..], &[&raw]].concat()).unwrap();
    let io = ["--object", &credentials, "--image-opts", &image];
    let commands = ["-c", "write -P 9 64k 300k", "-c", "flush", "-c", "read -P 9 64k 300k"];
    tools::run("qemu-io", &[&io[..], &commands].concat()).unwrap();
    let mut found = [0; 4];
    device.read_at(64 << 10, &mut found).unwrap();
    assert_eq!(found, [9; 4]);
}

#[test]
fn our_client_reaches_servers_of_others() {
    need_tools!("openssl", "nbdkit", "qemu-nbd");
    let folder = tempfile::tempdir().unwrap();
    let pki = make(folder.path(), "pki");
    let certificates = format!("--tls-certificates={}", pki.display());
    let arguments = ["--tls=require", &certificates, "--tls-verify-peer", "memory", "2M"];
    let server = Theirs::nbdkit(folder.path(), &arguments);
    conformance::check(&connect(&uri(Place::Unix(server.socket.clone()), &pki)));
    assert!(refusal(&server.uri()).contains("wants TLS"), "{}", refusal(&server.uri()));
    drop(server);
    let raw = crate::common::file(&folder, "raw", SIZE);
    let credentials = format!("tls-creds-x509,id=tls0,endpoint=server,verify-peer=on,dir={}", pki.display());
    let arguments = ["--object", &credentials, "--tls-creds", "tls0", "-f", "raw", raw.to_str().unwrap()];
    let server = Theirs::qemu_nbd(folder.path(), &arguments);
    conformance::check(&connect(&uri(Place::Unix(server.socket.clone()), &pki)));
}

#[test]
fn who_is_not_who_he_should_be_is_refused() {
    need_tools!("openssl");
    let folder = tempfile::tempdir().unwrap();
    let (pki, other) = (make(folder.path(), "pki"), make(folder.path(), "other"));
    let server = ours(&folder, &pki, Arc::new(RamDevice::new(SIZE).unwrap()));
    let refused = |certificates: &Path, words: &[&str]| {
        let said = refusal(&at(&server, certificates));
        assert!(words.iter().any(|word| said.contains(word)), "{}: {said}", certificates.display());
    };
    // Nobody, somebody of another CA, and a server that another CA signed.
    let nobody = some(&pki, "nobody", &["ca-cert.pem"]);
    refused(&nobody, &["CertificateRequired", "closed the connection"]);
    let stranger = some(&other, "stranger", &["client-cert.pem", "client-key.pem"]);
    std::fs::copy(pki.join("ca-cert.pem"), stranger.join("ca-cert.pem")).unwrap();
    refused(&stranger, &["UnknownCA", "DecryptError", "closed the connection"]);
    refused(&other, &["UnknownIssuer", "BadSignature"]);
    refused(&folder.path().join("nowhere"), &["ca-cert.pem"]);
    let halved = some(&pki, "halved", &["ca-cert.pem", "client-cert.pem"]);
    refused(&halved, &["client-key.pem"]);
    std::fs::write(nobody.join("ca-cert.pem"), "nothing of that kind").unwrap();
    refused(&nobody, &["has no certificate"]);
    // Another host than the certificate is made out for.
    let wrong = NbdUri { hostname: Some("storage.example".into()), ..at(&server, &pki) };
    assert!(refusal(&wrong).contains("not valid for name"), "{}", refusal(&wrong));
    // In the clear, and to a server that has no TLS.
    let plain = NbdUri { tls: false, certificates: None, ..at(&server, &pki) };
    assert!(refusal(&plain).contains("wants TLS"), "{}", refusal(&plain));
    let clear = Ours::of(&folder, Arc::new(RamDevice::new(SIZE).unwrap()));
    assert!(refusal(&at(&clear, &pki)).contains("has no TLS"), "{}", refusal(&at(&clear, &pki)));
    // Whoever was let in is let in no more.
    connect(&at(&server, &pki));
    revoke(&pki);
    let server = ours(&folder, &pki, Arc::new(RamDevice::new(SIZE).unwrap()));
    let said = refusal(&at(&server, &pki));
    assert!(said.contains("Revoked") || said.contains("closed the connection"), "{said}");
}

/// An option, and what the server answers to it.
fn option(stream: &mut UnixStream, number: u32) -> u32 {
    let head = [&b"IHAVEOPT"[..], &number.to_be_bytes(), &0_u32.to_be_bytes()].concat();
    stream.write_all(&head).unwrap();
    let mut answer = [0; 20];
    stream.read_exact(&mut answer).unwrap();
    let len = u32::from_be_bytes(*answer[16..].first_chunk().unwrap());
    stream.read_exact(&mut vec![0; len as usize]).unwrap();
    u32::from_be_bytes(*answer[12..].first_chunk().unwrap())
}

fn greeted(socket: &PathBuf) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.read_exact(&mut [0; 18]).unwrap();
    stream.write_all(&3_u32.to_be_bytes()).unwrap();
    stream
}

#[test]
fn nothing_is_told_and_nothing_is_taken_in_the_clear() {
    need_tools!("openssl");
    let (tls_required, ack) = ((1 << 31) | 5, 1);
    let folder = tempfile::tempdir().unwrap();
    let pki = make(folder.path(), "pki");
    let server = ours(&folder, &pki, Arc::new(RamDevice::new(SIZE).unwrap()));
    let mut stream = greeted(&server.socket);
    // LIST, INFO, GO, structured replies, contexts, and one that nobody knows.
    for number in [3, 6, 7, 8, 9, 10, 77] {
        assert_eq!(option(&mut stream, number), tls_required, "{number}");
    }
    // EXPORT_NAME knows no answer.
    stream.write_all(&[&b"IHAVEOPT"[..], &[0, 0, 0, 1, 0, 0, 0, 0]].concat()).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap_or(0), 0);
    // What follows the request for TLS at once is no option that counts behind it: it is no TLS.
    let mut stream = greeted(&server.socket);
    let both = [&b"IHAVEOPT"[..], &[0, 0, 0, 5, 0, 0, 0, 0], b"IHAVEOPT", &[0, 0, 0, 3, 0, 0, 0, 0]].concat();
    stream.write_all(&both).unwrap();
    let mut said = Vec::new();
    // Ended by the server, in order or not.
    let _ = stream.read_to_end(&mut said);
    assert_eq!(u32::from_be_bytes(*said[12..].first_chunk().unwrap()), ack);
    assert!(said.len() < 60 && !said[20..].windows(4).any(|part| part == [0, 0, 0, 3]), "{said:?}");
    // Cut off in the handshake, at every length: the server serves on.
    for len in [0, 1, 5, 6, 100] {
        let mut stream = greeted(&server.socket);
        assert_eq!(option(&mut stream, 5), ack);
        stream.write_all(&[&[22, 3, 1, 2, 0][..], &[1; 200]].concat()[..len]).unwrap();
    }
    connect(&at(&server, &pki)).read_at(0, &mut [0; 8]).unwrap();
}
