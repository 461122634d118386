//! Servers that run for the time of a test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use blockdev::BlockDevice;
use e2dax_net::client::{Connect, NbdDevice};
use e2dax_net::server::{Export, Server};
use e2dax_net::stream::{Listener, Stop};
use e2dax_net::uri::NbdUri;
use tempfile::TempDir;

/// A server of ours in this process.
pub(crate) struct Ours {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
    pub(crate) socket: PathBuf,
}

impl Ours {
    pub(crate) fn start(socket: &Path, exports: Vec<Export>) -> Self {
        Self::listen(Listener::unix(socket).unwrap(), Server::new(exports))
    }

    pub(crate) fn listen(listener: Listener, server: Server) -> Self {
        let socket = listener.path().map(Path::to_path_buf).unwrap_or_default();
        let stop = Arc::new(Stop::new().unwrap());
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            // A device that a test makes fail cannot be flushed.
            let _ = server.run(&listener, &told);
        });
        Self { stop, thread: Some(thread), socket }
    }

    pub(crate) fn of(folder: &TempDir, device: Arc<dyn BlockDevice>) -> Self {
        Self::start(&folder.path().join("ours.sock"), vec![Export::new("", device)])
    }

    pub(crate) fn uri(&self) -> NbdUri {
        NbdUri::unix(&self.socket, "")
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A server of others.
pub(crate) struct Theirs {
    child: Child,
    pub(crate) socket: PathBuf,
}

impl Theirs {
    /// Starts a program, whose arguments name the socket as SOCKET, and waits until somebody listens there.
    pub(crate) fn start(folder: &Path, program: &str, arguments: &[&str]) -> Self {
        let socket = folder.join("theirs.sock");
        let _ = std::fs::remove_file(&socket);
        let name = socket.to_str().unwrap();
        let arguments = arguments.iter().map(|argument| argument.replace("SOCKET", name));
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let begin = Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(10), "{program} does not listen");
            assert!(child.try_wait().unwrap().is_none(), "{program} has ended");
            thread::sleep(Duration::from_millis(3));
        }
        Self { child, socket }
    }

    pub(crate) fn nbdkit(folder: &Path, arguments: &[&str]) -> Self {
        let mut all = vec!["-f", "-U", "SOCKET"];
        all.extend(arguments);
        Self::start(folder, "nbdkit", &all)
    }

    pub(crate) fn qemu_nbd(folder: &Path, arguments: &[&str]) -> Self {
        let mut all = vec!["-t", "-e", "8", "-k", "SOCKET"];
        all.extend(arguments);
        Self::start(folder, "qemu-nbd", &all)
    }

    pub(crate) fn uri(&self) -> NbdUri {
        NbdUri::unix(&self.socket, "")
    }

    /// Without a warning.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        self.kill();
    }
}

/// nbd-server, which serves well only in the background: ended by the number in its file.
pub(crate) struct NbdServer(PathBuf);

impl NbdServer {
    pub(crate) fn start(folder: &Path, socket: &Path, config: &Path) -> Self {
        let number = folder.join("nbd-server.pid");
        let arguments = [config.as_os_str(), "-p".as_ref(), number.as_os_str()];
        assert!(Command::new("nbd-server").arg("-C").args(arguments).status().unwrap().success());
        let begin = Instant::now();
        while std::os::unix::net::UnixStream::connect(socket).is_err() || !std::fs::exists(&number).unwrap() {
            assert!(begin.elapsed() < Duration::from_secs(10), "nbd-server does not listen");
            thread::sleep(Duration::from_millis(3));
        }
        Self(number)
    }
}

impl Drop for NbdServer {
    fn drop(&mut self) {
        let number = std::fs::read_to_string(&self.0).unwrap_or_default();
        let _ = Command::new("kill").arg(number.trim()).status();
    }
}

pub(crate) fn connect(uri: &NbdUri) -> NbdDevice {
    NbdDevice::open(uri, &Connect::default()).unwrap()
}

/// A client that gives up at once.
pub(crate) fn impatient(uri: &NbdUri) -> NbdDevice {
    let options =
        Connect { reconnect: Duration::ZERO, timeout: Duration::from_secs(2), ..Connect::default() };
    NbdDevice::open(uri, &options).unwrap()
}

/// A sparse file.
pub(crate) fn file(folder: &TempDir, name: &str, len: u64) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::File::create(&path).unwrap().set_len(len).unwrap();
    path
}

/// What a server answers to an option.
pub(crate) fn answer(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
    for word in [option, kind, data.len() as u32] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(data);
    bytes
}
