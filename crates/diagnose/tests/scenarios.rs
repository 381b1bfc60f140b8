//! Golden transcripts: each scenario of recovery, as it would be read on the hosts, and what the diagnosis makes of it.
//! The story of each test stands above it; the transcript beside it (`snapshots/`) is what a reader checks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::dump;
use rekindle_diagnose::diagnose;
use rekindle_model::diagnosis::{ComponentVerdict, Diagnosis, EtcdVerdict, MemberVerdict};
use rekindle_model::etcd::{EtcdDefinition, WalFacts};
use rekindle_model::finding::CheckResult;
use rekindle_model::fixtures::Fixture;
use rekindle_model::host::Component;
use rekindle_model::{HostId, MemberId, Seen};

fn host(index: usize) -> HostId {
    HostId(format!("root@10.0.0.{}", 11 + index))
}

macro_rules! golden {
    ($name:literal, $fixture:expr) => {{
        let inventory = $fixture.build();
        let diagnosis = diagnose(&inventory);
        insta::assert_snapshot!($name, dump(&diagnosis));
        diagnosis
    }};
}

// A host that was just booted: the leases are hours old, and a leader that starts waits the old one out. That is no
// failure, whichever of scheduler and API server was the later one; with both up for a day it is one.
#[test]
fn s6_a_lease_is_taken_over_by_a_leader_that_just_started() {
    let hour_old = |component: Component, started_ms: i64| {
        Fixture::kubeadm(1).with(|i| {
            let Seen::Known(leases) = &mut i.cluster.leader_leases else { panic!("no leases") };
            let lease = leases.iter_mut().find(|l| l.name == "kube-scheduler").unwrap();
            lease.renewed_ms = Some(i.taken_ms - 3_600_000);
            let Seen::Known(processes) = &mut i.hosts[0].processes else { panic!("no processes") };
            let process = processes.iter_mut().find(|p| p.name == component.name()).unwrap();
            process.started_ms = i.taken_ms - started_ms;
        })
    };
    let of_lease = |d: &Diagnosis| {
        let line = d.checks.iter().find(|c| c.title == "lease kube-scheduler is renewed").unwrap();
        (line.result, line.detail.clone())
    };
    for component in [Component::KubeScheduler, Component::KubeApiserver] {
        let just_started = diagnose(&hour_old(component, 4_000).build());
        let (result, detail) = of_lease(&just_started);
        assert_eq!(result, CheckResult::Unknown);
        assert!(detail.contains("could do so for 4000 ms"), "{detail}");
        assert!(just_started.findings.is_empty(), "{:?}", just_started.findings);
        let had_time = diagnose(&hour_old(component, 60_000).build());
        assert_eq!(of_lease(&had_time).0, CheckResult::Failed);
        assert_eq!(had_time.findings[0].code, "RK-C09");
    }
}

// S1, stopped: a single member's data dir is gone. Only a restore helps, and everything above follows from it.
#[test]
fn s1_data_dir_deleted_while_stopped() {
    let d = golden!("s1_deleted_stopped", Fixture::kubeadm(1).lose_data(0).snapshot(48_000));
    assert_eq!(d.etcd, EtcdVerdict::DataLost);
    assert_eq!(d.members[&HostId::local()], MemberVerdict::DataLost);
}

// S1, running: the data dir was deleted under a running etcd. It answers, and is the only copy: it must be saved first.
#[test]
fn s1_data_dir_deleted_while_running() {
    let d = golden!("s1_deleted_running", Fixture::kubeadm(1).serve_from_deleted(0).snapshot(48_000));
    assert_eq!(d.etcd, EtcdVerdict::DataLost);
    assert_eq!(d.members[&HostId::local()], MemberVerdict::ServingFromLostFiles);
}

