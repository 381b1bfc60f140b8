//! `WaitApiReady` and `WaitComponent`, and how the API server on a step's own host is asked: never through a balancer.

use super::context::{Ctx, Polled, outputs};
use super::text::{flag_value, start_of};
use crate::error::StepError;
use rekindle_model::HostPath;
use rekindle_model::event::Outputs;
use rekindle_model::host::Component;
use rekindle_world::host::{ApiRequest, HostErrorKind, HttpAnswer};
use serde_json::Value;
use std::time::Duration;

const READY_TIMEOUT: Duration = Duration::from_secs(300);
const EVERY: Duration = Duration::from_millis(150);
const REQUEST_TIMEOUT_MS: u64 = 5_000;
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// Kubeconfigs with the right to read and write what a recovery needs, in the order they are looked for.
const KUBECONFIGS: [&str; 4] = [
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/super-admin.conf",
    "/etc/kubernetes/admin.kubeconfig",
    "/root/.kube/config",
];

/// The API server on this host.
pub(super) struct Api {
    /// Where it listens, on the host itself.
    pub(super) server: String,
    /// The identity used, when one was found.
    pub(super) kubeconfig: Option<HostPath>,
}

impl Api {
    /// Finds out how to ask it, from its manifest or unit.
    pub(super) async fn on_this_host(ctx: &Ctx<'_>) -> Result<Self, StepError> {
        let command = command_of(ctx, Component::KubeApiserver).await?;
        let port = flag_value(&command, "secure-port").unwrap_or("6443").to_owned();
        let mut kubeconfig = None;
        for path in KUBECONFIGS.map(HostPath::from) {
            if ctx.host.stat(&path).await?.is_some() {
                kubeconfig = Some(path);
                break;
            }
        }
        Ok(Self { server: format!("https://{}", address(&command, "bind-address", &port)), kubeconfig })
    }

    /// A GET: with the identity of the kubeconfig if there is one, without any otherwise.
    pub(super) async fn get(&self, ctx: &Ctx<'_>, path: &str) -> Result<HttpAnswer, StepError> {
        match &self.kubeconfig {
            Some(_) => self.request(ctx, "GET", path, Vec::new()).await,
            None => Ok(ctx.host.http_get(&format!("{}{path}", self.server), REQUEST_TIMEOUT_MS).await?),
        }
    }

    /// A GET that must be answered with a JSON object; `None` for 404.
    pub(super) async fn get_json(&self, ctx: &Ctx<'_>, path: &str) -> Result<Option<Value>, StepError> {
        let answer = self.get(ctx, path).await?;
        match answer.status {
            404 => Ok(None),
            200 => serde_json::from_slice(&answer.body).map(Some).map_err(|_| refused("GET", path, &answer)),
            _ => Err(refused("GET", path, &answer)),
        }
    }

    /// A PUT; the answer's status is the caller's to judge.
    pub(super) async fn put_json(
        &self,
        ctx: &Ctx<'_>,
        path: &str,
        body: &Value,
    ) -> Result<HttpAnswer, StepError> {
        self.request(ctx, "PUT", path, body.to_string().into_bytes()).await
    }

    /// A DELETE; the answer's status is the caller's to judge.
    pub(super) async fn delete(&self, ctx: &Ctx<'_>, path: &str) -> Result<HttpAnswer, StepError> {
        self.request(ctx, "DELETE", path, Vec::new()).await
    }

    async fn request(
        &self,
        ctx: &Ctx<'_>,
        method: &str,
        path: &str,
        body: Vec<u8>,
    ) -> Result<HttpAnswer, StepError> {
        let kubeconfig = self.kubeconfig.clone().ok_or_else(|| {
            StepError::Moved(format!(
                "no kubeconfig was found on {} ({})",
                ctx.host_id(),
                KUBECONFIGS.join(", ")
            ))
        })?;
        let request = ApiRequest {
            kubeconfig,
            context: None,
            server: Some(self.server.clone()),
            method: method.to_owned(),
            path: path.to_owned(),
            content_type: "application/json".to_owned(),
            body,
            timeout_ms: REQUEST_TIMEOUT_MS,
        };
        Ok(ctx.host.api(request).await?)
    }
}

/// An answer that was not the one needed.
pub(super) fn refused(method: &str, path: &str, answer: &HttpAnswer) -> StepError {
    StepError::Api {
        request: format!("{method} {path}"),
        status: answer.status,
        body: start_of(&answer.body),
    }
}

