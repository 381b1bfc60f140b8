//! The full restore, told by golden plans: one member of a kubeadm host whose data is gone (S1), and on from there.
//! Each golden is what the operator is shown plus the data of every step; each plan must pass the linter.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{diagnosis, expect_plan, fixture_single, goal, host, needs, planned, text};
use insta::assert_snapshot;
use rekindle_model::diagnosis::{ComponentVerdict, EtcdVerdict, MemberVerdict};
use rekindle_model::fixtures::{Fixture, NOW_MS, REVISION};
use rekindle_model::host::{Component, DiskFacts};
use rekindle_model::plan::{Goal, PlanOutcome};
use rekindle_model::source::{Identity, SourceKind};
use rekindle_model::step::{RestoreForm, Step};
use rekindle_model::{HostId, HostPath, Seen};

// The data dir of the only member is deleted while etcd is stopped; a snapshot from a minute ago is at hand.
#[test]
fn s1_single_kubeadm_host_from_a_snapshot() {
    let inventory = fixture_single().build();
    let diagnosis = diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataLost]);
    assert_snapshot!(text(&planned(&inventory, &diagnosis, &goal())));
}

// The data dir is deleted under an etcd that goes on serving: what it serves is saved first, the API servers are
// stopped, it is saved again, and nothing is lost.
#[test]
fn s1_what_a_running_etcd_still_serves_is_taken_whole() {
    let inventory = Fixture::kubeadm(1).serve_from_deleted(0).snapshot(48_000).build();
    let diagnosis = diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::ServingFromLostFiles]);
    let outcome = planned(&inventory, &diagnosis, &goal());
    assert_snapshot!(text(&outcome));
    let plan = expect_plan(outcome);
    assert_eq!(plan.cost.time_lost_seconds, Seen::Known(0));
    assert_eq!(plan.cost.lost_end_revision, Seen::Known(REVISION));
}

// etcd no longer answers, but its deleted db is still open: it is copied through /proc before the process ends. Once
// it could be read it is the newest source, though not without loss: its WAL is gone.
#[test]
fn s1_a_deleted_but_open_db_is_saved_before_its_process_ends() {
    let fixture = Fixture::kubeadm(1).open_db_only(0).snapshot(48_000);
    let unread = fixture.clone().build();
    let verdicts = [MemberVerdict::OpenDbOnly];
    let plan = expect_plan(planned(&unread, &diagnosis(&unread, EtcdVerdict::DataLost, &verdicts), &goal()));
    assert!(matches!(plan.steps[0].step, Step::SaveOpenDb { pid: 1001, fd: 8, .. }));
    assert_eq!(
        plan.candidates[plan.source.unwrap()].0.kind,
        SourceKind::SnapshotFile("/backup/etcd-1.db".into())
    );

    let mut read = unread;
    let mut facts = read.sources[1].facts.known().unwrap().clone();
    facts.revision = REVISION;
    read.sources[0].facts = Seen::Known(facts);
    read.sources[0].identity = Identity::Same("kube-system UID as on the hosts".into());
    let outcome = planned(&read, &diagnosis(&read, EtcdVerdict::DataLost, &verdicts), &goal());
    assert_snapshot!(text(&outcome));
    assert_eq!(expect_plan(outcome).cost.time_lost_seconds, Seen::Known(1));
}

// A page of the db was overwritten under a running etcd: what it serves comes from the same pages, so it is neither
// saved nor taken; its files are moved aside, not deleted.
#[test]
fn s1_a_damaged_db_is_not_trusted_even_while_it_is_served() {
    let inventory = Fixture::kubeadm(1).corrupt_db_running(0).snapshot(48_000).build();
    let plan = expect_plan(planned(
        &inventory,
        &diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataCorrupt]),
        &goal(),
    ));
    assert!(!plan.steps.iter().any(|s| matches!(s.step, Step::SaveServed { .. })));
    assert!(plan.candidates[0].1.contains("page 7: unknown page type"), "{}", plan.candidates[0].1);
    assert_eq!(plan.source, Some(1));
}

