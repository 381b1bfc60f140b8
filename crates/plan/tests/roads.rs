//! The roads beside the full restore: nothing wrong (S6), nothing lost (S5, the second half of S4), a member replaced
//! while quorum holds (S3, S9), and refusals (S7).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{diagnosis, expect_plan, goal, host, needs, planned, text};
use insta::assert_snapshot;
use rekindle_model::diagnosis::{ComponentVerdict, EtcdVerdict, MemberVerdict};
use rekindle_model::fixtures::Fixture;
use rekindle_model::host::Component;
use rekindle_model::plan::{Goal, PlanOutcome};
use rekindle_model::source::Identity;
use rekindle_model::step::Step;
use rekindle_model::{HostId, HostPath, Seen};

const HEALTHY: MemberVerdict = MemberVerdict::Healthy;

fn refusal(outcome: &PlanOutcome) -> &rekindle_model::plan::Refusal {
    match outcome {
        PlanOutcome::Refused(refusal) => refusal,
        other => panic!("no refusal, but {}", text(other)),
    }
}

// Three members, one disk lost: no restore. The member is removed and joins anew as a learner; its manifest names all
// current members.
#[test]
fn s3_one_of_three_is_replaced() {
    let inventory = Fixture::kubeadm(3).lose_data_and_crash(2).build();
    let found = diagnosis(&inventory, EtcdVerdict::QuorumHolds, &[HEALTHY, HEALTHY, MemberVerdict::DataLost]);
    let outcome = planned(&inventory, &found, &goal());
    assert_snapshot!(text(&outcome));
    assert!(!expect_plan(outcome).steps.iter().any(|s| matches!(s.step, Step::BuildDb { .. })));
}

// A host is given up whose member left the cluster long ago: only its Node is still there, and nobody waits for it.
#[test]
fn s3_the_node_of_a_lost_host_without_a_member_is_not_waited_for() {
    let gone = |i: &mut rekindle_model::inventory::Inventory| {
        let host = i.hosts.remove(2);
        i.lost_hosts.push(host.id);
        for host in &mut i.hosts {
            let Seen::Known(live) = &mut host.etcd_live else { continue };
            if let Seen::Known(members) = &mut live.members {
                members.retain(|m| m.name != "cp-3");
            }
        }
    };
    let inventory = Fixture::kubeadm(3).lose_data_and_crash(1).with(gone).build();
    let found = diagnosis(&inventory, EtcdVerdict::QuorumHolds, &[HEALTHY, MemberVerdict::DataLost]);
    let plan = expect_plan(planned(&inventory, &found, &goal()));
    let excepted = plan.steps.iter().find_map(|s| match &s.step {
        Step::WaitNodes { except, .. } => Some(except.clone()),
        _ => None,
    });
    assert_eq!(excepted, Some(vec!["cp-3".to_owned()]));
}

// The first member's disk was wiped: it panics while the other two serve (trap 3). Its bootstrap manifest names only
// itself, and must name all.
#[test]
fn s3_the_first_member_is_replaced() {
    let inventory = Fixture::kubeadm(3).wiped_first_panics(0).build();
    let found = diagnosis(&inventory, EtcdVerdict::QuorumHolds, &[MemberVerdict::DataLost, HEALTHY, HEALTHY]);
    let plan = expect_plan(planned(&inventory, &found, &goal()));
    let text = plan.steps.iter().find_map(|s| match &s.step {
        Step::ReplaceFile { text, .. } => Some(text.clone()),
        _ => None,
    });
    let all = "--initial-cluster=cp-2=https://10.0.0.12:2380,cp-3=https://10.0.0.13:2380,cp-1=https://10.0.0.11:2380";
    assert!(text.unwrap().contains(all));
}