// S1, running and silent: the symptom is "request timed out"; the db is deleted but open, and can still be had.
#[test]
fn s1_deleted_db_still_open() {
    let d = golden!("s1_open_db", Fixture::kubeadm(1).open_db_only(0).snapshot(48_000));
    assert_eq!(d.etcd, EtcdVerdict::DataLost);
    assert_eq!(d.members[&HostId::local()], MemberVerdict::OpenDbOnly);
}

// S1: a page of the db was overwritten, the db cut short, the WAL garbled: etcd is down and will not start.
#[test]
fn s1_damaged_files_while_stopped() {
    for (name, fixture) in [
        ("s1_db_overwritten", Fixture::kubeadm(1).corrupt_db(0)),
        ("s1_db_truncated", Fixture::kubeadm(1).truncate_db(0)),
        ("s1_wal_garbled", Fixture::kubeadm(1).garble_wal(0)),
    ] {
        let diagnosis = diagnose(&fixture.snapshot(48_000).build());
        insta::assert_snapshot!(name, dump(&diagnosis));
        assert_eq!(diagnosis.etcd, EtcdVerdict::DataLost, "{name}");
        assert_eq!(diagnosis.members[&HostId::local()], MemberVerdict::DataCorrupt, "{name}");
    }
}

// S1: garbage in the log read as its torn end, or zeros as its end. The db has applied more than the log holds: it is not whole.
#[test]
fn s1_a_log_that_lost_its_end() {
    let mut inventory = Fixture::kubeadm(1).garble_wal(0).snapshot(48_000).build();
    let Seen::Known(data) = &mut inventory.hosts[0].etcd_data else { panic!() };
    data.damage.clear();
    data.wal = Seen::Known(WalFacts { last_index: 4, commit_index: 4, ..WalFacts::default() });
    let diagnosis = diagnose(&inventory);
    assert_eq!(diagnosis.etcd, EtcdVerdict::DataLost);
    assert_eq!(diagnosis.members[&HostId::local()], MemberVerdict::DataCorrupt);
    assert!(dump(&diagnosis).contains("the log ends at index 4, the db has applied"), "{}", dump(&diagnosis));
}

// S1: the db on disk is damaged, but the process still serves from what it has in memory: that is saved first.
#[test]
fn s1_damaged_files_while_running() {
    let d = golden!("s1_damaged_running", Fixture::kubeadm(1).corrupt_db_running(0).snapshot(48_000));
    assert_eq!(d.etcd, EtcdVerdict::DataLost);
    assert_eq!(d.members[&HostId::local()], MemberVerdict::ServingFromLostFiles);
}

// S1, and kubelet was faster: etcd was started on the empty folder and looks healthy. The snapshot tells what is missing.
#[test]
fn s1_single_member_came_back_empty() {
    let d = golden!("s1_came_back_empty", Fixture::kubeadm(1).empty_imposter(0).snapshot(48_000));
    assert_eq!(d.etcd, EtcdVerdict::EmptyImposter);
    assert_eq!(d.members[&HostId::local()], MemberVerdict::EmptyImposter);
}

// S2: two of three disks are lost. The survivor answers without quorum, its data is whole; a restore is the way.
#[test]
fn s2_two_of_three_lost() {
    let d = golden!("s2_two_lost", Fixture::kubeadm(3).lose_data(0).lose_data_and_crash(1).snapshot(48_000));
    assert_eq!(d.etcd, EtcdVerdict::DataLost);
    assert_eq!(d.members[&host(0)], MemberVerdict::DataLost);
    assert_eq!(d.members[&host(1)], MemberVerdict::DataLost);
    assert_eq!(d.members[&host(2)], MemberVerdict::NoQuorum);
}

