//! The etcd client against real etcd 3.5, 3.6 and 3.7 on loopback; `etcdctl` and `etcdutl` are the judges.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[allow(dead_code)]
#[path = "etcd/cluster.rs"]
mod cluster;

use cluster::{Folder, Member, Pki, initial_cluster, start_cluster};
use rekindle_model::etcd::{EtcdEndpoint, EtcdMember, HashKv};
use rekindle_model::{HostPath, Seen};
use rekindle_world::api::serves_peers;
use rekindle_world::etcd_client::{call, live};
use rekindle_world::fault::Outcome;
use rekindle_world::host::{EtcdCall, HostErrorKind, Reply, Saved};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};
use testbed::components::{ETCD_LINES, Etcd, etcd_line};

const NAMESPACE: &str = r#"{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"kube-system",
    "uid":"6f9a3c52-0f5e-4d53-9d3b-0e8f1f7f9c11"}}"#;

async fn ask(endpoint: &EtcdEndpoint, request: EtcdCall) -> Outcome<Reply> {
    call(endpoint, &request, "/".into()).await
}

async fn members(endpoint: &EtcdEndpoint, linearizable: bool) -> Vec<EtcdMember> {
    match ask(endpoint, EtcdCall::MemberList { linearizable }).await.unwrap() {
        Reply::Members(members) => members,
        other => panic!("{other:?}"),
    }
}

async fn hash_kv(endpoint: &EtcdEndpoint, revision: i64) -> HashKv {
    match ask(endpoint, EtcdCall::HashKv { revision }).await.unwrap() {
        Reply::HashKv(hash) => hash,
        other => panic!("{other:?}"),
    }
}

async fn pairs(endpoint: &EtcdEndpoint, prefix: &str, limit: i64) -> Vec<(String, Vec<u8>)> {
    match ask(endpoint, EtcdCall::Range { prefix: prefix.into(), limit }).await.unwrap() {
        Reply::Pairs(pairs) => pairs,
        other => panic!("{other:?}"),
    }
}

async fn snapshot(endpoint: &EtcdEndpoint, to: &HostPath) -> Saved {
    match ask(endpoint, EtcdCall::Snapshot { to: to.clone() }).await.unwrap() {
        Reply::Saved(saved) => saved,
        other => panic!("{other:?}"),
    }
}

