//! Every point at which a run can break, in the simulated world: each step failing, each undo failing, the journal cut at
//! each record (whole and torn), each request failing, its answer lost, its host gone. From each point the cluster ends
//! recovered and verified, or byte for byte as it was; never anything else. The figures are printed (`--nocapture`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{Case, failures, no_return};
use rekindle_model::event::{Event, Outcome, What};
use rekindle_model::inventory::Inventory;
use rekindle_model::report::RunReport;
use rekindle_run::RunError;
use rekindle_run::fault::{At, FaultPoint, Hooks};
use rekindle_run::journal::CutAt;
use rekindle_world::sim::Trouble;

fn fail(step: u32, undo: bool, at: At) -> Hooks {
    Hooks { fail: Some(FaultPoint { step: step.to_string(), undo, at }), ..Hooks::default() }
}

/// After a failure: undone and as before, or past the point of no return and then finished by `resume`.
async fn undone_or_finished(case: &Case, report: &RunReport, what: &str) {
    match report.outcome {
        Outcome::Undone => {
            case.assert_as_before(what);
            assert!(matches!(case.resume(&Hooks::default()).await, Err(RunError::Ended { .. })), "{what}");
        }
        Outcome::Failed => {
            let refused = case.undo(&Hooks::default()).await;
            assert!(matches!(refused, Err(RunError::PastNoReturn { .. })), "{what}: {refused:?}");
            let report = case.resume(&Hooks::default()).await.unwrap();
            case.assert_recovered(&report, what);
        }
        other => panic!("{what}: {other:?}: {:#?}", failures(report)),
    }
}

// Each step fails once, without having acted and having acted. Before the point of no return all is undone (each undo
// done twice), after it `undo` refuses and `resume` finishes.
async fn each_step_fails(inventory: fn() -> Inventory) -> usize {
    let steps: Vec<u32> = Case::new(inventory).plan.steps.iter().map(|s| s.number).collect();
    let mut points = 0;
    for number in steps {
        for at in [At::Before, At::After] {
            let case = Case::new(inventory);
            let what = format!("step {number} fails, {at:?}");
            let report = case.execute(&Hooks { twice: true, ..fail(number, false, at) }).await.unwrap();
            assert_eq!(report.outcome == Outcome::Undone, number < no_return(&case.plan), "{what}");
            undone_or_finished(&case, &report, &what).await;
            points += 1;
        }
    }
    points
}

// Each undo fails once: the run is stuck, says where, and undoing again brings it back.
async fn each_undo_fails(inventory: fn() -> Inventory) -> usize {
    let case = Case::new(inventory);
    let last = case.plan.steps.iter().map(|s| s.number).filter(|n| *n < no_return(&case.plan)).max();
    let Some(last) = last else { return 0 };
    // Cut off when the last step that can be taken back is done.
    let report = case.execute(&fail(last, false, At::After)).await.unwrap();
    assert_eq!(report.outcome, Outcome::Undone);
    let undo = |event: &Event| matches!(event.what, What::UndoStarted { .. });
    let record = report.timeline.iter().position(undo).unwrap() as u64;
    let mut points = 0;
    for number in 1..=last {
        for at in [At::Before, At::After] {
            let case = Case::new(inventory);
            let what = format!("undo of step {number} fails, {at:?}");
            let cut = Hooks { cut: Some(CutAt { record, torn: false }), ..fail(last, false, At::After) };
            assert!(matches!(case.execute(&cut).await, Err(RunError::CutOff)), "{what}");
            let report = case.undo(&fail(number, true, at)).await.unwrap();
            assert_eq!(report.outcome, Outcome::Stuck, "{what}");
            assert!(report.left_to_do.iter().any(|line| line.contains(&format!("step {number} "))), "{what}");
            let report = case.undo(&Hooks::default()).await.unwrap();
            assert_eq!(report.outcome, Outcome::Undone, "{what}: {:#?}", failures(&report));
            case.assert_as_before(&what);
            points += 1;
        }
    }
    points
}

