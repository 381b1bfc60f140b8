//! Reading all objects of a kind: page by page, each page worked on while the next one comes, bounded in bytes.

use crate::error::{Error, Result};
use crate::kinds::{Kind, encoded};
use http::Method;
use rekindle_world::cluster::{Cluster, ClusterError, Sent};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;

/// Objects asked for at first; from then on as many as make about [`PAGE_BYTES`].
const FIRST_PAGE: u64 = 50;
/// A page of the largest objects (1.5 MiB each) must not fill the memory.
const PAGE_BYTES: u64 = 4 << 20;
/// How often a request is tried that the server is too busy for, or that got no answer.
const ATTEMPTS: u32 = 6;

/// What is listed.
pub(crate) struct Query<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) kind: &'a Kind,
    /// Empty for all.
    pub(crate) namespace: &'a str,
    pub(crate) selector: Option<&'a str>,
    /// Most objects in a page.
    pub(crate) chunk_size: u64,
}

/// What is done with the items of a page, on a thread of its own.
pub(crate) type Work = Arc<dyn Fn(Vec<&RawValue>) -> Result<()> + Send + Sync>;

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    metadata: ListMeta,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    r#continue: String,
}

#[derive(Deserialize)]
struct Items<'a> {
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

impl Query<'_> {
    /// Hands every page to `work`; the resource version of the list. All pages are of that one revision.
    ///
    /// # Errors
    /// Also [`ClusterError::Refused`] with status 410 when the revision was compacted away meanwhile: begin again.
    pub(crate) async fn pages(&self, work: &Work) -> Result<String> {
        let (mut token, mut limit) = (String::new(), FIRST_PAGE.min(self.chunk_size).max(1));
        let mut working: Option<tokio::task::JoinHandle<Result<()>>> = None;
        loop {
            let body = self.page(limit, &token).await?;
            let head: Head = serde_json::from_slice(&body).map_err(|error| self.not_a_list(&error))?;
            let bytes = body.len() as u64;
            if let Some(working) = working.take() {
                working.await.map_err(Error::CutShort)??;
            }
            let (work, doing) = (work.clone(), self.doing());
            let handed = tokio::task::spawn_blocking(move || {
                let wrong = |error: serde_json::Error| Error::Answer { doing, why: error.to_string() };
                let items: Items = serde_json::from_slice(&body).map_err(wrong)?;
                work(items.items.unwrap_or_default())
            });
            if head.metadata.r#continue.is_empty() {
                handed.await.map_err(Error::CutShort)??;
                return Ok(head.metadata.resource_version);
            }
            working = Some(handed);
            token = head.metadata.r#continue;
            limit = (limit * PAGE_BYTES / bytes.max(1)).clamp(1, self.chunk_size.max(1));
        }
    }

    async fn page(&self, limit: u64, token: &str) -> Result<Vec<u8>> {
        let mut path = format!("{}?limit={limit}", self.kind.collection(self.namespace));
        if let Some(selector) = self.selector {
            path = format!("{path}&labelSelector={}", encoded(selector));
        }
        if !token.is_empty() {
            path = format!("{path}&continue={}", encoded(token));
        }
        let sent = || self.cluster.bytes(&Method::GET, &path, Sent::Nothing);
        patiently(sent).await.map_err(Error::cluster(self.doing()))
    }

    fn doing(&self) -> String {
        let place = if self.namespace.is_empty() { String::new() } else { format!(" of {}", self.namespace) };
        format!("list {}{place}", self.kind.name())
    }

    fn not_a_list(&self, error: &serde_json::Error) -> Error {
        Error::Answer { doing: self.doing(), why: error.to_string() }
    }
}

/// Tries a request again that the server was too busy for, or that got no answer; longer apart each time.
pub(crate) async fn patiently<T, F>(mut request: impl FnMut() -> F) -> std::result::Result<T, ClusterError>
where
    F: Future<Output = std::result::Result<T, ClusterError>>,
{
    let mut pause = Duration::from_millis(200);
    for _ in 1..ATTEMPTS {
        match request().await {
            Err(error) if is_passing(&error) => tokio::time::sleep(pause).await,
            other => return other,
        }
        pause *= 2;
    }
    request().await
}

/// Whether it may go well a moment later.
pub(crate) fn is_passing(error: &ClusterError) -> bool {
    match error {
        ClusterError::Unreachable { .. } => true,
        ClusterError::Refused { status, .. } => matches!(status, 429 | 502 | 503 | 504),
        _ => false,
    }
}
