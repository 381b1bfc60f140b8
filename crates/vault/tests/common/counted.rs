//! A store that notes what is read of it.
#![allow(missing_docs, unreachable_pub, dead_code)]

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rekindle_vault::Store;
use std::sync::{Arc, Mutex};

/// Objects in memory; the names of those that were read, in their order.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    inner: Arc<InMemory>,
    read: Arc<Mutex<Vec<String>>>,
}

impl Counted {
    pub fn store(&self) -> Store {
        Store::over(Arc::new(self.clone()), "memory:counted")
    }

    /// How many manifests, indexes and parts were read since the last time this was asked.
    pub fn reads(&self) -> (usize, usize, usize) {
        let read = std::mem::take(&mut *self.read.lock().unwrap());
        let count = |folder: &str| read.iter().filter(|name| name.contains(folder)).count();
        let (manifests, indexes) = (count("/manifest/"), count("/index/"));
        (manifests, indexes, read.len() - manifests - indexes)
    }

    pub async fn remove(&self, name: &str) {
        object_store::ObjectStoreExt::delete(&*self.inner, &Path::from(format!("prod/{name}")))
            .await
            .unwrap();
    }
}

impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("counted")
    }
}

#[async_trait]
impl ObjectStore for Counted {
    async fn put_opts(&self, at: &Path, bytes: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(at, bytes, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        if !options.head {
            self.read.lock().unwrap().push(at.to_string());
        }
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(&self, at: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
