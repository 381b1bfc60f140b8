//! Whole runs over the simulated world: each scenario is recovered and verified, every step may be done twice, and what is
//! undone is as it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{Case, cases};
use rekindle_model::event::{Outcome, What};
use rekindle_run::RunError;
use rekindle_run::fault::{At, FaultPoint, Hooks};

// The thin path: a plan is carried out, its report says verified with figures, and the stored report is the same.
#[tokio::test(start_paused = true)]
async fn every_scenario_is_recovered_and_verified() {
    for (name, inventory) in cases() {
        let case = Case::new(inventory);
        let report = case.execute(&Hooks::default()).await.unwrap();
        case.assert_recovered(&report, name);
        let shown = rekindle_run::runs::show(&case.run_dir()).unwrap();
        assert_eq!(shown, report, "{name}");
        let text = std::fs::read_to_string(case.run_dir().join("report.md")).unwrap();
        assert!(text.contains("recovered and verified"), "{name}: {text}");
        println!(
            "{name}: {} steps, {} records, {} requests",
            case.plan.steps.len(),
            case.records(),
            case.world.faults.requests()
        );
    }
}

// A step that was done before the crash but not journaled is done again by `resume`: twice must be as once.
#[tokio::test(start_paused = true)]
async fn every_step_done_twice_is_as_done_once() {
    for (name, inventory) in cases() {
        let case = Case::new(inventory);
        let hooks = Hooks { twice: true, ..Hooks::default() };
        let report = case.execute(&hooks).await.unwrap();
        case.assert_recovered(&report, name);
    }
}

// Two operators at once: the second is refused, names the first, and nothing of it is done.
#[tokio::test(start_paused = true)]
async fn a_second_run_at_once_is_refused() {
    let case = Case::new(common::s1_kubeadm);
    case.world.faults.slow(std::time::Duration::from_millis(50));
    let second = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        case.execute(&Hooks::default()).await
    };
    let none = Hooks::default();
    let (first, second) = tokio::join!(case.execute(&none), second);
    case.assert_recovered(&first.unwrap(), "the first");
    match second {
        Err(RunError::Locked { run, pid, .. }) => {
            assert_eq!((run.as_str(), pid), (common::RUN, std::process::id()))
        }
        other => panic!("{other:?}"),
    }
    // Afterwards the lock is free, and the same plan is not carried out a second time.
    assert!(matches!(case.execute(&none).await, Err(RunError::Exists { .. })));
    assert!(matches!(case.resume(&none).await, Err(RunError::Ended { .. })));
}

// A disk that fills up between plan and run: met while staging, with nothing stopped and nothing left behind.
#[tokio::test(start_paused = true)]
async fn a_full_disk_is_met_while_staging_with_nothing_stopped() {
    let case = Case::new(common::s1_kubeadm);
    case.world.faults.fill_disk(rekindle_model::HostId::local());
    let report = case.execute(&Hooks::default()).await.unwrap();
    assert_eq!(report.outcome, Outcome::Undone, "{:?}", common::failures(&report));
    assert!(common::failures(&report)[0].contains("bytes are needed"), "{:?}", common::failures(&report));
    let stopped = |event: &rekindle_model::event::Event| {
        matches!(event.what, What::StepStarted { phase: rekindle_model::plan::Phase::Stop, .. })
    };
    assert!(!report.timeline.iter().any(stopped), "something was stopped");
    case.assert_as_before("full disk");
}

// What lies beside the run's folder is told: list shows the run, `find` takes the end of its id, the next run learns the
// revisions clients may have seen.
#[tokio::test(start_paused = true)]
async fn runs_are_listed_and_leave_their_revisions() {
    let case = Case::new(common::s1_kubeadm);
    let report = case.execute(&Hooks::default()).await.unwrap();
    let runs = rekindle_run::runs::list(&case.state_dir).unwrap();
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].status, "recovered and verified");
    assert_eq!(rekindle_run::runs::find(&case.state_dir, "deadbeef").unwrap().id.0, common::RUN);
    assert!(matches!(rekindle_run::runs::find(&case.state_dir, "cafe"), Err(RunError::NotFound { .. })));
    let earlier = rekindle_run::runs::earlier(&case.state_dir).unwrap();
    assert_eq!(Some(earlier[0].raised_to_revision), report.raised_to_revision);
    assert!(earlier[0].last_revision > earlier[0].raised_to_revision);
}

