//! Health endpoints, asked on the host itself: API server, controller-manager, scheduler, kubelet.

use super::ask::{QUICK, within};
use super::{ETCD_DOWN, EtcdDown};
use crate::host::{ApiRequest, Host, HostErrorKind, HttpAnswer};
use crate::words;
use rekindle_model::host::{ApiProbe, Component};
use rekindle_model::{HostPath, Seen};

/// Longest wait for a health answer. With etcd gone `/readyz` answers after its own 2 s.
const LIMIT_MS: u64 = 5000;
/// kubeconfigs that kubeadm leaves, the more powerful first: it works while RBAC can't be read from etcd.
pub(super) const KUBECONFIGS: [&str; 2] = ["/etc/kubernetes/super-admin.conf", "/etc/kubernetes/admin.conf"];
/// Most failing checks kept.
const MAX_CHECKS: usize = 50;

/// `https://127.0.0.1:6443`, or what its flags say.
pub(super) fn api_server(command: &[String]) -> String {
    let port = words::flag(command, "secure-port").unwrap_or("6443");
    let bind = words::flag(command, "bind-address").filter(|a| !["0.0.0.0", "::", "127.0.0.1"].contains(a));
    address(bind.unwrap_or("127.0.0.1"), port)
}

fn address(ip: &str, port: &str) -> String {
    if ip.contains(':') { format!("https://[{ip}]:{port}") } else { format!("https://{ip}:{port}") }
}

/// `/livez` and `/readyz?verbose` of the API server on a host.
pub(super) async fn api(host: &dyn Host, server: String, etcd_down: &EtcdDown) -> ApiProbe {
    let (livez, readyz) = tokio::join!(
        etcd_down.or(status(host, &server, "/livez")),
        etcd_down.or(status(host, &server, "/readyz?verbose=true"))
    );
    let [livez, readyz] = [livez, readyz].map(|answer| answer.unwrap_or_else(|| Err(ETCD_DOWN.into())));
    let failing_checks = match &readyz {
        Ok(answer) => {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            text.lines().filter(|l| l.starts_with("[-]")).take(MAX_CHECKS).map(str::to_owned).collect()
        }
        Err(_) => Vec::new(),
    };
    let code = |answer: Result<HttpAnswer, String>| match answer {
        Ok(answer) => Seen::Known(answer.status),
        Err(why) => Seen::Unknown(why),
    };
    ApiProbe { server, livez: code(livez), readyz: code(readyz), failing_checks }
}

/// Asks without a name; where that is not allowed, with the host's own kubeconfig.
async fn status(host: &dyn Host, server: &str, path: &str) -> Result<HttpAnswer, String> {
    let url = format!("{server}{path}");
    let answer = within(host, QUICK, &url, host.http_get(&url, LIMIT_MS)).await.map_err(|e| e.what)?;
    if !matches!(answer.status, 401 | 403) {
        return Ok(answer);
    }
    for kubeconfig in KUBECONFIGS {
        let request = get(HostPath::from(kubeconfig), Some(server.to_owned()), path);
        if let Ok(answer) = within(host, QUICK, &url, host.api(request)).await {
            return Ok(answer);
        }
    }
    Ok(answer)
}

/// A GET with the identity of a kubeconfig.
pub(super) fn get(kubeconfig: HostPath, server: Option<String>, path: &str) -> ApiRequest {
    ApiRequest {
        kubeconfig,
        context: None,
        server,
        method: "GET".into(),
        path: path.into(),
        content_type: String::new(),
        body: Vec::new(),
        timeout_ms: LIMIT_MS,
    }
}

/// `/healthz` of controller-manager or scheduler.
pub(super) async fn component(
    host: &dyn Host,
    component: Component,
    command: &[String],
    etcd_down: &EtcdDown,
) -> Seen<bool> {
    let default = if component == Component::KubeScheduler { "10259" } else { "10257" };
    let port = words::flag(command, "secure-port").unwrap_or(default);
    let bind = words::flag(command, "bind-address").filter(|a| !["0.0.0.0", "::"].contains(a));
    let url = format!("{}/healthz", address(bind.unwrap_or("127.0.0.1"), port));
    etcd_down.or(healthy(host, &url)).await.unwrap_or_else(|| Seen::Unknown(ETCD_DOWN.into()))
}

/// `/healthz` of the kubelet.
pub(super) async fn kubelet(host: &dyn Host) -> Seen<bool> {
    healthy(host, "http://127.0.0.1:10248/healthz").await
}

async fn healthy(host: &dyn Host, url: &str) -> Seen<bool> {
    match within(host, QUICK, url, host.http_get(url, LIMIT_MS)).await {
        Ok(answer) => Seen::Known(answer.status == 200),
        // Refused or silent: it does not serve, and that is known.
        Err(error) if error.kind == HostErrorKind::Unavailable => Seen::Known(false),
        Err(error) => Seen::Unknown(error.what),
    }
}
