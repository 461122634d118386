//! Our server, as clients of others see it.

use std::sync::Arc;

use blockdev::{
    BlockDevice, CacheOptions, Cached, DeviceOptions, Durability, FileDevice, FileOverlay, MmapDevice,
    RamDevice, ReadOnly,
};
use e2dax_net::server::Export;
use e2dax_net::uri::NbdUri;
use e2dax_tests::{need_tools, tools};

use crate::common::{Ours, connect, file};

const SIZE: u64 = 24 << 20;

fn shell(script: &str, variables: &[(&str, &str)]) -> String {
    let mut command = tools::command("sh");
    command.args(["-euc", script]).envs(variables.iter().copied());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{script}: {}", tools::words(&output));
    tools::words(&output)
}

/// Every kind of request of qemu-io, each with a pattern that is looked for afterwards; a write is durable when it is told so.
const QEMU_IO: &str = "qemu-io -t none -f raw -c 'write -P 1 0 8M' -c 'write -P 2 4097 77777' -c 'write -f -P 3 9M 3M' \
    -c 'read -P 1 0 4097' -c 'read -P 2 4097 77777' -c 'read -P 3 9M 3M' -c 'write -z 1M 1M' -c 'read -P 0 1M 1M' \
    -c 'write -z -u 2M 512k' -c 'read -P 0 2M 512k' -c 'discard 3M 64k' -c flush -c 'aio_write -P 4 12M 1M' \
    -c 'aio_write -P 5 13M 64k' -c 'aio_write -P 6 14M 4k' -c aio_flush -c 'read -P 4 12M 1M' -c 'read -P 5 13M 64k' \
    -c 'read -P 6 14M 4k' -c 'read -P 1 2560k 512k' \"$uri\"";

#[test]
fn every_kind_of_device_is_served_to_qemu() {
    need_tools!("qemu-io", "qemu-img");
    let folder = tempfile::tempdir().unwrap();
    let (a, b, c) = (file(&folder, "a", SIZE), file(&folder, "b", SIZE), file(&folder, "c", SIZE));
    let how = DeviceOptions::read_write();
    let overlay = folder.path().join("c.overlay");
    let below = ReadOnly::new(FileDevice::open(&c, &DeviceOptions::read_only()).unwrap());
    let devices: Vec<(&str, Arc<dyn BlockDevice>)> = vec![
        ("ram", Arc::new(RamDevice::new(SIZE).unwrap())),
        ("mmap", Arc::new(MmapDevice::open(&a, &how).unwrap())),
        (
            "cached",
            Arc::new(Cached::new(FileDevice::open(&b, &how).unwrap(), CacheOptions::default()).unwrap()),
        ),
        ("overlay", Arc::new(FileOverlay::open(below, &overlay, Durability::Relaxed).unwrap())),
    ];
    for (name, device) in devices {
        let server = Ours::of(&folder, Arc::clone(&device));
        let said = shell(QEMU_IO, &[("uri", &server.uri().to_string())]);
        assert!(!said.contains("failed") && !said.contains("mismatch"), "{name}: {said}");
        let mut found = [0; 4];
        device.read_at(14 << 20, &mut found).unwrap();
        assert_eq!(found, [6; 4], "{name}");
    }
    assert_eq!(std::fs::read(&c).unwrap(), vec![0; SIZE as usize], "what lies below an overlay was written");
    // What the overlay holds is there when it is opened again.
    let below = ReadOnly::new(FileDevice::open(&c, &DeviceOptions::read_only()).unwrap());
    let again = FileOverlay::open(below, &overlay, Durability::Relaxed).unwrap();
    let mut found = [0; 4];
    again.read_at(12 << 20, &mut found).unwrap();
    assert_eq!(found, [4; 4]);
}

