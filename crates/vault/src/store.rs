//! The store under a vault: a folder, S3 and what speaks it, Google's or Azure's, or memory for tests; over `object_store`.
//!
//! Credentials come by the provider's usual ways (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, instance metadata, ...).
//! A folder's writes are synced before they count.

use crate::error::{Error, Result};
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// So long a request is retried while nothing is under way: a wrong address shows soon.
const HASTE: Duration = Duration::from_secs(15);
/// So long a request is retried while a backup is under way. Signed requests grow too old soon after.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

fn retry(retry_timeout: Duration) -> RetryConfig {
    let backoff = BackoffConfig { max_backoff: Duration::from_secs(5), ..BackoffConfig::default() };
    // the time decides, not the number: a refused connection is refused at once
    RetryConfig { backoff, max_retries: usize::MAX, retry_timeout }
}

/// The folder of probes; no cluster has such a name.
pub(crate) const PROBE: &str = "_probe";
/// A folder with more objects than this is none of ours: segments of a year, merged hourly, are some 9000, and those of a
/// month that nobody pruned 1.3 million.
const LISTED_MAX: usize = 2_000_000;

/// A provider's store: its environment, its address, then the settings given.
macro_rules! provider {
    ($builder:ty, $key:ty, $url:expr, $settings:expr, $patience:expr) => {{
        let mut builder = <$builder>::from_env().with_url($url).with_retry(retry($patience));
        let mut unknown = None;
        for (name, value) in $settings {
            match name.parse::<$key>() {
                Ok(key) => builder = builder.with_config(key, *value),
                Err(error) => unknown = Some(error),
            }
        }
        let built = match unknown {
            Some(error) => Err(error),
            None => builder.build(),
        };
        built.map(|store| Arc::new(store) as Arc<dyn ObjectStore>).map_err(Wrong::from)
    }};
}

/// Why an address is of no use.
type Wrong = Box<dyn std::error::Error + Send + Sync>;

/// The address of a store, and the way to it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    /// The same store, asked for longer.
    patient: Arc<dyn ObjectStore>,
    prefix: Path,
    url: String,
    /// Where its objects are files.
    folder: Option<PathBuf>,
}

impl Store {
    /// Opens `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, `file:///FOLDER` or a plain path to a
    /// folder, which must exist.
    ///
    /// # Errors
    /// [`Error::Url`] when it is no address, its folder is missing, or its provider's settings are wrong.
    pub fn open(url: &str) -> Result<Self> {
        Self::open_with(url, std::iter::empty())
    }

