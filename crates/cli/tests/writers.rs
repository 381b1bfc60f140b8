//! The story: several agents protect one cluster. With a Kubernetes API one of them writes and the others stand by: they take
//! over when it dies, and at once when it ends. Without one both write, and do each other no harm: one timeline, a sound
//! chain, no revision missing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "../../world/tests/etcd/apiserver.rs"]
#[allow(dead_code)]
mod apiserver;
#[path = "../../world/tests/etcd/cluster.rs"]
#[allow(dead_code)]
mod cluster;
mod common;

use cluster::{Folder, Pki, start_cluster};
use common::site::{Site, json, rekindle};
use common::{Member, wait_for};
use rekindle_model::HostPath;
use rekindle_world::api::api;
use rekindle_world::host::ApiRequest;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The newest revision, and the HashKV at it, of a member that nobody writes to.
fn now(member: &Member) -> (i64, u64) {
    let hash = member.try_ctl(&["endpoint", "hashkv", "-w", "json"]).unwrap();
    let hash: Value = serde_json::from_str(&hash).unwrap();
    let hash = &hash[0]["HashKV"];
    (hash["hash_revision"].as_i64().unwrap(), hash["hash"].as_u64().unwrap())
}

/// One timeline without a gap, up to this revision at least; every object as its manifest says.
fn is_sound(site: &Site, last: i64) {
    let timelines = site.timelines();
    assert_eq!((timelines.len(), &timelines[0]["gaps"]), (1, &serde_json::json!([])), "{timelines:?}");
    let reached = timelines[0]["restorable"].as_array().unwrap().last().unwrap()["lastRevision"].as_i64();
    assert!(reached >= Some(last), "{timelines:?}");
    let verified = rekindle(&["backup", "verify", "--vault", &site.vault, "--signer", &site.signer]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

// The writer's only member dies, the other agent's does not: a Lease held by who can't follow would be no backup.
#[tokio::test(flavor = "multi_thread")]
async fn who_reaches_no_etcd_leaves_the_lease() {
    let folder = Folder::new();
    let etcd = testbed::components::etcd_line("3.6").unwrap();
    let mut members = start_cluster(&etcd, folder.path(), &["cp1", "cp2", "cp3"]);
    let pki = Pki::new(&folder.path().join("pki"));
    let (_server, url) = apiserver::start(&folder, &pki, &members[1].url()).await;
    let one = Site::new(&members[0].url());
    one.configure(|text| text + &lease_of(&folder, &url));
    let two = one.beside();
    two.configure(|text| text.replace(&members[0].url(), &members[1].url()));
    let writes = |site: &Site| site.metric("writer") == Some(1.0);
    let first = one.agent();
    wait_for("nobody writes", || writes(&one));
    one.wait_healthy();
    let second = two.agent();
    wait_for("the second does not stand by", || two.metric("writer") == Some(0.0));
    members[0].kill();
    let taken = wait_for("the second does not take over", || writes(&two));
    println!("taken over {} ms after the writer's member died", taken.as_millis());
    two.wait_healthy();
    wait_for("the first does not stand by", || one.metric("writer") == Some(0.0));
    let told = members[1].ctl(&etcd, &["put", "/registry/configmaps/ns/x", "x", "-w", "json"]);
    let last = serde_json::from_str::<Value>(&told).unwrap()["header"]["revision"].as_i64().unwrap();
    wait_for(&two.log(), || two.metric("stored_revision") >= Some(last as f64));
    one.end(first);
    two.end(second);
    is_sound(&two, last);
}

/// A kubeconfig of an admin, as the agent's configuration names it.
fn lease_of(folder: &Folder, url: &str) -> String {
    let kubeconfig = folder.path().join("agent.conf");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
         clusters: [{{name: c, cluster: {{server: '{url}', tls-server-name: kubernetes, certificate-authority: pki/ca.crt}}}}]\n\
         users: [{{name: u, user: {{client-certificate: pki/admin.crt, client-key: pki/admin.key}}}}]\n\
         contexts: [{{name: a, context: {{cluster: c, user: u}}}}]\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    format!("kubernetes: {{kubeconfig: {kubeconfig}}}\n")
}

#[test]
fn two_that_write_do_no_harm() {
    let etcd = tempfile::tempdir().unwrap();
    let member = Arc::new(Member::boot(&etcd.path().join("data"), &testbed::ports::free_url()));
    let one = Site::new(&member.url);
    let two = one.beside();
    let stop = Arc::new(AtomicBool::new(false));
    let writing = {
        let (member, stop) = (member.clone(), stop.clone());
        std::thread::spawn(move || {
            for i in 0.. {
                let key = format!("/registry/configmaps/ns/c{}", i % 30);
                member.try_ctl(&["put", &key, &format!("{i} ").repeat(50)]).unwrap();
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        })
    };
    let mut first = one.agent();
    one.wait_healthy();
    let second = two.agent();
    two.wait_healthy();
    let stored = |site: &Site, more: f64| {
        let from = site.metric("segments_stored_total").unwrap();
        wait_for("no segments are stored", || site.metric("segments_stored_total") > Some(from + more));
    };
    stored(&one, 3.0);
    stored(&two, 3.0);
    // one of them dies under way, and comes back
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    stored(&two, 2.0);
    first = one.agent();
    one.wait_healthy();
    stored(&one, 2.0);
    stop.store(true, Ordering::Relaxed);
    writing.join().unwrap();
    let (last, hash) = now(&member);
    wait_for("the end is not stored", || {
        [&one, &two].iter().all(|site| site.metric("stored_revision") >= Some(last as f64))
    });
    one.end(first);
    two.end(second);
    is_sound(&one, last);
    let data = one.path("restored");
    let report = json(
        &[
            &["snapshot", "restore", "--from", &one.vault, "--identity", &one.path("identity.txt")][..],
            &["--trusted-signer", &one.signer, "--to", &last.to_string(), "--data-dir", &data],
        ]
        .concat(),
    );
    assert_eq!((&report["revision"], &report["hashKv"]["hash"]), (&last.into(), &hash.into()), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_lease_one_writes() {
    let folder = Folder::new();
    let etcd = testbed::components::etcd_line("3.6").unwrap();
    let members = start_cluster(&etcd, folder.path(), &["cp1"]);
    let pki = Pki::new(&folder.path().join("pki"));
    let (server, url) = apiserver::start(&folder, &pki, &members[0].url()).await;
    let one = Site::new(&members[0].url());
    one.configure(|text| text + &lease_of(&folder, &url));
    let two = one.beside();
    let writes = |site: &Site| site.metric("writer") == Some(1.0);
    let stands_by = |site: &Site| site.metric("writer") == Some(0.0);
    let ctl = |args: &[&str]| members[0].ctl(&etcd, args);
    let put = |value: &str| -> i64 {
        let told = ctl(&["put", "/registry/configmaps/ns/x", value, "-w", "json"]);
        serde_json::from_str::<Value>(&told).unwrap()["header"]["revision"].as_i64().unwrap()
    };
    let is_stored = |site: &Site, revision: i64| {
        wait_for(&site.log(), || site.metric("stored_revision") >= Some(revision as f64));
    };

    let mut first = one.agent();
    wait_for("nobody writes", || writes(&one));
    one.wait_healthy();
    let second = two.agent();
    wait_for("the second does not stand by", || stands_by(&two));
    is_stored(&one, put("1"));
    assert!(two.is_healthy() && stands_by(&two) && writes(&one), "{}", two.log());
    assert!(!two.path("state/spool").is_empty() && std::fs::read_dir(two.path("state/spool")).is_err());

    first.0.kill().unwrap();
    first.0.wait().unwrap();
    put("while nobody writes");
    let taken = wait_for("the second does not take over", || writes(&two));
    println!("taken over {} ms after the kill", taken.as_millis());
    is_stored(&two, put("2"));
    first = one.agent();
    wait_for("the first does not stand by", || stands_by(&one));

    two.end(second);
    let handed = wait_for("the first does not take over", || writes(&one));
    println!("handed over in {} ms", handed.as_millis());
    is_stored(&one, put("3"));
    let asked = ApiRequest {
        kubeconfig: HostPath(folder.path().join("agent.conf")),
        context: None,
        server: None,
        method: "GET".into(),
        path: "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/rekindle-agent".into(),
        content_type: "application/json".into(),
        body: Vec::new(),
        timeout_ms: 20_000,
    };
    let lease: Value = serde_json::from_slice(&api(&asked, "/".into()).await.unwrap().body).unwrap();
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap();
    assert!(holder.ends_with(std::fs::read_to_string(one.path("state/agent.id")).unwrap().trim()), "{lease}");

    // the API goes away: that is when backups matter most
    drop(server);
    let second = two.agent();
    let last = put("4");
    is_stored(&one, last);
    wait_for("without the API the second does not write", || writes(&two));
    two.end(second);
    one.end(first);
    is_sound(&one, last);
}