// S2 with two hosts gone for good, as the operator attests. Without the attestation nothing may be concluded.
#[test]
fn s2_two_hosts_gone() {
    let d = golden!("s2_hosts_lost", Fixture::kubeadm(3).lost_host(1).lost_host(2).snapshot(48_000));
    assert_eq!(d.etcd, EtcdVerdict::DataLost);
    assert_eq!(d.members[&host(1)], MemberVerdict::HostLost);
    let d =
        golden!("s2_hosts_unreachable", Fixture::kubeadm(3).unreachable(1).unreachable(2).snapshot(48_000));
    assert!(matches!(d.etcd, EtcdVerdict::Unknown(_)), "{:?}", d.etcd);
    assert!(matches!(d.members[&host(1)], MemberVerdict::Unknown(_)));
}

// S2 seen from one host alone, whose neighbours were not named. kubeadm's first manifest names its own member only, but
// the snapshot knows all three: one host's loss does not prove the cluster's, until the others are attested lost.
#[test]
fn s2_from_one_host_alone() {
    let one = || {
        let fixture = Fixture::kubeadm(3).lose_data(0).lose_data(1).lose_data(2).snapshot(48_000);
        fixture.with(|inventory| inventory.hosts.truncate(1))
    };
    let d = diagnose(&one().build());
    assert_eq!(d.members[&host(0)], MemberVerdict::DataLost);
    assert!(matches!(d.etcd, EtcdVerdict::Unknown(_)), "{:?}", d.etcd);
    let attested = one().with(|inventory| inventory.lost_hosts = vec![host(1), host(2)]);
    let d = diagnose(&attested.build());
    assert_eq!(d.etcd, EtcdVerdict::DataLost);
    assert_eq!(d.members[&host(2)], MemberVerdict::HostLost);
}

// Settings alone name too few: a host that was asked for and can't be reached counts as a voter that may be whole.
#[test]
fn an_unreachable_host_is_a_voter_that_may_be_whole() {
    let silent = |h: &mut rekindle_model::host::HostFacts| h.etcd_live = Seen::default();
    let fixture = Fixture::kubeadm(3).lose_data(1).unreachable(2).host(0, silent);
    let d = diagnose(&fixture.build());
    assert!(matches!(d.etcd, EtcdVerdict::Unknown(_)), "{:?}", d.etcd);
}

// S2 afterwards: a host that was taken for lost comes back with the old cluster's data. It has no part in the present
// one: it is moved aside and added anew, and its data, though whole, is no member's.
#[test]
fn s2_an_old_member_returns() {
    let d = golden!("s2_old_member_returns", Fixture::kubeadm(3).returned_old_member(2));
    assert_eq!(d.etcd, EtcdVerdict::QuorumHolds);
    assert_eq!(d.members[&host(2)], MemberVerdict::Removed(MemberId(0xdead_0001)));
}

// Two given up for lost come back together: they make a quorum of the cluster as it was, beside the restored one. With the
// run that restored it at hand they are known for what they are; without it nobody is taken for the right one.
#[test]
fn two_old_members_return_with_a_quorum() {
    let restored = |h: &mut rekindle_model::host::HostFacts| {
        let Seen::Known(live) = &mut h.etcd_live else { panic!("no answer") };
        let (Seen::Known(status), Seen::Known(members)) = (&mut live.status, &mut live.members) else {
            panic!("no status")
        };
        (status.cluster_id, status.member_id) = (MemberId(0x2e57), MemberId(0x2e58));
        status.revision += 1_000_000;
        members.truncate(1);
        members[0].id = MemberId(0x2e58);
        let Seen::Known(data) = &mut h.etcd_data else { panic!("no data") };
        let Seen::Known(wal) = &mut data.wal else { panic!("no log") };
        (wal.cluster_id, wal.member_id) = (Some(MemberId(0x2e57)), Some(MemberId(0x2e58)));
        wal.conf_changes.clear();
    };
    let base = Fixture::kubeadm(3).host(0, restored);
    let d = diagnose(&base.clone().earlier_run(1_000_000).build());
    assert_eq!(d.etcd, EtcdVerdict::QuorumHolds, "{:#?}", d.findings);
    assert_eq!(d.members[&host(0)], MemberVerdict::Healthy);
    for at in [1, 2] {
        assert!(matches!(d.members[&host(at)], MemberVerdict::Removed(_)), "{:?}", d.members[&host(at)]);
    }
    let d = diagnose(&base.build());
    let EtcdVerdict::Unknown(why) = &d.etcd else { panic!("{:?}", d.etcd) };
    assert!(why.contains("two clusters answer"), "{why}");
    assert!(d.findings.iter().any(|f| f.code == "RK-E16"), "{:#?}", d.findings);
}

