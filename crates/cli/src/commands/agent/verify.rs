//! The vault verified on a schedule: manifests, chain, and every part's size and digest. Contents are not decrypted: the
//! identity that could is not here, and must not be.

use super::Agent;
use super::state::LastVerify;
use crate::failure::{Doing, Failure};
use crate::output::Level;
use rekindle_vault::VerifyLevel;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_secs(1);
/// So many faults are told one by one; `rekindle backup verify` tells all.
const TOLD_MAX: usize = 10;

/// Runs until it is dropped.
pub(super) async fn run(agent: Arc<Agent>) {
    let mut since_ms = jiff::Timestamp::now().as_millisecond();
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(schedule) = agent.live().verify.clone() else { continue };
        let now_ms = jiff::Timestamp::now().as_millisecond();
        if schedule.next_ms(since_ms).is_none_or(|due_ms| now_ms < due_ms) {
            continue;
        }
        tokio::time::sleep(Duration::from_millis(schedule.jitter_ms().unsigned_abs())).await;
        if let Err(failure) = verify(&agent).await {
            agent.failed(&failure);
        }
        // one that failed is due with the next time: it reads all of the vault
        since_ms = jiff::Timestamp::now().as_millisecond();
    }
}

async fn verify(agent: &Agent) -> Result<(), Failure> {
    let at_ms = jiff::Timestamp::now().as_millisecond();
    let url = &agent.settings.vault;
    let reached = agent.vault().await?;
    let report = reached.0.verify(&VerifyLevel::Stored, &mut |_, _| ()).await;
    let report = report.doing(|| format!("cannot verify {url}"))?;
    let faults = report.faults.len();
    for fault in report.faults.iter().take(TOLD_MAX) {
        let line = format!("{}: {}", fault.object, fault.error.join(": "));
        agent.output.log(Level::Error, &line, &[("object", fault.object.as_str().into())]);
    }
    let line = format!("{url} is verified: {} parts are good, {faults} objects are not", report.parts);
    agent.output.log(
        if faults == 0 { Level::Info } else { Level::Error },
        &line,
        &[("faults", faults.into())],
    );
    agent.remember(|state| state.last_verify = Some(LastVerify { at_ms, faults }))
}
