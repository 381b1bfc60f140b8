//! A control-plane host is taken out of its cluster and joins it again: etcd stays in quorum, what the host had is kept, and
//! kubeadm finds nothing in its way.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use scenarios::{Cluster, THREE, verified};
use testbed::set::Kind;

#[test]
fn there_and_back() {
    let cluster = Cluster::load(Kind::Kubeadm3).unwrap();
    cluster.mark("before").unwrap();
    let preview = cluster.from_outside("reset root@cp3", &THREE, &["--dry-run"]).unwrap().expect(0).unwrap();
    for told in ["remove member cp3", "delete the Node object cp3", "kubeadm token create", "/etc/cni/net.d"]
    {
        assert!(preview.stdout.contains(told), "no {told:?} in the plan:\n{}", preview.stdout);
    }
    let called =
        cluster.from_outside("reset root@cp3", &THREE, &["--yes", "-o", "json"]).unwrap().expect(0).unwrap();
    verified(&called).unwrap();
    let cp3 = cluster.set.host("cp3").unwrap();
    let left = "ls -A /etc/kubernetes/manifests /etc/kubernetes/pki /etc/kubernetes/*.conf /var/lib/etcd 2>/dev/null \
                | grep -v : | grep -c . || true";
    assert_eq!(cp3.script(left).unwrap().trim(), "0", "something of the old cluster is in the way");
    cp3.script(
        "test -s /etc/kubernetes/rekindle-*/pki/ca.key && test -d /var/lib/rekindle-*-etcd/old-member",
    )
    .unwrap();
    assert!(cp3.script("! pgrep -x etcd && ! pgrep -x kube-apiserver && ! pgrep -x kubelet").is_ok());
    let nodes = cluster.set.kubectl_ok(&["get", "nodes", "-o", "name"]).unwrap();
    assert!(!nodes.contains("node/cp3"), "{nodes}");
    assert_eq!(cluster.hash_kv(&["cp1", "cp2"]).unwrap().len(), 2);

    // The way back that the plan tells, with the token and the key the test hosts have.
    let cp1 = cluster.set.host("cp1").unwrap();
    cp1.exec_ok(&[
        "kubeadm",
        "init",
        "phase",
        "upload-certs",
        "--upload-certs",
        "--config=/etc/kubeadm.yaml",
    ])
    .unwrap();
    cp3.exec_ok(&[
        "kubeadm",
        "join",
        "--config=/etc/kubeadm.yaml",
        "--ignore-preflight-errors=SystemVerification",
    ])
    .or_else(|_| {
        cp3.exec_ok(&["kubeadm", "join", "--config=/etc/kubeadm.yaml", "--ignore-preflight-errors=all"])
    })
    .unwrap();
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("before").unwrap());
    let hashes = cluster.hash_kv(&THREE).unwrap();
    let ids: Vec<_> = hashes.iter().map(|h| h["header"]["cluster_id"].clone()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
}
