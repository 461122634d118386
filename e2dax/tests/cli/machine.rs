//! An image as the root of a running machine: QEMU with the image as persistent memory, Linux's own driver with DAX.
//!
//! The kernel is that of `E2DAX_KERNEL` (a `vmlinuz-VERSION`; its modules lie in `../lib/modules/VERSION`, if it has
//! any), or the newest in `/boot`. The initial RAM disk is made here: busybox, the modules that such a memory needs, and
//! a script.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use e2dax_tests::{need_tools, skip, tools};

use crate::common::Folder;

/// How long a machine may run: without hardware for it, a processor is emulated.
const PATIENCE: Duration = Duration::from_secs(240);

/// Modules that such a memory needs, where they are not built in. Which needs which is found by trying.
const MODULES: [&str; 16] = [
    "crc16",
    "crc32c_generic",
    "mbcache",
    "jbd2",
    "ext4",
    "dax",
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "libnvdimm",
    "nd_virtio",
    "virtio_pmem",
    "nd_btt",
    "nd_pmem",
];

/// The first program: it mounts what the kernel's command line names, as every initial RAM disk does.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /sys /dev /root
$b mount -t proc p /proc; $b mount -t sysfs s /sys; $b mount -t devtmpfs d /dev
for word in $($b cat /proc/cmdline); do
    case $word in root=*|rootfstype=*|rootflags=*) eval "${word%%=*}='${word#*=}'";; esac
