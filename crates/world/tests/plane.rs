//! The connection of the API verbs against a real API server.
#![allow(clippy::unwrap_used, missing_docs)]

use camino::Utf8Path;
use http::Method;
use rekindle_world::cluster::{Cluster, ClusterError, ClusterOptions, Sent};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use testbed::plane::{Options, Plane};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

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

// Between the client and the API server stands what takes connections away, as a load balancer does with a server that
// fails its probe: one before the handshake, one after it. A read still comes through, for a reading changes nothing;
// something to be written is sent once, and the error says that it is not known what came of it. A server that is not
// there at all is said at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_outlives_a_connection_that_ends() {
    let folder = tempfile::tempdir().unwrap();
    let folder = Utf8Path::from_path(folder.path()).unwrap();
    let plane = Plane::start(folder, &Options::default()).unwrap();
    let text = std::fs::read_to_string(plane.kubeconfig()).unwrap();
    let server = plane.url.strip_prefix("https://").unwrap();
    let (address, taken) = cutting(server.to_owned(), vec![0, 2]).await;
    let through = folder.join("through.conf");
    std::fs::write(&through, text.replace(server, &address)).unwrap();
    let options = ClusterOptions { kubeconfig: Some(through.clone()), context: None };

    let cluster = Cluster::connect(&options).await.unwrap();
    assert!(!cluster.uid().await.unwrap().is_empty());
    assert_eq!(taken.load(Ordering::Relaxed), 3, "two were cut, the third served");

    let (address, taken) = cutting(server.to_owned(), vec![2]).await;
    std::fs::write(&through, text.replace(server, &address)).unwrap();
    let cluster = Cluster::connect(&options).await.unwrap();
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "once"}});
    let error = cluster.send(&Method::POST, "/api/v1/namespaces", Sent::Object(&object)).await.unwrap_err();
    assert!(matches!(error, ClusterError::Unreachable { .. }), "{error}");
    assert_eq!(taken.load(Ordering::Relaxed), 1, "a write is not sent again");

    let nobody = format!("127.0.0.1:{}", testbed::ports::free());
    std::fs::write(&through, text.replace(server, &nobody)).unwrap();
    let cluster = Cluster::connect(&options).await.unwrap();
    let start = Instant::now();
    let error = cluster.uid().await.unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
    assert!(start.elapsed() < Duration::from_millis(250), "not asked again: {:?}", start.elapsed());
}

/// Stands before a server. Of its first connections it ends each after as many pieces from the client as are named; how
/// many it took.
async fn cutting(server: String, cuts: Vec<usize>) -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = taken.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let pieces = cuts.get(counted.fetch_add(1, Ordering::Relaxed)).copied();
            let server = tokio::net::TcpStream::connect(&server).await.unwrap();
            tokio::spawn(pass(client, server, pieces));
        }
    });
    (address, taken)
}

async fn pass(mut client: TcpStream, mut server: TcpStream, pieces: Option<usize>) {
    let Some(pieces) = pieces else {
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        return;
    };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let mut buffer = vec![0; 1 << 16];
    let ended_here = async {
        for _ in 0..pieces {
            let length = from_client.read(&mut buffer).await.unwrap();
            to_server.write_all(buffer.get(..length).unwrap()).await.unwrap();
        }
    };
    tokio::select! {
        () = ended_here => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}
