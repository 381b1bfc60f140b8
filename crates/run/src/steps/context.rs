//! What a step is given: its host, what was found before it, outputs of earlier steps, progress, and a bounded wait.

use crate::Sink;
use crate::error::StepError;
use crate::interrupt::Interrupt;
use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::event::{Event, Outputs, What};
use rekindle_model::plan::{Plan, PlannedStep};
use rekindle_model::step::Step;
use rekindle_model::{HostId, HostPath};
use rekindle_world::{Cluster, Host, HostError, Progress};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Progress is told no more often than this.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// How long and how often a question is asked again.
const ASK_TIMEOUT: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(200);

/// All a step gets.
pub(crate) struct Ctx<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) planned: &'a PlannedStep,
    /// The host it works on.
    pub(crate) host: &'a Arc<dyn Host>,
    /// What was found before it acted first.
    pub(crate) before: Outputs,
    /// Outputs of the steps done so far.
    pub(crate) outputs: BTreeMap<u32, Outputs>,
    pub(crate) sink: &'a Sink,
    pub(crate) interrupt: &'a Interrupt,
    /// The run's folder.
    pub(crate) dir: &'a Utf8Path,
    /// The cluster the plan works on through its API, if it does.
    pub(crate) cluster: Option<&'a Cluster>,
}

/// One look of a wait.
pub(crate) enum Polled<T> {
    /// It has happened.
    Ready(T),
    /// Not yet; the text says what was seen.
    Pending(String),
}

impl Ctx<'_> {
    /// The host's id.
    pub(crate) fn host_id(&self) -> &HostId {
        self.host.id()
    }

    /// Outputs of the done steps that `wanted` picks, in order.
    pub(crate) fn outputs_where(&self, wanted: impl Fn(&PlannedStep) -> bool) -> Vec<&Outputs> {
        let steps = self.plan.steps.iter().filter(|step| wanted(step));
        steps.filter_map(|step| self.outputs.get(&step.number)).collect()
    }

    /// What `BuildDb` of this plan made, when the plan has one and it is done.
    pub(crate) fn built(&self) -> Option<&Outputs> {
        self.outputs_where(|step| matches!(step.step, Step::BuildDb { .. })).pop()
    }

    /// A function for long requests to tell how far they are.
    pub(crate) fn progress(&self, label: impl Into<String>) -> Progress {
        let (sink, step, label) = (self.sink.clone(), self.planned.number, label.into());
        let last: Mutex<Option<Instant>> = Mutex::new(None);
        Arc::new(move |done, total| {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            let ended = total > 0 && done >= total;
            if !ended && last.is_some_and(|at| at.elapsed() < PROGRESS_EVERY) {
                return;
            }
            *last = Some(Instant::now());
            let what = What::Progress { step, label: label.clone(), done, total };
            sink(&Event { at_ms: crate::now_ms(), what });
        })
    }

    /// A line worth telling; not journaled.
    fn waiting(&self, what: &str, since: Instant, timeout: Duration) {
        let done = since.elapsed().as_secs().min(timeout.as_secs());
        let what = What::Progress {
            step: self.planned.number,
            label: format!("waiting for {what}, seconds"),
            done,
            total: timeout.as_secs(),
        };
        (self.sink)(&Event { at_ms: crate::now_ms(), what });
    }

    /// Asks again and again until it has happened, at most `timeout`. The first look is at once.
    pub(crate) async fn poll<T, F, R>(
        &self,
        what: &str,
        every: Duration,
        timeout: Duration,
        mut look: F,
    ) -> Result<T, StepError>
    where
        F: FnMut() -> R,
        R: Future<Output = Result<Polled<T>, StepError>>,
    {
        let since = Instant::now();
        let mut told = since;
        loop {
            let last = match look().await? {
                Polled::Ready(value) => return Ok(value),
                Polled::Pending(last) => last,
            };
            if since.elapsed() >= timeout {
                return Err(StepError::Timeout { what: what.to_owned(), seconds: timeout.as_secs(), last });
            }
            if told.elapsed() >= Duration::from_secs(1) {
                told = Instant::now();
                self.waiting(what, since, timeout);
            }
            self.interrupt.sleep(every).await?;
        }
    }

    /// A question asked again while it is not answered: a member that has just started, or a connection that broke.
    pub(crate) async fn ask<T, F, R>(&self, what: &str, mut question: F) -> Result<T, StepError>
    where
        F: FnMut() -> R,
        R: Future<Output = Result<T, HostError>>,
    {
        let asked = self.poll(what, ASK_EVERY, ASK_TIMEOUT, || {
            let asked = question();
            async { Ok(asked.await.map_or_else(|error| Polled::Pending(error.to_string()), Polled::Ready)) }
        });
        asked.await
    }

    /// A scratch folder of this run on the host, for files on their way to the machine Rekindle runs on.
    pub(crate) fn scratch(&self) -> HostPath {
        HostPath::from(format!("/var/lib/rekindle-{}-scratch", self.plan.run_id.short()))
    }
}

/// A field of outputs, if it is there and of that type.
pub(crate) fn field<T: DeserializeOwned>(outputs: &Outputs, name: &str) -> Option<T> {
    outputs.get(name).and_then(|value| serde_json::from_value(value.clone()).ok())
}

/// Makes the folder a local file will lie in.
pub(crate) fn parent_of(file: &Utf8Path) -> Result<Utf8PathBuf, StepError> {
    let parent = file.parent().unwrap_or_else(|| Utf8Path::new("/")).to_owned();
    crate::lock::private_dir(&parent)
        .map_err(|error| StepError::Plan(crate::error::causes(&error).join(": ")))?;
    Ok(parent)
}

/// Runs blocking work (reading and writing large local files) off the async threads.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, StepError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, StepError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StepError::Plan(format!("a worker ended early: {error}"))),
    }
}

/// `outputs! { "name" => value, ... }`
macro_rules! outputs {
    ($($name:literal => $value:expr),* $(,)?) => {
        rekindle_model::event::Outputs::from([$(($name.to_owned(), serde_json::json!($value))),*])
    };
}
pub(crate) use outputs;