// Trap 2: two wiped, not the first. The last one rejoins under its old id and quorum seems healed; the other can't join.
#[test]
fn two_wiped_and_quorum_seems_healed() {
    let d = golden!("trap2_seems_healed", Fixture::kubeadm(3).lose_data_and_crash(1).rejoin_wiped(2));
    assert_eq!(d.etcd, EtcdVerdict::QuorumHolds);
    assert_eq!(d.members[&host(0)], MemberVerdict::Healthy);
    assert_eq!(d.members[&host(1)], MemberVerdict::DataLost);
    assert_eq!(d.members[&host(2)], MemberVerdict::RejoinedWiped);
}

// S3: one of three disks lost, quorum holds: the member is replaced. Also when it is the first, whose manifest makes it
// bootstrap anew, meet the others and panic (trap 3).
#[test]
fn s3_one_of_three_lost() {
    let d = golden!("s3_one_lost", Fixture::kubeadm(3).lose_data(2));
    assert_eq!(d.etcd, EtcdVerdict::QuorumHolds);
    assert_eq!(d.members[&host(2)], MemberVerdict::DataLost);
    assert_eq!(d.members[&host(0)], MemberVerdict::Healthy);
    let d = golden!("s3_first_wiped_panics", Fixture::kubeadm(3).wiped_first_panics(0));
    assert_eq!(d.etcd, EtcdVerdict::QuorumHolds);
    assert_eq!(d.members[&host(0)], MemberVerdict::EmptyImposter);
}

// S4: a control plane of units. etcd's data is lost; or only the API server's unit failed, which is started again.
#[test]
fn s4_units() {
    let d = golden!("s4_data_lost", Fixture::systemd().lose_data(0).snapshot(48_000));
    assert_eq!(d.etcd, EtcdVerdict::DataLost);
    let line = "F1122 11:57:00.000000 1002 run.go:72] \"command failed\" err=\"signal: killed\"";
    let d = golden!("s4_unit_failed", Fixture::systemd().fail_unit(0, Component::KubeApiserver, line));
    assert_eq!(d.etcd, EtcdVerdict::Healthy);
    assert_eq!(
        d.components[&HostId::local()][&Component::KubeApiserver],
        ComponentVerdict::UnitStopped { unit: "kube-apiserver.service".into() }
    );
    let d = golden!("s4_etcd_unit_stopped", Fixture::systemd().stop_etcd(0));
    assert_eq!(d.etcd, EtcdVerdict::Stopped);
    assert_eq!(
        d.components[&HostId::local()][&Component::Etcd],
        ComponentVerdict::UnitStopped { unit: "etcd.service".into() }
    );
}

// etcd's unit need not be called etcd: its state, its journal and what to start are found by its own name.
#[test]
fn s4_etcd_unit_of_another_name() {
    let renamed = Fixture::systemd().stop_etcd(0).host(0, |h| {
        let unit = h.units.remove("etcd.service").unwrap();
        h.units.insert("etcd-main.service".into(), unit);
        h.logs.insert(
            "journal:etcd-main".into(),
            vec!["2026-11-22T11:55:00.000000Z closing etcd server".into()],
        );
        if let Seen::Known(config) = &mut h.etcd_config {
            config.defined_in = EtcdDefinition::Unit { name: "etcd-main.service".into(), files: vec![] };
        }
    });
    let d = diagnose(&renamed.build());
    assert_eq!(
        d.components[&HostId::local()][&Component::Etcd],
        ComponentVerdict::UnitStopped { unit: "etcd-main.service".into() }
    );
    let quoted: Vec<&str> = d.findings[0].evidence.iter().map(|e| e.source.as_str()).collect();
    assert!(
        quoted.contains(&"systemctl show etcd-main") && quoted.contains(&"journal:etcd-main"),
        "{quoted:?}"
    );
    assert_eq!(d.failed_since.unwrap().0, 1_795_348_500_000);
}

