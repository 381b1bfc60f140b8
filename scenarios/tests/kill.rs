//! The program dies in the middle of a recovery, once per kind of step: `resume` finishes, `undo` puts everything back.
//! With `cargo xtask test --full` at every step, before, in and after it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use scenarios::{Called, Cluster, REKINDLE, STOP_ALL, verified};
use std::os::unix::process::ExitStatusExt;
use testbed::set::Kind;

/// Kinds of steps before the point of no return, as the plan names them.
const REVERSIBLE: [&str; 6] =
    ["stageMember", "stopUnit", "stopContainers", "rename", "replaceFile", "startUnit"];

fn broken() -> Cluster {
    let cluster = Cluster::load(Kind::Kubeadm1).unwrap();
    cluster.mark("early").unwrap();
    cluster.snapshot("cp1", "/backup/snap.db").unwrap();
    let garble = "truncate -s 40960 /var/lib/etcd/member/snap/db";
    cluster.fault("cp1", &format!("{STOP_ALL}; {garble}")).unwrap();
    cluster
}

/// Runs `recover` with the kill, and gives the id of the run that was cut off.
fn killed(cluster: &Cluster, at: &str) -> String {
    let kill = format!("REKINDLE_KILL_AT={at}");
    let line = ["env", &kill, REKINDLE, "recover", "--snapshot", "/backup", "--yes"];
    let output = cluster.set.host("cp1").unwrap().exec(&line).unwrap();
    let died = output.status.signal() == Some(9) || output.status.code() == Some(137);
    assert!(died, "not killed at {at}: {}", String::from_utf8_lossy(&output.stderr));
    let runs = cluster.on("cp1", &["runs", "-o", "json"]).unwrap().expect(0).unwrap().json().unwrap();
    runs.as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap().to_owned()).max().unwrap()
}

fn resume(cluster: &Cluster, id: &str) -> Called {
    cluster.on("cp1", &["runs", "resume", id, "--yes", "-o", "json"]).unwrap().expect(0).unwrap()
}

fn state(cluster: &Cluster) -> String {
    let look = "find /etc/kubernetes/manifests /var/lib/etcd -type f | sort | xargs sha256sum; systemctl is-active kubelet || true";
    cluster.set.host("cp1").unwrap().script(look).unwrap()
}

// Killed in each kind of step and undone each time: the same broken cluster as before, byte for byte; the last time it is
// resumed instead, and recovers.
#[test]
fn killed_in_each_kind_of_step() {
    let cluster = broken();
    let before = state(&cluster);
    for kind in REVERSIBLE {
        let id = killed(&cluster, &format!("{kind}:mid"));
        cluster.on("cp1", &["runs", "undo", &id, "--yes"]).unwrap().expect(0).unwrap();
        assert_eq!(before, state(&cluster), "not as it was after {kind} was cut off and undone");
    }
    let id = killed(&cluster, "replaceFile:after");
    verified(&resume(&cluster, &id)).unwrap();
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("early").unwrap());
}

// Killed past the point of no return: `undo` refuses, since clients may have written; `resume` finishes.
#[test]
fn killed_past_the_point_of_no_return() {
    let cluster = broken();
    let id = killed(&cluster, "waitApiReady:mid");
    cluster.on("cp1", &["runs", "undo", &id, "--yes"]).unwrap().expect(5).unwrap();
    verified(&resume(&cluster, &id)).unwrap();
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("early").unwrap());
}

// Every step up to the point of no return, before, in and after it, undone each time.
#[test]
#[ignore = "long: `cargo xtask test --full` runs it; the two tests above are its short form"]
fn killed_at_every_step() {
    let cluster = broken();
    let before = state(&cluster);
    for step in 1..=13 {
        for point in ["before", "mid", "after"] {
            let id = killed(&cluster, &format!("{step}:{point}"));
            cluster.on("cp1", &["runs", "undo", &id, "--yes"]).unwrap().expect(0).unwrap();
            assert_eq!(before, state(&cluster), "not as it was after step {step} {point}");
        }
    }
}
