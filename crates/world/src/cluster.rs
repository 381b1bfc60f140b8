//! A connection to an API server that stays open, for the verbs that work through the API alone (nodes, stuck objects,
//! resources). It takes what kubectl takes: kubeconfig, context, exec credentials, tokens, a service account.
//!
//! One request on a host with a kubeconfig of that host is `crate::api` instead.

use crate::tls;
use camino::{Utf8Path, Utf8PathBuf};
use futures::{Stream, StreamExt as _};
pub use http::Method;
use http::{Request, header};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::core::WatchEvent;
use rekindle_model::inventory::DRILL_LABEL;
use rekindle_model::seen::chain;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;

/// Longest body of an answer: a page of 500 of the largest objects stays below.
const MAX_BODY_BYTES: usize = 1 << 30;
/// Longest wait for a whole answer, unless [`Cluster::with_timeout`] says another.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often a GET is sent again whose connection broke, and how long after: a load balancer that takes an API server
/// out ends the connections to it, and the next one goes to another.
const BROKEN_TRIES: u32 = 3;
const BROKEN_PAUSE: Duration = Duration::from_millis(300);
/// Objects asked for in one page of a list.
const PAGE: usize = 500;
/// Where kubeadm leaves the administrator's kubeconfig.
pub(crate) const KUBEADM_ADMIN: &str = "/etc/kubernetes/admin.conf";

/// Which cluster is asked.
#[derive(Clone, Debug, Default)]
pub struct ClusterOptions {
    /// kubeconfig; none = `~/.kube/config`, then the one kubeadm leaves on a control-plane host, then the service
    /// account of the pod this runs in.
    pub kubeconfig: Option<Utf8PathBuf>,
    /// Context of it; none = the current one.
    pub context: Option<String>,
}