// S5: nothing is lost. A stopped etcd, a moved manifest, a stopped kubelet, a flag that the API server does not know.
#[test]
fn s5_nothing_lost() {
    let local = HostId::local();
    let d = golden!("s5_etcd_stopped", Fixture::kubeadm(1).stop_etcd(0));
    assert_eq!(d.etcd, EtcdVerdict::Stopped);
    assert_eq!(d.members[&local], MemberVerdict::StoppedIntact);
    assert_eq!(d.components[&local][&Component::Etcd], ComponentVerdict::ContainerStopped);

    let moved = Fixture::kubeadm(1).move_manifest(0, Component::Etcd, "/etc/kubernetes/etcd.yaml");
    let d = golden!("s5_manifest_moved", moved);
    assert_eq!(d.etcd, EtcdVerdict::Stopped);
    assert_eq!(
        d.components[&local][&Component::Etcd],
        ComponentVerdict::ManifestMoved {
            found: "/etc/kubernetes/etcd.yaml".into(),
            belongs: "/etc/kubernetes/manifests/etcd.yaml".into(),
        }
    );

    let d = golden!("s5_kubelet_stopped", Fixture::kubeadm(1).stop_kubelet(0));
    assert_eq!(d.etcd, EtcdVerdict::Healthy);
    assert_eq!(d.kubelets_stopped, vec![local.clone()]);
    let d = golden!("s5_kubelet_and_pods_stopped", Fixture::kubeadm(1).stop_kubelet_and_pods(0));
    assert_eq!(d.etcd, EtcdVerdict::Stopped);
    assert_eq!(d.kubelets_stopped, vec![local.clone()]);
    assert_eq!(d.components[&local][&Component::KubeApiserver], ComponentVerdict::Consequence);
}

// S5: the API server crashes over a flag. The repair is the last good copy when it differs in nothing else, else the
// text without the flag's line; both give the same text here, and it is the healthy one.
#[test]
fn s5_bad_flag() {
    let healthy =
        Fixture::kubeadm(1).build().hosts[0].manifest(Component::KubeApiserver).unwrap().text.clone();
    for (name, copy) in [("s5_bad_flag", false), ("s5_bad_flag_with_copy", true)] {
        let fixture = Fixture::kubeadm(1).bad_flag(0, Component::KubeApiserver, "--enable-foo=true", copy);
        let d = diagnose(&fixture.build());
        insta::assert_snapshot!(name, dump(&d));
        assert_eq!(d.etcd, EtcdVerdict::Healthy);
        let verdict = &d.components[&HostId::local()][&Component::KubeApiserver];
        let ComponentVerdict::ManifestBroken { repaired, repair, .. } = verdict else {
            panic!("{verdict:?}")
        };
        assert_eq!(repaired, &healthy);
        assert_eq!(repair.contains("last good copy"), copy, "{repair}");
    }
    let d = golden!("s5_unparsable", Fixture::kubeadm(1).unparsable_manifest(0, Component::KubeScheduler));
    assert!(matches!(d.components[&HostId::local()][&Component::KubeScheduler], ComponentVerdict::Down(_)));
}

