//! The executor: stages one after another, hosts within a stage in parallel, steps on one host in order. Every step is
//! journaled before and after.
//!
//! At the first failure nothing new is begun; steps at work end. Before the point of no return everything is then undone
//! in reverse order; after it the run stops and its report says what is left.

use crate::Sink;
use crate::error::{RunError, StepError, causes};
use crate::execute::Before;
use crate::fault::{At, Hooks};
use crate::folder;
use crate::interrupt::Interrupt;
use crate::journal::{Journal, JournalError};
use crate::status::{RunState, StepStatus};
use crate::steps::{self, Ctx};
use crate::{now_ms, report};
use camino::Utf8PathBuf;
use rekindle_model::HostId;
use rekindle_model::event::{Event, Outcome, Outputs, What};
use rekindle_model::plan::{Phase, Plan, PlannedStep};
use rekindle_model::report::RunReport;
use rekindle_world::{Cluster, Host, World};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Journal and what it means, changed together.
pub(crate) struct Shared {
    journal: Journal,
    pub(crate) state: RunState,
    phases: BTreeSet<Phase>,
}

/// One run at work.
pub(crate) struct Executor<'a> {
    plan: &'a Plan,
    world: &'a World,
    cluster: Option<Cluster>,
    dir: Utf8PathBuf,
    sink: &'a Sink,
    hooks: &'a Hooks,
    interrupt: Interrupt,
    failed: AtomicBool,
    shared: Mutex<Shared>,
}

/// Steps of one stage on one host, in order.
type Chain<'a> = Vec<&'a PlannedStep>;