#[test]
fn holes_are_told_and_copies_are_equal() {
    need_tools!("nbdinfo", "nbdcopy", "qemu-img");
    let folder = tempfile::tempdir().unwrap();
    let image = file(&folder, "image", SIZE);
    {
        let device = FileDevice::open(&image, &DeviceOptions::read_write()).unwrap();
        let data: Vec<u8> =
            (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        device.write_at(1 << 20, &data).unwrap();
        device.write_at(20 << 20, &data[..8192]).unwrap();
    }
    let device = Arc::new(MmapDevice::open(&image, &DeviceOptions::read_only()).unwrap());
    let server = Ours::of(&folder, device);
    let (copy, source) = (folder.path().join("copy"), image.to_str().unwrap());
    let (uri, copy) = (server.uri().to_string(), copy.to_str().unwrap());
    let variables = [("uri", uri.as_str()), ("copy", copy), ("image", source)];
    let map = shell("nbdinfo --map \"$uri\"", &variables);
    let kinds: Vec<&str> = map.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(kinds, ["hole,zero", "data", "hole,zero", "data", "hole,zero"], "{map}");
    shell("nbdcopy \"$uri\" \"$copy\" && cmp \"$copy\" \"$image\" && rm \"$copy\"", &variables);
    shell("nbdcopy --synchronous \"$uri\" \"$copy\" && cmp \"$copy\" \"$image\"", &variables);
    shell("qemu-img compare -f raw -F raw \"$uri\" \"$image\"", &variables);
    let info = shell("nbdinfo --json \"$uri\"", &variables);
    for line in [
        "\"export-size\": 25165824",
        "\"is_read_only\": true",
        "\"can_multi_conn\": true",
        "\"can_df\": true",
        "\"can_trim\": false",
        "\"structured\": true",
        "base:allocation",
    ] {
        assert!(info.contains(line), "{line}: {info}");
    }
    assert!(shell("! nbdcopy \"$image\" \"$uri\" 2>&1", &variables).contains("read-only"));
}

#[test]
fn a_copy_to_the_server_keeps_its_holes() {
    need_tools!("nbdcopy");
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (file(&folder, "source", SIZE), file(&folder, "target", SIZE));
    std::os::unix::fs::FileExt::write_all_at(
        &std::fs::File::options().write(true).open(&source).unwrap(),
        &[7; 70_000],
        5 << 20,
    )
    .unwrap();
    let server =
        Ours::of(&folder, Arc::new(FileDevice::open(&target, &DeviceOptions::read_write()).unwrap()));
    shell(
        "nbdcopy --flush \"$source\" \"$uri\"",
        &[("uri", &server.uri().to_string()), ("source", source.to_str().unwrap())],
    );
    drop(server);
    assert!(std::fs::read(&source).unwrap() == std::fs::read(&target).unwrap());
    let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&target).unwrap());
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks");
}

#[test]
fn exports_are_listed_and_chosen_by_name() {
    need_tools!("nbdinfo");
    let folder = tempfile::tempdir().unwrap();
    let export = |name: &str, size| Export::new(name, Arc::new(RamDevice::new(size).unwrap()));
    let exports = vec![export("root", 1 << 20), export("data", 2 << 20).described("the rest").read_only()];
    let server = Ours::start(&folder.path().join("s"), exports);
    let socket = server.socket.to_str().unwrap();
    let list = shell("nbdinfo --list \"nbd+unix:///?socket=$s\"", &[("s", socket)]);
    assert!(list.contains("export=\"root\"") && list.contains("export=\"data\""), "{list}");
    assert!(list.contains("the rest"), "{list}");
    let size = |name: &str| {
        shell("nbdinfo --size \"nbd+unix:///$n?socket=$s\" 2>&1 || true", &[("s", socket), ("n", name)])
    };
    assert_eq!(
        (size("root").trim(), size("data").trim(), size("").trim()),
        ("1048576", "2097152", "1048576")
    );
    assert!(size("other").contains("no export named"), "{}", size("other"));
}

