//! A member that was wiped and came back under its old id, by real etcd 3.5, 3.6 and 3.7 on loopback: everything
//! answers and is in quorum, and only the beginning of its log tells. What the logs say is read as a recovery reads it
//! and judged by the diagnosis; members that were never wiped, however they joined, must not be suspected.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(dead_code)]

#[path = "etcd/cluster.rs"]
mod cluster;

use cluster::{Folder, Member, initial_cluster, start_cluster};
use rekindle_diagnose::diagnose;
use rekindle_model::diagnosis::{EtcdVerdict, MemberVerdict};
use rekindle_model::etcd::{EtcdConfig, EtcdDefinition, WalFacts};
use rekindle_model::fixtures::Fixture;
use rekindle_model::host::HostFacts;
use rekindle_model::inventory::Inventory;
use rekindle_model::{HostId, HostPath, Seen};
use rekindle_world::etcd_client::live;
use rekindle_world::host::Host;
use rekindle_world::local::LocalHost;
use std::os::unix::fs::PermissionsExt as _;
use testbed::components::{ETCD_LINES, Etcd, etcd_line};

/// What is seen of the members, each as if it had a host of its own; of the rest nothing.
async fn observe(members: &[Member]) -> Inventory {
    let host = LocalHost::new(HostId::local(), "/");
    let mut inventory = Fixture::kubeadm(1).build();
    inventory.sources.clear();
    inventory.hosts.clear();
    for member in members {
        let endpoint = member.endpoint();
        let data_dir = HostPath(member.dir.clone());
        let data = (&host as &dyn Host).inspect_etcd_data(&data_dir, None, true).await.unwrap();
        let mut facts = HostFacts::unreachable(HostId(member.name.clone()), String::new());
        facts.unreachable = None;
        facts.etcd_live = Seen::Known(live(&endpoint, "/".into()).await);
        facts.etcd_data = Seen::Known(data);
        facts.etcd_config = Seen::Known(EtcdConfig {
            name: member.name.clone(),
            data_dir,
            wal_dir: None,
            peer_urls: vec![member.peer_url()],
            client_urls: vec![member.url()],
            initial_cluster: Vec::new(),
            initial_cluster_state: String::new(),
            initial_cluster_token: String::new(),
            quota_bytes: None,
            peer_endpoint: endpoint.clone(),
            endpoint,
            defined_in: EtcdDefinition::Manifest("/etc/kubernetes/manifests/etcd.yaml".into()),
        });
        inventory.hosts.push(facts);
    }
    inventory
}

fn wal(inventory: &Inventory, member: usize) -> &WalFacts {
    inventory.hosts[member].etcd_data.known().unwrap().wal.known().unwrap()
}

/// Members by name and verdict; all but `wiped` must be healthy.
fn expect(line: &str, story: &str, inventory: &Inventory, wiped: Option<usize>) {
    let diagnosis = diagnose(inventory);
    for (at, host) in inventory.hosts.iter().enumerate() {
        let expected = if wiped == Some(at) { MemberVerdict::RejoinedWiped } else { MemberVerdict::Healthy };
        let log = wal(inventory, at);
        assert_eq!(
            diagnosis.members[&host.id], expected,
            "etcd {line}, {story}, {}: birth {:?}, changes {:?}, findings {:#?}",
            host.id, log.birth, log.conf_changes, diagnosis.findings
        );
    }
    let whole = if wiped.is_some() { EtcdVerdict::QuorumHolds } else { EtcdVerdict::Healthy };
    assert_eq!(diagnosis.etcd, whole, "etcd {line}, {story}");
}

fn fill(etcd: &Etcd, member: &Member, keys: usize) {
    for n in 0..keys {
        member.ctl(etcd, &["put", &format!("/registry/configmaps/default/cm-{n}"), &"x".repeat(300)]);
    }
}