// The crash loop is met in the moment its container runs: the flag is found all the same.
#[test]
fn s5_bad_flag_met_while_it_runs() {
    let healthy = Fixture::kubeadm(1).build().hosts[0].clone();
    let fixture =
        Fixture::kubeadm(1).bad_flag(0, Component::KubeApiserver, "--enable-foo", false).host(0, |h| {
            h.processes = healthy.processes;
            if let Seen::Known(containers) = &mut h.containers {
                containers.iter_mut().for_each(|c| c.running = true);
            }
        });
    let d = diagnose(&fixture.build());
    let verdict = &d.components[&HostId::local()][&Component::KubeApiserver];
    assert!(matches!(verdict, ComponentVerdict::ManifestBroken { .. }), "{verdict:?}");
}

// A log remembers what was mended long ago. Old lines about flags, certificates, lost logs and damaged files are no
// findings while the facts say that all is well.
#[test]
fn old_log_lines_make_no_findings() {
    let mut fixture = Fixture::kubeadm(3);
    for line in [
        "Error: unknown flag: --secure-port",
        "x509: certificate has expired or is not yet valid: current time ... is after ...",
        "tocommit(57300) is out of range [lastIndex(4)]. Was the raft log corrupted, truncated, or lost?",
        "walpb: crc mismatch",
        "the member has been permanently removed from the cluster",
        "mvcc: database space exceeded",
        "etcdserver: no leader",
    ] {
        for component in Component::ALL {
            fixture = fixture.log(1, component, line);
        }
    }
    let d = diagnose(&fixture.build());
    assert_eq!(d.findings, vec![]);
    assert_eq!(d.etcd, EtcdVerdict::Healthy);
}

// One member of three is stopped, its data whole: quorum holds, it is started, nothing is replaced.
#[test]
fn s5_one_of_three_stopped() {
    let d = golden!("s5_one_of_three_stopped", Fixture::kubeadm(3).stop_etcd(1));
    assert_eq!(d.etcd, EtcdVerdict::QuorumHolds);
    assert_eq!(d.members[&host(1)], MemberVerdict::StoppedIntact);
}

// S6: nothing is wrong. No finding, no action, whatever else lies around.
#[test]
fn s6_healthy() {
    for (name, fixture) in [
        ("s6_one", Fixture::kubeadm(1)),
        ("s6_three", Fixture::kubeadm(3)),
        ("s6_units", Fixture::systemd()),
        ("s6_with_foreign_snapshot", Fixture::kubeadm(1).foreign_snapshot()),
        ("s6_with_earlier_run", Fixture::kubeadm(3).earlier_run(40_000)),
    ] {
        let d = diagnose(&fixture.build());
        insta::assert_snapshot!(name, dump(&d));
        assert_eq!(d.findings, vec![], "{name}");
        assert_eq!(d.etcd, EtcdVerdict::Healthy, "{name}");
        assert!(
            d.components.is_empty() && d.kubelets_stopped.is_empty() && d.failed_since.is_none(),
            "{name}"
        );
    }
}

// S7: no usable source. The diagnosis is the same as with one; refusing is the planner's part. A snapshot of another
// cluster, at a higher revision, makes no imposter of the real one.
#[test]
fn s7_sources_do_not_change_what_is_wrong() {
    let without = diagnose(&Fixture::kubeadm(1).lose_data(0).build());
    let bad = Fixture::kubeadm(1).lose_data(0).broken_snapshot("sha256 does not match").foreign_snapshot();
    let with = golden!("s7_no_source", bad);
    assert_eq!(with.etcd, without.etcd);
    assert_eq!(with.findings, without.findings);
}

// S8: two of three disks wiped, the first among them. What answers looks healthy and is empty; what looks sick holds the
// data. Both are named for what they are, and the survivor is whole.
#[test]
fn s8_looks_healthy_and_is_empty() {
    let d = golden!("s8_imposter", Fixture::kubeadm(3).empty_imposter(0).empty_imposter(1).shut_out(2));
    assert_eq!(d.etcd, EtcdVerdict::EmptyImposter);
    assert_eq!(d.members[&host(0)], MemberVerdict::EmptyImposter);
    assert_eq!(d.members[&host(1)], MemberVerdict::EmptyImposter);
    assert_eq!(d.members[&host(2)], MemberVerdict::StoppedIntact);
}

