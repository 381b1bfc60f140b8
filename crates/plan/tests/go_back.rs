//! Going back in time: the cluster is well, or what survives is newer, and yet the point of a vault that was asked for is
//! restored; everything that is newer is saved first. Every plan must pass the linter.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{diagnosis, expect_plan, goal, planned};
use rekindle_model::diagnosis::{EtcdVerdict, MemberVerdict};
use rekindle_model::fixtures::{Fixture, NOW_MS, REVISION};
use rekindle_model::inventory::Inventory;
use rekindle_model::plan::{Goal, PlanOutcome};
use rekindle_model::source::{Identity, PointProof, SourceKind, VaultPoint};
use rekindle_model::step::{RestoreForm, Step};
use rekindle_model::{HostPath, Seen};

/// Three healthy members, and a point that a vault holds, ten minutes old.
fn inventory() -> Inventory {
    let mut inventory = Fixture::kubeadm(3).snapshot(48_000).build();
    let file = inventory.sources.last_mut().unwrap();
    let current_ms = NOW_MS - 600_000;
    file.taken_ms = Seen::Known(current_ms);
    file.point = Some(VaultPoint {
        vault: "s3://backups/prod".into(),
        cluster: "prod".into(),
        timeline: "0199aaaa-0000-7000-8000-000000000001".into(),
        full: 12,
        segments: 3,
        revision: 48_000,
        received_ms: current_ms,
        current_ms,
        next_received_ms: Some(current_ms + 40),
        proof: PointProof::None,
    });
    inventory
}

fn back() -> Goal {
    Goal { go_back: true, ..goal() }
}

#[test]
fn a_healthy_cluster_goes_back_only_when_asked() {
    let inventory = inventory();
    let well = diagnosis(&inventory, EtcdVerdict::Healthy, &vec![MemberVerdict::Healthy; 3]);
    assert!(matches!(planned(&inventory, &well, &goal()), PlanOutcome::NothingToDo(_)));
    let plan = expect_plan(planned(&inventory, &well, &back()));
    let (taken, why) = &plan.candidates[plan.source.unwrap()];
    assert!(taken.point.is_some(), "{:?}", taken.kind);
    for named in ["revision 48000 of prod in s3://backups/prod", "full backup 12 and 3 segments", "unproved"]
    {
        assert!(why.contains(named), "{why}");
    }
    let passed_over = plan.candidates.iter().filter(|(c, _)| c.point.is_none());
    assert!(
        passed_over.clone().count() == 3 && passed_over.clone().all(|(_, why)| why.contains("in the past"))
    );
    let saved = plan.steps.iter().filter(|s| matches!(s.step, Step::SaveServed { .. })).count();
    assert_eq!(saved, 3, "what is newer is kept");
    let built = plan.steps.iter().find_map(|s| match &s.step {
        Step::BuildDb { source, form, .. } => Some((source.path.clone(), form.clone())),
        _ => None,
    });
    let (path, form) = built.unwrap();
    assert_eq!(SourceKind::SnapshotFile(path), taken.kind);
    assert!(matches!(form, RestoreForm::Bumped { to_revision } if to_revision > REVISION));
    assert_eq!(plan.cost.time_lost_seconds, Seen::Known(600));
    assert_eq!(plan.cost.lost_end_revision, Seen::Known(REVISION));
    assert!(plan.summary.starts_with("You asked to go back in time"), "{}", plan.summary);
    assert!(plan.warnings.iter().any(|w| w.contains("unproved")), "{:?}", plan.warnings);
}

// A point that can't be taken is not replaced by another source: what was asked for was that one.
#[test]
fn a_point_of_another_cluster_is_refused() {
    let mut inventory = inventory();
    inventory.sources.last_mut().unwrap().identity = Identity::Other("its kube-system UID is another".into());
    let well = diagnosis(&inventory, EtcdVerdict::Healthy, &vec![MemberVerdict::Healthy; 3]);
    let PlanOutcome::Refused(refusal) = planned(&inventory, &well, &back()) else { panic!("not refused") };
    assert!(refusal.reason.contains("the point asked for"), "{}", refusal.reason);
    assert!(refusal.reason.contains("another cluster"), "{}", refusal.reason);
}

// Not asked to go back, with the data gone: the vault's point is a candidate, and the newest one is taken.
#[test]
fn the_newest_is_taken_where_no_point_was_named() {
    let mut inventory = inventory();
    let mut newer = inventory.sources.last().unwrap().clone();
    newer.kind = SourceKind::SnapshotFile(HostPath::from("/backup/newer.db"));
    newer.point = None;
    newer.taken_ms = Seen::Known(NOW_MS - 1000);
    let mut facts = newer.facts.known().unwrap().clone();
    facts.revision += 500;
    newer.facts = Seen::Known(facts);
    inventory.sources = vec![inventory.sources.pop().unwrap(), newer];
    let lost = diagnosis(&inventory, EtcdVerdict::DataLost, &vec![MemberVerdict::DataLost; 3]);
    let plan = expect_plan(planned(&inventory, &lost, &goal()));
    assert_eq!(plan.source, Some(1));
    inventory.sources.truncate(1);
    let plan = expect_plan(planned(&inventory, &lost, &goal()));
    assert!(plan.candidates[plan.source.unwrap()].0.point.is_some());
}
