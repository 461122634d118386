//! Encrypted: our client with our server and nbdkit's, and nbdinfo with our server.

use std::path::Path;
use std::sync::Arc;

use blockdev::{BlockDevice as _, RamDevice, conformance};
use e2dax_net::client::{Connect, NbdDevice};
use e2dax_net::server::{Export, Server};
use e2dax_net::stream::{Listener, Stop};
use e2dax_net::tls::TlsServer;
use e2dax_net::uri::NbdUri;
use e2dax_tests::{need_tools, tools};

use crate::common::Theirs;

/// Makes an authority, and certificates of `localhost` and of a client that it signs.
fn certificates(folder: &Path) {
    let script = "set -e; cd \"$folder\"; key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
        openssl req -x509 $key -keyout ca-key.pem -out ca-cert.pem -days 2 -subj /CN=authority
        for who in server client; do
            openssl req $key -keyout $who-key.pem -out $who.csr -subj /CN=$who
            printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > $who.ext
            openssl x509 -req -in $who.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 2 -out $who-cert.pem \
                -extfile $who.ext
        done";
    let output = tools::command("sh").args(["-c", script]).env("folder", folder).output().unwrap();
    assert!(output.status.success(), "{}", tools::words(&output));
}

#[test]
fn both_sides_encrypt_and_ask_who_the_other_is() {
    need_tools!("openssl");
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    certificates(folder.path());
    certificates(other.path());
    let server = Server::new(vec![Export::new("", Arc::new(RamDevice::new(1 << 20).unwrap()))])
        .with_tls(TlsServer::load(folder.path()).unwrap());
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = listener.address().unwrap().port();
    let stop = Stop::new().unwrap();
    let uri = |tls, folder: &Path| NbdUri {
        tls,
        certificates: Some(folder.to_path_buf()),
        ..NbdUri::tcp("localhost", port, "")
    };
    let short = Connect { reconnect: std::time::Duration::ZERO, ..Connect::default() };
    std::thread::scope(|scope| {
        scope.spawn(|| server.run(&listener, &stop));
        let done = std::panic::catch_unwind(|| {
            let device = NbdDevice::open(&uri(true, folder.path()), &short).unwrap();
            conformance::check(&device);
            let plain = NbdDevice::open(&uri(false, folder.path()), &short).unwrap_err().to_string();
            assert!(plain.contains("wants TLS"), "{plain}");
            // An authority that is not the server's.
            assert!(NbdDevice::open(&uri(true, other.path()), &short).is_err());
            // A client without a certificate gets no further than the handshake.
            let bare = tempfile::tempdir().unwrap();
            std::fs::copy(folder.path().join("ca-cert.pem"), bare.path().join("ca-cert.pem")).unwrap();
            assert!(NbdDevice::open(&uri(true, bare.path()), &short).is_err());
            device.write_at(0, b"still there").unwrap();
            if tools::have("nbdinfo") {
                let named = format!("nbds://localhost:{port}/?tls-certificates={}", folder.path().display());
                let size = tools::run("nbdinfo", &["--size", &named]).unwrap();
                assert_eq!(String::from_utf8(size).unwrap().trim(), "1048576");
            }
        });
        stop.stop();
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn the_device_conforms_over_tls_of_nbdkit() {
    need_tools!("openssl", "nbdkit");
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let certificates = format!("--tls-certificates={}", folder.path().display());
    let arguments = ["--tls=require", &certificates, "--tls-verify-peer", "memory", "1M"];
    let server = Theirs::nbdkit(folder.path(), &arguments);
    let uri = NbdUri {
        tls: true,
        certificates: Some(folder.path().to_path_buf()),
        ..NbdUri::unix(&server.socket, "")
    };
    conformance::check(&NbdDevice::open(&uri, &Connect::default()).unwrap());
}
