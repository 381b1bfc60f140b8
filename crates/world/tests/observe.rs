//! Reading an inventory from the files of a host, as a disk that was mounted shows them; needs neither root nor a
//! cluster. Hosts that run are read in the scenarios.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::etcd::EtcdDefinition;
use rekindle_model::host::{Component, Layout};
use rekindle_model::inventory::Inventory;
use rekindle_model::source::{Identity, SourceKind};
use rekindle_model::{HostId, HostPath};
use rekindle_world::local::LocalHost;
use rekindle_world::observe::{ObserveOptions, observe};
use rekindle_world::{Host, World};
use std::sync::Arc;

struct Disk {
    _dir: tempfile::TempDir,
    root: Utf8PathBuf,
}

impl Disk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(dir.path().canonicalize().unwrap()).unwrap();
        Self { _dir: dir, root }
    }

    fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    async fn observe(&self, snapshot: Option<&Utf8Path>) -> Inventory {
        let local: Arc<dyn Host> = Arc::new(LocalHost::new(HostId::local(), "/"));
        let disk: Arc<dyn Host> = Arc::new(LocalHost::new(HostId("disk".into()), self.root.clone()));
        let options = ObserveOptions {
            point: None,
            snapshot: snapshot.map(Utf8Path::to_owned),
            lost: Vec::new(),
            kubeconfig: None,
            context: None,
            state_dir: "/var/lib/rekindle".into(),
            data_dir: None,
        };
        observe(&World { local, hosts: vec![disk] }, &options).await
    }
}

/// A manifest as kubeadm writes it; the ports are ones that nobody listens on.
fn manifest(component: &str, flags: &[&str]) -> String {
    let flags: String = flags.iter().map(|f| format!("    - {f}\n")).collect();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    component: {component}\n  name: {component}\n  namespace: kube-system\n\
         spec:\n  containers:\n  - command:\n    - {component}\n{flags}    image: registry.k8s.io/{component}:x\n    name: {component}\n    \
         volumeMounts:\n    - mountPath: /var/lib/etcd\n      name: data\n    - mountPath: /etc/kubernetes/pki/etcd\n      name: certs\n  \
         hostNetwork: true\n  volumes:\n  - hostPath:\n      path: /srv/etcd-data\n    name: data\n  - hostPath:\n      path: \
         /etc/kubernetes/pki/etcd\n    name: certs\n"
    )
}

fn etcd_manifest() -> String {
    manifest(
        "etcd",
        &[
            "--name=cp-1",
            "--data-dir=/var/lib/etcd",
            "--initial-advertise-peer-urls=https://10.0.0.1:2",
            "--initial-cluster=cp-1=https://10.0.0.1:2",
            "--listen-client-urls=https://127.0.0.1:1,https://10.0.0.1:1",
            "--cert-file=/etc/kubernetes/pki/etcd/server.crt",
            "--trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt",
        ],
    )
}

// etcd's manifest was moved to /root and a good copy of the API server's lies in kubeadm's backup folder, while the one
// in place is broken. All of it is found, and etcd's data dir is the host's, not the container's.
#[tokio::test]
async fn manifests_in_place_and_elsewhere() {
    let disk = Disk::new();
    let api = manifest("kube-apiserver", &["--secure-port=1"]);
    disk.write(
        "/etc/kubernetes/manifests/kube-apiserver.yaml",
        &api.replace("spec:\n", "spec:\n\t- broken\n"),
    )
    .write("/etc/kubernetes/manifests/kube-scheduler.yaml", &manifest("kube-scheduler", &["--secure-port=1"]))
    .write("/etc/kubernetes/manifests/.kube-scheduler.yaml.swp", "not read by kubelet")
    .write("/etc/kubernetes/tmp/kubeadm-backup-manifests-2026-11-22/kube-apiserver.yaml", &api)
    .write("/root/off/etcd.yaml", &etcd_manifest())
    .write("/root/deployment.yaml", "kind: Deployment\n")
    .write("/etc/kubernetes/pki/etcd/healthcheck-client.crt", "")
    .write("/etc/kubernetes/pki/etcd/healthcheck-client.key", "");
    let inventory = disk.observe(None).await;
    let host = &inventory.hosts[0];
    assert_eq!(host.layout, Layout::StaticPods);
    let found = host.manifests.known().unwrap();
    let seen = |path: &str| found.iter().find(|m| m.path == HostPath::from(path)).unwrap();
    assert_eq!(found.len(), 4, "{found:?}");
    let broken = host.manifest(Component::KubeApiserver).unwrap();
    assert!(broken.parse_error.is_some() && broken.text.contains("broken"));
    let copy = seen("/etc/kubernetes/tmp/kubeadm-backup-manifests-2026-11-22/kube-apiserver.yaml");
    assert_eq!((copy.in_place, copy.component), (false, Some(Component::KubeApiserver)));
    let config = host.etcd_config.known().unwrap();
    assert_eq!(config.data_dir, HostPath::from("/srv/etcd-data"));
    assert_eq!(config.defined_in, EtcdDefinition::Manifest(seen("/root/off/etcd.yaml").path.clone()));
    assert_eq!(config.endpoint.url, "https://127.0.0.1:1");
    let client = HostPath::from("/etc/kubernetes/pki/etcd/healthcheck-client.crt");
    assert_eq!(config.endpoint.cert.as_ref(), Some(&client));
    let data = host.etcd_data.known().unwrap();
    assert!(!data.exists && data.damage.is_empty());
    // Nothing runs on a disk, and that is not known as "stopped" but not known.
    assert!(host.processes.known().is_none() && host.containers.known().is_none());
    assert!(host.etcd_live.known().unwrap().status.why_unknown().is_some());
}