/// Kills a member, empties its disk and starts it again under its old id. It comes back only when the leader has
/// changed since: one that remembers what the member acknowledged makes it panic. So the others are restarted first.
fn wipe_and_rejoin(etcd: &Etcd, members: &mut [Member], which: usize) {
    let initial = initial_cluster(members);
    members.iter_mut().for_each(Member::kill);
    std::fs::remove_dir_all(&members[which].dir).unwrap();
    for (at, member) in members.iter_mut().enumerate() {
        if at != which {
            member.start(etcd, &initial, "existing");
        }
    }
    let other = usize::from(which == 0);
    members[other].wait_ready(etcd);
    members[which].start(etcd, &initial, "existing");
    members[which].wait_ready(etcd);
}

/// Asks etcdctl until it agrees: a cluster counts as unhealthy for 5 s after each new member.
fn ctl_patiently(etcd: &Etcd, member: &Member, args: &[&str]) -> Vec<u8> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let mut command = std::process::Command::new(&etcd.etcdctl);
        let output = command.args(["--endpoints", &member.url()]).args(args).output().unwrap();
        if output.status.success() {
            return output.stdout;
        }
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(std::time::Instant::now() < deadline, "etcdctl {args:?} fails for 30 s: {why}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// Adds a member the way kubeadm does: as a learner, started, promoted.
fn join(etcd: &Etcd, members: &mut Vec<Member>, mut member: Member) {
    let peers = format!("--peer-urls={}", member.peer_url());
    let add = ["member", "add", &member.name, "--learner", &peers, "-w", "json"];
    let added: serde_json::Value = serde_json::from_slice(&ctl_patiently(etcd, &members[0], &add)).unwrap();
    let id = format!("{:x}", added["member"]["ID"].as_u64().unwrap());
    let initial = format!("{},{}={}", initial_cluster(members), member.name, member.peer_url());
    member.start(etcd, &initial, "existing");
    ctl_patiently(etcd, &members[0], &["member", "promote", &id]);
    member.wait_ready(etcd);
    members.push(member);
}

// Three members of the first hour. One is restarted (its log stays), then another is wiped and rejoins: it alone is
// named.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_member_that_was_wiped_is_named() {
    for line in ETCD_LINES {
        let etcd = etcd_line(line).unwrap();
        let folder = Folder::new();
        let mut members = start_cluster(&etcd, folder.path(), &["cp1", "cp2", "cp3"]);
        fill(&etcd, &members[0], 20);
        expect(line, "never wiped", &observe(&members).await, None);
        let initial = initial_cluster(&members);
        members[1].kill();
        members[1].start(&etcd, &initial, "existing");
        members[1].wait_ready(&etcd);
        expect(line, "restarted", &observe(&members).await, None);
        wipe_and_rejoin(&etcd, &mut members, 2);
        expect(line, "wiped", &observe(&members).await, Some(2));
    }
}

// The leader did not change: it knows what the wiped member had acknowledged, and the member panics ("tocommit .. is
// out of range"). Its data is lost, the others hold quorum, and its last words are quoted.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_member_that_panics_has_lost_its_data() {
    for line in ETCD_LINES {
        let etcd = etcd_line(line).unwrap();
        let folder = Folder::new();
        let mut members = start_cluster(&etcd, folder.path(), &["cp1", "cp2", "cp3"]);
        fill(&etcd, &members[0], 150);
        let leader = leader(&observe(&members).await);
        let which = (leader + 1) % 3;
        members[which].kill();
        std::fs::remove_dir_all(&members[which].dir).unwrap();
        let initial = initial_cluster(&members);
        members[which].start(&etcd, &initial, "existing");
        let log = members[which].dir.with_extension("log");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !std::fs::read_to_string(&log).unwrap().contains("out of range") {
            assert!(std::time::Instant::now() < deadline, "etcd {line}: no panic in 20 s");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        members[which].kill();
        let mut inventory = observe(&members).await;
        let host = &mut inventory.hosts[which];
        host.processes = Seen::Known(Vec::new());
        let lines = std::fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect();
        host.logs.insert("journal:etcd".into(), lines);
        let diagnosis = diagnose(&inventory);
        let id = &inventory.hosts[which].id;
        assert_eq!(diagnosis.members[id], MemberVerdict::DataLost, "etcd {line}: {:#?}", diagnosis.findings);
        assert_eq!(diagnosis.etcd, EtcdVerdict::QuorumHolds, "etcd {line}");
        let finding = diagnosis.findings.iter().find(|f| f.code == "RK-E01").unwrap();
        assert!(finding.evidence.iter().any(|e| e.text.contains("out of range")), "{finding:#?}");
    }
}

