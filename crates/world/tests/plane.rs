//! The connection of the API verbs against a real API server.
#![allow(clippy::unwrap_used, missing_docs)]

use camino::Utf8Path;
use http::Method;
use rekindle_world::cluster::{Cluster, ClusterError, ClusterOptions, Sent};
use serde_json::json;
use testbed::plane::{Options, Plane};

// A namespace is made, read, patched and deleted through the connection; kubectl sees the same. What is not there is
// none, what is refused says why, and a kubeconfig that names nothing is an error that names the file.
#[tokio::test(flavor = "multi_thread")]
async fn objects_are_made_read_changed_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let folder = Utf8Path::from_path(folder.path()).unwrap();
    let plane = Plane::start(folder, &Options { controllers: true, ..Options::default() }).unwrap();
    let options = ClusterOptions { kubeconfig: Some(plane.kubeconfig()), context: None };
    let cluster = Cluster::connect(&options).await.unwrap();

    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "made"}});
    cluster.send(&Method::POST, "/api/v1/namespaces", Sent::Object(&object)).await.unwrap();
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    cluster.send(&Method::PATCH, "/api/v1/namespaces/made", Sent::MergePatch(&patch)).await.unwrap();
    let seen = plane.kubectl(&["get", "namespace", "made", "-o", "jsonpath={.metadata.labels.a}"]).unwrap();
    assert_eq!(seen, "b");
    assert!(cluster.get("/api/v1/namespaces/none").await.unwrap().is_none());
    let twice = cluster.send(&Method::POST, "/api/v1/namespaces", Sent::Object(&object)).await.unwrap_err();
    assert!(matches!(&twice, ClusterError::Refused { status: 409, reason, .. } if reason == "AlreadyExists"));

    // the controller manager empties a deleted namespace: then it is gone
    plane.kubectl(&["delete", "namespace", "made", "--timeout=120s"]).unwrap();
    assert!(cluster.get("/api/v1/namespaces/made").await.unwrap().is_none());

    let missing = ClusterOptions { kubeconfig: Some(folder.join("none.conf")), context: None };
    let error = Cluster::connect(&missing).await.err().unwrap().to_string();
    assert!(error.contains("none.conf"), "{error}");
}
