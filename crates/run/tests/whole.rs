//! Whole runs over the simulated world: each scenario is recovered and verified, every step may be done twice, and what is
//! undone is as it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{Case, cases};
use rekindle_run::fault::Hooks;

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
        println!("{name}: {} steps, {} records, {} requests", case.plan.steps.len(), case.records(), case.world.faults.requests());
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
