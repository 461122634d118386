//! Images that are reached over the network: `nbd://HOST[:PORT]/EXPORT`, `nbd+unix:///EXPORT?socket=PATH`; those behind HTTP and in
//! object stores.
//!
//! A path inside follows behind `:/`, as in `nbd://host/disk:/etc/passwd`; a place behind `@`, as in `nbd://host/disk@p1:/`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use blockdev::{BlockDevice, CacheOptions, Cached, Counted, Durability, Overlay};
use e2dax_net::client::{Connect, NbdDevice};
use e2dax_net::uri::NbdUri;

use crate::failure::{Failure, Of, Result};
use crate::target::{DeviceKind, Mode};
use crate::text::show;

/// What begins the address of an object: see `e2dax_net::object`.
const OBJECTS: [&str; 5] = ["http://", "https://", "s3://", "gs://", "az://"];

/// Whether an argument names an image that is not a file.
pub(crate) fn is_remote(argument: &OsStr) -> bool {
    argument.to_str().is_some_and(|text| NbdUri::is_one(text) || is_object(text))
}

fn is_object(text: &str) -> bool {
    OBJECTS.iter().any(|scheme| text.starts_with(scheme))
}

/// Where the image of such an argument ends: what follows, if anything, is `:` and a path.
pub(crate) fn end(argument: &[u8]) -> usize {
    let scheme = argument.windows(3).position(|sign| sign == b"://").map_or(0, |at| at + 3);
    let rest = argument.get(scheme..).unwrap_or_default();
    rest.windows(2).position(|sign| sign == b":/").map_or(argument.len(), |at| scheme + at)
}

/// Opens one. What is read is kept in memory, and what is written goes out in the order of the fences.
pub(crate) fn open(
    image: &OsStr,
    kind: DeviceKind,
    mode: Mode,
    durability: Durability,
) -> Result<Arc<dyn BlockDevice>> {
    let name = || show(image.as_bytes());
    let text = image.to_str().ok_or_else(|| Failure::text(name(), "is no UTF-8"))?;
    let in_memory = kind == DeviceKind::Ram;
    let device: Arc<dyn BlockDevice> = if is_object(text) {
        if mode == Mode::Write && !in_memory {
            let what =
                "is read-only: serve --overlay FILE keeps what is written, and --device ram forgets it";
            return Err(Failure::text(name(), what));
        }
        object(text)?.device
    } else {
        Arc::new(nbd(text, mode != Mode::Write || in_memory, durability)?)
    };
    let cached = Cached::new(device, CacheOptions::default()).of(name)?;
    Ok(if in_memory { Arc::new(Overlay::new(cached).of(name)?) } else { Arc::new(cached) })
}

/// Requests for data that were sent, and bytes that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
}

/// An image that is open for reading, and what that cost so far.
pub(crate) struct Measured {
    pub(crate) device: Arc<dyn BlockDevice>,
    pub(crate) cost: Box<dyn Fn() -> Cost>,
}

/// Opens an image for reading, so that it can be asked what that costs.
pub(crate) fn measured(image: &OsStr) -> Result<Measured> {
    let name = || show(image.as_bytes());
    let text = image.to_str().ok_or_else(|| Failure::text(name(), "is no UTF-8"))?;
    if is_object(text) {
        let Measured { device, cost } = object(text)?;
        return Ok(Measured {
            device: Arc::new(Cached::new(device, CacheOptions::default()).of(name)?),
            cost,
        });
    }
    let counted = Arc::new(Counted::new(nbd(text, true, Durability::Relaxed)?));
    let device = Arc::new(Cached::new(Arc::clone(&counted), CacheOptions::default()).of(name)?);
    let cost = move || {
        let counts = counted.snapshot();
        Cost { requests: counts.reads, bytes: counts.read_bytes }
    };
    Ok(Measured { device, cost: Box::new(cost) })
}

/// An object of a store.
#[cfg(feature = "object-store")]
fn object(text: &str) -> Result<Measured> {
    use e2dax_net::object::{ObjectDevice, ObjectUri};

    let uri = ObjectUri::parse(text).map_err(|what| Failure::text(show(text.as_bytes()), what))?;
    let name = || uri.to_string();
    let device = Arc::new(ObjectDevice::open(&uri).map_err(|error| not_connected(name(), error))?);
    let asked = Arc::clone(&device);
    let cost = move || {
        let cost = asked.cost();
        Cost { requests: cost.requests, bytes: cost.bytes }
    };
    Ok(Measured { device, cost: Box::new(cost) })
}

#[cfg(not(feature = "object-store"))]
fn object(text: &str) -> Result<Measured> {
    let what = "HTTP and object stores are not in this build: the feature object-store has them";
    Err(Failure::text(show(text.as_bytes()), what))
}

fn not_connected(name: String, error: blockdev::Error) -> Failure {
    match error {
        blockdev::Error::Io { op: "connect", message, .. } => Failure::text(name, message),
        other => Failure::new(name, other),
    }
}

fn nbd(text: &str, read_only: bool, durability: Durability) -> Result<NbdDevice> {
    let name = || show(text.as_bytes());
    let uri = NbdUri::parse(text).map_err(|what| Failure::text(name(), what))?;
    let options = Connect { read_only, durability, ..Connect::default() };
    NbdDevice::open(&uri, &options).map_err(|error| not_connected(name(), error))
}