// A snapshot that was changed after the plan was shown is not restored: the plan stands for what was consented to.
#[tokio::test(start_paused = true)]
async fn a_source_changed_since_the_plan_is_refused() {
    let case = Case::new(common::s1_kubeadm);
    let source = case.plan.steps.iter().find_map(|step| match &step.step {
        rekindle_model::step::Step::BuildDb { source, .. } => Some(source.path.clone()),
        _ => None,
    });
    let source = source.unwrap();
    let mut bytes = std::fs::read(&source.0).unwrap();
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    std::fs::write(&source.0, bytes).unwrap();
    let report = case.execute(&Hooks::default()).await.unwrap();
    assert_eq!(report.outcome, Outcome::Undone);
    assert!(common::failures(&report)[0].contains("make a new plan"), "{:?}", common::failures(&report));
    case.assert_as_before("changed source");
}

// The report tells what lies elsewhere now (old data, the old manifest), and not what was parked and put back.
#[tokio::test(start_paused = true)]
async fn the_report_tells_what_lies_elsewhere_now() {
    let case = Case::new(common::s1_corrupt);
    let report = case.execute(&Hooks::default()).await.unwrap();
    let moved: Vec<(&str, &str)> = report.moved.iter().map(|m| (m.from.as_str(), m.to.as_str())).collect();
    assert_eq!(
        moved,
        [
            ("/var/lib/etcd/member", "/var/lib/rekindle-deadbeef-etcd/old-member"),
            ("/etc/kubernetes/manifests/etcd.yaml", "/etc/kubernetes/rekindle-deadbeef/old-etcd.yaml"),
        ]
    );
    for (_, to) in moved {
        assert!(case.host_root().join(to.trim_start_matches('/')).exists(), "{to}");
    }
    assert!(report.left_to_do.iter().any(|line| line.contains("/var/lib/rekindle-deadbeef-etcd")));
    let hash = report.verifications.iter().find(|v| v.what.contains("HashKV")).unwrap();
    assert_eq!(hash.held, rekindle_model::Seen::Known(true));
}