// A stopped member's store without a readable WAL is not whole; the snapshot is taken and the figure of the db that can
// still be read is the lost end.
#[test]
fn s1_a_garbled_wal_leaves_the_snapshot_and_tells_the_lost_end() {
    let inventory = Fixture::kubeadm(1).garble_wal(0).snapshot(48_000).build();
    let plan = expect_plan(planned(
        &inventory,
        &diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataCorrupt]),
        &goal(),
    ));
    assert_eq!(plan.cost.restored_revision, Some(48_000));
    assert_eq!(plan.cost.lost_end_revision, Seen::Known(REVISION));
    assert!(plan.candidates[0].1.contains("its WAL can't be read"), "{}", plan.candidates[0].1);
}

// The data dir is a mount point and the WAL lies elsewhere: everything stays on its own file system.
#[test]
fn s1_mount_point_and_wal_dir() {
    let inventory = fixture_single()
        .host(0, |h| {
            let Seen::Known(data) = &mut h.etcd_data else { panic!("no data facts") };
            data.exists = true;
            data.is_mount_point = true;
            let Seen::Known(config) = &mut h.etcd_config else { panic!("no settings") };
            config.wal_dir = Some(HostPath::from("/wal/etcd"));
        })
        .build();
    let diagnosis = diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataLost]);
    assert_snapshot!(text(&planned(&inventory, &diagnosis, &goal())));
}

// --exact keeps revisions and says what that means; --data-dir leaves the old data where it is and changes the manifest.
#[test]
fn s1_exact_and_into_another_data_dir() {
    let inventory = fixture_single().build();
    let diagnosis = diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataLost]);
    let goal = Goal { exact: true, data_dir: Some(HostPath::from("/srv/etcd")), ..goal() };
    let outcome = planned(&inventory, &diagnosis, &goal);
    assert_snapshot!(text(&outcome));
    let plan = expect_plan(outcome);
    let text = plan
        .steps
        .iter()
        .find_map(|s| match &s.step {
            Step::ReplaceFile { text, .. } => Some(text.clone()),
            _ => None,
        })
        .unwrap();
    assert!(!text.contains("/var/lib/etcd"), "{text}");
    assert_eq!(text.matches("/srv/etcd").count(), 3, "{text}");
}

// The operator began the official runbook and moved the manifests away: they are put back from where they were found,
// and etcd's is written from its copy.
#[test]
fn s1_manifests_that_were_moved_away_come_back() {
    let mut fixture = fixture_single();
    for component in Component::ALL {
        fixture = fixture.move_manifest(0, component, &format!("/root/{component}.yaml"));
    }
    let inventory = fixture.build();
    let mut found = diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataLost]);
    for component in Component::ALL {
        let verdict = ComponentVerdict::ManifestMoved {
            found: HostPath::from(format!("/root/{component}.yaml")),
            belongs: HostPath::from(format!("/etc/kubernetes/manifests/{component}.yaml")),
        };
        found = needs(found, &HostId::local(), component, verdict);
    }
    assert_snapshot!(text(&planned(&inventory, &found, &goal())));
}

// Two of three disks lost, the third member stopped with its store whole: it is newer than the snapshot, so all three
// start from it, with a bound on what it may lack and never a claim that nothing is lost.
#[test]
fn s2_three_members_from_the_survivor() {
    let inventory = Fixture::kubeadm(3).lose_data(0).corrupt_db(1).stop_etcd(2).snapshot(48_000).build();
    let verdicts = [MemberVerdict::DataLost, MemberVerdict::DataCorrupt, MemberVerdict::StoppedIntact];
    let outcome = planned(&inventory, &diagnosis(&inventory, EtcdVerdict::DataLost, &verdicts), &goal());
    assert_snapshot!(text(&outcome));
    let plan = expect_plan(outcome);
    assert!(matches!(plan.cost.lost_end_revision, Seen::Unknown(_)));
    assert!(plan.cost.time_lost_seconds.known().is_some_and(|s| *s > 0));
}

// The survivor still serves, read-only for want of a quorum.
#[test]
fn s2_three_members_from_a_survivor_that_still_answers() {
    let inventory = Fixture::kubeadm(3).lose_data(0).lose_data(1).snapshot(48_000).build();
    let verdicts = [MemberVerdict::DataLost, MemberVerdict::DataLost, MemberVerdict::NoQuorum];
    let outcome = planned(&inventory, &diagnosis(&inventory, EtcdVerdict::DataLost, &verdicts), &goal());
    assert_snapshot!(text(&outcome));
    assert!(expect_plan(outcome).cost.time_lost_seconds != Seen::Known(0));
}

