//! Which data is taken: the newest of this cluster that verifies. Revisions are compared within one history only, since
//! every restore begins another one; and no survivor is passed over because it could not be read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{diagnosis, expect_plan, goal, planned, text};
use rekindle_model::diagnosis::{EtcdVerdict, MemberVerdict};
use rekindle_model::etcd::DbFacts;
use rekindle_model::fixtures::{Fixture, NOW_MS};
use rekindle_model::inventory::Inventory;
use rekindle_model::plan::{Plan, PlanOutcome};
use rekindle_model::{HostPath, MemberId, Seen};

fn facts(inventory: &mut Inventory, index: usize) -> &mut DbFacts {
    match &mut inventory.sources[index].facts {
        Seen::Known(facts) => facts,
        Seen::Unknown(why) => panic!("{why}"),
    }
}

/// Gives a candidate the members of another cluster token, as every restore by Rekindle does.
fn other_history(facts: &mut DbFacts) {
    facts.members.iter_mut().for_each(|m| m.id = MemberId(m.id.0 ^ 0xff));
}

fn single(inventory: &Inventory) -> Plan {
    let found = diagnosis(inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataLost]);
    expect_plan(planned(inventory, &found, &goal()))
}

fn taken(plan: &Plan) -> String {
    plan.candidates[plan.source.unwrap()].0.kind.to_string()
}

// Copying a file gives it a newer time, not newer data.
#[test]
fn within_one_history_the_revision_decides() {
    let mut inventory = Fixture::kubeadm(1).lose_data(0).snapshot(47_000).snapshot(48_000).build();
    inventory.sources[0].taken_ms = Seen::Known(NOW_MS);
    let plan = single(&inventory);
    assert_eq!(taken(&plan), "snapshot /backup/etcd-2.db");
    assert_eq!(plan.candidates[0].1, "not taken: 1000 revisions older than the one taken");
}

#[test]
fn on_equal_revisions_one_is_taken_and_the_other_said_to_be_as_new() {
    let inventory = Fixture::kubeadm(1).lose_data(0).snapshot(48_000).snapshot(48_000).build();
    let plan = single(&inventory);
    assert_eq!(taken(&plan), "snapshot /backup/etcd-1.db");
    assert!(plan.candidates[1].1.contains("as new as the one taken"), "{}", plan.candidates[1].1);
}

// A cluster that was restored exactly counts on from a lower revision: the time tells that it is the newer history.
#[test]
fn between_two_histories_the_time_decides() {
    let mut inventory = Fixture::kubeadm(1).lose_data(0).snapshot(90_000).snapshot(48_000).build();
    inventory.sources[0].taken_ms = Seen::Known(NOW_MS - 86_400_000);
    other_history(facts(&mut inventory, 1));
    let plan = single(&inventory);
    assert_eq!(taken(&plan), "snapshot /backup/etcd-2.db");
    assert!(plan.candidates[0].1.contains("another history"), "{}", plan.candidates[0].1);
    assert_eq!(plan.cost.restored_revision, Some(48_000));
}

// The official tool gives members their old ids again. A raised revision over a raft log that began anew tells the
// second history all the same.
#[test]
fn a_raised_revision_over_a_young_raft_log_is_another_history() {
    let mut inventory = Fixture::kubeadm(1).lose_data(0).snapshot(48_000).snapshot(2_000_000).build();
    facts(&mut inventory, 1).consistent_index = 600;
    inventory.sources[0].taken_ms = Seen::Known(NOW_MS);
    inventory.sources[1].taken_ms = Seen::Known(NOW_MS - 1_000);
    assert_eq!(taken(&single(&inventory)), "snapshot /backup/etcd-1.db");
}

