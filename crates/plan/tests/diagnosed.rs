//! From what is seen to what is done, with the real diagnosis between: each fault of the table is made in an inventory,
//! diagnosed, planned for, and must take the road that loses least.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{expect_plan, goal, host, planned, text};
use proptest::prelude::*;
use rekindle_diagnose::diagnose;
use rekindle_model::fixtures::Fixture;
use rekindle_model::host::Component;
use rekindle_model::inventory::Inventory;
use rekindle_model::plan::{Plan, PlanOutcome};
use rekindle_model::source::SourceKind;
use rekindle_model::step::Step;
use rekindle_model::{HostId, Seen};

fn outcome(fixture: Fixture) -> PlanOutcome {
    let inventory = fixture.build();
    planned(&inventory, &diagnose(&inventory), &goal())
}

fn taken(plan: &Plan) -> SourceKind {
    plan.candidates[plan.source.expect("a source")].0.kind.clone()
}

fn counts(plan: &Plan) -> (usize, usize, usize) {
    let count = |which: fn(&Step) -> bool| plan.steps.iter().filter(|s| which(&s.step)).count();
    (
        count(|s| matches!(s, Step::BuildDb { .. })),
        count(|s| matches!(s, Step::AddLearner { .. })),
        count(|s| matches!(s, Step::StartUnit { .. })),
    )
}

#[test]
fn s1_every_loss_of_the_only_member_is_restored() {
    let faults: [fn(Fixture) -> Fixture; 5] = [
        |f| f.lose_data(0),
        |f| f.corrupt_db(0),
        |f| f.truncate_db(0),
        |f| f.garble_wal(0),
        |f| f.corrupt_db_running(0),
    ];
    for fault in faults {
        let plan = expect_plan(outcome(fault(Fixture::kubeadm(1)).snapshot(48_000)));
        assert_eq!(taken(&plan), SourceKind::SnapshotFile("/backup/etcd-1.db".into()));
    }
}

#[test]
fn s1_what_is_still_served_is_preferred() {
    let plan = expect_plan(outcome(Fixture::kubeadm(1).serve_from_deleted(0).snapshot(48_000)));
    assert_eq!(taken(&plan), SourceKind::Served(HostId::local()));
    assert_eq!(plan.cost.time_lost_seconds, Seen::Known(0));
}

#[test]
fn s1_an_open_db_is_saved_first() {
    let plan = expect_plan(outcome(Fixture::kubeadm(1).open_db_only(0).snapshot(48_000)));
    assert!(matches!(plan.steps[0].step, Step::SaveOpenDb { .. }), "{:?}", plan.steps[0]);
}

#[test]
fn s2_two_of_three_disks_lost() {
    let stopped = Fixture::kubeadm(3).lose_data(0).corrupt_db(1).stop_etcd(2).snapshot(48_000);
    assert_eq!(taken(&expect_plan(outcome(stopped))), SourceKind::Store(host(2)));
    let serving = expect_plan(outcome(Fixture::kubeadm(3).lose_data(0).garble_wal(1).snapshot(48_000)));
    assert_eq!(taken(&serving), SourceKind::Served(host(2)));
    assert!(matches!(serving.cost.lost_end_revision, Seen::Unknown(_)));
    assert_ne!(serving.cost.time_lost_seconds, Seen::Known(0));
    let lost = expect_plan(outcome(Fixture::kubeadm(3).lost_host(1).lost_host(2).snapshot(48_000)));
    assert_eq!(lost.hosts, [host(0)]);
    assert_eq!(lost.lost_hosts, [host(1), host(2)]);
}

#[test]
fn s3_one_of_three_disks_lost() {
    for fixture in [
        Fixture::kubeadm(3).lose_data(1),
        Fixture::kubeadm(3).lose_data_and_crash(2),
        Fixture::kubeadm(3).corrupt_db(2),
        Fixture::kubeadm(3).wiped_first_panics(0),
    ] {
        let plan = expect_plan(outcome(fixture.snapshot(48_000)));
        assert_eq!(counts(&plan), (0, 1, 1), "{}", text(&PlanOutcome::Plan(Box::new(plan.clone()))));
    }
}

#[test]
fn s4_systemd() {
    let plan = expect_plan(outcome(Fixture::systemd().lose_data(0).snapshot(48_000)));
    assert_eq!(counts(&plan), (1, 0, 4));
    let line = "Error: bind: address already in use";
    let plan = expect_plan(outcome(Fixture::systemd().fail_unit(0, Component::KubeApiserver, line)));
    assert_eq!(counts(&plan), (0, 0, 1));
}

