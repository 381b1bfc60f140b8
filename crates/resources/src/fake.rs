//! An API server for tests: a few objects by path, and refusals that a test orders. It knows no kinds and no rules.

use crate::journal::Run;
use camino::{Utf8Path, Utf8PathBuf};
use http::Method;
use rekindle_world::cluster::{Cluster, ClusterOptions};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

/// What is answered in the place of what was asked for.
#[derive(Clone)]
pub(crate) enum Order {
    /// Refused, with status, reason and message.
    Refuse(u16, &'static str, &'static str),
    /// Done, but answered with this status.
    DoneBut(u16),
    /// A DELETE marks the object only: a finalizer holds it.
    Hold,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) objects: BTreeMap<String, Value>,
    /// Orders for a method and a path, taken one by one.
    pub(crate) orders: Vec<(Method, String, Order)>,
    /// Methods and paths that were asked.
    pub(crate) asked: Vec<String>,
    uids: u64,
}

#[derive(Clone)]
pub(crate) struct Fake(pub(crate) Arc<Mutex<State>>);

impl Default for Fake {
    fn default() -> Self {
        let fake = Self(Arc::default());
        let kind = |kind: &str, resource: &str| json!({"resource": resource, "responseKind": {"kind": kind}, "scope": "Namespaced", "verbs": ["list", "get"]});
        let resources = [kind("ConfigMap", "configmaps"), kind("Secret", "secrets")];
        let core = json!({"versions": [{"version": "v1", "resources": resources}]});
        fake.put("/api", json!({"kind": "APIGroupDiscoveryList", "items": [core]}));
        fake.put("/apis", json!({"kind": "APIGroupDiscoveryList", "items": []}));
        fake
    }
}

/// A folder for a run.
pub(crate) struct Stage {
    _keep: tempfile::TempDir,
    pub(crate) dir: Utf8PathBuf,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::from_path_buf(keep.path().to_owned()).unwrap();
        Self { _keep: keep, dir }
    }

    pub(crate) fn run(&self) -> Run {
        Run::begin(&self.dir, crate::journal::tests::request()).unwrap()
    }

    /// The run, taken up by a later process.
    pub(crate) fn again(&self, run: Run) -> Run {
        drop(run);
        Run::open(&self.dir, None).unwrap()
    }
}

impl Fake {
    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().objects.insert(path.into(), object);
    }

    pub(crate) fn order(&self, method: Method, path: &str, order: Order) {
        self.0.lock().unwrap().orders.push((method, path.into(), order));
    }

    /// Serves until the test ends.
    pub(crate) async fn serve(&self, dir: &Utf8Path) -> Cluster {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let fake = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let fake = fake.clone();
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    while let Some((method, path, body)) = request(&mut stream).await {
                        let (status, answer) = fake.answer(&method, &path, body);
                        let text = answer.to_string();
                        let head = format!(
                            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                            text.len()
                        );
                        stream.get_mut().write_all((head + &text).as_bytes()).await.unwrap();
                    }
                });
            }
        });
        let config = dir.join("kubeconfig");
        let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": {"server": server}}], "users": [{"name": "x", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]});
        std::fs::write(&config, text.to_string()).unwrap();
        Cluster::connect(&ClusterOptions { kubeconfig: Some(config), context: None }).await.unwrap()
    }

    fn answer(&self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        let mut state = self.0.lock().unwrap();
        let path = path.split('?').next().unwrap();
        state.asked.push(format!("{method} {path}"));
        let ordered = state.orders.iter().position(|(m, p, _)| m == method && p == path);
        let order = ordered.map(|at| state.orders.remove(at).2);
        let status = |code: u16, reason: &str, message: &str| {
            (code, json!({"kind": "Status", "reason": reason, "message": message}))
        };
        if let Some(Order::Refuse(code, reason, message)) = order {
            return status(code, reason, message);
        }
        let done = state.done(method, path, body, matches!(order, Some(Order::Hold)));
        match (order, done) {
            (Some(Order::DoneBut(code)), _) => status(code, "", "the answer is lost"),
            (_, Ok(object)) => (200, object),
            (_, Err((code, reason))) => status(code, reason, "no"),
        }
    }
}

impl State {
    fn done(
        &mut self,
        method: &Method,
        path: &str,
        mut body: Value,
        hold: bool,
    ) -> Result<Value, (u16, &'static str)> {
        let gone = (404, "NotFound");
        match method.as_str() {
            "POST" => {
                let at = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                if self.objects.contains_key(&at) {
                    return Err((409, "AlreadyExists"));
                }
                self.uids += 1;
                body["metadata"]["uid"] = format!("new-{}", self.uids).into();
                body["metadata"]["managedFields"] = json!([{"manager": "rekindle"}]);
                self.objects.insert(at, body.clone());
                Ok(body)
            }
            "PUT" | "PATCH" => {
                let is = self.objects.get_mut(path).ok_or(gone)?;
                for field in ["uid", "deletionTimestamp"] {
                    if let Some(value) = is["metadata"].get(field) {
                        body["metadata"][field] = value.clone();
                    }
                }
                *is = body;
                Ok(is.clone())
            }
            "DELETE" => {
                let is = self.objects.get_mut(path).ok_or(gone)?;
                if hold {
                    is["metadata"]["deletionTimestamp"] = "now".into();
                    return Ok(is.clone());
                }
                self.objects.remove(path);
                Ok(json!({"kind": "Status"}))
            }
            _ => self.objects.get(path).cloned().ok_or(gone),
        }
    }
}

async fn request(stream: &mut BufReader<tokio::net::TcpStream>) -> Option<(Method, String, Value)> {
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first).await.ok().filter(|read| *read > 0)?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        match line.trim().to_ascii_lowercase().strip_prefix("content-length:") {
            Some(bytes) => length = bytes.trim().parse().ok()?,
            None if line.trim().is_empty() => break,
            None => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.parse().ok()?, words.next()?.to_owned());
    Some((method, path, serde_json::from_slice(&body).unwrap_or_default()))
}
