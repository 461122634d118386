//! `serve`: images as network block devices.

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use blockdev::{BlockDevice, Durability, FileOverlay, Overlay};
use e2dax_net::server::{Export, Server};
use e2dax_net::stream::{Listener, Stop};
#[cfg(feature = "tls")]
use e2dax_net::tls::ServerTls;
use e2dax_net::uri::{NbdUri, PORT, Place};
use ext2_image::mkfs::Synthetic;

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::json::object;
use crate::target::{Mode, Target};
use crate::text::{show, show_os};
use crate::verbs::mkfs;

/// Serve images as network block devices (NBD)
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax serve a.img                                  prints the URI, and serves until it is stopped (Ctrl-C)
  e2dax serve a.img --overlay today.ovl              what is written goes to today.ovl, and a.img stays as it is
  e2dax serve a.img --read-only --listen 127.0.0.1:10809
  e2dax serve --export root=a.img --export data=b.img@p1 --socket /run/vm7.sock
  e2dax serve --from rootfs/ --overlay vm7.ovl -- --owner 0:0 --size auto+1G
  e2dax serve a.img --run 'nbdcopy \"$uri\" copy.img'

Clients: qemu -drive file=URI, nbd-client, nbdcopy, e2dax itself (wherever it takes an IMG), and all others that speak
NBD. A flush is answered when the data is durable in the image. Everyone who can open the socket can read and write.")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMG", required_unless_present_any = ["export", "from"])]
    image: Option<OsString>,

    /// Serve the image that `mkfs --from` would make of this directory, archive, manifest or container image, without making it:
    /// files stay where they are. Several are layers, as for mkfs. Options of mkfs follow behind --
    #[arg(long, value_name = "SOURCE", conflicts_with_all = ["image", "export"])]
    from: Vec<OsString>,

    /// Options of mkfs, for --from
    #[arg(last = true, value_name = "MKFS OPTIONS", requires = "from")]
    options: Vec<OsString>,

    /// Check every second whether files of --from have changed, and report it
    #[arg(long, requires = "from")]
    watch: bool,

    /// Serve an image under a name; may be repeated
    #[arg(long, value_name = "NAME=IMG", value_parser = clap::builder::OsStringValueParser::new())]
    export: Vec<OsString>,

    /// The socket [default: one in a new private directory]
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    socket: Option<PathBuf>,

    /// Listen on the network, at an address of this machine; port 0 is any that is free. An address that other machines reach
    /// needs --tls-certificates, or --unencrypted
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = address)]
    listen: Option<SocketAddr>,

    /// Serve by TLS, and only those who show a certificate that ca-cert.pem of this directory signed; server-cert.pem and
    /// server-key.pem are the server's
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "DIR")]
    tls_certificates: Option<PathBuf>,

    /// Let --listen take an address that other machines reach, without encryption and without authentication
    #[arg(long, requires = "listen")]
    unencrypted: bool,

    /// Keep writes in this file, which is created if it does not exist, and leave the image as it is
    #[arg(long, value_name = "FILE", conflicts_with = "read_only")]
    overlay: Option<PathBuf>,

    /// Refuse all writes
    #[arg(long, short)]
    read_only: bool,

    /// Serve while this shell command runs, with $uri and $unixsocket set for it, and exit with its exit code
    #[arg(long, value_name = "COMMAND")]
    run: Option<OsString>,

    /// Print what is served as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    #[cfg(feature = "tls")]
    fn is_encrypted(&self) -> bool {
        self.tls_certificates.is_some()
    }

    #[cfg(not(feature = "tls"))]
    fn is_encrypted(&self) -> bool {
        false
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok(SocketAddr::new(ip, PORT));
    }
    let found = if text.contains(':') { text.to_socket_addrs() } else { (text, PORT).to_socket_addrs() };
    let found = found.map_err(|error| error.to_string())?.next();
    found.ok_or_else(|| "has no address".into())
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let mut named: Vec<(String, &std::ffi::OsStr)> = Vec::new();
    named.extend(args.image.iter().map(|image| (String::new(), image.as_os_str())));
    for export in &args.export {
        named.push(split(export)?);
    }
    if let Some((name, image)) = named.iter().enumerate().find_map(|(at, (name, image))| {
        named.iter().take(at).any(|(other, _)| other == name).then_some((name, image))
    }) {
        return Err(Failure::usage(image, format!("there is an export {name:?} already")));
    }
    if args.overlay.is_some() && named.len() > 1 {
        return Err(Failure::usage(&OsString::from("--overlay"), "is for one image"));
    }
    let exports: Result<Vec<Export>> =
        named.iter().map(|(name, image)| open(name, image, args, context)).collect();
    let mut exports = exports?;
    let synthetic = if args.from.is_empty() {
        None
    } else {
        Some(Arc::new(mkfs::synthetic(&args.from, &args.options, context)?))
    };
    if let Some(disk) = &synthetic {
        exports.push(synthetic_export(disk, args)?);
    }
    let server = Server::new(exports);
    #[cfg(feature = "tls")]
    let server = match &args.tls_certificates {
        Some(folder) => {
            let tls = ServerTls::from_folder(folder);
            server.encrypted(tls.map_err(|error| Failure::text("", error.to_string()))?)
        }
        None => server,
    };
    // The folder is emptied by the listener, which goes first.
    let (_folder, listener) = listen(args)?;
    let stop = Stop::new().map_err(|error| Failure::text("", error.to_string()))?;
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let told = stop.socket().and_then(|socket| signal_hook::low_level::pipe::register(signal, socket));
        told.map_err(|error| Failure::text("", error.to_string()))?;
    }
    let uris: Vec<NbdUri> =
        server.exports().iter().map(|export| uri(args, &listener, export.name())).collect();
    for (uri, export) in uris.iter().zip(server.exports()) {
        if args.json {
            context.out.json(&object! {
                "uri": uri.to_string(),
                "export": export.name(),
                "bytes": export.device().size(),
                "read_only": export.is_read_only(),
            })?;
        } else if args.run.is_none() {
            context.out.line(uri)?;
        }
    }
    context.out.flush()?;
    let ended = std::thread::scope(|scope| {
        let command = args.run.as_ref().map(|command| {
            let uri = uris.first().map(ToString::to_string).unwrap_or_default();
            let (listener, stop) = (&listener, &stop);
            scope.spawn(move || {
                let status = run_command(command, &uri, listener.path());
                stop.stop();
                status
            })
        });
        let ended = AtomicBool::new(false);
        let (ended, watch) = (&ended, synthetic.as_ref().filter(|_| args.watch));
        std::thread::scope(|watching| {
            if let Some(disk) = watch {
                watching.spawn(|| look_for_changes(disk, ended));
            }
            let served = server.run(&listener, &stop);
            ended.store(true, Ordering::Relaxed);
            (served, command.map(std::thread::ScopedJoinHandle::join))
        })
    });
    let (served, command) = ended;
    served.map_err(|error| Failure::text("serve", error.to_string()))?;
    match command {
        Some(Ok(Ok(status))) => {
            let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
            context.set_exit(u8::try_from(code).unwrap_or(1));
            Ok(())
        }
        Some(Ok(Err(error))) => Err(Failure::text("sh", error.to_string())),
        Some(Err(_)) | None => Ok(()),
    }
}