// Somebody edits the manifest between plan and run: the step refuses, everything is taken back, and the edit is kept.
#[tokio::test(start_paused = true)]
async fn a_manifest_edited_since_the_plan_is_kept_and_everything_taken_back() {
    let mut case = Case::new(common::s1_kubeadm);
    let path = case.host_root().join("etc/kubernetes/manifests/etcd.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text + "# edited by hand\n").unwrap();
    case.before = case.world.fingerprint().unwrap();
    let report = case.execute(&Hooks::default()).await.unwrap();
    assert_eq!(report.outcome, Outcome::Undone, "{:?}", common::failures(&report));
    assert!(common::failures(&report)[0].contains("make a new plan"), "{:?}", common::failures(&report));
    case.assert_as_before("edited manifest");
}

fn three() -> rekindle_model::inventory::Inventory {
    rekindle_model::fixtures::Fixture::kubeadm(3).build()
}

/// A reset of the third host of three.
fn reset() -> Case {
    Case::with(three, |inventory, diagnosis, goal| {
        let target = inventory.hosts[2].id.clone();
        rekindle_plan::reset::reset(inventory, diagnosis, goal, &target, rekindle_model::fixtures::NOW_MS)
    })
}

// A host that leaves its cluster is as it was, whichever step before its member's removal fails; after it the reset is
// finished, and the others have kept their quorum all along.
#[tokio::test(start_paused = true)]
async fn a_reset_is_taken_back_until_the_member_has_left() {
    let steps = reset().plan.steps;
    let removal = steps.iter().find(|s| matches!(s.step, rekindle_model::step::Step::RemoveMember { .. }));
    let removal = removal.unwrap().number;
    for number in 1..=removal {
        let case = reset();
        let point = FaultPoint { step: number.to_string(), undo: false, at: At::Before };
        let hooks = Hooks { fail: Some(point), twice: true, ..Hooks::default() };
        let report = case.execute(&hooks).await.unwrap();
        let what = format!("step {number}");
        if number == removal {
            assert_eq!(report.outcome, Outcome::Failed, "{what}");
            let report = case.resume(&Hooks::default()).await.unwrap();
            assert_eq!(report.outcome, Outcome::Verified, "{what}: {:#?}", common::failures(&report));
        } else {
            assert_eq!(report.outcome, Outcome::Undone, "{what}: {:#?}", common::failures(&report));
            case.assert_as_before(&what);
        }
    }
}

// etcd runs as a user of its own, and its key is that user's in root's folder: so are the new key and, after an undo, the old
// one. Nobody reads more than before.
#[tokio::test(start_paused = true)]
async fn renewed_files_have_owner_and_mode_of_the_old_ones() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let case = Case::new(common::certificates);
    let file = |name: &str| case.host_root().join("etc/kubernetes").join(name);
    let owner = match file("pki/etcd/peer.key").metadata().unwrap().uid() {
        0 => 4321, // only root can give files away; without it there is one owner to look at
        own => own,
    };
    let wanted = [
        ("pki/etcd/peer.key", 0o440, owner),
        ("pki/etcd/peer.crt", 0o640, owner),
        ("pki/apiserver.key", 0o600, owner),
        ("scheduler.conf", 0o640, owner),
    ];
    for (name, mode, owner) in wanted {
        std::fs::set_permissions(file(name), std::fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(file(name), Some(owner), Some(owner)).unwrap();
    }
    let assert_kept = |when: &str| {
        for (name, mode, owner) in wanted {
            let found = file(name).metadata().unwrap();
            assert_eq!(
                (found.mode() & 0o777, found.uid(), found.gid()),
                (mode, owner, owner),
                "{name} {when}"
            );
        }
    };
    let old = std::fs::read(file("pki/etcd/peer.key")).unwrap();
    let report = case.execute(&Hooks { twice: true, ..Hooks::default() }).await.unwrap();
    assert_eq!(report.outcome, Outcome::Verified, "{:#?}", common::failures(&report));
    assert_ne!(std::fs::read(file("pki/etcd/peer.key")).unwrap(), old);
    assert_kept("after the renewal");
    let report = case.undo(&Hooks::default()).await.unwrap();
    assert_eq!(report.outcome, Outcome::Undone, "{:#?}", common::failures(&report));
    assert_eq!(std::fs::read(file("pki/etcd/peer.key")).unwrap(), old);
    assert_kept("after the undo");
}

/// A renewal on a host whose API server has lost its key.
fn keyless() -> Case {
    let mut case = Case::with(common::certificates, |inventory, diagnosis, goal| {
        let mut inventory = inventory.clone();
        if let rekindle_model::Seen::Known(facts) = &mut inventory.hosts[0].certificates {
            let file = facts.files.iter_mut().find(|f| f.name == "apiserver").unwrap();
            file.key = rekindle_model::certificate::KeyState::Missing;
        }
        let names = ["apiserver", "etcd-peer"].map(str::to_owned).to_vec();
        let wanted = rekindle_plan::certificates::Renew { names, ..Default::default() };
        let now_ms = rekindle_model::fixtures::NOW_MS;
        rekindle_plan::certificates::renew_certificates(&inventory, diagnosis, goal, &wanted, now_ms)
    });
    std::fs::remove_file(case.host_root().join("etc/kubernetes/pki/apiserver.key")).unwrap();
    case.before = case.world.fingerprint().unwrap();
    case
}

// A key is gone: its certificate still tells whom a new pair is for. Nothing is there to be moved aside, and an undo leaves
// nothing in its place.
#[tokio::test(start_paused = true)]
async fn a_pair_without_its_key_is_made_anew() {
    let case = keyless();
    let report = case.execute(&Hooks { twice: true, ..Hooks::default() }).await.unwrap();
    assert_eq!(report.outcome, Outcome::Verified, "{:#?}", common::failures(&report));
    assert!(case.host_root().join("etc/kubernetes/pki/apiserver.key").exists());
    let report = case.undo(&Hooks::default()).await.unwrap();
    assert_eq!(report.outcome, Outcome::Undone, "{:#?}", common::failures(&report));
    case.assert_as_before("undone");
}