// etcd as a distribution's unit: settings in an environment file, a drop-in with the command. The planner gets the
// texts it may have to change.
#[tokio::test]
async fn an_etcd_unit_with_its_environment() {
    let disk = Disk::new();
    disk.write("/usr/lib/systemd/system/etcd.service", "[Service]\nUser=etcd\nExecStart=/bin/false\n")
        .write(
            "/etc/systemd/system/etcd.service.d/10-local.conf",
            "[Service]\nEnvironmentFile=-/etc/default/etcd\nExecStart=\nExecStart=/usr/bin/etcd --data-dir ${DATA} $OPTIONS\n",
        )
        .write(
            "/etc/default/etcd",
            "DATA=/data/etcd\nOPTIONS=\"--name=n1 --listen-client-urls=http://0.0.0.0:1\"\nETCD_WAL_DIR=/wal/etcd\n\
             ETCD_INITIAL_CLUSTER=n1=http://10.0.0.1:2,n2=http://10.0.0.2:2\n",
        )
        .write("/etc/hostname", "node1\n");
    let inventory = disk.observe(None).await;
    let host = &inventory.hosts[0];
    assert_eq!(host.layout, Layout::Units);
    let config = host.etcd_config.known().unwrap();
    assert_eq!((config.name.as_str(), config.data_dir.as_str()), ("n1", "/data/etcd"));
    assert_eq!(config.wal_dir, Some(HostPath::from("/wal/etcd")));
    assert_eq!(config.initial_cluster.len(), 2);
    assert_eq!(config.endpoint.url, "http://127.0.0.1:1");
    let EtcdDefinition::Unit { name, files } = &config.defined_in else { panic!("{config:?}") };
    assert_eq!((name.as_str(), files.len()), ("etcd.service", 3));
    assert!(files.iter().all(|file| host.unit_files[file].known().is_some_and(|f| !f.text.is_empty())));
}

// Nothing of what is offered can be restored: each file stands there with its own reason.
#[tokio::test]
async fn useless_snapshots_say_why() {
    let disk = Disk::new();
    disk.write("/backup/empty.db", "").write("/backup/text.db", &"not a database ".repeat(1000));
    std::fs::create_dir(disk.root.join("backup/folder")).unwrap();
    let inventory = disk.observe(Some(&disk.root.join("backup"))).await;
    assert_eq!(inventory.sources.len(), 2, "{:?}", inventory.sources);
    for source in &inventory.sources {
        let SourceKind::SnapshotFile(path) = &source.kind else { panic!("{source:?}") };
        let why = source.facts.why_unknown().unwrap();
        assert!(why.contains(path.file_name().unwrap()), "{why}");
        assert!(source.sha256.is_none() && matches!(source.identity, Identity::Unknown(_)));
    }
    let missing = disk.observe(Some(&disk.root.join("no/such"))).await;
    assert!(missing.sources[0].facts.why_unknown().unwrap().contains("does not exist"));
}

// Two readings of the same disk must be one and the same for a plan, or no plan could ever be carried out.
#[tokio::test]
async fn two_readings_give_one_digest() {
    let disk = Disk::new();
    disk.write("/etc/kubernetes/manifests/etcd.yaml", &etcd_manifest());
    let (one, two) = (disk.observe(None).await, disk.observe(None).await);
    assert_eq!(one.decision_digest(), two.decision_digest());
    disk.write("/etc/kubernetes/manifests/etcd.yaml", &etcd_manifest().replace("cp-1", "cp-2"));
    assert_ne!(disk.observe(None).await.decision_digest(), one.decision_digest());
}