    /// As [`Store::open`], with settings of the provider that go before those of the environment: names as
    /// `object_store` has them (`aws_endpoint`, `aws_region`, ...).
    ///
    /// # Errors
    /// As [`Store::open`], and when a setting is unknown.
    pub fn open_with<'a>(url: &str, settings: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let wrong =
            |source: Box<dyn std::error::Error + Send + Sync>| Error::Url { url: url.to_owned(), source };
        let folder = match url.strip_prefix("file://") {
            Some(_) => Some(
                Url::parse(url)
                    .map_err(|e| wrong(e.into()))?
                    .to_file_path()
                    .map_err(|()| wrong("a file:// address names an absolute path and no host".into()))?,
            ),
            None if !url.contains("://") => Some(url.into()),
            None => None,
        };
        if let Some(folder) = folder {
            let local = LocalFileSystem::new_with_prefix(&folder).map_err(|e| wrong(e.into()))?;
            return Ok(Self { folder: Some(folder), ..Self::over(Arc::new(local.with_fsync(true)), url) });
        }
        let parsed = Url::parse(url).map_err(|e| wrong(e.into()))?;
        let settings: Vec<(&str, &str)> = settings.collect();
        let build = |patience| match parsed.scheme() {
            "s3" => provider!(AmazonS3Builder, AmazonS3ConfigKey, url, &settings, patience),
            "gs" => provider!(GoogleCloudStorageBuilder, GoogleConfigKey, url, &settings, patience),
            "az" => provider!(MicrosoftAzureBuilder, AzureConfigKey, url, &settings, patience),
            _ => Err("only s3://, gs://, az://, file:// and plain paths are known".into()),
        };
        let (inner, patient) = (build(HASTE).map_err(wrong)?, build(PATIENCE).map_err(wrong)?);
        let prefix = Path::from_url_path(parsed.path()).map_err(|e| wrong(e.into()))?;
        Ok(Self { inner, patient, prefix, url: url.to_owned(), folder: None })
    }

    /// A store that lives as long as its clones: for tests of what is above it.
    pub fn memory() -> Self {
        Self::over(Arc::new(InMemory::new()), "memory:")
    }

    /// Over a store that is open already; `url` names it in what people read.
    pub fn over(inner: Arc<dyn ObjectStore>, url: &str) -> Self {
        Self { patient: inner.clone(), inner, prefix: Path::default(), url: url.to_owned(), folder: None }
    }

    /// The same store, for writing: a server that is gone for some minutes fails no backup that is under way.
    pub(crate) fn patient(&self) -> Self {
        Self { inner: self.patient.clone(), ..self.clone() }
    }

    /// The address, as given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same store, `folder` below.
    pub(crate) fn below(&self, folder: &str) -> Self {
        Self { prefix: self.prefix.clone().join(folder), ..self.clone() }
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// An object, or a folder of objects, as a path of this machine; none when the store is no folder.
    pub(crate) fn local(&self, name: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(self.path(name).as_ref()))
    }

    /// An object as people find it.
    pub(crate) fn object(&self, name: &str) -> String {
        let path = self.path(name);
        match self.url.split_once("://") {
            Some((scheme, rest)) if scheme != "file" => {
                format!("{scheme}://{}/{path}", rest.split('/').next().unwrap_or(rest))
            }
            _ => format!("{}/{path}", self.url.trim_end_matches('/')),
        }
    }

    pub(crate) fn error(
        &self,
        action: &'static str,
        name: &str,
    ) -> impl Fn(object_store::Error) -> Error + use<> {
        let object = self.object(name);
        move |error| Error::Store { action, object: object.clone(), source: Box::new(error) }
    }

    pub(crate) fn inner(&self) -> (&dyn ObjectStore, impl Fn(&str) -> Path + '_) {
        (&*self.inner, |name| self.path(name))
    }

    /// Creates an object; false when there is one of that name.
    pub(crate) async fn create(&self, name: &str, bytes: impl Into<PutPayload>) -> Result<bool> {
        match self.inner.put_opts(&self.path(name), bytes.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(false)
            }
            Err(error) => Err(self.error("create", name)(error)),
        }
    }

    /// Writes an object whose name nobody else uses.
    pub(crate) async fn put(&self, name: &str, bytes: PutPayload) -> Result<()> {
        self.inner.put(&self.path(name), bytes).await.map(|_| ()).map_err(self.error("write", name))
    }

    /// The size of an object; none when there is none.
    pub(crate) async fn size_bytes(&self, name: &str) -> Result<Option<u64>> {
        match self.inner.head(&self.path(name)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.error("find", name)(error)),
        }
    }

    /// A small object's bytes; none when there is none.
    pub(crate) async fn read_small(&self, name: &str, max_bytes: u64) -> Result<Option<bytes::Bytes>> {
        let answer = match self.inner.get(&self.path(name)).await {
            Ok(answer) => answer,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.error("read", name)(error)),
        };
        if answer.meta.size > max_bytes {
            let size_bytes = answer.meta.size;
            return Err(Error::TooLarge { object: self.object(name), size_bytes, max_bytes });
        }
        answer.bytes().await.map(Some).map_err(self.error("read", name))
    }

    /// Names and sizes of the objects in a folder, of those after `after` only.
    pub(crate) async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<Listed>> {
        let prefix = self.path(folder);
        let listing = match after {
            Some(after) => self.inner.list_with_offset(Some(&prefix), &self.path(after)),
            None => self.inner.list(Some(&prefix)),
        };
        let mut listed: Vec<Listed> = listing
            .filter_map(|meta| async { meta.map(|meta| Listed::of(&prefix, &meta)).transpose() })
            .take(LISTED_MAX + 1)
            .try_collect()
            .await
            .map_err(self.error("list", folder))?;
        if listed.len() > LISTED_MAX {
            return Err(Error::TooMany { folder: self.object(folder), max: LISTED_MAX });
        }
        listed.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(listed)
    }

    /// Names of the folders here.
    pub(crate) async fn folders(&self) -> Result<Vec<String>> {
        let prefix = (self.prefix != Path::default()).then_some(&self.prefix);
        let listing = self.inner.list_with_delimiter(prefix).await.map_err(self.error("list", ""))?;
        let mut names: Vec<String> =
            listing.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    /// Removes an object; one that is gone already is success.
    pub(crate) async fn remove(&self, name: &str) -> Result<()> {
        match self.inner.delete(&self.path(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error("remove", name)(error)),
        }
    }

    /// Proves that the store honours "create only if absent", which the chain of manifests stands on.
    ///
    /// # Errors
    /// [`Error::NoConditionalPut`], [`Error::Store`].
    pub async fn probe(&self) -> Result<()> {
        let name = format!("{PROBE}/{}", uuid::Uuid::now_v7());
        if !self.create(&name, "first").await? || self.create(&name, "second").await? {
            let _ = self.remove(&name).await;
            return Err(Error::NoConditionalPut { url: self.url.clone() });
        }
        // where nothing may be removed (an object lock) a probe of five bytes stays
        let _ = self.remove(&name).await;
        Ok(())
    }
}

/// An object in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Name below the folder.
    pub(crate) file: String,
    /// Size.
    pub(crate) size_bytes: u64,
    /// When it was written, by the store's clock.
    pub(crate) written_ms: i64,
}

impl Listed {
    fn of(prefix: &Path, meta: &ObjectMeta) -> Option<Self> {
        let file =
            meta.location.prefix_match(prefix)?.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>();
        let written_ms = meta.last_modified.timestamp_millis();
        Some(Self { file: file.join("/"), size_bytes: meta.size, written_ms })
    }
}