// The process dies after each record of the journal, with the next one torn or not begun. `resume` recovers; in another
// pass `undo` restores, or refuses past the point of no return, and then `resume` recovers.
async fn each_record_is_the_last(inventory: fn() -> Inventory) -> usize {
    let whole = Case::new(inventory);
    whole.execute(&Hooks::default()).await.unwrap();
    let mut points = 0;
    for record in 1..whole.records() {
        for (torn, undo) in [(false, false), (true, false), (true, true)] {
            let what = format!(
                "cut after record {record}, torn {torn}, then {}",
                if undo { "undo" } else { "resume" }
            );
            let case = Case::new(inventory);
            let hooks = Hooks { cut: Some(CutAt { record, torn }), ..Hooks::default() };
            let cut = case.execute(&hooks).await;
            assert!(matches!(cut, Err(RunError::CutOff)), "{what}: {cut:?}");
            if undo {
                match case.undo(&Hooks::default()).await {
                    Ok(report) => {
                        assert_eq!(report.outcome, Outcome::Undone, "{what}: {:#?}", failures(&report));
                        case.assert_as_before(&what);
                    }
                    Err(RunError::PastNoReturn { .. }) => {
                        let report = case.resume(&Hooks::default()).await.unwrap();
                        case.assert_recovered(&report, &what);
                    }
                    Err(other) => panic!("{what}: {other:?}"),
                }
            } else {
                let report = case.resume(&Hooks::default()).await.unwrap();
                case.assert_recovered(&report, &what);
            }
            points += 1;
        }
    }
    points
}

// Each request to a host goes wrong once. A wait survives it; a step that fails is undone or, past the point of no
// return, finished later; a host that is gone leaves the run stuck or failed until it is back.
async fn each_request_goes_wrong(inventory: fn() -> Inventory) -> usize {
    let whole = Case::new(inventory);
    whole.execute(&Hooks::default()).await.unwrap();
    let mut points = 0;
    for number in 1..=whole.world.faults.requests() {
        for trouble in [Trouble::Fail(number), Trouble::LoseAnswer(number), Trouble::HostGone(number)] {
            let what = format!("{trouble:?}");
            let case = Case::new(inventory);
            case.world.faults.set(trouble);
            let report = case.execute(&Hooks::default()).await.unwrap();
            case.world.faults.clear();
            let mut report = report;
            if report.outcome == Outcome::Stuck {
                report = case.undo(&Hooks::default()).await.unwrap();
            }
            match report.outcome {
                Outcome::Verified => case.assert_recovered(&report, &what),
                // A host gone for all the time that is waited for nodes.
                Outcome::Partial => assert!(!report.left_to_do.is_empty(), "{what}"),
                _ => undone_or_finished(&case, &report, &what).await,
            }
            points += 1;
        }
    }
    points
}

macro_rules! points {
    ($($module:ident: $inventory:path;)*) => {$(
        mod $module {
            #[tokio::test(start_paused = true)]
            async fn each_step_fails() {
                let points = super::each_step_fails($inventory).await;
                println!("points: {} steps failed: {points}", stringify!($module));
            }
            #[tokio::test(start_paused = true)]
            async fn each_undo_fails() {
                let points = super::each_undo_fails($inventory).await;
                println!("points: {} undos failed: {points}", stringify!($module));
            }
            #[tokio::test(start_paused = true)]
            async fn each_record_is_the_last() {
                let points = super::each_record_is_the_last($inventory).await;
                println!("points: {} journals cut: {points}", stringify!($module));
            }
            #[tokio::test(start_paused = true)]
            async fn each_request_goes_wrong() {
                let points = super::each_request_goes_wrong($inventory).await;
                println!("points: {} requests gone wrong: {points}", stringify!($module));
            }
        }
    )*};
}

points! {
    s1_kubeadm: crate::common::s1_kubeadm;
    s2_kubeadm: crate::common::s2_kubeadm;
    s3_kubeadm: crate::common::s3_kubeadm;
    s4_units: crate::common::s4_units;
    s5_kubelet: crate::common::s5_kubelet;
    s5_manifest: crate::common::s5_manifest;
    certificates: crate::common::certificates;
}