// Two hosts are gone for good: the third starts alone, the others are named for later.
#[test]
fn s2_two_hosts_lost_for_good() {
    let inventory = Fixture::kubeadm(3).lost_host(1).lost_host(2).snapshot(48_000).build();
    let verdicts = [MemberVerdict::NoQuorum, MemberVerdict::HostLost, MemberVerdict::HostLost];
    let outcome = planned(&inventory, &diagnosis(&inventory, EtcdVerdict::DataLost, &verdicts), &goal());
    assert_snapshot!(text(&outcome));
    assert_eq!(expect_plan(outcome).hosts, [host(0)]);
}

// A member whose host nobody named may still run: restoring without it would make two clusters of one.
#[test]
fn s2_a_member_on_a_host_that_was_not_given_stops_the_planning() {
    let inventory =
        Fixture::kubeadm(3).lose_data(0).lose_data(1).snapshot(48_000).with(|i| i.hosts.truncate(2)).build();
    let verdicts = [MemberVerdict::DataLost, MemberVerdict::DataLost];
    let outcome = planned(&inventory, &diagnosis(&inventory, EtcdVerdict::DataLost, &verdicts), &goal());
    let PlanOutcome::Refused(refusal) = outcome else { panic!("{}", text(&outcome)) };
    assert!(refusal.reason.contains("cp-3"), "{}", refusal.reason);
    assert!(refusal.possible[0].contains("--lost"), "{:?}", refusal.possible);
}

// The same where a host can't be reached: it must be attested lost, or reached.
#[test]
fn s2_an_unreachable_host_stops_the_planning() {
    let inventory = Fixture::kubeadm(3).lose_data(0).lose_data(1).unreachable(2).snapshot(48_000).build();
    let verdicts =
        [MemberVerdict::DataLost, MemberVerdict::DataLost, MemberVerdict::Unknown("no route".into())];
    let outcome = planned(&inventory, &diagnosis(&inventory, EtcdVerdict::DataLost, &verdicts), &goal());
    let PlanOutcome::Refused(refusal) = outcome else { panic!("{}", text(&outcome)) };
    assert!(refusal.reason.contains("root@10.0.0.13"), "{}", refusal.reason);
}

// The systemd flavour: units are killed and started, the unit file is edited and systemd told.
#[test]
fn s4_systemd_units_from_a_snapshot() {
    let inventory = Fixture::systemd().lose_data(0).snapshot(48_000).build();
    let diagnosis = diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataLost]);
    assert_snapshot!(text(&planned(&inventory, &diagnosis, &goal())));
}

// Trap 1: the first two disks wiped, an empty cluster answers in their place. The third, which looks sick, is saved
// before anything else and all three start from it.
#[test]
fn s8_the_empty_imposter_is_replaced_by_the_survivor() {
    let inventory =
        Fixture::kubeadm(3).empty_imposter(0).empty_imposter(1).shut_out(2).snapshot(48_000).build();
    let verdicts = [MemberVerdict::EmptyImposter, MemberVerdict::EmptyImposter, MemberVerdict::StoppedIntact];
    let outcome = planned(&inventory, &diagnosis(&inventory, EtcdVerdict::EmptyImposter, &verdicts), &goal());
    assert_snapshot!(text(&outcome));
    let plan = expect_plan(outcome);
    assert_eq!(plan.candidates[plan.source.unwrap()].0.kind, SourceKind::Store(host(2)));
    assert!(plan.warnings.iter().any(|w| w.contains("empty cluster")), "{:?}", plan.warnings);
}

// The same snapshot restored a second time: the floor is above what the first run raised to and ended with.
#[test]
fn s9_a_second_restore_lands_above_the_first() {
    let inventory = fixture_single().earlier_run(7_000_000).build();
    let diagnosis = diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataLost]);
    let plan = expect_plan(planned(&inventory, &diagnosis, &goal()));
    let raised = plan.steps.iter().find_map(|s| match &s.step {
        Step::BuildDb { form: RestoreForm::Bumped { to_revision }, .. } => Some(*to_revision),
        _ => None,
    });
    assert_eq!(raised, Some(7_000_500 + 1_000_000 + 61 * 1_500));
}