/// What `etcdutl snapshot status` says of a file; it must accept it.
fn snapshot_status(etcd: &Etcd, path: &HostPath) -> Value {
    let output = Command::new(&etcd.etcdutl)
        .args(["snapshot", "status", path.as_str(), "-w", "json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

// A kubeadm-like member (TLS, client certificates required) of every line is asked everything: each answer is the one
// that etcdctl gets, and the snapshot is one that etcdutl accepts.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_every_line_answers_over_tls() {
    for line in ETCD_LINES {
        let etcd = etcd_line(line).unwrap();
        let folder = Folder::new();
        let pki = Pki::new(&folder.path().join("pki"));
        pki.issue("server", &["localhost", "127.0.0.1"], false);
        pki.issue("client", &["client"], false);
        let mut member = Member::new(folder.path(), "cp1", Some(pki.dir.clone()));
        member.start(&etcd, &format!("cp1={}", member.peer_url()), "new");
        member.wait_ready(&etcd);
        let endpoint = member.endpoint();
        member.ctl(&etcd, &["put", "/registry/namespaces/kube-system", NAMESPACE]);
        for n in 0..3 {
            member.ctl(&etcd, &["put", &format!("/registry/masterleases/10.0.0.{n}"), "x"]);
        }

        let seen = live(&endpoint, "/".into()).await;
        let status = seen.status.known().unwrap();
        assert_eq!((status.version.as_str(), status.revision), (etcd.version.as_str(), 5));
        assert_eq!(status.leader, status.member_id);
        assert!(!status.is_learner && status.errors.is_empty() && status.db_size_bytes > 0);
        assert_eq!(seen.quorum, Seen::Known(true));
        assert_eq!(seen.alarms, Seen::Known(Vec::new()));
        assert_eq!(seen.live_keys, Seen::Known(4));
        assert_eq!(seen.kube_system_uid, Seen::Known("6f9a3c52-0f5e-4d53-9d3b-0e8f1f7f9c11".into()));
        assert_eq!(seen.note, None);
        let listed = seen.members.known().unwrap();
        assert_eq!((listed.len(), listed[0].name.as_str(), listed[0].id), (1, "cp1", status.member_id));
        assert_eq!(&members(&endpoint, true).await, listed);

        assert!(matches!(ask(&endpoint, EtcdCall::CountKeys).await.unwrap(), Reply::Count(4)));
        let stock: Value =
            serde_json::from_str(&member.ctl(&etcd, &["endpoint", "hashkv", "-w", "json"])).unwrap();
        let latest = hash_kv(&endpoint, 0).await;
        assert_eq!(Some(u64::from(latest.hash)), stock[0]["HashKV"]["hash"].as_u64(), "etcd {line}");
        assert_eq!(latest.revision, 5);
        assert_eq!(hash_kv(&endpoint, 3).await.revision, 3);

        let leases = pairs(&endpoint, "/registry/masterleases/", 0).await;
        assert_eq!(leases.len(), 3);
        assert_eq!(leases[1], ("/registry/masterleases/10.0.0.1".to_owned(), b"x".to_vec()));
        let keys = leases.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        for _ in 0..2 {
            assert_eq!(
                ask(&endpoint, EtcdCall::DeleteKeys { keys: keys.clone() }).await.unwrap(),
                Reply::Done
            );
        }
        assert_eq!(pairs(&endpoint, "/registry/", 0).await.len(), 1);

        let to = HostPath(folder.path().join("snapshot.db"));
        let saved = snapshot(&endpoint, &to).await;
        let file = std::fs::metadata(&to.0).unwrap();
        assert_eq!((file.len(), saved.has_trailer), (saved.bytes, true));
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o777, 0o600);
        assert_eq!(snapshot_status(&etcd, &to)["revision"].as_i64(), Some(8), "etcd {line}");
    }
}

// More keys than one page holds: all of them, in order, as of one moment; and a limit is a limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_range_comes_whole() {
    let etcd = etcd_line("3.6").unwrap();
    let folder = Folder::new();
    let members = start_cluster(&etcd, folder.path(), &["one"]);
    let endpoint = members[0].endpoint();
    for batch in 0..11 {
        let puts: String = (0..100).map(|n| format!("put key/{batch:02}{n:02} v\n")).collect();
        let mut txn = Command::new(&etcd.etcdctl)
            .args(["--endpoints", &members[0].url(), "txn"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let input = format!("\n{puts}\n\n");
        std::io::Write::write_all(txn.stdin.as_mut().unwrap(), input.as_bytes()).unwrap();
        drop(txn.stdin.take());
        assert!(txn.wait().unwrap().success());
    }
    let all = pairs(&endpoint, "key/", 0).await;
    assert_eq!(all.len(), 1100);
    assert!(all.is_sorted() && all[1099].0 == "key/1099");
    assert_eq!(pairs(&endpoint, "key/", 501).await.len(), 501);
    assert_eq!(pairs(&endpoint, "", 0).await.len(), 1100);
}

// Two of three members die. The survivor still tells its status, members, count and identity, gives a snapshot, and
// says that it has no quorum; all of that within the promised 5 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_survivor_without_quorum_tells_what_it_holds() {
    let etcd = etcd_line("3.6").unwrap();
    let folder = Folder::new();
    let mut cluster = start_cluster(&etcd, folder.path(), &["cp1", "cp2", "cp3"]);
    cluster[0].ctl(&etcd, &["put", "/registry/namespaces/kube-system", NAMESPACE]);
    let before = live(&cluster[2].endpoint(), "/".into()).await;
    assert_eq!((before.quorum, before.members.known().unwrap().len()), (Seen::Known(true), 3));

    cluster[0].kill();
    cluster[1].kill();
    std::thread::sleep(Duration::from_secs(3)); // longer than an election timeout, so that the leader is gone
    let endpoint = cluster[2].endpoint();
    let asked = Instant::now();
    let seen = live(&endpoint, "/".into()).await;
    assert!(asked.elapsed() < Duration::from_secs(5), "took {:?}", asked.elapsed());
    assert_eq!(seen.quorum, Seen::Known(false));
    let status = seen.status.known().unwrap();
    assert_eq!((status.leader.0, status.errors.join("")), (0, "etcdserver: no leader".into()));
    assert_eq!((seen.live_keys, seen.note), (Seen::Known(1), None));
    assert!(seen.kube_system_uid.known().is_some());
    assert_eq!(seen.members.known().unwrap().len(), 3);

    let to = HostPath(folder.path().join("survivor.db"));
    snapshot(&endpoint, &to).await;
    assert_eq!(snapshot_status(&etcd, &to)["revision"].as_i64(), Some(2));
    let fault = ask(&endpoint, EtcdCall::MemberList { linearizable: true }).await.unwrap_err();
    assert_eq!(fault.kind, HostErrorKind::Unavailable, "{}", fault.what);
    assert!(fault.what.starts_with(&format!("{}: MemberList: ", endpoint.url)), "{}", fault.what);
}

// One of three loses its disk and is replaced the way a recovery does it, each change asked twice as after a crash
// between asking and noting it down: the old one removed, added as learner, started empty, promoted when caught up.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_replaced_and_every_change_is_idempotent() {
    let etcd = etcd_line("3.6").unwrap();
    let folder = Folder::new();
    let mut cluster = start_cluster(&etcd, folder.path(), &["cp1", "cp2", "cp3"]);
    cluster[0].ctl(&etcd, &["put", "key", "value"]);
    let initial = initial_cluster(&cluster);
    // the one that leads, so that the first calls meet an election
    let leads = async |member: &Member| {
        let Ok(Reply::Status(status)) = ask(&member.endpoint(), EtcdCall::Status).await else { return false };
        status.leader == status.member_id
    };
    let mut leader = 0;
    for (at, member) in cluster.iter().enumerate() {
        if leads(member).await {
            leader = at;
        }
    }
    let mut lost = cluster.remove(leader);
    let endpoint = cluster[0].endpoint();
    lost.kill();
    std::fs::remove_dir_all(&lost.dir).unwrap();

    let old = members(&endpoint, true).await.into_iter().find(|m| m.name == lost.name).unwrap();
    for _ in 0..2 {
        assert_eq!(ask(&endpoint, EtcdCall::Remove { member: old.id }).await.unwrap(), Reply::Done);
    }
    let add = || async {
        let request = EtcdCall::AddLearner { peer_urls: vec![lost.peer_url()] };
        match ask(&endpoint, request).await.unwrap() {
            Reply::Members(members) => members[0].clone(),
            other => panic!("{other:?}"),
        }
    };
    let learner = add().await;
    assert!(learner.is_learner && learner.name.is_empty() && learner.id != old.id);
    assert_eq!(add().await, learner);
    assert_eq!(members(&endpoint, true).await.len(), 3);
    let early = ask(&endpoint, EtcdCall::Promote { member: learner.id }).await.unwrap_err();
    assert_eq!(early.kind, HostErrorKind::Refused, "{}", early.what);

    lost.start(&etcd, &initial, "existing");
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(fault) = ask(&endpoint, EtcdCall::Promote { member: learner.id }).await {
        assert!(Instant::now() < deadline, "{}", fault.what);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(ask(&endpoint, EtcdCall::Promote { member: learner.id }).await.unwrap(), Reply::Done);
    let after = members(&lost.endpoint(), true).await;
    assert!(after.len() == 3 && after.iter().all(|m| !m.is_learner && !m.name.is_empty()));
    for member in &cluster {
        assert_eq!(hash_kv(&member.endpoint(), 2).await, hash_kv(&lost.endpoint(), 2).await);
    }
}

// What a broken PKI looks like: it is told as what it is, not as "down", and names the endpoint; down is told as down.
#[tokio::test(flavor = "multi_thread")]
async fn certificate_trouble_is_told_apart_from_down() {
    let etcd = etcd_line("3.6").unwrap();
    let folder = Folder::new();
    let pki = Pki::new(&folder.path().join("pki"));
    let other = Pki::new(&folder.path().join("other"));
    pki.issue("client", &["client"], false);
    let mut member = Member::new(folder.path(), "cp1", Some(pki.dir.clone()));
    let good = member.endpoint();
    pki.issue("server", &["localhost", "127.0.0.1"], false);
    member.start(&etcd, &format!("cp1={}", member.peer_url()), "new");
    member.wait_ready(&etcd);

    let wrong_ca = EtcdEndpoint { cacert: Some(HostPath(other.dir.join("ca.crt"))), ..good.clone() };
    let no_identity = EtcdEndpoint { cert: None, key: None, ..good.clone() };
    let no_file = EtcdEndpoint { cacert: Some(HostPath(other.dir.join("none.crt"))), ..good.clone() };
    let wrong_name = EtcdEndpoint { url: good.url.replace("127.0.0.1", "127.0.0.2"), ..good.clone() };
    // whether the alert "certificate required" arrives before the end of the connection is a race
    let cases = [(wrong_ca, "invalid peer certificate"), (no_identity, "ertificate"), (no_file, "none.crt")];
    for (endpoint, word) in cases {
        let fault = ask(&endpoint, EtcdCall::Status).await.unwrap_err();
        assert!(fault.what.contains(word) && fault.what.contains(&endpoint.url), "{}", fault.what);
        let seen = live(&endpoint, "/".into()).await;
        assert!(seen.note.as_ref().is_some_and(|n| n.contains(word)), "{word}: {seen:?}");
        assert!(seen.status.known().is_none());
    }
    // nobody listens on that address: refused, which is no certificate trouble
    let seen = live(&wrong_name, "/".into()).await;
    assert!(seen.note.is_none() && seen.status.why_unknown().unwrap().contains("refused"), "{seen:?}");

    pki.issue("server", &["localhost", "127.0.0.1"], true); // etcd reads its certificate anew for each handshake
    let fault = ask(&good, EtcdCall::Status).await.unwrap_err();
    assert!(fault.what.contains("xpired"), "{}", fault.what);
    member.kill();
    let fault = ask(&good, EtcdCall::Status).await.unwrap_err();
    assert_eq!(fault.kind, HostErrorKind::Unavailable, "{}", fault.what);

    // A port that accepts and stays silent, as a stopped process does.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let asked = Instant::now();
    let seen = live(&EtcdEndpoint { url, cacert: None, cert: None, key: None }, "/".into()).await;
    assert!(asked.elapsed() < Duration::from_secs(6), "took {:?}", asked.elapsed());
    assert!(seen.status.known().is_none() && seen.quorum.known().is_none());
}

// A member that starts asks the others for their hashes before it serves them, as kubeadm has it configured. One of the
// others takes the connection and says nothing, as one does that is itself asking: meanwhile the port of the first is
// open and shakes hands, and yet nobody is served there. That is told, and the moment when it ends. A member that starts
// in that time would wait, too.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_peer_port_is_not_yet_a_served_one() {
    let (etcd, folder) = (etcd_line("3.6").unwrap(), Folder::new());
    let pki = Pki::new(&folder.path().join("pki"));
    pki.issue("server", &["127.0.0.1"], false);
    let mut members: Vec<_> =
        ["m1", "m2"].iter().map(|name| Member::new(folder.path(), name, None)).collect();
    for member in &mut members {
        member.peer_tls = Some(pki.dir.clone());
        member.flags = vec!["--feature-gates=InitialCorruptCheck=true".into()];
    }
    let initial = initial_cluster(&members);
    members.iter_mut().for_each(|member| member.start(&etcd, &initial, "new"));
    members.iter().for_each(|member| member.wait_ready(&etcd));
    let endpoint = members[0].peer_endpoint();
    assert!(serves_peers(&endpoint, "/".into()).await.unwrap());
    members.iter_mut().for_each(Member::kill);
    assert!(!serves_peers(&endpoint, "/".into()).await.unwrap(), "nobody is there");

    let silent = std::net::TcpListener::bind(("127.0.0.1", members[1].peer_port)).unwrap();
    members[0].start(&etcd, &initial, "existing");
    let port = members[0].peer_port;
    let wait = Duration::from_secs(10);
    testbed::cmd::wait_for("the open port", wait, || {
        Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok())
    })
    .unwrap();
    assert!(!serves_peers(&endpoint, "/".into()).await.unwrap(), "it is asking the silent one");
    drop(silent);
    let start = Instant::now();
    while !serves_peers(&endpoint, "/".into()).await.unwrap() {
        assert!(start.elapsed() < Duration::from_secs(30), "it never serves its peers");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