// Two of three disks lost, but the verdict on quorum came late: two stopped members are whole. Starting them loses
// nothing, so no restore is planned even though a snapshot is at hand.
#[test]
fn s3_two_stopped_whole_members_are_worth_more_than_a_snapshot() {
    let inventory = Fixture::kubeadm(3).lose_data(0).stop_etcd(1).stop_etcd(2).snapshot(48_000).build();
    let verdicts = [MemberVerdict::DataLost, MemberVerdict::StoppedIntact, MemberVerdict::StoppedIntact];
    let mut found = diagnosis(&inventory, EtcdVerdict::DataLost, &verdicts);
    for index in 0..3 {
        found = needs(found, &host(index), Component::Etcd, ComponentVerdict::ContainerStopped);
        found = needs(found, &host(index), Component::KubeApiserver, ComponentVerdict::Consequence);
    }
    let outcome = planned(&inventory, &found, &goal());
    assert_snapshot!(text(&outcome));
    assert_eq!(expect_plan(outcome).source, None);
}

// Trap 2: two disks wiped, one member rejoined under its old id, the third can't. The third is replaced first, because
// the rejoined one is needed for quorum until then.
#[test]
fn s9_a_rejoined_member_is_replaced_last() {
    let inventory = Fixture::kubeadm(3).rejoin_wiped(1).lose_data_and_crash(2).build();
    let verdicts = [HEALTHY, MemberVerdict::RejoinedWiped, MemberVerdict::DataLost];
    let found = diagnosis(&inventory, EtcdVerdict::QuorumHolds, &verdicts);
    let outcome = planned(&inventory, &found, &goal());
    assert_snapshot!(text(&outcome));
    let promoted: Vec<String> = expect_plan(outcome)
        .steps
        .iter()
        .filter_map(|s| match &s.step {
            Step::PromoteLearner { peer_urls, .. } => peer_urls.first().cloned(),
            _ => None,
        })
        .collect();
    assert_eq!(promoted, ["https://10.0.0.13:2380", "https://10.0.0.12:2380"]);
}

// Quorum holds and a host is gone for good: its member is removed, nothing else is touched.
#[test]
fn s3_the_member_of_a_lost_host_is_removed() {
    let inventory = Fixture::kubeadm(3).lost_host(2).build();
    let found = diagnosis(&inventory, EtcdVerdict::QuorumHolds, &[HEALTHY, HEALTHY, MemberVerdict::HostLost]);
    let plan = expect_plan(planned(&inventory, &found, &goal()));
    let removed = plan.steps.iter().filter(|s| matches!(s.step, Step::RemoveMember { .. })).count();
    assert_eq!((removed, plan.hosts), (1, vec![host(0)]));
    assert!(!plan.steps.iter().any(|s| matches!(s.step, Step::StopUnit { .. } | Step::AddLearner { .. })));
}

// The API server's unit failed and etcd is well: that unit alone is started.
#[test]
fn s4_a_failed_api_server_unit_is_started_alone() {
    let inventory =
        Fixture::systemd().fail_unit(0, Component::KubeApiserver, "bind: address already in use").build();
    let verdict = ComponentVerdict::UnitStopped { unit: "kube-apiserver.service".into() };
    let found = needs(
        diagnosis(&inventory, EtcdVerdict::Healthy, &[HEALTHY]),
        &HostId::local(),
        Component::KubeApiserver,
        verdict,
    );
    assert_snapshot!(text(&planned(&inventory, &found, &goal())));
}

// etcd's unit was stopped with its data whole: etcd first, then what needs it. No restore, though a snapshot is there.
#[test]
fn s5_stopped_units_are_started_in_order() {
    let inventory = Fixture::systemd().stop_etcd(0).snapshot(48_000).build();
    let mut found = diagnosis(&inventory, EtcdVerdict::Stopped, &[MemberVerdict::StoppedIntact]);
    let unit = |c: Component| ComponentVerdict::UnitStopped { unit: format!("{c}.service") };
    found = needs(found, &HostId::local(), Component::Etcd, unit(Component::Etcd));
    found = needs(found, &HostId::local(), Component::KubeApiserver, ComponentVerdict::Consequence);
    assert_snapshot!(text(&planned(&inventory, &found, &goal())));
}