/// What a person or a script does by hand: every call of libnbd that the protocol has a request for, and what is refused.
const NBDSH: &str = r#"
import errno
size = h.get_size()
assert size == 24 << 20 and h.can_flush() and h.can_fua() and h.can_zero() and h.can_trim() and h.can_cache() and h.can_df()
assert h.can_multi_conn() and not h.is_read_only() and h.get_structured_replies_negotiated()
assert h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION) and h.get_block_size(nbd.SIZE_MAXIMUM) == 32 << 20
h.pwrite(b"abc" * 4096, 5000, nbd.CMD_FLAG_FUA)
assert h.pread(12288, 5000) == b"abc" * 4096
whole = []
h.pread_structured(12288, 5000, lambda part, offset, kind, error: whole.append(bytes(part)), nbd.CMD_FLAG_DF)
assert whole == [b"abc" * 4096]
h.zero(3000, 6000, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE)
assert h.pread(3000, 6000) == bytes(3000)
h.trim(1 << 20, 4 << 20); h.cache(1 << 20, 0); h.flush()
extents = []
h.block_status(size, 0, lambda name, offset, found, error: extents.extend(found))
assert sum(extents[::2]) == size, extents
one = []
h.block_status(size, 0, lambda name, offset, found, error: one.extend(found), nbd.CMD_FLAG_REQ_ONE)
assert one == extents[:2], one
chunks = []
h.pread_structured(1 << 20, 0, lambda part, offset, kind, error: chunks.append((offset, len(part), kind)))
assert sum(chunk[1] for chunk in chunks) == 1 << 20, chunks
def refused(number, call):
    try: call()
    except nbd.Error as error: assert error.errnum == number, error
    else: raise AssertionError("it is done")
h.set_strict_mode(0)
refused(errno.EINVAL, lambda: h.pread(2, size - 1))
refused(errno.ENOSPC, lambda: h.pwrite(b"ab", size - 1))
refused(errno.ENOSPC, lambda: h.zero(2, size - 1))
refused(errno.EOVERFLOW, lambda: h.pread_structured(2 << 20, 0, lambda *_: 0, nbd.CMD_FLAG_DF))
refused(errno.EINVAL, lambda: h.flush(1 << 9))
buffers = [nbd.Buffer.from_bytearray(bytearray([nr] * 4096)) for nr in range(64)]
cookies = [h.aio_pwrite(buffer, nr * 4096) for nr, buffer in enumerate(buffers)]
while h.aio_in_flight(): h.poll(-1)
assert all(h.aio_command_completed(cookie) for cookie in cookies)
assert h.pread(64 * 4096, 0) == b"".join(bytes([nr] * 4096) for nr in range(64))
h.shutdown()
"#;

#[test]
fn scripts_of_nbdsh_run_to_their_end() {
    need_tools!("nbdsh");
    let folder = tempfile::tempdir().unwrap();
    let image = file(&folder, "image", SIZE);
    let device = FileDevice::open(&image, &DeviceOptions::read_write()).unwrap();
    let server = Ours::of(&folder, Arc::new(device));
    shell(
        // Debian's module is for Debian's Python.
        "PATH=/usr/bin:$PATH nbdsh -c 'h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)' -c \"h.connect_uri('$uri')\" -c \"$script\"",
        &[("uri", &server.uri().to_string()), ("script", NBDSH)],
    );
}

/// A disk whose size is a multiple of nothing, to its last byte.
const ODD: &str = r#"
import errno
size = h.get_size()
assert size == 1000003
h.pwrite(b"end", size - 3, nbd.CMD_FLAG_FUA); h.pwrite(b"x", 999999)
assert h.pread(7, size - 7) == b"\0\0\0xend", h.pread(7, size - 7)
h.zero(1, size - 1); h.trim(513, size - 513); h.cache(size, 0)
found = []
h.block_status(1, size - 1, lambda name, offset, extents, error: found.extend(extents))
assert found[0] == 1, found
h.zero(size, 0, nbd.CMD_FLAG_NO_HOLE)
assert h.pread(size, 0) == bytes(size)
h.set_strict_mode(0)
def refused(number, call):
    try: call()
    except nbd.Error as error: assert error.errnum == number, error
    else: raise AssertionError("it is done")
