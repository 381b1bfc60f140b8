//! The ways to ask for a recovery: into another folder, onto a mounted disk, at the revision as it was, by a plan written
//! before, twice at once, and onto a disk that turns out to be full.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use scenarios::{Cluster, REKINDLE, STOP_ALL, verified};
use serde_json::Value;
use std::time::{Duration, Instant};
use testbed::set::Kind;

const RECOVER: [&str; 3] = ["recover", "--snapshot", "/backup"];

/// A single control plane whose etcd data is gone; `prepare` runs before, with everything stopped.
fn lost(prepare: &str) -> Cluster {
    let cluster = Cluster::load(Kind::Kubeadm1).unwrap();
    cluster.mark("early").unwrap();
    cluster.snapshot("cp1", "/backup/snap.db").unwrap();
    cluster.fault("cp1", &format!("{STOP_ALL}; {prepare}\nrm -rf /var/lib/etcd/member")).unwrap();
    cluster
}

fn recovered(cluster: &Cluster, more: &[&str]) -> Value {
    let args = [&RECOVER[..], more, &["--yes", "-o", "json"]].concat();
    let report = verified(&cluster.on("cp1", &args).unwrap().expect(0).unwrap()).unwrap();
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("early").unwrap());
    report
}

/// The manifests and what lies in the data dir, with the content.
fn files(cluster: &Cluster) -> String {
    let look =
        "find /etc/kubernetes /var/lib/etcd -type f | sort | xargs -r sha256sum; find /var/lib/etcd | sort";
    cluster.set.host("cp1").unwrap().script(look).unwrap()
}

// Into another folder: the manifest mounts it, and kubeadm's own configuration names it, so that the next upgrade of the
// cluster writes a manifest with the same folder.
#[test]
fn into_another_folder() {
    let cluster = lost("");
    recovered(&cluster, &["--data-dir", "/srv/etcd"]);
    let config = [
        "get",
        "configmap",
        "kubeadm-config",
        "-n",
        "kube-system",
        "-o",
        "jsonpath={.data.ClusterConfiguration}",
    ];
    let config = cluster.set.kubectl_ok(&config).unwrap();
    assert!(config.contains("dataDir: /srv/etcd"), "{config}");
    let cp1 = cluster.set.host("cp1").unwrap();
    // what an upgrade does: kubeadm writes the manifest from the configuration it kept
    let written = cp1
        .script(
            "export KUBECONFIG=/etc/kubernetes/admin.conf; \
             kubectl get cm kubeadm-config -n kube-system -o jsonpath='{.data.ClusterConfiguration}' > /tmp/config.yaml; \
             mkdir -p /tmp/upgrade; cp -r /etc/kubernetes/pki /tmp/upgrade/; \
             kubeadm init phase etcd local --config /tmp/config.yaml --dry-run",
        )
        .unwrap();
    for text in
        [written, String::from_utf8(cp1.read("/etc/kubernetes/manifests/etcd.yaml").unwrap()).unwrap()]
    {
        assert!(text.contains("path: /srv/etcd"), "{text}");
        assert!(!text.contains("path: /var/lib/etcd"), "{text}");
    }
    assert!(cp1.path("/srv/etcd/member/snap/db").exists());
}

// The data dir is a disk of its own: its mount point can't be renamed, so the data is swapped inside it.
#[test]
fn onto_a_mounted_disk() {
    let cluster = lost("mount -t tmpfs -o size=600m tmpfs /var/lib/etcd");
    recovered(&cluster, &[]);
    cluster.fault("cp1", "mountpoint -q /var/lib/etcd && test -f /var/lib/etcd/member/snap/db").unwrap();
}

// `--exact`: every revision as it was in the snapshot.
#[test]
fn at_the_revision_as_it_was() {
    let cluster = lost("");
    let status = cluster.on("cp1", &["snapshot", "verify", "/backup/snap.db", "-o", "json"]).unwrap();
    let revision = status.expect(0).unwrap().json().unwrap()["revision"].as_i64().unwrap();
    let report = recovered(&cluster, &["--exact"]);
    assert_eq!(report["restoredRevision"].as_i64(), Some(revision), "{report}");
    assert!(report["raisedToRevision"].is_null(), "{report}");
    let live = cluster.hash_kv(&["cp1"]).unwrap()[0]["header"]["revision"].as_i64().unwrap();
    assert!((revision..revision + 100_000).contains(&live), "{live} after {revision}");
}