// S9a: a member was wiped and rejoined under its old id. Everything answers and is in quorum; its log says that it began
// after it had been given its vote.
#[test]
fn s9_rejoined_after_a_wipe() {
    for (name, which) in [("s9_promoted_member", 2), ("s9_first_member", 0)] {
        let d = diagnose(&Fixture::kubeadm(3).rejoin_wiped(which).build());
        insta::assert_snapshot!(name, dump(&d));
        assert_eq!(d.etcd, EtcdVerdict::QuorumHolds, "{name}");
        assert_eq!(d.members[&host(which)], MemberVerdict::RejoinedWiped, "{name}");
        let others: Vec<_> = d.members.iter().filter(|(id, _)| **id != host(which)).collect();
        assert!(others.iter().all(|(_, v)| **v == MemberVerdict::Healthy), "{others:?}");
    }
    // with the log's first file purged it can't be told, and is not claimed
    let untold = Fixture::kubeadm(3).rejoin_wiped(2).host(2, |h| {
        if let Seen::Known(data) = &mut h.etcd_data
            && let Seen::Known(wal) = &mut data.wal
        {
            wal.birth = None;
        }
    });
    assert_eq!(diagnose(&untold.build()).etcd, EtcdVerdict::Healthy);
}

// A db whose rows were not read has no count of keys: it is taken neither for empty nor for an imposter.
#[test]
fn a_store_that_was_not_read_through_is_not_called_empty() {
    let fixture = Fixture::kubeadm(3).stop_etcd(2).host(2, |h| {
        if let Seen::Known(data) = &mut h.etcd_data
            && let Seen::Known(db) = &mut data.db
        {
            db.live_keys = 0;
            db.hash_kv = 0;
            db.revision = 1;
            db.kube_system_uid = Seen::default();
        }
    });
    assert_eq!(diagnose(&fixture.build()).members[&host(2)], MemberVerdict::StoppedIntact);
}

// S9b: an earlier run raised the revision; a store below what it saw is told, though it is the same cluster.
#[test]
fn s9_revision_went_backwards() {
    let d = golden!("s9_backwards", Fixture::kubeadm(1).earlier_run(1_048_000));
    assert_eq!(d.etcd, EtcdVerdict::Healthy);
    assert_eq!(d.findings.iter().map(|f| f.code.as_str()).collect::<Vec<_>>(), ["RK-E15"]);
}

// Troubles beside etcd's data: each is found, and none changes etcd's verdict.
#[test]
fn troubles_beside_etcd() {
    for (name, fixture, code) in [
        ("vip_down", Fixture::kubeadm(3).vip_down(), "RK-A03"),
        ("disk_full", Fixture::kubeadm(3).disk_full(1), "RK-H04"),
        ("clock_off", Fixture::kubeadm(3).clock_off(1, -4_500), "RK-H05"),
        ("nospace", Fixture::kubeadm(3).alarm(1, "NOSPACE"), "RK-E12"),
        ("scheduler_stopped", Fixture::kubeadm(1).stop_component(0, Component::KubeScheduler), "RK-C06"),
    ] {
        let d = diagnose(&fixture.build());
        insta::assert_snapshot!(name, dump(&d));
        assert!(d.findings.iter().any(|f| f.code == code), "{name}: {:?}", d.findings);
        assert_eq!(d.etcd, EtcdVerdict::Healthy, "{name}");
    }
    let d = golden!("corrupt_alarm", Fixture::kubeadm(3).alarm(1, "CORRUPT"));
    assert!(matches!(d.etcd, EtcdVerdict::Unknown(_)));
}