// A disk that is too full is found before anything is touched, with figures.
#[test]
fn a_full_disk_is_refused_before_the_start() {
    let inventory = fixture_single().disk_full(0).build();
    let diagnosis = diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataLost]);
    let outcome = planned(&inventory, &diagnosis, &goal());
    assert_snapshot!(text(&outcome));
    assert!(matches!(outcome, PlanOutcome::Refused(_)));
}

// The run's folder on a disk of its own that is too small.
#[test]
fn a_full_disk_of_the_run_folder_is_refused_too() {
    let inventory = fixture_single()
        .host(0, |h| {
            let disk = DiskFacts {
                free_bytes: 1 << 20,
                total_bytes: 1 << 30,
                free_inodes: Some(1000),
                read_only: false,
                device: 7,
            };
            h.disks.insert(HostPath::from("/var/lib/rekindle"), Seen::Known(disk));
        })
        .build();
    let diagnosis = diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataLost]);
    let PlanOutcome::Refused(refusal) = planned(&inventory, &diagnosis, &goal()) else { panic!("a plan") };
    assert!(refusal.reason.contains("local needs 24 MiB for the run's folder"), "{}", refusal.reason);
}

// Room, but nothing to make files with: a disk can be full that way too.
#[test]
fn a_disk_without_inodes_is_refused_too() {
    let inventory = fixture_single()
        .host(0, |h| {
            for disk in h.disks.values_mut() {
                let Seen::Known(disk) = disk else { panic!("a disk that was not read") };
                disk.free_inodes = Some(3);
            }
        })
        .build();
    let diagnosis = diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataLost]);
    let PlanOutcome::Refused(refusal) = planned(&inventory, &diagnosis, &goal()) else { panic!("a plan") };
    assert!(refusal.reason.contains("3 free inodes"), "{}", refusal.reason);
}

// A snapshot file's time may be that of a copy: nothing lost is never claimed from a time before the failure.
#[test]
fn a_snapshot_taken_after_the_first_evidence_counts_to_now() {
    let inventory = fixture_single().build();
    let diagnosis = diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataLost]);
    let plan = expect_plan(planned(&inventory, &diagnosis, &goal()));
    assert_eq!(plan.cost.time_lost_seconds, Seen::Known(60));
    assert_eq!(plan.made_ms, NOW_MS);
}

// The etcd manifest in place is broken as well. A copy that parses is edited and put in its place; without one the plan
// is refused before anything is touched, since no etcd would start from it.
#[test]
fn a_broken_etcd_manifest_is_never_edited_and_kept() {
    let broken = fixture_single().unparsable_manifest(0, Component::Etcd);
    let with_copy = broken.clone().host(0, |h| {
        let Seen::Known(manifests) = &mut h.manifests else { panic!("no manifests") };
        let mut copy = manifests.iter().find(|m| m.component == Some(Component::Etcd)).unwrap().clone();
        (copy.in_place, copy.parse_error, copy.path) = (false, None, HostPath::from("/root/etcd.yaml"));
        copy.text = copy.text.replace("\t- broken\n", "");
        manifests.push(copy);
    });
    let verdicts = [MemberVerdict::DataLost];
    let inventory = with_copy.build();
    let found = diagnosis(&inventory, EtcdVerdict::DataLost, &verdicts);
    let plan = expect_plan(planned(&inventory, &found, &goal()));
    let written = plan.steps.iter().find_map(|s| match &s.step {
        Step::ReplaceFile { old_sha256, text, .. } => Some((old_sha256.clone(), text.contains("broken"))),
        _ => None,
    });
    assert_eq!(written, Some((Some("b".repeat(64)), false)));

    let inventory = broken.build();
    let found = diagnosis(&inventory, EtcdVerdict::DataLost, &verdicts);
    let outcome = planned(&inventory, &found, &goal());
    let PlanOutcome::Refused(refusal) = &outcome else { panic!("{}", text(&outcome)) };
    assert!(refusal.reason.contains("no manifest of etcd that parses"), "{}", refusal.reason);
}
