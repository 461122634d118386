//! An image behind HTTP or in an object store, for reading: `https://HOST/PATH`, `s3://BUCKET/KEY`, `gs://BUCKET/KEY`,
//! `az://CONTAINER/KEY`.
//!
//! # Invariants
//! 1. All bytes are of one version: the size and the ETag (or, where there is none, the time of the last change) that were found
//!    when the device was opened. An answer of another one is an error, of that call and every later one.
//! 2. Bytes are fetched in blocks, neighbours by one request; memory holds at most the given number of bytes of them.
//! 3. Every call ends: requests have a time, and are repeated a few times at most.
//!
//! Who is asked, and with which credentials, is read from the environment as the tools of each store name it
//! (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME`, …).
//!
//! # Locking
//! `held` for a copy in memory; never while a request is under way.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use blockdev::{BlockDevice, Error, Result};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreScheme};
use url::Url;

/// Schemes that name an object.
const SCHEMES: [&str; 6] = ["http", "https", "s3", "gs", "az", "azure"];
/// Most blocks that one request fetches.
const MAX_RUN: u64 = 16;
/// Blocks that are fetched together when reading goes forward.
const AHEAD: u64 = 4;

/// How an object is read.
#[derive(Clone, Debug)]
pub struct ObjectOptions {
    /// Bytes of a block, the least that is fetched: a power of two of at least 4096.
    pub block: u64,
    /// Bytes of blocks that are held at most.
    pub cache: u64,
    /// How long a request may take.
    pub timeout: Duration,
    /// How often a request that failed is repeated.
    pub retries: usize,
}

impl Default for ObjectOptions {
    /// Blocks of 128 KiB, 64 MiB of them; 20 seconds for a request, 3 more tries.
    fn default() -> Self {
        Self { block: 128 << 10, cache: 64 << 20, timeout: Duration::from_secs(20), retries: 3 }
    }
}

/// What was fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectStats {
    /// Requests, the first one for size and ETag included.
    pub requests: u64,
    /// Bytes that came.
    pub bytes: u64,
}

/// An object as a device that can be read.
pub struct ObjectDevice {
    name: String,
    store: Box<dyn ObjectStore>,
    path: Path,
    size: u64,
    version: Version,
    options: ObjectOptions,
    runtime: tokio::runtime::Runtime,
    held: Mutex<Held>,
    /// Why it is over.
    over: OnceLock<String>,
    requests: AtomicU64,
    bytes: AtomicU64,
}

/// What tells one version of an object from another.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Version {
    Tag(String),
    /// Seconds and nanoseconds.
    Changed(i64, u32),
}

impl Version {
    fn of(meta: &ObjectMeta) -> Self {
        match &meta.e_tag {
            Some(tag) => Self::Tag(tag.clone()),
            None => {
                let time = meta.last_modified;
                Self::Changed(time.timestamp(), time.timestamp_subsec_nanos())
            }
        }
    }
}

/// Blocks in memory, the one that was longest not used first.
#[derive(Default)]
struct Held {
    blocks: HashMap<u64, (u64, Arc<[u8]>)>,
    by_use: BTreeMap<u64, u64>,
    uses: u64,
    /// The block behind the last that was fetched.
    expected: u64,
}

impl Held {
    fn get(&mut self, block: u64) -> Option<Arc<[u8]>> {
        let (used, data) = self.blocks.get_mut(&block)?;
        self.by_use.remove(used);
        self.uses += 1;
        *used = self.uses;
        self.by_use.insert(self.uses, block);
        Some(Arc::clone(data))
    }

    fn put(&mut self, block: u64, data: Arc<[u8]>, most: usize) {
        self.uses += 1;
        if let Some((used, _)) = self.blocks.insert(block, (self.uses, data)) {
            self.by_use.remove(&used);
        }
        self.by_use.insert(self.uses, block);
        while self.blocks.len() > most {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.blocks.remove(&oldest);
        }
    }
}

impl std::fmt::Debug for ObjectDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectDevice")
            .field("url", &self.name)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// Whether a text names an object: it begins with one of the schemes.
#[must_use]
pub fn is_one(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| SCHEMES.contains(&scheme))
}