/// `host:port` from a flag that names an address; a wildcard is reached on loopback.
fn address(command: &str, flag: &str, port: &str) -> String {
    match flag_value(command, flag) {
        None | Some("0.0.0.0" | "::") => format!("127.0.0.1:{port}"),
        Some(address) if address.contains(':') => format!("[{address}]:{port}"),
        Some(address) => format!("{address}:{port}"),
    }
}

/// The component's command line as text: of its manifest, else of its unit; empty when neither can be read.
async fn command_of(ctx: &Ctx<'_>, component: Component) -> Result<String, StepError> {
    let manifest = HostPath::from(format!("/etc/kubernetes/manifests/{component}.yaml"));
    match ctx.host.read(&manifest, MAX_MANIFEST_BYTES).await {
        Ok(bytes) => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind == HostErrorKind::Unreachable => return Err(error.into()),
        Err(_) => {}
    }
    match ctx.host.unit(&format!("{component}.service")).await {
        Ok(unit) => Ok(unit.exec_start.join(" ")),
        Err(error) if error.kind == HostErrorKind::Unreachable => Err(error.into()),
        Err(_) => Ok(String::new()),
    }
}

pub(super) async fn wait_ready(ctx: &Ctx<'_>) -> Result<Outputs, StepError> {
    let api = Api::on_this_host(ctx).await?;
    let what = format!("{}/readyz on {}", api.server, ctx.host_id());
    let (ready_ms, revision) = ctx
        .poll(&what, EVERY, READY_TIMEOUT, || async {
            let ready_ms = match api.get(ctx, "/readyz").await {
                Ok(answer) if answer.status == 200 => crate::now_ms(),
                Ok(answer) => {
                    return Ok(Polled::Pending(format!(
                        "status {}: {}",
                        answer.status,
                        start_of(&answer.body)
                    )));
                }
                Err(error) => return Ok(Polled::Pending(crate::error::causes(&error).join(": "))),
            };
            // What is newer than this was written through the API after it came back.
            Ok(match api.get_json(ctx, "/api/v1/namespaces?limit=1").await {
                Ok(list) => Polled::Ready((ready_ms, list.as_ref().and_then(resource_version))),
                Err(error) => Polled::Pending(crate::error::causes(&error).join(": ")),
            })
        })
        .await?;
    Ok(outputs! { "server" => api.server, "readyMs" => ready_ms, "revision" => revision })
}

/// `metadata.resourceVersion` of an object or list: etcd's revision.
pub(super) fn resource_version(object: &Value) -> Option<i64> {
    object.pointer("/metadata/resourceVersion")?.as_str()?.parse().ok()
}

/// Health endpoint of a component on its own host, with kubeadm's ports unless its flags say otherwise.
async fn health_url(ctx: &Ctx<'_>, component: Component) -> Result<String, StepError> {
    let command = command_of(ctx, component).await?;
    let secure = |default: &str| {
        let port = flag_value(&command, "secure-port").unwrap_or(default).to_owned();
        address(&command, "bind-address", &port)
    };
    Ok(match component {
        Component::Etcd => {
            let urls = flag_value(&command, "listen-metrics-urls").unwrap_or("http://127.0.0.1:2381");
            format!("{}/health", urls.split(',').next().unwrap_or(urls).trim_end_matches('/'))
        }
        Component::KubeApiserver => format!("https://{}/readyz", secure("6443")),
        Component::KubeControllerManager => format!("https://{}/healthz", secure("10257")),
        Component::KubeScheduler => format!("https://{}/healthz", secure("10259")),
    })
}

pub(super) async fn wait_component(ctx: &Ctx<'_>, component: Component) -> Result<Outputs, StepError> {
    if component == Component::KubeApiserver {
        return wait_ready(ctx).await;
    }
    let url = health_url(ctx, component).await?;
    let what = format!("{component} on {}", ctx.host_id());
    ctx.poll(&what, EVERY, READY_TIMEOUT, || async {
        Ok(match ctx.host.http_get(&url, REQUEST_TIMEOUT_MS).await {
            Ok(answer) if answer.status == 200 => Polled::Ready(outputs! { "url" => url }),
            Ok(answer) => Polled::Pending(format!("{url}: status {}", answer.status)),
            Err(error) => Polled::Pending(error.to_string()),
        })
    })
    .await
}
