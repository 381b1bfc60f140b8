//! The linter catches what would harm a cluster: good plans, each spoilt in one way, must each be told on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{diagnosis, expect_plan, goal, host, planned};
use rekindle_model::diagnosis::{EtcdVerdict, MemberVerdict};
use rekindle_model::fixtures::Fixture;
use rekindle_model::host::Component;
use rekindle_model::inventory::Inventory;
use rekindle_model::plan::{Plan, PlannedStep};
use rekindle_model::step::{RestoreForm, Reversibility, Step};
use rekindle_model::{HostPath, Seen};
use rekindle_plan::lint;

/// Three kubeadm members from the survivor's store (S2): saves, builds, stages, stops, swaps, starts.
fn restore() -> (Plan, Inventory) {
    let inventory = Fixture::kubeadm(3).lose_data(0).corrupt_db(1).stop_etcd(2).snapshot(48_000).build();
    let verdicts = [MemberVerdict::DataLost, MemberVerdict::DataCorrupt, MemberVerdict::StoppedIntact];
    let found = diagnosis(&inventory, EtcdVerdict::DataLost, &verdicts);
    (expect_plan(planned(&inventory, &found, &goal())), inventory)
}

/// One member replaced while quorum holds (S9): saves, stops, removes, adds, promotes.
fn replacement() -> (Plan, Inventory) {
    let inventory = Fixture::kubeadm(3).rejoin_wiped(1).lose_data_and_crash(2).build();
    let verdicts = [MemberVerdict::Healthy, MemberVerdict::RejoinedWiped, MemberVerdict::DataLost];
    let found = diagnosis(&inventory, EtcdVerdict::QuorumHolds, &verdicts);
    (expect_plan(planned(&inventory, &found, &goal())), inventory)
}

/// Spoils a plan, numbers it anew and expects a note with these words.
fn caught((mut plan, inventory): (Plan, Inventory), words: &str, spoil: impl FnOnce(&mut Vec<PlannedStep>)) {
    spoil(&mut plan.steps);
    plan.steps.sort_by_key(|s| s.stage);
    for (number, step) in (1..).zip(&mut plan.steps) {
        step.number = number;
    }
    expect_note(&lint(&plan, &inventory), words);
}

fn expect_note(notes: &[String], words: &str) {
    assert!(notes.iter().any(|n| n.contains(words)), "no note with {words:?} in {notes:#?}");
}

fn remove(steps: &mut Vec<PlannedStep>, which: impl Fn(&PlannedStep) -> bool) {
    let at = steps.iter().position(which).expect("such a step");
    steps.remove(at);
}

fn find(steps: &mut [PlannedStep], which: impl Fn(&Step) -> bool) -> &mut PlannedStep {
    steps.iter_mut().find(|s| which(&s.step)).expect("such a step")
}

fn is_put_back(step: &Step) -> bool {
    matches!(step, Step::Rename { to, .. } if to.as_str() == "/etc/kubernetes/manifests/kube-apiserver.yaml")
}

#[test]
fn good_plans_are_clean() {
    for (plan, inventory) in [restore(), replacement()] {
        assert_eq!(lint(&plan, &inventory), Vec::<String>::new());
    }
}

#[test]
fn numbers_and_stages_ascend() {
    let (mut plan, inventory) = restore();
    plan.steps[3].number = 9;
    expect_note(&lint(&plan, &inventory), "should have number 4");
    let (mut plan, inventory) = restore();
    plan.steps[5].stage = 1;
    expect_note(&lint(&plan, &inventory), "has stage 1 after stage 3");
}

#[test]
fn hosts_are_those_the_plan_names() {
    let (mut plan, inventory) = restore();
    plan.hosts.retain(|h| *h != host(1));
    expect_note(&lint(&plan, &inventory), "works on a host that the plan does not name");
    let (plan, mut inventory) = restore();
    inventory.lost_hosts.push(host(2));
    expect_note(&lint(&plan, &inventory), "declared lost");
    caught(restore(), "names no host", |steps| steps[0].host = None);
}

