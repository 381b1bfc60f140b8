//! Ctrl-C in the middle of a run: what is at work ends, everything is taken back, the report says so. In a process of its
//! own, for the signal goes to all of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::Case;
use rekindle_model::event::{Outcome, What};
use rekindle_run::fault::Hooks;
use std::time::Duration;

#[tokio::test]
async fn ctrl_c_takes_everything_back() {
    let case = Case::new(common::s1_kubeadm);
    case.world.faults.slow(Duration::from_millis(20));
    let started = |event: &rekindle_model::event::Event| {
        matches!(event.what, What::StepStarted { phase: rekindle_model::plan::Phase::Stop, .. })
    };
    let ctrl_c = async {
        while !case.events.lock().unwrap().iter().any(started) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT).unwrap();
    };
    let none = Hooks::default();
    let (report, ()) = tokio::join!(case.execute(&none), ctrl_c);
    let report = report.unwrap();
    assert_eq!(report.outcome, Outcome::Undone, "{:?}", common::failures(&report));
    let ready = |event: &rekindle_model::event::Event| {
        matches!(event.what, What::StepStarted { phase: rekindle_model::plan::Phase::Ready, .. })
    };
    assert!(!report.timeline.iter().any(ready), "it went on");
    case.assert_as_before("Ctrl-C");
}
