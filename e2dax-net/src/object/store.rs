//! Requests to a store, and what its answers have to be.

use std::error::Error as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _,
    ObjectStoreScheme, RetryConfig,
};
use tokio::runtime::{Builder, Runtime};

use super::uri::ObjectUri;

/// How often a request is sent again.
const RETRIES: usize = 8;

/// An object, as it was when it was opened.
pub(super) struct Object {
    store: Arc<dyn ObjectStore>,
    path: Path,
    meta: ObjectMeta,
    patience: Duration,
    runtime: Runtime,
}

/// Why there are no bytes.
#[derive(Debug)]
pub(super) enum Failed {
    /// They are those of another object than before.
    Changed(String),
    /// For now.
    Other(String),
}

impl Object {
    /// Asks for its size and what it is known by.
    pub(super) fn open(uri: &ObjectUri) -> Result<Self, String> {
        // Another part of the program may have chosen one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("objects").enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let (store, path) = {
            let _entered = runtime.enter();
            connect(uri).map_err(|error| in_words(&error))?
        };
        let meta = within(&runtime, uri.patience, store.head(&path))?.map_err(|error| in_words(&error))?;
        if meta.e_tag.is_none() {
            log::warn!("{uri}: has no ETag: a change that keeps its size and its time is not noticed");
        }
        Ok(Self { store, path, meta, patience: uri.patience, runtime })
    }

    pub(super) fn size(&self) -> u64 {
        self.meta.size
    }

    /// All that tells this object from others, and from itself as it was before.
    pub(super) fn identity(&self) -> String {
        format!("{:?} {} {:?} {}", self.path, self.meta.size, self.meta.e_tag, self.meta.last_modified)
    }

    /// Fetches a range, by one request.
    pub(super) fn fetch(&self, range: Range<u64>) -> Result<Vec<u8>, Failed> {
        // A weak ETag never matches, by the rules of HTTP: there the answer is looked at alone.
        let strong = self.meta.e_tag.clone().filter(|tag| !tag.starts_with("W/"));
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            if_match: strong,
            ..GetOptions::default()
        };
        let done = within(&self.runtime, self.patience, self.answer(range, options));
        done.map_err(Failed::Other)?
    }

    async fn answer(&self, range: Range<u64>, options: GetOptions) -> Result<Vec<u8>, Failed> {
        let result = match self.store.get_opts(&self.path, options).await {
            Err(Error::Precondition { .. }) => return Err(Failed::Changed("its ETag is another one".into())),
            Err(Error::NotFound { .. }) => return Err(Failed::Changed("it is gone".into())),
            result => result.map_err(|error| Failed::Other(in_words(&error)))?,
        };
        let meta = &result.meta;
        if meta.size != self.meta.size {
            return Err(Failed::Changed(format!("it has {} bytes, and had {}", meta.size, self.meta.size)));
        }
        if meta.e_tag != self.meta.e_tag {
            return Err(Failed::Changed("its ETag is another one".into()));
        }
        if meta.e_tag.is_none() && meta.last_modified != self.meta.last_modified {
            return Err(Failed::Changed("it was written to since".into()));
        }
        if result.range != range {
            return Err(Failed::Other("the server sends another range than was asked for".into()));
        }
        // OK to cast: a request is for a few MiB.
        let len = (range.end - range.start) as usize;
        let mut bytes = Vec::with_capacity(len);
        let mut body = result.into_stream();
        while let Some(part) = body.next().await {
            bytes.extend_from_slice(&part.map_err(|error| Failed::Other(in_words(&error)))?);
            if bytes.len() > len {
                return Err(Failed::Other("the server sends more bytes than were asked for".into()));
            }
        }
        if bytes.len() < len {
            return Err(Failed::Other("the server sends fewer bytes than were asked for".into()));
        }
        Ok(bytes)
    }
}

/// Waits for an answer for so long.
fn within<T>(runtime: &Runtime, patience: Duration, work: impl Future<Output = T>) -> Result<T, String> {
    let done = runtime.block_on(async { tokio::time::timeout(patience, work).await });
    done.map_err(|_| "the server does not answer".into())
}

fn connect(uri: &ObjectUri) -> object_store::Result<(Arc<dyn ObjectStore>, Path)> {
    // An address or an endpoint that begins with http is meant so.
    let client = ClientOptions::new()
        .with_allow_http(true)
        .with_connect_timeout(uri.patience.min(Duration::from_secs(10)))
        .with_timeout(uri.patience);
    let backoff = BackoffConfig { init_backoff: Duration::from_millis(50), ..BackoffConfig::default() };
    let retry = RetryConfig { backoff, max_retries: RETRIES, retry_timeout: uri.patience };
    let url = uri.url.to_string();
    let (scheme, path) = ObjectStoreScheme::parse(&uri.url)?;
    Ok(match scheme {
        ObjectStoreScheme::AmazonS3 if uri.url.scheme() == "s3" => {
            let mut builder =
                AmazonS3Builder::from_env().with_url(url).with_retry(retry).with_client_options(client);
            for (key, value) in &uri.options {
                builder = builder.with_config(key.parse()?, value);
            }
            (Arc::new(builder.build()?), path)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let mut builder = GoogleCloudStorageBuilder::from_env()
                .with_url(url)
                .with_retry(retry)
                .with_client_options(client);
            for (key, value) in &uri.options {
                builder = builder.with_config(key.parse()?, value);
            }
            (Arc::new(builder.build()?), path)
        }
        ObjectStoreScheme::MicrosoftAzure if uri.url.scheme() == "az" => {
            let mut builder =
                MicrosoftAzureBuilder::from_env().with_url(url).with_retry(retry).with_client_options(client);
            for (key, value) in &uri.options {
                builder = builder.with_config(key.parse()?, value);
            }
            (Arc::new(builder.build()?), path)
        }
        // The whole address, with what may sign it; below that there is no path.
        _ => {
            let builder = HttpBuilder::new().with_url(url).with_retry(retry);
            (Arc::new(builder.with_client_options(client).build()?), Path::default())
        }
    })
}

/// An error, and what it was caused by where that says more.
fn in_words(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text.chars().map(|sign| if sign.is_control() { ' ' } else { sign }).take(600).collect()
}