refused(errno.EINVAL, lambda: h.trim(2, size - 1))
refused(errno.EINVAL, lambda: h.block_status(0, 0, lambda *_: 0))
refused(errno.EINVAL, lambda: h.pread(1, 1 << 63))
h.pwrite(bytes(range(256)) * 3906 + b"tail...", 0)
h.shutdown()
"#;

#[test]
fn a_disk_of_an_odd_size_is_served_to_its_last_byte() {
    need_tools!("nbdsh", "nbdcopy", "qemu-io");
    let folder = tempfile::tempdir().unwrap();
    let image = file(&folder, "image", 1_000_003);
    let server = Ours::of(&folder, Arc::new(FileDevice::open(&image, &DeviceOptions::read_write()).unwrap()));
    let uri = server.uri().to_string();
    let copy = folder.path().join("copy");
    shell(
        "PATH=/usr/bin:$PATH nbdsh -c 'h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)' -c \"h.connect_uri('$uri')\" \
         -c \"$script\"; nbdcopy \"$uri\" \"$copy\"; cmp \"$copy\" \"$image\"; printf changed | dd of=\"$copy\" bs=1 seek=999996 \
         conv=notrunc 2>/dev/null; nbdcopy --flush \"$copy\" \"$uri\"; cmp \"$copy\" \"$image\"; \
         qemu-io -f raw -c 'write -P 9 999990 10' -c 'read -P 9 999990 10' \"$uri\"",
        &[
            ("uri", &uri),
            ("script", ODD),
            ("copy", copy.to_str().unwrap()),
            ("image", image.to_str().unwrap()),
        ],
    );
    // And as our own client sees it.
    let device = connect(&server.uri());
    let mut found = [0; 7];
    device.read_at(1_000_003 - 7, &mut found).unwrap();
    assert_eq!(&found, b"\x09\x09\x09\x09ged");
}

/// Names that have characters with a meaning of their own, in URIs or anywhere.
#[test]
fn exports_with_odd_names_are_found_by_them() {
    need_tools!("nbdinfo");
    let folder = tempfile::tempdir().unwrap();
    let names = [
        "",
        " ",
        "a b",
        "/",
        "//a//",
        "?socket=x",
        "#a",
        "%41",
        "a&b=c",
        "ä€😀",
        "..",
        "a:/b@p1",
        "\u{1}\u{7f}",
    ];
    let long = "n".repeat(4096);
    let names: Vec<&str> = names.into_iter().chain([long.as_str()]).collect();
    let size = |at: usize| (1 + at as u64) * 4096;
    let exports = names
        .iter()
        .enumerate()
        .map(|(at, name)| Export::new(*name, Arc::new(RamDevice::new(size(at)).unwrap())));
    let server = Ours::start(&folder.path().join("s"), exports.collect());
    for (at, name) in names.iter().enumerate() {
        let uri = NbdUri::unix(&server.socket, *name);
        let read = NbdUri::parse(&uri.to_string()).unwrap();
        assert_eq!(read, uri);
        assert_eq!(connect(&read).size(), size(at), "{name:?}");
        let theirs = shell("nbdinfo --size \"$uri\"", &[("uri", &uri.to_string())]);
        assert_eq!(theirs.trim(), size(at).to_string(), "{name:?}");
    }
    let list = shell("nbdinfo --list \"nbd+unix:///?socket=$s\"", &[("s", server.socket.to_str().unwrap())]);
    assert_eq!(list.matches("export-size:").count(), names.len(), "{list}");
}