fn leader(inventory: &Inventory) -> usize {
    let status = |host: &HostFacts| host.etcd_live.known().unwrap().status.known().unwrap().clone();
    inventory.hosts.iter().position(|host| status(host).leader == status(host).member_id).unwrap()
}

// kubeadm's way: one member, two more as learners, promoted. Nobody is suspected, not even after a change of leader.
// Then one is wiped and gets the whole log from its first entry: its vote stands there before it knew anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_member_that_was_wiped_is_named() {
    for line in ETCD_LINES {
        let etcd = etcd_line(line).unwrap();
        let folder = Folder::new();
        let mut members = start_cluster(&etcd, folder.path(), &["cp1"]);
        fill(&etcd, &members[0], 60);
        for name in ["cp2", "cp3"] {
            join(&etcd, &mut members, Member::new(folder.path(), name, None));
        }
        fill(&etcd, &members[0], 20);
        expect(line, "joined", &observe(&members).await, None);
        wipe_and_rejoin(&etcd, &mut members, 2);
        expect(line, "wiped", &observe(&members).await, Some(2));
    }
}

// kubeadm's first member is started by flags that name itself alone: without its disk it founds the cluster a second
// time, under the old ids, and is then taken in by the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_founded_again_is_named() {
    for line in ETCD_LINES {
        let etcd = etcd_line(line).unwrap();
        let folder = Folder::new();
        let mut members = start_cluster(&etcd, folder.path(), &["cp1"]);
        let alone = initial_cluster(&members);
        fill(&etcd, &members[0], 60);
        for name in ["cp2", "cp3"] {
            join(&etcd, &mut members, Member::new(folder.path(), name, None));
        }
        fill(&etcd, &members[0], 20);
        let joined = initial_cluster(&members);
        members.iter_mut().for_each(Member::kill);
        std::fs::remove_dir_all(&members[0].dir).unwrap();
        for at in [1, 2] {
            members[at].start(&etcd, &joined, "existing");
        }
        members[1].wait_ready(&etcd);
        members[0].start(&etcd, &alone, "new");
        members[0].wait_ready(&etcd);
        fill(&etcd, &members[1], 5);
        expect(line, "founded again", &observe(&members).await, Some(0));
    }
}

// A log that was compacted away in between: what comes back is sent a snapshot. Honest learners that were
// sent one are not suspected.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_sent_a_snapshot_is_judged_by_its_vote() {
    for line in ETCD_LINES {
        let etcd = etcd_line(line).unwrap();
        let folder = Folder::new();
        let catch_up = if line == "3.5" {
            "--experimental-snapshot-catchup-entries"
        } else {
            "--snapshot-catchup-entries"
        };
        let wrapper = folder.path().join("etcd.sh");
        let text = format!("#!/bin/sh\nexec {} \"$@\" --snapshot-count=10 {catch_up}=5\n", etcd.etcd);
        std::fs::write(&wrapper, text).unwrap();
        std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let etcd = Etcd { etcd: wrapper, ..etcd };
        let mut members = start_cluster(&etcd, folder.path(), &["cp1"]);
        fill(&etcd, &members[0], 40);
        for name in ["cp2", "cp3"] {
            join(&etcd, &mut members, Member::new(folder.path(), name, None));
        }
        fill(&etcd, &members[0], 40);
        let before = observe(&members).await;
        assert!(
            wal(&before, 1).birth.as_ref().unwrap().first_snapshot_index > 0,
            "etcd {line}: no snapshot was sent"
        );
        expect(line, "joined by snapshot", &before, None);
        wipe_and_rejoin(&etcd, &mut members, 1);
        let after = observe(&members).await;
        assert!(
            wal(&after, 1).birth.as_ref().unwrap().first_snapshot_index > 0,
            "etcd {line}: no snapshot was sent"
        );
        expect(line, "wiped", &after, Some(1));
    }
}
