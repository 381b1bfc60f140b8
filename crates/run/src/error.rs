//! Errors: [`RunError`] for a run that could not be carried on at all, [`StepError`] for one step.
//!
//! A step that fails is not an error of the run: the run then ends undone, failed or stuck, and its report says so.

use crate::journal::JournalError;
use camino::Utf8PathBuf;
use rekindle_model::event::Outcome;
use rekindle_model::{HostId, RunId};
use rekindle_world::{ClusterError, HostError};

/// Why a run was not begun, taken up or carried on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Another run works with this state folder.
    #[error("run {run} is at work already (pid {pid}, lock {lock})")]
    Locked {
        /// The lock file.
        lock: Utf8PathBuf,
        /// Process id of the other run; 0 when the lock file does not tell.
        pid: u32,
        /// The other run.
        run: String,
    },
    /// Another run works on a host of the plan.
    #[error("another run is at work on a host of this plan")]
    Claimed(#[source] HostError),
    /// The cluster of a plan through the API can't be asked.
    #[error("the cluster can't be asked")]
    Cluster(#[from] ClusterError),
    /// The kubeconfig leads to another cluster than the plan was made for.
    #[error(
        "{server} is another cluster than the plan was made for: its kube-system namespace has UID {uid}, not {wanted}"
    )]
    OtherCluster {
        /// URL of the API server.
        server: String,
        /// UID found.
        uid: String,
        /// UID in the plan.
        wanted: String,
    },
    /// The journal can't be trusted or written.
    #[error("the journal of the run can't be used")]
    Journal(#[from] JournalError),
    /// A file of the run could not be read or written.
    #[error("cannot {doing} {path}")]
    File {
        /// `read`, `write`, ...
        doing: &'static str,
        /// The file.
        path: Utf8PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A stored document is not what it should be.
    #[error("{path} is not a {kind}")]
    Document {
        /// The file.
        path: Utf8PathBuf,
        /// Its kind.
        kind: &'static str,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A run with this id was begun before.
    #[error(
        "run {run} was begun already: {dir} exists; take it up with `resume` or `undo`, or make a new plan"
    )]
    Exists {
        /// The run.
        run: RunId,
        /// Its folder.
        dir: Utf8PathBuf,
    },
    /// No run has this id.
    #[error("there is no run {id} in {state_dir}")]
    NotFound {
        /// What was asked for.
        id: String,
        /// Where it was looked for.
        state_dir: Utf8PathBuf,
    },
    /// The plan names a host that is not among those connected.
    #[error("the plan works on {host}, which is not among the hosts given")]
    UnknownHost {
        /// The host.
        host: HostId,
    },
    /// The run has ended in a way that leaves nothing to take up.
    #[error("run {run} has ended ({}); there is nothing to {verb}", outcome_word(*outcome))]
    Ended {
        /// The run.
        run: RunId,
        /// How.
        outcome: Outcome,
        /// `resume` or `undo`.
        verb: &'static str,
    },
    /// Clients may have written since: what was there before is older than what is there now.
    #[error(
        "run {run} is past its point of no return (step {step}: {summary}): API servers may have accepted writes since, \
         and undoing would lose them. Possible: `rekindle runs resume {run}` finishes the recovery; the old data lies \
         where the run's report says"
    )]
    PastNoReturn {
        /// The run.
        run: RunId,
        /// The step that can't be taken back.
        step: u32,
        /// What it does.
        summary: String,
    },
    /// The test hook is set to something it does not understand.
    #[error("REKINDLE_KILL_AT={value} is not STEP:before|mid|after")]
    KillAt {
        /// Its value.
        value: String,
    },
    /// A fault point of a test ended the run here, as a power cut would.
    #[error("the run was cut off by a fault point")]
    CutOff,
}

/// How a run ended, in one word for people.
pub fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Verified => "recovered and verified",
        Outcome::Partial => "recovered in part",
        Outcome::Undone => "undone",
        Outcome::Stuck => "stuck",
        Outcome::Failed => "failed",
    }
}

/// Why a step (or undoing it) failed. Its host and number stand in the event around it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// A host did not do what was asked.
    #[error("the host did not do it")]
    Host(#[from] HostError),
    /// The API server did not do what was asked.
    #[error("the API server did not do it")]
    Kube(#[from] ClusterError),
    /// Pods did not leave their nodes.
    #[error("{left} of {of} pods are left: {told}")]
    PodsLeft {
        /// How many.
        left: usize,
        /// Of how many.
        of: usize,
        /// Each with the reason.
        told: String,
    },
    /// The world is not as the plan saw it: make a new plan.
    #[error("{0}; the world is not as the plan saw it, make a new plan")]
    Moved(String),
    /// What was to be proved does not hold.
    #[error("not proved: {0}")]
    NotProved(String),
    /// It did not happen in time.
    #[error("waited {seconds} s for {what}; last seen: {last}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// So long.
        seconds: u64,
        /// What was seen last.
        last: String,
    },
    /// An etcd file could not be read, verified or written.
    #[error("cannot {doing} {path}")]
    Disk {
        /// `verify`, `restore from`, ...
        doing: &'static str,
        /// The file.
        path: Utf8PathBuf,
        /// The cause.
        #[source]
        source: Box<etcd_disk::Error>,
    },
    /// A file on the machine Rekindle runs on.
    #[error("cannot {doing} {path}")]
    File {
        /// `read`, `write`, ...
        doing: &'static str,
        /// The file.
        path: Utf8PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// An API server answered something else than was needed.
    #[error("{request} was answered with status {status}: {body}")]
    Api {
        /// Method and path.
        request: String,
        /// Status code.
        status: u16,
        /// Start of the answer.
        body: String,
    },
    /// The operator asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// A fault point of a test.
    #[error("failed by a fault point")]
    FaultPoint,
    /// The plan is not one that can be carried out; a fault of the planner.
    #[error("the plan is at fault: {0}")]
    Plan(String),
}

/// An error and its causes, outermost first: the form events and the journal carry.
pub(crate) fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let mut lines = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        lines.push(cause.to_string());
        next = cause.source();
    }
    lines
}
