//! The API client against a real kube-apiserver over a real etcd, with certificates as kubeadm makes them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "etcd/apiserver.rs"]
mod apiserver;
#[allow(dead_code)]
#[path = "etcd/cluster.rs"]
mod cluster;

use apiserver::start;
use cluster::{Folder, Pki, start_cluster};
use rekindle_model::HostPath;
use rekindle_world::api::api;
use rekindle_world::host::{ApiRequest, HostErrorKind};
use serde_json::Value;

fn request(kubeconfig: &HostPath, server: Option<&str>, path: &str) -> ApiRequest {
    ApiRequest {
        kubeconfig: kubeconfig.clone(),
        context: None,
        server: server.map(str::to_owned),
        method: "GET".into(),
        path: path.into(),
        content_type: "application/json".into(),
        body: Vec::new(),
        timeout_ms: 5000,
    }
}

// The VIP in admin.conf is dead; the API server of this host is asked itself, on an address that its certificate does
// not name. An admin reads and changes, a stranger's CA is refused, and down is told as down.
#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_of_this_host_is_asked_whatever_the_kubeconfig_says() {
    let folder = Folder::new();
    let etcd = testbed::components::etcd_line("3.6").unwrap();
    let members = start_cluster(&etcd, folder.path(), &["cp1"]);
    let pki = Pki::new(&folder.path().join("pki"));
    let (server, url) = start(&folder, &pki, &members[0].url()).await;

    let admin = HostPath(folder.path().join("admin.conf"));
    let write = |ca: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
             clusters: [{{name: c, cluster: {{server: 'https://192.0.2.1:6443', certificate-authority: {ca}}}}}]\n\
             users: [{{name: u, user: {{client-certificate: pki/admin.crt, client-key: pki/admin.key}}}}]\n\
             contexts: [{{name: a, context: {{cluster: c, user: u}}}}, {{name: b, context: {{cluster: no}}}}]\n"
        );
        std::fs::write(&admin.0, text).unwrap();
    };
    write("pki/ca.crt");
    let get = |path: &str| request(&admin, Some(&url), path);
    let answer = api(&get("/api/v1/namespaces/kube-system"), "/".into()).await.unwrap();
    let namespace: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, namespace["metadata"]["name"].as_str()), (200, Some("kube-system")));
    assert_eq!(api(&get("/api/v1/namespaces/none"), "/".into()).await.unwrap().status, 404);
    let readyz = api(&get("/readyz?verbose"), "/".into()).await.unwrap();
    assert!(String::from_utf8(readyz.body).unwrap().contains("[+]etcd ok"));

    let mut patch = get("/api/v1/namespaces/default");
    patch.method = "PATCH".into();
    patch.content_type = "application/merge-patch+json".into();
    patch.body = br#"{"metadata":{"labels":{"patched":"yes"}}}"#.to_vec();
    let patched: Value = serde_json::from_slice(&api(&patch, "/".into()).await.unwrap().body).unwrap();
    assert_eq!(patched["metadata"]["labels"]["patched"].as_str(), Some("yes"));

    // The root of a disk mounted elsewhere: the kubeconfig and its files are looked for there.
    let rooted = request(&HostPath::from("/admin.conf"), Some(&url), "/version");
    assert_eq!(api(&rooted, folder.path()).await.unwrap().status, 200);

    let fault = api(&request(&admin, None, "/version"), "/".into()).await.unwrap_err();
    assert_eq!(fault.kind, HostErrorKind::Unavailable, "{}", fault.what);
    assert!(fault.what.contains("192.0.2.1"), "{}", fault.what);
    let mut broken = get("/version");
    broken.context = Some("b".into());
    let fault = api(&broken, "/".into()).await.unwrap_err();
    assert!(fault.kind == HostErrorKind::Failed && fault.what.contains("admin.conf"), "{}", fault.what);

    Pki::new(&folder.path().join("other"));
    write("other/ca.crt");
    let fault = api(&get("/version"), "/".into()).await.unwrap_err();
    assert!(fault.kind == HostErrorKind::Failed && fault.what.contains("certificate"), "{}", fault.what);
    write("pki/ca.crt");
    drop(server);
    let fault = api(&get("/version"), "/".into()).await.unwrap_err();
    assert_eq!(fault.kind, HostErrorKind::Unavailable, "{}", fault.what);
}