/// Why a cluster can't be asked, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No kubeconfig was named, and none is at the usual places.
    #[error("no cluster to ask: no kubeconfig at {looked}, and this is no pod")]
    NoConfig {
        /// The paths looked at.
        looked: String,
    },
    /// The kubeconfig can't be used. The text quotes nothing of it: it holds keys.
    #[error("kubeconfig {path}: {why}")]
    BadConfig {
        /// The file, or `service account`.
        path: String,
        /// Why.
        why: String,
    },
    /// No connection, no answer in time, or TLS trouble.
    #[error("{what}: {why}")]
    Unreachable {
        /// The request: method and URL.
        what: String,
        /// Why.
        why: String,
    },
    /// The API server said no.
    #[error("{what}: {status} {reason}: {message}")]
    Refused {
        /// The request: method and URL.
        what: String,
        /// HTTP status.
        status: u16,
        /// `reason` of the answered Status, or empty.
        reason: String,
        /// `message` of the answered Status, else the start of the body.
        message: String,
    },
    /// The answer is not what its type says.
    #[error("{what}: the answer is not JSON")]
    NotJson {
        /// The request: method and URL.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl ClusterError {
    /// The HTTP status the API server answered; none when it did not answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// Body of a request and what it is.
#[derive(Clone, Copy, Debug)]
pub enum Sent<'a> {
    /// Nothing.
    Nothing,
    /// A whole object (`application/json`).
    Object(&'a Value),
    /// RFC 7386 (`application/merge-patch+json`).
    MergePatch(&'a Value),
    /// RFC 6902 (`application/json-patch+json`).
    JsonPatch(&'a Value),
    /// A server-side apply (`application/apply-patch+yaml`; JSON is YAML).
    Apply(&'a Value),
}

impl Sent<'_> {
    fn parts(self) -> (&'static str, Vec<u8>) {
        let bytes = |value: &Value| value.to_string().into_bytes();
        match self {
            Self::Nothing => ("application/json", Vec::new()),
            Self::Object(value) => ("application/json", bytes(value)),
            Self::MergePatch(value) => ("application/merge-patch+json", bytes(value)),
            Self::JsonPatch(value) => ("application/json-patch+json", bytes(value)),
            Self::Apply(value) => ("application/apply-patch+yaml", bytes(value)),
        }
    }
}

/// What a watch tells.
#[derive(Clone, Debug)]
pub enum Watched<T> {
    /// The object is there, new or changed.
    There(T),
    /// The object is gone; this is how it was last.
    Gone(T),
}

/// A connected API server. Cloning shares the connections.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
    server: String,
    /// The program that makes its credentials, as the kubeconfig names it.
    credential_program: Option<String>,
    timeout: Duration,
}

impl Cluster {
    /// Prepares a connection; the first request makes it.
    ///
    /// # Errors
    /// `NoConfig` and `BadConfig`.
    pub async fn connect(options: &ClusterOptions) -> Result<Self, ClusterError> {
        tls::install_provider();
        let mut config = config(options).await?;
        config.default_retry = false;
        config.connect_timeout = Some(Duration::from_secs(10));
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let credential_program = config.auth_info.exec.as_ref().and_then(|exec| exec.command.clone());
        let client = kube::Client::try_from(config)
            .map_err(|e| ClusterError::BadConfig { path: server.clone(), why: chain(&e) })?;
        Ok(Self { client, server, credential_program, timeout: TIMEOUT })
    }

    /// The same with another longest wait for an answer.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// URL of the API server, without a slash at its end.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The program that its credentials come from, as the kubeconfig names it: a name or a path.
    #[must_use]
    pub fn credential_program(&self) -> Option<&str> {
        self.credential_program.as_deref()
    }

    /// The client of the `kube` crate, for watches and logs.
    #[must_use]
    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    /// GET of a path such as `/api/v1/nodes?limit=500`; none when it does not exist (404).
    ///
    /// # Errors
    /// `Unreachable`, `Refused`, `NotJson`.
    pub async fn get(&self, path: &str) -> Result<Option<Value>, ClusterError> {
        match self.send(&Method::GET, path, Sent::Nothing).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All items of a list, page by page.
    ///
    /// # Errors
    /// As [`Cluster::send`]; a type that is not served is `Refused` with 404.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, ClusterError> {
        self.list_where(path, |_| true).await
    }

    /// The items of a list that are wanted; the others are let go page by page.
    ///
    /// # Errors
    /// As [`Cluster::list`].
    pub async fn list_where(
        &self,
        path: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Vec<Value>, ClusterError> {
        self.list_of(path, |item| wanted(&item).then_some(item)).await
    }

    /// What is taken of each item of a list. Memory is held for one page and for what was taken.
    ///
    /// # Errors
    /// As [`Cluster::list`].
    pub async fn list_of<T>(
        &self,
        path: &str,
        take: impl Fn(Value) -> Option<T>,
    ) -> Result<Vec<T>, ClusterError> {
        let mut taken = Vec::new();
        let mut next = String::new();
        let joint = if path.contains('?') { '&' } else { '?' };
        loop {
            let page = format!("{path}{joint}limit={PAGE}{next}");
            let mut page = self.send(&Method::GET, &page, Sent::Nothing).await?;
            if let Some(Value::Array(found)) = page.get_mut("items").map(Value::take) {
                taken.extend(found.into_iter().filter_map(&take));
            }
            match page.pointer("/metadata/continue").and_then(Value::as_str) {
                Some(token) if !token.is_empty() => next = format!("&continue={}", query(token)),
                _ => return Ok(taken),
            }
        }
    }

    /// UID of the `kube-system` namespace: what tells one cluster from another.
    ///
    /// # Errors
    /// As [`Cluster::send`].
    pub async fn uid(&self) -> Result<String, ClusterError> {
        let uid =
            self.kube_system().await?.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned);
        Ok(uid.unwrap_or_default())
    }

    /// The value of the label that allows drills on this cluster; empty when it is not there.
    ///
    /// # Errors
    /// As [`Cluster::send`].
    pub async fn drill_label(&self) -> Result<String, ClusterError> {
        Ok(drill_label(&self.kube_system().await?))
    }

    async fn kube_system(&self) -> Result<Value, ClusterError> {
        self.send(&Method::GET, "/api/v1/namespaces/kube-system", Sent::Nothing).await
    }

    /// One request; the answered object.
    ///
    /// # Errors
    /// `Unreachable`, `Refused` (any status of 300 and above), `NotJson`.
    pub async fn send(&self, method: &Method, path: &str, sent: Sent<'_>) -> Result<Value, ClusterError> {
        let what = format!("{method} {}{path}", self.server);
        let body = self.bytes(method, path, sent).await?;
        serde_json::from_slice(&body).map_err(|source| ClusterError::NotJson { what, source })
    }

    /// [`Cluster::send`] for an answer that is large, or no JSON (`/readyz`).
    ///
    /// # Errors
    /// `Unreachable`, `Refused`.
    pub async fn bytes(&self, method: &Method, path: &str, sent: Sent<'_>) -> Result<Vec<u8>, ClusterError> {
        self.exchange(method, path, "application/json", sent).await
    }

    /// GET of another representation: `accept` is the header's value, such as that of aggregated discovery.
    ///
    /// # Errors
    /// `Unreachable`, `Refused`.
    pub async fn bytes_as(&self, path: &str, accept: &str) -> Result<Vec<u8>, ClusterError> {
        self.exchange(&Method::GET, path, accept, Sent::Nothing).await
    }

    async fn exchange(
        &self,
        method: &Method,
        path: &str,
        accept: &str,
        sent: Sent<'_>,
    ) -> Result<Vec<u8>, ClusterError> {
        let what = format!("{method} {}{path}", self.server);
        let mut tries = if *method == Method::GET { BROKEN_TRIES } else { 0 };
        loop {
            let exchanged =
                tokio::time::timeout(self.timeout, self.exchange_once(method, path, accept, sent));
            let why = match exchanged.await {
                Ok(Ok((status, body))) if status < 300 => return Ok(body),
                Ok(Ok((status, body))) => return Err(refused(what, status, &body)),
                Ok(Err(failed)) if failed.broke && tries > 0 => {
                    tries -= 1;
                    tokio::time::sleep(BROKEN_PAUSE).await;
                    continue;
                }
                Ok(Err(failed)) => failed.why,
                Err(_) => format!("no answer within {} s", self.timeout.as_secs()),
            };
            return Err(ClusterError::Unreachable { what, why });
        }
    }

    async fn exchange_once(
        &self,
        method: &Method,
        path: &str,
        accept: &str,
        sent: Sent<'_>,
    ) -> Result<(u16, Vec<u8>), Failed> {
        let (content_type, body) = sent.parts();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, accept)
            .header(header::CONTENT_TYPE, content_type)
            .body(Body::from(body))
            .map_err(|e| Failed { why: format!("not a request: {e}"), broke: false })?;
        let answer =
            self.client.send(request).await.map_err(|e| Failed { why: chain(&e), broke: broke(&e) })?;
        let status = answer.status().as_u16();
        let mut frames = Limited::new(answer.into_body(), MAX_BODY_BYTES);
        let mut body = Vec::new(); // grown as it comes: a large page is in memory once
        while let Some(frame) = frames.frame().await {
            let frame = frame
                .map_err(|e| Failed { why: format!("read the answer: {}", chain(&*e)), broke: broke(&*e) })?;
            body.extend_from_slice(frame.data_ref().map(|data| &**data).unwrap_or_default());
        }
        Ok((status, body))
    }

    /// Follows a watch such as `/api/v1/pods?watch=1&resourceVersion=7` until it ends; `T` may take a few fields only.
    ///
    /// # Errors
    /// `Unreachable` and `Refused` (410: the version is too old, list anew), also as items of the stream.
    pub async fn watch<T>(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<Watched<T>, ClusterError>> + use<T>, ClusterError>
    where
        T: Clone + DeserializeOwned,
    {
        let what = format!("GET {}{path}", self.server);
        let unreachable = move |why: String| ClusterError::Unreachable { what: what.clone(), why };
        let request = Request::get(path).body(Vec::new());
        let request = request.map_err(|e| unreachable(format!("not a request: {e}")))?;
        let events = self.client.request_events::<T>(request).await.map_err(|e| unreachable(chain(&e)))?;
        Ok(events.filter_map(move |event: Result<WatchEvent<T>, kube::Error>| {
            let told = match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    Some(Ok(Watched::There(object)))
                }
                Ok(WatchEvent::Deleted(object)) => Some(Ok(Watched::Gone(object))),
                Ok(WatchEvent::Bookmark(_)) => None,
                Ok(WatchEvent::Error(status)) => Some(Err(unreachable(status.message.clone()))),
                Err(error) => Some(Err(unreachable(chain(&error)))),
            };
            std::future::ready(told)
        }))
    }
}

