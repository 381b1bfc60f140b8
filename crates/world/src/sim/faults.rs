//! Fault points of the simulated world: the Nth request fails, its answer gets lost, a host goes away, a disk is full.

use crate::fault::Fault;
use crate::host::HostErrorKind;
use rekindle_model::HostId;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What goes wrong. Requests are counted over all hosts from 1, files sent and fetched among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// The Nth request fails and does nothing.
    Fail(u64),
    /// The Nth request is carried out, but its answer gets lost.
    LoseAnswer(u64),
    /// From the Nth request on the host that gets it is gone, until [`Faults::clear`].
    HostGone(u64),
}

/// The fault points of one world.
#[derive(Debug, Default)]
pub struct Faults {
    requests: AtomicU64,
    plan: Mutex<Plan>,
}

#[derive(Debug, Default)]
struct Plan {
    trouble: Trouble,
    gone: BTreeSet<HostId>,
    full: BTreeSet<HostId>,
    latency: Duration,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Answered,
    AnswerLost,
}

impl Faults {
    /// Sets what goes wrong, counted from now on.
    pub fn set(&self, trouble: Trouble) {
        self.requests.store(0, Ordering::SeqCst);
        self.with(|plan| plan.trouble = trouble);
    }

    /// Nothing goes wrong any more; hosts that were gone are back.
    pub fn clear(&self) {
        self.with(|plan| *plan = Plan::default());
    }

    /// Fills a host's disk: what writes to it is refused.
    pub fn fill_disk(&self, host: HostId) {
        self.with(|plan| plan.full.insert(host));
    }

    /// Every request takes so long.
    pub fn slow(&self, latency: Duration) {
        self.with(|plan| plan.latency = latency);
    }

    /// Requests since [`Faults::set`], or since the world was made.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    pub(super) fn is_full(&self, host: &HostId) -> bool {
        self.with(|plan| plan.full.contains(host))
    }

    /// Decides about one request of a host.
    pub(super) async fn meet(&self, host: &HostId) -> Result<Fate, Fault> {
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let latency = self.with(|plan| plan.latency);
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        self.with(|plan| {
            let unreachable = || Fault { kind: HostErrorKind::Unreachable, what: "connection lost".into() };
            match plan.trouble {
                Trouble::Fail(n) if n == number => return Err(Fault::failed("failed by a fault point")),
                Trouble::LoseAnswer(n) if n == number => return Ok(Fate::AnswerLost),
                Trouble::HostGone(n) if n == number => {
                    plan.gone.insert(host.clone());
                }
                _ => {}
            }
            if plan.gone.contains(host) { Err(unreachable()) } else { Ok(Fate::Answered) }
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Plan) -> T) -> T {
        work(&mut self.plan.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