// A stopped member's files don't tell when it stopped. After an earlier recovery its store is of a later history than
// an old snapshot: the raised revision says so, the missing time must not count against it.
#[test]
fn a_store_without_a_time_wins_by_the_revision_a_restore_raised_it_to() {
    let mut inventory = Fixture::kubeadm(3).lose_data(0).lose_data(1).stop_etcd(2).snapshot(48_000).build();
    inventory.sources[0].taken_ms = Seen::Unknown("when the member stopped is not recorded".into());
    facts(&mut inventory, 0).revision = 1_200_000;
    other_history(facts(&mut inventory, 1));
    let verdicts = [MemberVerdict::DataLost, MemberVerdict::DataLost, MemberVerdict::StoppedIntact];
    let found = diagnosis(&inventory, EtcdVerdict::DataLost, &verdicts);
    let plan = expect_plan(planned(&inventory, &found, &goal()));
    assert_eq!(taken(&plan), "the data dir of the stopped member on root@10.0.0.13");
    assert!(
        matches!(plan.cost.time_lost_seconds, Seen::Unknown(_)),
        "no snapshot of its history bounds the loss"
    );
    assert!(plan.warnings.iter().any(|w| w.contains("can't be bounded")), "{:?}", plan.warnings);
}

// As new as the snapshot by its db, but its WAL goes on: the store holds more.
#[test]
fn a_store_whose_wal_goes_on_beats_a_snapshot_of_the_same_revision() {
    let inventory = Fixture::kubeadm(3).lose_data(0).lose_data(1).stop_etcd(2).snapshot(48_210).build();
    let verdicts = [MemberVerdict::DataLost, MemberVerdict::DataLost, MemberVerdict::StoppedIntact];
    let found = diagnosis(&inventory, EtcdVerdict::DataLost, &verdicts);
    let plan = expect_plan(planned(&inventory, &found, &goal()));
    assert_eq!(taken(&plan), "the data dir of the stopped member on root@10.0.0.13");
    assert_eq!(plan.candidates[1].1, "not taken: the one taken holds more in its WAL");
}

// The survivor's etcd was caught while it starts and fails again: its data is whole, locked and silent. Restoring the
// older snapshot over it is refused.
#[test]
fn a_survivor_that_could_not_be_read_is_not_passed_over() {
    let inventory = Fixture::kubeadm(3)
        .lose_data(0)
        .lose_data(1)
        .snapshot(40_000)
        .host(2, |h| h.etcd_live = Seen::Unknown("no answer".into()))
        .build();
    let verdicts = [MemberVerdict::DataLost, MemberVerdict::DataLost, MemberVerdict::NoQuorum];
    let found = diagnosis(&inventory, EtcdVerdict::DataLost, &verdicts);
    let outcome = planned(&inventory, &found, &goal());
    let PlanOutcome::Refused(refusal) = &outcome else { panic!("{}", text(&outcome)) };
    assert!(refusal.reason.contains("root@10.0.0.13 holds whole data"), "{}", refusal.reason);
    assert!(refusal.possible[0].contains("plan again"), "{:?}", refusal.possible);
}

// A WAL dir that is a file system of its own can't be swapped by renaming.
#[test]
fn a_wal_dir_that_is_a_mount_point_is_refused() {
    let inventory = Fixture::kubeadm(1)
        .lose_data(0)
        .snapshot(48_000)
        .host(0, |h| {
            let Seen::Known(config) = &mut h.etcd_config else { panic!("no settings") };
            config.wal_dir = Some(HostPath::from("/wal"));
            let Seen::Known(disk) = h.disks[&HostPath::from("/var/lib/etcd")].clone() else {
                panic!("no disk")
            };
            let mut other = disk.clone();
            other.device += 1;
            h.disks.insert(HostPath::from("/"), Seen::Known(disk));
            h.disks.insert(HostPath::from("/wal"), Seen::Known(other));
        })
        .build();
    let found = diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataLost]);
    let outcome = planned(&inventory, &found, &goal());
    let PlanOutcome::Refused(refusal) = &outcome else { panic!("{}", text(&outcome)) };
    assert!(refusal.reason.contains("the WAL dir /wal on local is a mount point"), "{}", refusal.reason);
}