// kubelet was stopped on the only host, and all pods with it.
#[test]
fn s5_a_stopped_kubelet_is_started() {
    let inventory = Fixture::kubeadm(1).stop_kubelet_and_pods(0).build();
    let mut found = diagnosis(&inventory, EtcdVerdict::Stopped, &[MemberVerdict::StoppedIntact]);
    found.kubelets_stopped = vec![HostId::local()];
    for component in Component::ALL {
        found = needs(found, &HostId::local(), component, ComponentVerdict::Consequence);
    }
    assert_snapshot!(text(&planned(&inventory, &found, &goal())));
}

// etcd's manifest was moved away: it is put back, and kubelet is restarted once etcd answers, so that the API server
// does not wait out its back-off.
#[test]
fn s5_a_manifest_moved_away_is_put_back() {
    let inventory = Fixture::kubeadm(1).move_manifest(0, Component::Etcd, "/root/etcd.yaml").build();
    let moved = ComponentVerdict::ManifestMoved {
        found: HostPath::from("/root/etcd.yaml"),
        belongs: HostPath::from("/etc/kubernetes/manifests/etcd.yaml"),
    };
    let mut found = diagnosis(&inventory, EtcdVerdict::Stopped, &[MemberVerdict::StoppedIntact]);
    found = needs(found, &HostId::local(), Component::Etcd, moved);
    found = needs(found, &HostId::local(), Component::KubeApiserver, ComponentVerdict::Consequence);
    assert_snapshot!(text(&planned(&inventory, &found, &goal())));
}

// A bad flag in the API server's manifest: the repaired text goes in and kubelet forgets its back-off.
#[test]
fn s5_a_broken_manifest_is_repaired() {
    let inventory =
        Fixture::kubeadm(1).bad_flag(0, Component::KubeApiserver, "--no-such-flag=1", true).build();
    let manifests = inventory.hosts[0].manifests.known().unwrap();
    let bad = manifests.iter().find(|m| m.in_place && m.component == Some(Component::KubeApiserver)).unwrap();
    let broken = ComponentVerdict::ManifestBroken {
        path: bad.path.clone(),
        sha256: bad.sha256.clone(),
        repaired: bad.text.replace("    - --no-such-flag=1\n", ""),
        repair: "flag --no-such-flag removed".into(),
    };
    let found = needs(
        diagnosis(&inventory, EtcdVerdict::Healthy, &[HEALTHY]),
        &HostId::local(),
        Component::KubeApiserver,
        broken,
    );
    let outcome = planned(&inventory, &found, &goal());
    assert_snapshot!(text(&outcome));
    assert!(!expect_plan(outcome).steps.iter().any(|s| matches!(s.step, Step::Rename { .. })));
}

#[test]
fn s6_nothing_is_done_to_a_healthy_cluster() {
    for inventory in [Fixture::kubeadm(1).build(), Fixture::kubeadm(3).build(), Fixture::systemd().build()] {
        let verdicts = vec![HEALTHY; inventory.hosts.len()];
        let found = diagnosis(&inventory, EtcdVerdict::Healthy, &verdicts);
        let outcome = planned(&inventory, &found, &goal());
        assert!(matches!(outcome, PlanOutcome::NothingToDo(_)), "{}", text(&outcome));
    }
}

// No usable source: every candidate is named with its reason, and what is possible is said.
#[test]
fn s7_no_usable_source_is_refused() {
    let inventory = Fixture::kubeadm(1)
        .corrupt_db(0)
        .broken_snapshot("its SHA-256 does not match: 11 for 22")
        .foreign_snapshot()
        .snapshot(48_000)
        .with(|i| i.sources[2].identity = Identity::Unknown("the object is encrypted".into()))
        .build();
    let found = diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataCorrupt]);
    let outcome = planned(&inventory, &found, &goal());
    assert_snapshot!(text(&outcome));
    assert!(refusal(&outcome).possible.iter().any(|p| p.contains("--accept-unknown-identity")));

    let consent = Goal { accept_unknown_identity: true, ..goal() };
    let plan = expect_plan(planned(&inventory, &found, &consent));
    assert!(plan.warnings.iter().any(|w| w.contains("could not be told")), "{:?}", plan.warnings);
}