/// Text as it may stand in a query.
#[must_use]
pub fn query(text: &str) -> String {
    let mut query = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            query.push(char::from(byte));
        } else {
            query.push_str(&format!("%{byte:02X}"));
        }
    }
    query
}

/// Why one exchange came to nothing.
struct Failed {
    why: String,
    /// The connection was there, and ended.
    broke: bool,
}

/// The value of the label for drills that a namespace has; empty when it has none.
pub(crate) fn drill_label(namespace: &Value) -> String {
    let labels = namespace.pointer("/metadata/labels");
    let label = labels.and_then(|labels| labels.get(DRILL_LABEL)?.as_str());
    label.unwrap_or_default().to_owned()
}

/// Whether an error is that of a connection that ended early: not one that was never accepted.
fn broke(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    tls::causes(error).any(|cause| {
        let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let hyper = cause.downcast_ref::<hyper::Error>();
        matches!(kind, Some(BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof))
            || hyper.is_some_and(|error| error.is_incomplete_message() || error.is_canceled())
    })
}

/// What a Status says; a body that is none is quoted by its start.
fn refused(what: String, status: u16, body: &[u8]) -> ClusterError {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |field: &str| answer.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut message = text("message");
    if message.is_empty() {
        message = String::from_utf8_lossy(body).chars().take(200).collect();
    }
    ClusterError::Refused { what, status, reason: text("reason"), message }
}

async fn config(options: &ClusterOptions) -> Result<Config, ClusterError> {
    let Some(path) = options.kubeconfig.clone().or_else(usual_place) else {
        let looked = format!("~/.kube/config and {KUBEADM_ADMIN}");
        return Config::incluster().map_err(|_| ClusterError::NoConfig { looked });
    };
    let bad = |why: String| ClusterError::BadConfig { path: path.to_string(), why };
    // a parser's error may quote the text, and the text holds keys
    let kubeconfig = Kubeconfig::read_from(&path).map_err(|error| match error {
        kube::config::KubeconfigError::ReadConfig(source, _) => bad(source.to_string()),
        _ => bad("it does not parse".into()),
    })?;
    let context = KubeConfigOptions { context: options.context.clone(), cluster: None, user: None };
    Config::from_custom_kubeconfig(kubeconfig, &context).await.map_err(|e| bad(chain(&e)))
}

/// The first of the usual places that is there.
fn usual_place() -> Option<Utf8PathBuf> {
    let home = std::env::var("HOME").ok().map(|home| Utf8PathBuf::from(home).join(".kube/config"));
    home.into_iter().chain([Utf8Path::new(KUBEADM_ADMIN).to_owned()]).find(|path| path.is_file())
}