done
for round in 1 2 3 4; do for m in /modules/*.ko; do $b insmod $m 2>/dev/null; done; done
n=0; while [ ! -b $root ] && [ $n -lt 100 ]; do $b sleep 0.1; n=$((n+1)); done
$b mount -t $rootfstype -o $rootflags $root /root || { $b dmesg | $b tail -30; echo "guest: no root"; $b poweroff -f; }
exec $b switch_root /root /sbin/init
"#;

/// What runs in the image: it tells what it finds, and leaves something.
const GUEST: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc p /proc; $b mount -t devtmpfs d /dev
echo "guest: mounted $($b grep ' / ' /proc/mounts)"
echo "guest: sum $($b sha256sum /data/big)"
echo "guest: owner $($b stat -c '%u:%g %a' /data/owned)"
echo written in the guest > /data/new
$b dd if=/dev/zero of=/data/zeros bs=1M count=3 2>/dev/null
$b mv /data/moved /data/there
$b rm /data/gone
$b sync; $b mount -o remount,ro /; $b sync
echo "guest: done"
$b poweroff -f
"#;

/// The kernel and the folder with its modules.
fn kernel() -> Option<(PathBuf, PathBuf)> {
    let path = match std::env::var_os("E2DAX_KERNEL") {
        Some(path) => PathBuf::from(path),
        None => {
            let all = fs::read_dir("/boot").ok()?.filter_map(Result::ok).map(|entry| entry.path());
            all.filter(|path| {
                path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"vmlinuz-"))
            })
            .max()?
        }
    };
    let version = path.file_name()?.to_str()?.strip_prefix("vmlinuz-").unwrap_or_default().to_owned();
    let modules = path.parent()?.parent()?.join("lib/modules").join(version);
    path.is_file().then_some((path, modules))
}

/// Every file below a folder.
fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path(), all),
            Ok(kind) if kind.is_file() => all.push(entry.path()),
            _ => {}
        }
    }
}

/// The modules, unpacked.
fn modules(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    files(folder, &mut all);
    let mut found = Vec::new();
    for path in all {
        let name = path.file_name().unwrap().to_str().unwrap_or_default().to_owned();
        let Some((stem, packing)) = name.split_once(".ko") else { continue };
        if !MODULES.contains(&stem.replace('-', "_").as_str()) {
            continue;
        }
        let path = path.to_str().unwrap();
        let bytes = match packing {
            "" => fs::read(path).unwrap(),
            ".xz" => tools::run("xz", &["-dc", path]).unwrap(),
            ".zst" => zstd::decode_all(&fs::read(path).unwrap()[..]).unwrap(),
            _ => continue,
        };
        found.push((format!("modules/{stem}.ko"), bytes));
    }
    found
}

/// Whether a program of 64 bits names a loader (`PT_INTERP`), which the machine has not.
fn wants_libraries(program: &[u8]) -> bool {
    let word = |at: usize| usize::from(u16::from_le_bytes([program[at], program[at + 1]]));
    let headers = u64::from_le_bytes(program[32..40].try_into().unwrap()) as usize;
    let (size, count) = (word(54), word(56));
    (0..count).any(|nr| program[headers + nr * size..].starts_with(&3_u32.to_le_bytes()))
}

/// An archive in the form that the kernel unpacks (`newc` of cpio).
fn cpio(files: &[(String, u32, Vec<u8>)]) -> Vec<u8> {
    let mut all = Vec::new();
    let end = ("TRAILER!!!".to_owned(), 0, Vec::new());
    for (nr, (name, mode, bytes)) in files.iter().chain([&end]).enumerate() {
        let fields =
            [nr as u32 + 1, *mode, 0, 0, 1, 0, bytes.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        all.extend(b"070701");
        fields.iter().for_each(|field| all.extend(format!("{field:08x}").bytes()));
        all.extend(name.bytes().chain([0]));
        all.resize(all.len().next_multiple_of(4), 0);
        all.extend(bytes);
        all.resize(all.len().next_multiple_of(4), 0);
    }
    all
}

/// Runs the machine to its end; gives what it said.
fn boot(folder: &Folder, kernel: &Path, image: &Path) -> String {
    let size = fs::metadata(image).unwrap().len();
    let memory = format!("memory-backend-file,id=m,share=on,mem-path={},size={size}", image.display());
    let mut command = tools::command("qemu-system-x86_64");
    command
        .args(["-accel", "tcg", "-cpu", "max", "-machine", "q35", "-m", "256M,slots=2,maxmem=2G"])
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"])
        .args(["-object", &memory, "-device", "virtio-pmem-pci,memdev=m"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(folder.path("initrd"))
        .args(["-append", "console=ttyS0 quiet panic=-1 root=/dev/pmem0 rootfstype=ext2 rootflags=dax rw"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = out.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the machine did not end: {}", reader.join().unwrap());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut words = String::new();
    child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    reader.join().unwrap() + &words
}

#[test]
fn linux_runs_from_an_image_in_memory_and_what_it_writes_is_there_outside() {
    need_tools!("qemu-system-x86_64", "busybox", "tar", "e2fsck", "sha256sum", "xz");
    if !cfg!(target_arch = "x86_64") {
        skip!("the machine is one of x86_64");
    }
    let Some((kernel, module_folder)) = kernel() else {
        skip!("no kernel: E2DAX_KERNEL names one");
    };
    let busybox = fs::read(tools::find("busybox").unwrap()).unwrap();
    if wants_libraries(&busybox) {
        skip!("busybox is not static");
    }
    let folder = Folder::with(&[]);
    let mut parts = vec![
        ("bin".to_owned(), 0o040_755, Vec::new()),
        ("modules".to_owned(), 0o040_755, Vec::new()),
        ("bin/busybox".to_owned(), 0o100_755, busybox.clone()),
        ("init".to_owned(), 0o100_755, INIT.into()),
    ];
    parts.extend(modules(&module_folder).into_iter().map(|(name, bytes)| (name, 0o100_644, bytes)));
    fs::write(folder.path("initrd"), cpio(&parts)).unwrap();

    // A root as archives have it, and what is put over it.
    let (root, over) = (folder.path("root"), folder.path("over"));
    for name in ["bin", "sbin", "proc", "sys", "dev", "data"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::write(root.join("bin/busybox"), &busybox).unwrap();
    fs::set_permissions(root.join("bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    let big: Vec<u8> = (0..5_u32 << 20).map(|at| (at >> 11 ^ at) as u8).collect();
    for (name, bytes) in [("big", &big[..]), ("owned", b"o"), ("moved", b"moved"), ("gone", b"gone")] {
        fs::write(root.join("data").join(name), bytes).unwrap();
    }
    fs::set_permissions(root.join("data/owned"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::create_dir_all(over.join("sbin")).unwrap();
    fs::write(over.join("sbin/init"), GUEST).unwrap();
    fs::set_permissions(over.join("sbin/init"), fs::Permissions::from_mode(0o755)).unwrap();
    let words = ["--owner=70000", "--group=5", "--mode=u+rwX", "-C", root.to_str().unwrap(), "-cf"];
    let archive = folder.path("root.tar");
    tools::run("tar", &[&words[..], &[archive.to_str().unwrap(), "."]].concat()).unwrap();
    folder.run(&["mkfs", "root.img", "--from", "root.tar", "--from", "over", "--size", "64M"]).ok();

    let image = folder.path("root.img");
    let said = boot(&folder, &kernel, &image);
    let told = |what: &str| {
        let line = said.lines().find_map(|line| line.trim_end().strip_prefix(&format!("guest: {what} ")));
        line.unwrap_or_else(|| panic!("the guest does not tell {what}: {said}")).to_owned()
    };
    let mounted = told("mounted");
    assert!(mounted.contains("/dev/pmem0 / ext2 ") && mounted.contains("dax"), "{mounted}");
    let sum = tools::run("sha256sum", &[root.join("data/big").to_str().unwrap()]).unwrap();
    assert_eq!(told("sum").split(' ').next(), String::from_utf8(sum).unwrap().split(' ').next());
    assert_eq!(told("owner"), "70000:5 4750");
    assert!(said.contains("guest: done"), "{said}");

    tools::e2fsck_fn(&image).unwrap();
    assert!(folder.run(&["check", "root.img"]).ok().contains("clean"));
    assert_eq!(folder.run(&["cat", "root.img:/data/new"]).ok(), "written in the guest\n");
    assert_eq!(folder.run(&["cat", "root.img:/data/there"]).ok(), "moved");
    assert!(folder.run(&["cat", "root.img:/data/big"]).bytes() == big);
    assert!(folder.run(&["cat", "root.img:/data/zeros"]).bytes() == vec![0; 3 << 20]);
    folder.run(&["stat", "root.img:/data/gone"]).fails(1);
}