// A plan is written, read by somebody, and carried out later: only if the cluster is still as the plan saw it.
#[test]
fn by_a_plan_written_before() {
    let cluster = lost("");
    let written =
        cluster.on("cp1", &["plan", "--snapshot", "/backup", "-o", "json"]).unwrap().expect(0).unwrap();
    cluster.set.host("cp1").unwrap().write("/root/plan.json", written.stdout.as_bytes()).unwrap();
    let before = files(&cluster);
    let apply = |more: &[&str]| cluster.on("cp1", &[&["apply", "/root/plan.json"], more].concat()).unwrap();
    apply(&["--dry-run"]).expect(0).unwrap();
    let no_terminal = apply(&[]).expect(5).unwrap();
    assert!(no_terminal.stderr.contains("--yes"), "{}", no_terminal.stderr);
    cluster.fault("cp1", "mv /etc/kubernetes/manifests/kube-scheduler.yaml /root/").unwrap();
    let moved = apply(&["--yes"]).expect(5).unwrap();
    assert!(moved.stderr.contains("not as plan"), "{}", moved.stderr);
    cluster.fault("cp1", "mv /root/kube-scheduler.yaml /etc/kubernetes/manifests/").unwrap();
    assert_eq!(before, files(&cluster), "touched without consent");
    verified(&apply(&["--yes", "-o", "json"]).expect(0).unwrap()).unwrap();
    cluster.assert_works("after").unwrap();
    let twice = apply(&["--yes"]).expect(5).unwrap();
    assert!(twice.stderr.contains("plan"), "{}", twice.stderr);
}

// Two people answer the same page: one on the host, then one on the host again and one from his own machine. The first
// goes through, the others are told who is at work.
#[test]
fn two_at_once() {
    let cluster = lost("");
    let cp1 = cluster.set.host("cp1").unwrap();
    let line = [&[REKINDLE], &RECOVER[..], &["--yes", "-o", "json"]].concat();
    let mut first = cp1.exec_command(&line).unwrap();
    let first =
        first.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while !cp1
        .script("cat /var/lib/rekindle/runs/*/journal.jsonl")
        .is_ok_and(|journal| journal.contains("runStarted"))
    {
        assert!(Instant::now() < until, "the first did not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let here = cluster.on("cp1", &[&RECOVER[..], &["--yes"]].concat()).unwrap();
    let backup = cluster.set.dir().join("backup");
    std::fs::create_dir_all(&backup).unwrap();
    std::fs::write(backup.join("snap.db"), cp1.read("/backup/snap.db").unwrap()).unwrap();
    let there = cluster.from_outside("recover", &["cp1"], &["--snapshot", backup.as_str(), "--yes"]).unwrap();
    let first = first.wait_with_output().unwrap();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let here = here.expect(5).unwrap();
    assert!(here.stderr.contains("at work already"), "{}", here.stderr);
    // From another machine it may be told by the host, or find that there is nothing left to do.
    assert!(there.code == 0 && there.stdout.contains("Nothing to do") || there.code == 5, "{there:?}");
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("early").unwrap());
}

// No room for the restored data, or no inode for its files: seen before anything is begun. A disk that was filled between
// the plan and its run: everything is taken back. Each leaves the host as it was.
#[test]
fn onto_a_full_disk() {
    let cluster = lost("mount -t tmpfs -o size=600m tmpfs /var/lib/etcd");
    let before = files(&cluster);
    let written =
        cluster.on("cp1", &["plan", "--snapshot", "/backup", "-o", "json"]).unwrap().expect(0).unwrap();
    cluster.set.host("cp1").unwrap().write("/root/plan.json", written.stdout.as_bytes()).unwrap();
    for (full, told) in [("size=20m", "which has 20 MiB free"), ("size=600m,nr_inodes=6", "free inodes")] {
        cluster.fault("cp1", &format!("mount -o remount,{full} /var/lib/etcd")).unwrap();
        let refused = cluster.on("cp1", &[&RECOVER[..], &["--yes"]].concat()).unwrap().expect(5).unwrap();
        assert!(refused.stdout.contains(told), "{told} is not told: {}", refused.stdout);
        assert_eq!(before, files(&cluster));
    }
    let undone = cluster.on("cp1", &["apply", "/root/plan.json", "--yes"]).unwrap();
    assert_eq!(undone.code, 1, "{undone:?}");
    assert!(undone.stdout.contains("No space left"), "{undone:?}");
    assert_eq!(before, files(&cluster), "{undone:?}");
    cluster.fault("cp1", "mount -o remount,nr_inodes=10000 /var/lib/etcd").unwrap();
    recovered(&cluster, &[]);
}
