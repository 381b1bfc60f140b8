//! What a drill on a living cluster breaks: only a cluster that is there for it and is well, only as much as the scenario
//! says, and nothing for good.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{diagnosis, expect_plan, goal, host, text};
use rekindle_model::diagnosis::{EtcdVerdict, MemberVerdict};
use rekindle_model::fixtures::Fixture;
use rekindle_model::inventory::Inventory;
use rekindle_model::plan::{Plan, PlanOutcome};
use rekindle_model::step::{Reversibility, Step};
use rekindle_model::{HostId, Seen};
use rekindle_plan::breaking::{Scenario, breaking};

const NOW_MS: i64 = 1_700_000_000_000;

fn outcome(inventory: &Inventory, scenario: Scenario) -> PlanOutcome {
    let uid = inventory.cluster.kube_system_uid.known().cloned().unwrap_or_default();
    let members = vec![MemberVerdict::Healthy; inventory.hosts.len()];
    let found = diagnosis(inventory, EtcdVerdict::Healthy, &members);
    breaking(inventory, &found, &goal(), scenario, &[uid], NOW_MS)
}

fn broken(inventory: &Inventory, scenario: Scenario) -> Plan {
    expect_plan(outcome(inventory, scenario))
}

fn reason(outcome: &PlanOutcome) -> &str {
    match outcome {
        PlanOutcome::Refused(refusal) => &refusal.reason,
        other => panic!("no refusal, but {}", text(other)),
    }
}

/// Hosts whose data is moved aside.
fn loses_data(plan: &Plan) -> Vec<HostId> {
    let moved = plan.steps.iter().filter(|step| match &step.step {
        Step::Rename { from, to, .. } => from.ends_with("member") && to.ends_with("old-member"),
        _ => false,
    });
    moved.filter_map(|step| step.host.clone()).collect()
}

// Each scenario takes from as many members as it says. Every step can be taken back, and none removes or overwrites.
#[test]
fn each_scenario_breaks_what_it_says_and_nothing_for_good() {
    let three = Fixture::kubeadm(3).snapshot(48_000).build();
    let cases = [
        (Scenario::DataLost, vec![host(0), host(1), host(2)]),
        (Scenario::QuorumLost, vec![host(1), host(2)]),
        (Scenario::MemberLost, vec![host(2)]),
        (Scenario::Stopped, vec![]),
    ];
    for (scenario, losers) in cases {
        let plan = broken(&three, scenario);
        assert_eq!(loses_data(&plan), losers, "{scenario:?}");
        for step in &plan.steps {
            assert_ne!(step.reversibility, Reversibility::Final, "{scenario:?}: {}", step.summary);
            let harmless = matches!(
                step.step,
                Step::Rename { .. } | Step::StopUnit { .. } | Step::StopContainers { .. }
            );
            assert!(harmless, "{scenario:?}: {}", step.summary);
        }
    }
    let stopped = broken(&three, Scenario::Stopped);
    assert_eq!((stopped.steps.len(), stopped.hosts), (2, vec![host(0)]));
}

// Without the label, with a label that says something else, or with a UID that the configuration does not name, nothing is
// broken: a clone of the cluster carries the label along, but not its place in the operator's file.
#[test]
fn a_cluster_that_is_not_there_for_it_is_never_broken() {
    let mut inventory = Fixture::kubeadm(1).snapshot(48_000).build();
    for (label, why) in [
        (Seen::Known(String::new()), "does not carry the label"),
        (Seen::Known("yes".into()), "does not carry the label"),
        (Seen::Unknown("forbidden".into()), "can't be read: forbidden"),
    ] {
        inventory.cluster.drill_label = label;
        let refused = outcome(&inventory, Scenario::Stopped);
        assert!(reason(&refused).contains(why), "{}", reason(&refused));
    }
    inventory.cluster.drill_label = Seen::Known("allowed".into());
    let found = diagnosis(&inventory, EtcdVerdict::Healthy, &[MemberVerdict::Healthy]);
    let other = breaking(&inventory, &found, &goal(), Scenario::Stopped, &["another".into()], NOW_MS);
    assert!(reason(&other).contains("does not allow drills on this cluster"), "{}", reason(&other));
    inventory.cluster.kube_system_uid = Seen::Unknown("no API server answers".into());
    let unknown = breaking(&inventory, &found, &goal(), Scenario::Stopped, &[String::new()], NOW_MS);
    assert!(reason(&unknown).contains("can't be read"), "{}", reason(&unknown));
}

// The kubeconfig is of a cluster that may be broken, the hosts are production's: its admin.conf was removed, so the API that
// answered is the other one's. Nothing is broken there, nor where etcd does not say whose it is.
#[test]
fn hosts_of_another_cluster_than_the_kubeconfigs_are_never_broken() {
    for fixture in [Fixture::kubeadm(3), Fixture::systemd()] {
        let mut inventory = fixture.build();
        assert!(matches!(outcome(&inventory, Scenario::Stopped), PlanOutcome::Plan(_)));
        let facts = &mut inventory.hosts.last_mut().unwrap().etcd_live;
        let Seen::Known(live) = facts else { panic!("etcd does not answer") };
        live.kube_system_uid = Seen::Known("production".into());
        let refused = outcome(&inventory, Scenario::Stopped);
        assert!(reason(&refused).contains("another cluster's (kube-system UID production)"), "{refused:#?}");
        let facts = &mut inventory.hosts.last_mut().unwrap().etcd_live;
        let Seen::Known(live) = facts else { panic!("etcd does not answer") };
        live.kube_system_uid = Seen::Unknown("no key".into());
        let refused = outcome(&inventory, Scenario::Stopped);
        assert!(reason(&refused).contains("does not tell whose it is: no key"), "{refused:#?}");
    }
}

// What is ill already is not broken further; all data is not taken away when there is no backup; and half a cluster at hand,
// or too small a one, is no place for a scenario about quorum.
#[test]
fn a_drill_that_could_do_harm_is_refused() {
    let three = Fixture::kubeadm(3).build();
    let found = diagnosis(&three, EtcdVerdict::QuorumHolds, &vec![MemberVerdict::Healthy; 3]);
    let uid = three.cluster.kube_system_uid.known().unwrap().clone();
    let ill = breaking(&three, &found, &goal(), Scenario::MemberLost, &[uid], NOW_MS);
    assert!(reason(&ill).contains("not seen to be well"), "{}", reason(&ill));
    let bare = outcome(&three, Scenario::DataLost);
    assert!(reason(&bare).contains("no backup at hand"), "{}", reason(&bare));
    let small = outcome(&Fixture::kubeadm(1).build(), Scenario::QuorumLost);
    assert!(reason(&small).contains("needs three"), "{}", reason(&small));
    let mut half = Fixture::kubeadm(3).build();
    half.hosts.pop();
    let half = outcome(&half, Scenario::QuorumLost);
    assert!(reason(&half).contains("on hosts that were not given"), "{}", reason(&half));
}