// The survivor's store is the only copy: not saving it, or saving it after the stop, is the worst a plan can do.
#[test]
fn survivors_are_saved_before_any_stop() {
    let save = |s: &Step| matches!(s, Step::SaveStore { .. });
    caught(restore(), "holds data and is not saved", |steps| remove(steps, |s| save(&s.step)));
    caught(restore(), "holds data and is not saved", |steps| find(steps, save).stage = 5);
    let saves_rejoined =
        |s: &PlannedStep| matches!(s.step, Step::SaveServed { .. }) && s.host == Some(host(1));
    caught(replacement(), "holds data and is not saved", |steps| remove(steps, saves_rejoined));
}

#[test]
fn the_store_is_built_then_staged_then_swapped_in() {
    let build = |s: &Step| matches!(s, Step::BuildDb { .. });
    let stage = |s: &PlannedStep| matches!(s.step, Step::StageMember { .. });
    caught(restore(), "before it is built", |steps| find(steps, build).stage = 4);
    caught(restore(), "was not staged before", |steps| remove(steps, stage));
    caught(restore(), "which no step makes", |steps| {
        if let Step::BuildDb { source, .. } = &mut find(steps, build).step {
            source.path = HostPath::from("/tmp/other.db");
            source.has_trailer = true;
        }
    });
    caught(restore(), "saves later", |steps| {
        let save = find(steps, |s| matches!(s, Step::SaveStore { .. }));
        save.stage = 3;
    });
}

#[test]
fn no_api_server_starts_before_every_member_is_proved() {
    let proof = |s: &PlannedStep| matches!(s.step, Step::ProveMember { .. });
    caught(restore(), "is never proved", |steps| remove(steps, proof));
    caught(restore(), "starts an API server before", |steps| find(steps, is_put_back).stage = 6);
    // A manifest that was never parked runs as soon as kubelet does.
    let parks = |s: &PlannedStep| matches!(&s.step, Step::Rename { from, .. } if from.as_str() == "/etc/kubernetes/manifests/kube-apiserver.yaml");
    caught(restore(), "starts an API server before", |steps| remove(steps, parks));
    caught(restore(), "is not parked during the restore", |steps| remove(steps, parks));
    caught(restore(), "can't be taken back and comes before", |steps| {
        find(steps, |s| matches!(s, Step::StartUnit { .. })).reversibility = Reversibility::Final;
    });
}

#[test]
fn what_was_parked_comes_back_and_nothing_else() {
    caught(restore(), "is never put back", |steps| remove(steps, |s| is_put_back(&s.step)));
    caught(restore(), "that was not parked", |steps| {
        if let Step::Rename { from, .. } = &mut find(steps, is_put_back).step {
            *from = HostPath::from("/root/kube-apiserver.yaml");
        }
    });
    let parks =
        |s: &Step| matches!(s, Step::Rename { from, .. } if from.as_str().ends_with("kube-apiserver.yaml"));
    caught(restore(), "parks a manifest where kubelet reads it", |steps| {
        if let Step::Rename { to, .. } = &mut find(steps, parks).step {
            *to = HostPath::from("/etc/kubernetes/manifests/old/kube-apiserver.yaml");
        }
    });
}