impl<'a> Executor<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        world: &'a World,
        cluster: Option<Cluster>,
        dir: Utf8PathBuf,
        sink: &'a Sink,
        hooks: &'a Hooks,
        mut journal: Journal,
    ) -> Result<Self, RunError> {
        let state = RunState::replay(plan, journal.path(), journal.records())?;
        if let Some(cut) = hooks.cut {
            journal.cut_at(cut);
        }
        let shared = Mutex::new(Shared { journal, state, phases: BTreeSet::new() });
        let this = Self {
            plan,
            world,
            cluster,
            dir,
            sink,
            hooks,
            interrupt: Interrupt::default(),
            failed: AtomicBool::new(false),
            shared,
        };
        // Every host must be there before anything is begun.
        for step in &plan.steps {
            this.host_of(step)?;
        }
        Ok(this)
    }

    pub(crate) fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host_of(&self, step: &PlannedStep) -> Result<&'a Arc<dyn Host>, RunError> {
        let Some(id) = &step.host else { return Ok(&self.world.local) };
        self.world.host(id).ok_or_else(|| RunError::UnknownHost { host: id.clone() })
    }

    /// Journals an event, then tells it. What is not in the journal has not happened.
    pub(crate) fn emit(&self, what: What) -> Result<(), RunError> {
        self.emit_at(Event { at_ms: now_ms(), what }, true)
    }

    fn emit_at(&self, event: Event, tell: bool) -> Result<(), RunError> {
        let mut shared = self.shared();
        match shared.journal.append(&event) {
            Err(JournalError::CutOff(_)) => return Err(RunError::CutOff),
            done => done?,
        }
        shared.state.take(&event.what).map_err(|fault| JournalError::IllegalTransition {
            path: shared.journal.path().to_owned(),
            line: shared.journal.records().len() as u64,
            fault,
        })?;
        drop(shared);
        if tell {
            (self.sink)(&event);
        }
        Ok(())
    }

    /// The phases before the run as events with the times they began at.
    pub(crate) fn journal_before(&self, before: &Before) -> Result<(), RunError> {
        if before.began_ms == 0 {
            return Ok(());
        }
        let mut at_ms = before.began_ms;
        for (phase, took_ms) in &before.phases_ms {
            self.emit_at(Event { at_ms, what: What::PhaseStarted { phase: *phase } }, false)?;
            at_ms += took_ms;
        }
        Ok(())
    }

    /// Forward to the end; back when it fails before the point of no return (a plan through the API stops: see `Plan`).
    pub(crate) async fn go_on(&self) -> Result<RunReport, RunError> {
        let _listening = self.interrupt.listen();
        self.forward().await?;
        if !self.failed.load(Ordering::SeqCst) {
            let partial = report::is_partial(&self.shared().state);
            let outcome = if partial { Outcome::Partial } else { Outcome::Verified };
            return self.end(outcome);
        }
        let stops = self.plan.cluster.is_some();
        if stops || self.shared().state.past_no_return(self.plan).is_some() {
            return self.end(Outcome::Failed);
        }
        self.interrupt.clear();
        self.backward().await
    }

    pub(crate) async fn go_back(&self) -> Result<RunReport, RunError> {
        let _listening = self.interrupt.listen();
        self.backward().await
    }

    async fn forward(&self) -> Result<(), RunError> {
        for chains in self.stages() {
            let working = chains.into_iter().map(|chain| async move {
                for step in chain {
                    if self.stopping() {
                        return Ok(());
                    }
                    self.step(step).await?;
                }
                Ok(())
            });
            // All are waited for: a step at work is never abandoned.
            let results: Vec<Result<(), RunError>> = futures::future::join_all(working).await;
            results.into_iter().collect::<Result<(), _>>()?;
            if self.failed.load(Ordering::SeqCst) {
                break;
            }
        }
        Ok(())
    }

    /// Whether nothing new is to be begun. Being asked to stop with steps left counts as a failure.
    fn stopping(&self) -> bool {
        if self.interrupt.asked() {
            self.failed.store(true, Ordering::SeqCst);
        }
        self.failed.load(Ordering::SeqCst)
    }

    /// The plan's steps by stage, and within it by host.
    fn stages(&self) -> Vec<Vec<Chain<'a>>> {
        let mut stages: BTreeMap<u32, BTreeMap<Option<&HostId>, Chain<'a>>> = BTreeMap::new();
        for step in &self.plan.steps {
            stages.entry(step.stage).or_default().entry(step.host.as_ref()).or_default().push(step);
        }
        stages.into_values().map(|by_host| by_host.into_values().collect()).collect()
    }

    fn ctx(&self, step: &'a PlannedStep) -> Result<Ctx<'_>, RunError> {
        let host = self.host_of(step)?;
        let shared = self.shared();
        let own = shared.state.steps.get(&step.number);
        let done = shared.state.steps.iter().filter(|(_, state)| state.status == StepStatus::Done);
        Ok(Ctx {
            plan: self.plan,
            planned: step,
            host,
            before: own.map(|own| own.before.clone()).unwrap_or_default(),
            outputs: done.map(|(number, state)| (*number, state.outputs.clone())).collect(),
            sink: self.sink,
            interrupt: &self.interrupt,
            dir: &self.dir,
            cluster: self.cluster.as_ref(),
        })
    }

    async fn step(&self, step: &'a PlannedStep) -> Result<(), RunError> {
        if self.shared().state.status(step.number) == StepStatus::Done {
            return Ok(());
        }
        if self.shared().phases.insert(step.phase) {
            self.emit(What::PhaseStarted { phase: step.phase })?;
        }
        let mut ctx = self.ctx(step)?;
        let mut prepared = Ok(());
        if ctx.before.is_empty() {
            match steps::prepare(&ctx).await {
                Ok(before) => ctx.before = before,
                Err(error) => prepared = Err(error),
            }
        }
        self.emit(started(step, &ctx.before))?;
        let result = match prepared {
            Ok(()) => self.apply(step, &ctx).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(outputs) => self.emit(What::StepDone { step: step.number, outputs }),
            Err(error) => {
                self.failed.store(true, Ordering::SeqCst);
                self.emit(What::StepFailed { step: step.number, error: causes(&error) })
            }
        }
    }

    async fn apply(&self, step: &PlannedStep, ctx: &Ctx<'_>) -> Result<Outputs, StepError> {
        self.hooks.kill_here(step, false, At::Before);
        if self.hooks.fails(step, false, At::Before) {
            return Err(StepError::FaultPoint);
        }
        let mut result = steps::apply(ctx).await;
        if self.hooks.twice && result.is_ok() {
            result = steps::apply(ctx).await;
        }
        self.hooks.kill_here(step, false, At::After);
        if result.is_ok() && self.hooks.fails(step, false, At::After) {
            return Err(StepError::FaultPoint);
        }
        result
    }

    /// Takes back everything that was begun, last first.
    async fn backward(&self) -> Result<RunReport, RunError> {
        let stuck = AtomicBool::new(false);
        for chains in self.stages().into_iter().rev() {
            let working = chains.into_iter().map(|chain| self.chain_back(chain, &stuck));
            let results: Vec<Result<(), RunError>> = futures::future::join_all(working).await;
            results.into_iter().collect::<Result<(), _>>()?;
            if stuck.load(Ordering::SeqCst) {
                return self.end(Outcome::Stuck);
            }
        }
        self.end(Outcome::Undone)
    }

    async fn chain_back(&self, chain: Chain<'a>, stuck: &AtomicBool) -> Result<(), RunError> {
        for step in chain.into_iter().rev() {
            let status = self.shared().state.status(step.number);
            if matches!(status, StepStatus::NotStarted | StepStatus::Undone) || stuck.load(Ordering::SeqCst) {
                continue;
            }
            let ctx = self.ctx(step)?;
            self.emit(What::UndoStarted { step: step.number })?;
            match self.undo_step(step, &ctx).await {
                Ok(()) => self.emit(What::UndoDone { step: step.number })?,
                Err(error) => {
                    stuck.store(true, Ordering::SeqCst);
                    self.emit(What::UndoFailed { step: step.number, error: causes(&error) })?;
                }
            }
        }
        Ok(())
    }

    async fn undo_step(&self, step: &PlannedStep, ctx: &Ctx<'_>) -> Result<(), StepError> {
        self.hooks.kill_here(step, true, At::Before);
        if self.hooks.fails(step, true, At::Before) {
            return Err(StepError::FaultPoint);
        }
        steps::undo(ctx).await?;
        if self.hooks.twice {
            steps::undo(ctx).await?;
        }
        self.hooks.kill_here(step, true, At::After);
        if self.hooks.fails(step, true, At::After) { Err(StepError::FaultPoint) } else { Ok(()) }
    }

    fn end(&self, outcome: Outcome) -> Result<RunReport, RunError> {
        self.emit(What::RunEnded { outcome })?;
        self.report()
    }

    /// Makes the report and stores it.
    pub(crate) fn report(&self) -> Result<RunReport, RunError> {
        let report = {
            let shared = self.shared();
            report::of(self.plan, &self.dir, &shared.state, shared.journal.records())
        };
        folder::write_json(&self.dir.join(folder::REPORT), "report", &report)?;
        folder::write(&self.dir.join(folder::REPORT_TEXT), report::markdown(&report).as_bytes())?;
        Ok(report)
    }
}

fn started(step: &PlannedStep, before: &Outputs) -> What {
    What::StepStarted {
        step: step.number,
        phase: step.phase,
        host: step.host.clone(),
        summary: step.summary.clone(),
        before: before.clone(),
    }
}
