//! Our client, with servers of all kinds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use blockdev::{BlockDevice, CacheOptions, Cached, Error, Extent, RamDevice, conformance};
use e2dax_net::client::{Connect, NbdDevice};
use e2dax_net::server::Export;
use e2dax_net::uri::NbdUri;
use e2dax_tests::{need_tools, skip, tools};

use crate::common::{NbdServer, Ours, Theirs, connect, file, impatient};

const SIZE: u64 = 2 << 20;

#[test]
fn the_device_conforms_over_our_own_server() {
    let folder = tempfile::tempdir().unwrap();
    let server = Ours::of(&folder, Arc::new(RamDevice::new(SIZE).unwrap()));
    let device = connect(&server.uri());
    conformance::check(&device);
    let cached = Cached::new(&device, CacheOptions { bytes: 256 << 10, block_size: 4096 }).unwrap();
    conformance::check(&cached);
    assert!(device.connections() <= 4);
}

#[test]
fn an_export_that_is_read_only_refuses_all_stores() {
    let folder = tempfile::tempdir().unwrap();
    let export = Export::new("x", Arc::new(RamDevice::new(SIZE).unwrap())).read_only();
    let server = Ours::start(&folder.path().join("s"), vec![export]);
    conformance::check_read_only(&connect(&NbdUri::unix(&server.socket, "x")));
    let wrong = NbdDevice::open(&NbdUri::unix(&server.socket, "y"), &Connect::default()).unwrap_err();
    assert!(wrong.to_string().contains("no such export"), "{wrong}");
}

#[test]
fn the_device_conforms_over_qemu_nbd() {
    need_tools!("qemu-nbd", "qemu-img");
    let folder = tempfile::tempdir().unwrap();
    let raw = file(&folder, "raw", SIZE);
    let qcow2 = folder.path().join("image.qcow2");
    tools::run("qemu-img", &["create", "-q", "-f", "qcow2", qcow2.to_str().unwrap(), "2M"]).unwrap();
    for (format, image) in [("raw", raw), ("qcow2", qcow2)] {
        let server = Theirs::qemu_nbd(folder.path(), &["-f", format, image.to_str().unwrap()]);
        let device = connect(&server.uri());
        assert!(device.facts().flush && device.facts().write_zeroes && device.facts().holes);
        conformance::check(&device);
        device.zero(0, SIZE).unwrap();
        device.write_at(1 << 20, &[5; 65536]).unwrap();
        let (extent, len) = device.extent(0, SIZE).unwrap();
        assert!(extent != Extent::Data && len == 1 << 20, "{format}: {extent:?} {len}");
        assert_eq!(device.extent(1 << 20, SIZE >> 1).unwrap(), (Extent::Data, 65536), "{format}");
    }
}

#[test]
fn the_device_conforms_over_nbdkit_whatever_it_offers() {
    need_tools!("nbdkit");
    let folder = tempfile::tempdir().unwrap();
    let blocks = "blocksize-error-policy=error";
    for arguments in [
        &["memory", "2M"][..],
        // No zeros, no extents, no more than one connection.
        &[
            "--filter=nozero",
            "--filter=noextents",
            "--filter=multi-conn",
            "memory",
            "2M",
            "multi-conn-mode=disable",
        ],
        // Nothing but whole blocks of 4096 bytes, and no more than 64 KiB at a time.
        &[
            "--filter=blocksize-policy",
            "memory",
            "2M",
            "blocksize-minimum=4096",
            "blocksize-preferred=4096",
            "blocksize-maximum=65536",
            blocks,
        ],
        // No structured replies.
        &["--no-sr", "memory", "2M"],
        &["--oldstyle", "memory", "2M"],
    ] {
        let server = Theirs::nbdkit(folder.path(), arguments);
        if arguments.contains(&"--oldstyle") {
            let refused = NbdDevice::open(&server.uri(), &Connect::default()).unwrap_err();
            assert!(refused.to_string().contains("older protocol"), "{refused}");
        } else {
            conformance::check(&connect(&server.uri()));
        }
    }
}

#[test]
fn the_device_conforms_over_nbd_server() {
    need_tools!("nbd-server");
    let folder = tempfile::tempdir().unwrap();
    let image = file(&folder, "image", SIZE);
    let config = folder.path().join("config");
    let (socket, image) = (folder.path().join("theirs.sock"), image.to_str().unwrap());
    let text = format!(
        "[generic]\nunixsock = {}\nallowlist = true\n[disk]\nexportname = {image}\nflush = true\nfua = true\n\
         trim = true\n",
        socket.display()
    );
    std::fs::write(&config, text).unwrap();
    let _server = NbdServer::start(folder.path(), &socket, &config);
    let device = connect(&NbdUri::unix(&socket, "disk"));
    assert!(device.facts().flush);
    conformance::check(&device);
}

#[test]
fn errors_of_the_server_name_the_operation_and_the_connection_lives_on() {
    need_tools!("nbdkit");
    let folder = tempfile::tempdir().unwrap();
    let fails = folder.path().join("fails");
    let server = Theirs::nbdkit(
        folder.path(),
        &[
            "--filter=error",
            "memory",
            "2M",
            "error-pwrite=ENOSPC",
            "error-pread=EIO",
            "error-rate=100%",
            &format!("error-file={}", fails.display()),
        ],
    );
    let device = connect(&server.uri());
    device.write_at(0, &[1; 512]).unwrap();
    std::fs::write(&fails, b"").unwrap();
    assert_eq!(device.write_at(512, &[1; 512]), Err(Error::NoSpace { offset: 512 }));
    let error = device.read_at(4096, &mut [0; 8]).unwrap_err();
    assert!(matches!(error, Error::Io { op: "read", offset: 4096, errno: Some(5), .. }), "{error:?}");
    std::fs::remove_file(&fails).unwrap();
    let mut found = [0; 512];
    device.read_at(0, &mut found).unwrap();
    assert_eq!(found, [1; 512]);
}

#[test]
fn requests_of_several_threads_are_under_way_at_once() {
    need_tools!("nbdkit");
    let folder = tempfile::tempdir().unwrap();
    let server = Theirs::nbdkit(folder.path(), &["--filter=delay", "memory", "2M", "rdelay=150ms"]);
    let device = connect(&server.uri());
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let device = &device;
            scope.spawn(move || device.read_at(thread * 4096, &mut [0; 4096]).unwrap());
        }
    });
    assert!(begin.elapsed() < Duration::from_millis(900), "{:?}", begin.elapsed());
}

#[test]
fn a_server_that_does_not_answer_is_an_error_and_no_hang() {
    let Ok(listener) = std::os::unix::net::UnixListener::bind("/tmp/e2dax-net-silent.sock") else {
        skip!("somebody has the name of the socket");
    };
    let silent = std::path::Path::new("/tmp/e2dax-net-silent.sock");
    let options = Connect { timeout: Duration::from_millis(200), ..Connect::default() };
    let begin = Instant::now();
    let error = NbdDevice::open(&NbdUri::unix(silent, ""), &options).unwrap_err();
    std::fs::remove_file(silent).unwrap();
    assert!(error.to_string().contains("does not answer"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(5));
    drop(listener);
    need_tools!("nbdkit");
    let folder = tempfile::tempdir().unwrap();
    let server = Theirs::nbdkit(folder.path(), &["--filter=delay", "memory", "2M", "rdelay=30"]);
    let begin = Instant::now();
    let device = impatient(&server.uri());
    let error = device.read_at(0, &mut [0; 4]).unwrap_err();
    assert!(error.to_string().contains("does not answer"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}