// Another cluster's snapshot is never taken, whatever is consented to.
#[test]
fn s7_a_foreign_snapshot_is_never_taken() {
    let inventory = Fixture::kubeadm(1).lose_data(0).foreign_snapshot().build();
    let found = diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataLost]);
    let consent = Goal { accept_unknown_identity: true, accept_corrupt_alarm: true, ..goal() };
    let outcome = planned(&inventory, &found, &consent);
    assert!(refusal(&outcome).candidates[0].1.contains("another cluster"));
}

// Nothing was given at all.
#[test]
fn s7_without_any_source() {
    let inventory = Fixture::kubeadm(1).lose_data(0).build();
    let found = diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataLost]);
    assert_snapshot!(text(&planned(&inventory, &found, &goal())));
}

// A CORRUPT alarm makes a source suspect: it takes consent, and the consent reaches the step.
#[test]
fn s7_a_corrupt_alarm_needs_consent() {
    let inventory = Fixture::kubeadm(1)
        .lose_data(0)
        .snapshot(48_000)
        .with(|i| {
            let Seen::Known(facts) = &mut i.sources[0].facts else { panic!("no facts") };
            facts.alarms = vec!["CORRUPT".into()];
        })
        .build();
    let found = diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataLost]);
    let outcome = planned(&inventory, &found, &goal());
    assert!(refusal(&outcome).possible.iter().any(|p| p.contains("--accept-corrupt-alarm")));
    let plan = expect_plan(planned(&inventory, &found, &Goal { accept_corrupt_alarm: true, ..goal() }));
    assert!(plan.steps.iter().any(|s| matches!(s.step, Step::BuildDb { allow_corrupt_alarm: true, .. })));
}

// A db copied out of a data dir has nothing that proves its content: it takes consent, the plan says so, and the step
// knows that no SHA-256 stands at its end.
#[test]
fn s7_a_copied_db_needs_consent() {
    let copied = |i: &mut rekindle_model::inventory::Inventory| i.sources[0].copied_db = true;
    let inventory = Fixture::kubeadm(1).lose_data(0).snapshot(48_000).with(copied).build();
    let found = diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataLost]);
    let outcome = planned(&inventory, &found, &goal());
    assert!(refusal(&outcome).possible.iter().any(|p| p.contains("--skip-hash-check")));
    let plan = expect_plan(planned(&inventory, &found, &Goal { skip_hash_check: true, ..goal() }));
    assert!(plan.warnings.iter().any(|w| w.contains("copied db")), "{:?}", plan.warnings);
    let without = |s: &Step| matches!(s, Step::BuildDb { source, .. } if !source.has_trailer && source.sha256.is_some());
    assert!(plan.steps.iter().any(|s| without(&s.step)));
}

// The state of etcd could not be told: nothing is guessed.
#[test]
fn s7_an_unknown_state_is_refused() {
    let inventory = Fixture::kubeadm(1).unreachable(0).snapshot(48_000).build();
    let found = diagnosis(
        &inventory,
        EtcdVerdict::Unknown("local can't be read".into()),
        &[MemberVerdict::Unknown("unreachable".into())],
    );
    assert_snapshot!(text(&planned(&inventory, &found, &goal())));
}

// A wrapper script hides etcd's flags: the edit is refused with the reason instead of guessed.
#[test]
fn a_unit_that_hides_its_flags_is_refused() {
    let inventory = Fixture::systemd()
        .lose_data(0)
        .snapshot(48_000)
        .host(0, |h| {
            for file in h.unit_files.values_mut() {
                let Seen::Known(file) = file else { continue };
                file.text = "[Service]\nExecStart=/usr/local/bin/start-etcd.sh\n".into();
            }
        })
        .build();
    let found = diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataLost]);
    let outcome = planned(&inventory, &found, &goal());
    assert!(
        refusal(&outcome).reason.contains("etcd's settings on local can't be edited"),
        "{}",
        text(&outcome)
    );
}
