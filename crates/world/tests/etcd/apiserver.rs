//! A real kube-apiserver on loopback, over an etcd, for tests.

use super::cluster::{Folder, Pki};
use rekindle_world::api::http_get;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ends with the test.
pub(crate) struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A kube-apiserver whose certificate, like kubeadm's, names `kubernetes` and the host's address but not loopback.
pub(crate) async fn start(folder: &Folder, pki: &Pki, etcd: &str) -> (Server, String) {
    let dir = folder.path();
    pki.issue("apiserver", &["kubernetes", "kubernetes.default", "10.96.0.1", "192.0.2.10"], false);
    pki.issue("sa", &["sa"], false);
    pki.issue_for_group("admin", "system:masters");
    let port = testbed::ports::free();
    let kubernetes = testbed::components::kubernetes().unwrap();
    let file = |name: &str| pki.dir.join(name).into_string();
    let log = std::fs::File::create(dir.join("apiserver.log")).unwrap();
    let process = Command::new(kubernetes.path("kube-apiserver"))
        .args([format!("--secure-port={port}"), format!("--etcd-servers={etcd}")])
        .args([
            "--bind-address=127.0.0.1",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/12",
        ])
        .args(["--service-account-issuer=https://kubernetes.default.svc", "--anonymous-auth=true"])
        .args([
            format!("--tls-cert-file={}", file("apiserver.crt")),
            format!("--tls-private-key-file={}", file("apiserver.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--service-account-key-file={}", file("sa.crt")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
        ])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut server = Server(process);
    let url = format!("https://127.0.0.1:{port}");
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        match http_get(&format!("{url}/readyz"), 2000).await {
            Ok(answer) if answer.status == 200 => return (server, url),
            other => {
                let log = || std::fs::read_to_string(dir.join("apiserver.log")).unwrap();
                let waiting = Instant::now() < deadline && server.0.try_wait().unwrap().is_none();
                assert!(waiting, "not ready, or ended: {other:?}\n{}", log());
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