#[test]
fn renames_stay_on_their_file_system() {
    let (plan, mut inventory) = restore();
    let Seen::Known(data) = &mut inventory.hosts[0].etcd_data else { panic!("no data") };
    data.is_mount_point = true;
    expect_note(&lint(&plan, &inventory), "is a mount point");

    let (plan, mut inventory) = restore();
    let disks = &mut inventory.hosts[0].disks;
    let mut parked = disks[&HostPath::from("/etc/kubernetes")].clone();
    let Seen::Known(disk) = &mut parked else { panic!("no disk") };
    disk.device += 1;
    disks.insert(HostPath::from("/etc/kubernetes/rekindle-deadbeef"), parked.clone());
    disks.insert(
        HostPath::from("/etc/kubernetes/manifests"),
        disks[&HostPath::from("/etc/kubernetes")].clone(),
    );
    expect_note(&lint(&plan, &inventory), "different devices");

    let replaces = |s: &Step| matches!(s, Step::ReplaceFile { .. });
    caught(restore(), "keeps the old file where kubelet reads it", |steps| {
        if let Step::ReplaceFile { aside, .. } = &mut find(steps, replaces).step {
            *aside = HostPath::from("/etc/kubernetes/manifests/etcd.yaml.bak");
        }
    });
    caught(restore(), "as another step does", |steps| {
        let first = find(steps, |s| matches!(s, Step::Rename { .. })).clone();
        steps.push(PlannedStep { stage: first.stage, ..first });
    });
}

#[test]
fn all_parts_mean_the_same_cluster() {
    let stage = |s: &Step| matches!(s, Step::StageMember { .. });
    let build = |s: &Step| matches!(s, Step::BuildDb { .. });
    caught(restore(), "stages a member of another cluster", |steps| {
        if let Step::StageMember { token, .. } = &mut find(steps, stage).step {
            token.push('x');
        }
    });
    caught(restore(), "is not staged exactly once", |steps| {
        if let Step::StageMember { name, .. } = &mut find(steps, stage).step {
            *name = "cp-3".into();
        }
    });
    caught(restore(), "is not set up like that", |steps| {
        if let Step::BuildDb { members, .. } = &mut find(steps, build).step {
            members[0].peer_urls = vec!["https://10.0.0.99:2380".into()];
        }
    });
    caught(restore(), "expects 1 members", |steps| {
        if let Step::ProveMember { members, .. } =
            &mut find(steps, |s| matches!(s, Step::ProveMember { .. })).step
        {
            *members = 1;
        }
    });
}

#[test]
fn manifests_name_all_members_and_existing() {
    let spoil = |old: &'static str, new: &'static str| {
        move |steps: &mut Vec<PlannedStep>| {
            let step = find(steps, |s| matches!(s, Step::ReplaceFile { .. }));
            if let Step::ReplaceFile { text, .. } = &mut step.step {
                *text = text.replace(old, new);
            }
        }
    };
    caught(restore(), "does not name all members", spoil(",cp-2=https://10.0.0.12:2380", ""));
    caught(restore(), "does not say `existing`", spoil("state=existing", "state=new"));
    caught(restore(), "does not name all members", |steps| {
        remove(steps, |s| matches!(s.step, Step::ReplaceFile { .. }));
    });
}

#[test]
fn the_store_is_raised_above_all_evidence() {
    caught(restore(), "but 48210 was seen", |steps| {
        if let Step::BuildDb { form, .. } = &mut find(steps, |s| matches!(s, Step::BuildDb { .. })).step {
            *form = RestoreForm::Bumped { to_revision: 48_210 };
        }
    });
}

#[test]
fn members_are_stopped_removed_and_added_one_at_a_time() {
    let stops = |s: &PlannedStep| {
        matches!(&s.step, Step::StopContainers { components } if components.contains(&Component::Etcd))
            && s.host == Some(host(2))
    };
    let takes = |s: &PlannedStep| {
        matches!(&s.step, Step::Rename { from, .. } if from.as_str() == "/var/lib/etcd/member")
            && s.host == Some(host(2))
    };
    caught(replacement(), "etcd was not stopped", |steps| {
        remove(steps, stops);
        remove(steps, takes);
    });
    let promotes = |s: &PlannedStep| matches!(s.step, Step::PromoteLearner { .. });
    caught(replacement(), "adds a learner while", |steps| remove(steps, promotes));
    caught(replacement(), "never promoted", |steps| {
        let last = steps.iter().rposition(promotes).expect("such a step");
        steps.remove(last);
    });
    let adds = |s: &PlannedStep| matches!(s.step, Step::AddLearner { .. });
    caught(replacement(), "that was not added before", |steps| remove(steps, adds));
}