#[test]
fn s5_nothing_lost_nothing_restored() {
    let faults = [
        Fixture::kubeadm(1).stop_etcd(0),
        Fixture::systemd().stop_etcd(0),
        Fixture::kubeadm(1).move_manifest(0, Component::Etcd, "/root/etcd.yaml"),
        Fixture::kubeadm(1).move_manifest(0, Component::KubeApiserver, "/root/kube-apiserver.yaml"),
        Fixture::kubeadm(1).stop_kubelet(0),
        Fixture::kubeadm(1).stop_kubelet_and_pods(0),
        Fixture::kubeadm(1).bad_flag(0, Component::KubeApiserver, "--nonsense=1", true),
        Fixture::kubeadm(1).bad_flag(0, Component::KubeApiserver, "--nonsense=1", false),
        Fixture::kubeadm(3).stop_etcd(0).stop_etcd(1),
    ];
    for (number, fixture) in faults.into_iter().enumerate() {
        let found = outcome(fixture.snapshot(48_000));
        assert!(matches!(found, PlanOutcome::Plan(_)), "{number}: {}", text(&found));
        let plan = expect_plan(found);
        assert_eq!((counts(&plan).0, counts(&plan).1, plan.source), (0, 0, None), "{number}");
    }
}

#[test]
fn s6_healthy() {
    for fixture in [Fixture::kubeadm(1), Fixture::kubeadm(3), Fixture::systemd()] {
        let found = outcome(fixture);
        assert!(matches!(found, PlanOutcome::NothingToDo(_)), "{}", text(&found));
    }
}

#[test]
fn s7_no_usable_source() {
    let found = outcome(Fixture::kubeadm(1).lose_data(0).broken_snapshot("bad SHA-256").foreign_snapshot());
    assert!(matches!(&found, PlanOutcome::Refused(r) if r.candidates.len() == 2), "{}", text(&found));
}

#[test]
fn s8_the_imposter() {
    let fixture = Fixture::kubeadm(3).empty_imposter(0).empty_imposter(1).shut_out(2).snapshot(48_000);
    let plan = expect_plan(outcome(fixture));
    assert_eq!(taken(&plan), SourceKind::Store(host(2)));
    assert_eq!(plan.steps.iter().filter(|s| matches!(s.step, Step::SaveStore { .. })).count(), 1);
}

#[test]
fn s9_a_rejoined_member() {
    let plan = expect_plan(outcome(Fixture::kubeadm(3).rejoin_wiped(1).lose_data_and_crash(2)));
    assert_eq!(counts(&plan), (0, 2, 2));
}

fn fault(fixture: Fixture, host: usize, kind: u8) -> Fixture {
    match kind {
        0 => fixture.lose_data(host),
        1 => fixture.lose_data_and_crash(host),
        2 => fixture.serve_from_deleted(host),
        3 => fixture.open_db_only(host),
        4 => fixture.corrupt_db(host),
        5 => fixture.garble_wal(host),
        6 => fixture.stop_etcd(host),
        7 => fixture.stop_component(host, Component::KubeApiserver),
        8 => fixture.move_manifest(host, Component::Etcd, "/root/etcd.yaml"),
        9 => fixture.stop_kubelet_and_pods(host),
        10 => fixture.empty_imposter(host),
        11 => fixture.shut_out(host),
        12 => fixture.wiped_first_panics(host),
        13 => fixture.rejoin_wiped(host),
        14 => fixture.unreachable(host),
        15 => fixture.lost_host(host),
        16 => fixture.bad_flag(host, Component::KubeApiserver, "--nonsense=1", true),
        17 => fixture.stop_component(host, Component::KubeScheduler),
        _ => fixture.truncate_db(host),
    }
}

/// Whether a member's own data is whole by the facts alone.
fn whole(inventory: &Inventory, index: usize) -> bool {
    let Some(data) = inventory.hosts[index].etcd_data.known() else { return false };
    data.damage.is_empty() && data.wal.known().is_some()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    // Whatever faults meet: no panic, a clean plan, and no restore while so many members are whole and reachable that a
    // quorum of them can be started.
    #[test]
    fn plans_after_diagnosis_lose_nothing_needlessly(
        single in any::<bool>(),
        faults in proptest::collection::vec((0usize..3, 0u8..19), 0..5),
    ) {
        let healthy = if single { Fixture::kubeadm(1) } else { Fixture::kubeadm(3) };
        let inventory = faults.iter().fold(healthy, |f, (h, kind)| fault(f, *h, *kind)).snapshot(48_000).build();
        let found = diagnose(&inventory);
        let outcome = planned(&inventory, &found, &goal());
        let untouched = faults.iter().all(|(_, kind)| matches!(kind, 6 | 7 | 9 | 16 | 17));
        if untouched {
            prop_assert!(!matches!(&outcome, PlanOutcome::Plan(p) if p.source.is_some()), "{}", text(&outcome));
            prop_assert!((0..inventory.hosts.len()).all(|h| whole(&inventory, h)));
        }
    }
}