/// What an error says, down to its cause, on one line.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl ObjectDevice {
    /// Asks for an object's size and version.
    ///
    /// # Errors
    /// `Io` with `op` `open`, which says what is wrong with the URL, or what the server says; `Unsupported` for a block size that
    /// is no power of two of at least 4096.
    pub fn open(url: &str, options: &ObjectOptions) -> Result<Self> {
        if !options.block.is_power_of_two() || options.block < 4096 || options.cache < options.block {
            return Err(Error::Unsupported("blocks of that size"));
        }
        let failed = |message: String| Error::Io { op: "open", offset: 0, errno: None, message };
        let parsed = Url::parse(url).map_err(|error| failed(error.to_string()))?;
        if parsed.query().is_some() {
            return Err(failed("has a query, which objects have not".into()));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let (store, path) = {
            let _inside = runtime.enter();
            store(&parsed, options).map_err(|error| failed(words(&error)))?
        };
        let ask = async {
            let head = GetOptions { head: true, ..GetOptions::default() };
            store.get_opts(&path, head).await.map(|found| found.meta)
        };
        let meta = runtime.block_on(ask).map_err(|error| failed(words(&error)))?;
        Ok(Self {
            name: url.to_owned(),
            size: meta.size,
            version: Version::of(&meta),
            store,
            path,
            options: options.clone(),
            runtime,
            held: Mutex::new(Held::default()),
            over: OnceLock::new(),
            requests: AtomicU64::new(1),
            bytes: AtomicU64::new(0),
        })
    }

    /// What was fetched so far.
    #[must_use]
    pub fn stats(&self) -> ObjectStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ObjectStats { requests: load(&self.requests), bytes: load(&self.bytes) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block, and how many from there are wanted.
    fn block(&self, block: u64, wanted: u64) -> Result<Arc<[u8]>> {
        let (first, count) = {
            let mut held = self.held();
            if let Some(data) = held.get(block) {
                return Ok(data);
            }
            let end = self.size.div_ceil(self.options.block);
            let ahead = if held.expected == block { AHEAD } else { 1 };
            let most =
                wanted.max(ahead).min(MAX_RUN).min(end - block).min(self.options.cache / self.options.block);
            let free =
                (block..block + most).take_while(|block| !held.blocks.contains_key(block)).count() as u64;
            held.expected = block + free;
            (block, free.max(1))
        };
        let start = first * self.options.block;
        let bytes = self.fetch(start, (start + count * self.options.block).min(self.size))?;
        // OK to cast: a block lies in memory.
        let most = (self.options.cache / self.options.block) as usize;
        let mut held = self.held();
        let mut wanted = None;
        for (data, number) in bytes.chunks(self.options.block as usize).zip(first..) {
            let data: Arc<[u8]> = data.into();
            if number == block {
                wanted = Some(Arc::clone(&data));
            }
            held.put(number, data, most);
        }
        wanted.ok_or_else(|| self.failed(start, "the answer is empty".into()))
    }

    fn failed(&self, offset: u64, message: String) -> Error {
        Error::Io { op: "read", offset, errno: Some(rustix::io::Errno::IO.raw_os_error()), message }
    }

    /// Fetches bytes by one request.
    fn fetch(&self, start: u64, end: u64) -> Result<Vec<u8>> {
        if let Some(why) = self.over.get() {
            return Err(self.failed(start, why.clone()));
        }
        // What is weak cannot be asked for; it is compared afterwards.
        let strong = match &self.version {
            Version::Tag(tag) if !tag.starts_with("W/") => Some(tag.clone()),
            _ => None,
        };
        let asked = GetOptions {
            range: Some(GetRange::Bounded(start..end)),
            if_match: strong,
            ..GetOptions::default()
        };
        self.requests.fetch_add(1, Ordering::Relaxed);
        let got = self.runtime.block_on(async {
            let found = self.store.get_opts(&self.path, asked).await?;
            let same = Version::of(&found.meta) == self.version && found.meta.size == self.size;
            if !same || found.range != (start..end) {
                return Ok(None);
            }
            found.bytes().await.map(Some)
        });
        let changed = || {
            let why = "has changed since it was opened".to_owned();
            let _ = self.over.set(why.clone());
            Err(self.failed(start, why))
        };
        match got {
            Ok(Some(bytes)) if bytes.len() as u64 == end - start => {
                self.bytes.fetch_add(end - start, Ordering::Relaxed);
                Ok(bytes.to_vec())
            }
            Ok(Some(bytes)) => {
                Err(self.failed(start, format!("{} bytes came of {}", bytes.len(), end - start)))
            }
            Ok(None) | Err(object_store::Error::Precondition { .. }) => changed(),
            Err(error) => Err(self.failed(start, words(&error))),
        }
    }

    fn refuse(&self, offset: u64, len: u64) -> Result<()> {
        self.check(offset, len)?;
        Err(Error::ReadOnly)
    }

    fn check(&self, offset: u64, len: u64) -> Result<()> {
        let size = self.size;
        if len <= size && offset <= size - len {
            Ok(())
        } else {
            Err(Error::OutOfRange { offset, len, size })
        }
    }
}

/// Who has the object, and its name there.
fn store(url: &Url, options: &ObjectOptions) -> object_store::Result<(Box<dyn ObjectStore>, Path)> {
    use object_store::{ClientConfigKey, RetryConfig, http::HttpBuilder};
    let (scheme, path) = ObjectStoreScheme::parse(url)?;
    let timeout = format!("{} ms", options.timeout.as_millis());
    if scheme == ObjectStoreScheme::Http {
        let retry = RetryConfig {
            max_retries: options.retries,
            retry_timeout: options.timeout * 2,
            ..RetryConfig::default()
        };
        let plain = if url.scheme() == "http" { "true" } else { "false" };
        let built = HttpBuilder::new()
            .with_url(&url[..url::Position::BeforePath])
            .with_retry(retry)
            .with_config(ClientConfigKey::AllowHttp, plain)
            .with_config(ClientConfigKey::Timeout, timeout)
            .build()?;
        return Ok((Box::new(built), path));
    }
    let told = std::env::vars().chain([("timeout".to_owned(), timeout)]);
    object_store::parse_url_opts(url, told)
}

impl BlockDevice for ObjectDevice {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check(offset, buf.len() as u64)?;
        let block = self.options.block;
        let end = offset + buf.len() as u64;
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let data = self.block(at / block, end.div_ceil(block) - at / block)?;
            // OK to cast: a block lies in memory.
            let from = data.get((at % block) as usize..).unwrap_or_default();
            let len = from.len().min(rest.len());
            if len == 0 {
                return Err(self.failed(at, "a block is too short".into()));
            }
            let (piece, after) = rest.split_at_mut(len);
            piece.copy_from_slice(from.get(..len).unwrap_or_default());
            (at, rest) = (at + len as u64, after);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.refuse(offset, buf.len() as u64)
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.refuse(offset, len)
    }

    fn fence(&self) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.refuse(offset, len)
    }
}