/// What `--from` names as an export; what is written goes to the overlay.
fn synthetic_export(disk: &Arc<Synthetic>, args: &Args) -> Result<Export> {
    let names: Vec<String> = args.from.iter().map(|from| show_os(from)).collect();
    let name = names.join(", ");
    let device: Arc<dyn BlockDevice> = match &args.overlay {
        Some(file) => {
            let overlay = FileOverlay::open(Arc::clone(disk), file, Durability::Relaxed);
            Arc::new(overlay.of(|| show_os(file.as_os_str()))?)
        }
        None if args.read_only => Arc::clone(disk) as Arc<dyn BlockDevice>,
        // In memory.
        None => Arc::new(Overlay::new(Arc::clone(disk)).of(|| name.clone())?),
    };
    Ok(Export::new("", device).described(name))
}

/// Asks for changes every second, which are logged as they are found.
fn look_for_changes(disk: &Synthetic, ended: &AtomicBool) {
    let mut looks = 0_u32;
    while !ended.load(Ordering::Relaxed) {
        looks += 1;
        if looks.is_multiple_of(10) {
            let _ = disk.changed();
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

fn run_command(command: &OsString, uri: &str, socket: Option<&Path>) -> std::io::Result<ExitStatus> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).env("uri", uri);
    if let Some(socket) = socket {
        shell.env("unixsocket", socket);
    }
    shell.status()
}

fn split(export: &OsString) -> Result<(String, &std::ffi::OsStr)> {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = export.as_bytes();
    let found = bytes.iter().position(|&byte| byte == b'=').and_then(|at| bytes.split_at_checked(at));
    let Some((name, image)) = found else {
        return Err(Failure::usage(export, "is not NAME=IMG"));
    };
    let name = str::from_utf8(name).map_err(|_| Failure::usage(export, "has a name that is no UTF-8"))?;
    if name.len() > 4096 {
        return Err(Failure::usage(export, "has a name of more than 4096 bytes"));
    }
    Ok((name.to_owned(), std::ffi::OsStr::from_bytes(image.get(1..).unwrap_or_default())))
}

fn open(name: &str, image: &std::ffi::OsStr, args: &Args, context: &Context) -> Result<Export> {
    let target = Target::parse(image)?;
    if target.path() != b"/" {
        return Err(Failure::usage(image, "names a file in an image; a server takes the image"));
    }
    let mode = if args.read_only || args.overlay.is_some() { Mode::Read } else { Mode::Write };
    // A client says by a flush what is to be durable, and in which order.
    let device = target.open_device(&context.image, mode, Durability::Relaxed)?;
    let mut claim = None;
    let device: Arc<dyn BlockDevice> = match &args.overlay {
        Some(file) => {
            Arc::new(FileOverlay::open(device, file, Durability::Relaxed).of(|| show_os(file.as_os_str()))?)
        }
        None => {
            if mode == Mode::Write {
                claim = Some(device.claim(0, device.size()).of(|| target.image_name())?);
            }
            device
        }
    };
    let export = Export::new(name, device).described(show(image.as_encoded_bytes()));
    let export = match claim {
        Some(claim) => export.claimed(claim),
        None => export,
    };
    Ok(if args.read_only { export.read_only() } else { export })
}

/// A folder that goes when nobody listens in it any more.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // Whatever else is in it stays.
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn listen(args: &Args) -> Result<(Option<Folder>, Listener)> {
    if let Some(address) = args.listen {
        if !(address.ip().to_canonical().is_loopback() || args.is_encrypted() || args.unencrypted) {
            let what = "other machines reach it, and nothing would be encrypted: --tls-certificates encrypts, \
                and --unencrypted says that this is meant";
            return Err(Failure::usage(&OsString::from(address.to_string()), what));
        }
        let listener = Listener::tcp(address);
        return Ok((None, listener.map_err(|error| Failure::text(address.to_string(), error.to_string()))?));
    }
    if let Some(socket) = &args.socket {
        return Ok((None, Listener::unix(socket).map_err(|error| Failure::host(socket, error))?));
    }
    let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| {
        // As the specification of that variable asks: a folder of ours.
        let me = rustix::process::geteuid().as_raw();
        std::fs::metadata(folder).is_ok_and(|found| found.is_dir() && found.uid() == me)
    });
    let base = base.unwrap_or_else(std::env::temp_dir);
    let folder = base.join(format!("e2dax-{}", std::process::id()));
    let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
    let made = made.or_else(|error| {
        // Left over from a server of the same number that was killed.
        if error.kind() != std::io::ErrorKind::AlreadyExists {
            return Err(error);
        }
        std::fs::remove_file(folder.join("nbd.sock")).and_then(|()| std::fs::remove_dir(&folder))?;
        std::fs::DirBuilder::new().mode(0o700).create(&folder)
    });
    made.map_err(|error| Failure::host(&folder, error))?;
    let folder = Folder(folder);
    let socket = folder.0.join("nbd.sock");
    let listener = Listener::unix(&socket).map_err(|error| Failure::host(&socket, error))?;
    Ok((Some(folder), listener))
}

fn uri(args: &Args, listener: &Listener, export: &str) -> NbdUri {
    let place = match (listener.path(), listener.address()) {
        (Some(path), _) => Place::Unix(std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())),
        (None, Some(address)) => Place::Tcp(address.ip().to_string(), address.port()),
        (None, None) => Place::Tcp("localhost".into(), PORT),
    };
    NbdUri { tls: args.is_encrypted(), place, export: export.into(), certificates: None, hostname: None }
}
