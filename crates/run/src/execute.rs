//! The executor: stages one after another, hosts within a stage in parallel, steps on one host in order. Every step is
//! journaled before and after.
//!
//! At the first failure nothing new is begun; steps at work end. Before the point of no return everything is then undone
//! in reverse order; after it the run stops and its report says what is left. `resume` and `undo` take an interrupted run
//! up from its journal.

use crate::Sink;
use crate::error::{RunError, StepError, causes};
use crate::fault::{At, Hooks};
use crate::folder;
use crate::interrupt::Interrupt;
use crate::journal::{Journal, JournalError};
use crate::lock::{Lock, private_dir};
use crate::status::{RunState, StepStatus};
use crate::steps::{self, Ctx};
use crate::{now_ms, report};
use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::HostId;
use rekindle_model::event::{Event, Outcome, Outputs, What};
use rekindle_model::plan::{Phase, Plan, PlannedStep};
use rekindle_model::report::RunReport;
use rekindle_world::{Host, World};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a run is carried out.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Folder of locks and runs, `/var/lib/rekindle` unless told otherwise.
    pub state_dir: Utf8PathBuf,
    /// What was done before the run, for the report's breakdown of the RTO.
    pub before: Before,
}

/// What was done before the run.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// When observing began, milliseconds since the Unix epoch; 0 = not known.
    pub began_ms: i64,
    /// Time taken by each phase since then, in milliseconds, in the order of phases.
    pub phases_ms: BTreeMap<Phase, i64>,
}

/// Carries out a plan. How it ended, also badly, stands in the report; an error means that it was not begun, or that its
/// journal could not be written.
pub async fn execute(
    plan: &Plan,
    world: &World,
    options: &RunOptions,
    sink: &Sink,
) -> Result<RunReport, RunError> {
    execute_with(plan, world, options, sink, &Hooks::from_env()?).await
}

/// [`execute`] with the fault points of a test.
pub async fn execute_with(
    plan: &Plan,
    world: &World,
    options: &RunOptions,
    sink: &Sink,
    hooks: &Hooks,
) -> Result<RunReport, RunError> {
    let _lock = Lock::take(&options.state_dir, &plan.run_id)?;
    let dir = folder::runs_dir(&options.state_dir).join(&plan.run_id.0);
    if dir.join(crate::journal::FILE_NAME).exists() {
        return Err(RunError::Exists { run: plan.run_id.clone(), dir });
    }
    private_dir(&dir)?;
    folder::write_json(&dir.join(folder::PLAN), "plan", plan)?;
    let executor = Executor::new(plan, world, dir.clone(), sink, hooks, Journal::create(&dir)?)?;
    executor.journal_before(&options.before)?;
    executor.emit(What::RunStarted { run_id: plan.run_id.clone(), resumed: false })?;
    executor.go_on().await
}

/// Takes an interrupted or failed run up where its journal ends. A run that was being undone goes on being undone.
pub async fn resume(
    run_dir: &Utf8Path,
    world: &World,
    state_dir: &Utf8Path,
    sink: &Sink,
) -> Result<RunReport, RunError> {
    resume_with(run_dir, world, state_dir, sink, &Hooks::from_env()?).await
}

/// [`resume`] with the fault points of a test.
pub async fn resume_with(
    run_dir: &Utf8Path,
    world: &World,
    state_dir: &Utf8Path,
    sink: &Sink,
    hooks: &Hooks,
) -> Result<RunReport, RunError> {
    take_up(run_dir, world, state_dir, sink, hooks, false).await
}

/// Undoes a run, whether it was interrupted, has failed or has ended well.
///
/// # Errors
/// [`RunError::PastNoReturn`] once API servers may have accepted writes.
pub async fn undo(
    run_dir: &Utf8Path,
    world: &World,
    state_dir: &Utf8Path,
    sink: &Sink,
) -> Result<RunReport, RunError> {
    undo_with(run_dir, world, state_dir, sink, &Hooks::from_env()?).await
}

/// [`undo`] with the fault points of a test.
pub async fn undo_with(
    run_dir: &Utf8Path,
    world: &World,
    state_dir: &Utf8Path,
    sink: &Sink,
    hooks: &Hooks,
) -> Result<RunReport, RunError> {
    take_up(run_dir, world, state_dir, sink, hooks, true).await
}

async fn take_up(
    dir: &Utf8Path,
    world: &World,
    state_dir: &Utf8Path,
    sink: &Sink,
    hooks: &Hooks,
    undo: bool,
) -> Result<RunReport, RunError> {
    let plan: Plan = folder::read_json(&dir.join(folder::PLAN), "plan")?;
    let _lock = Lock::take(state_dir, &plan.run_id)?;
    let executor = Executor::new(&plan, world, dir.to_owned(), sink, hooks, Journal::open(dir)?)?;
    let (ended, undoing, no_return) = {
        let shared = executor.shared();
        (shared.state.ended, shared.state.undoing, shared.state.past_no_return(&plan))
    };
    match ended {
        Some(Outcome::Undone) if undo => return executor.report(),
        Some(outcome @ (Outcome::Verified | Outcome::Partial | Outcome::Undone)) if !undo => {
            return Err(RunError::Ended { run: plan.run_id.clone(), outcome, verb: "resume" });
        }
        _ => {}
    }
    if let (true, Some(step)) = (undo, no_return) {
        let (step, summary) = (step.number, step.summary.clone());
        return Err(RunError::PastNoReturn { run: plan.run_id.clone(), step, summary });
    }
    executor.emit(What::RunStarted { run_id: plan.run_id.clone(), resumed: true })?;
    if undo || undoing { executor.go_back().await } else { executor.go_on().await }
}

struct Shared {
    journal: Journal,
    state: RunState,
    phases: BTreeSet<Phase>,
}

struct Executor<'a> {
    plan: &'a Plan,
    world: &'a World,
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
    fn new(
        plan: &'a Plan,
        world: &'a World,
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

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host_of(&self, step: &PlannedStep) -> Result<&'a Arc<dyn Host>, RunError> {
        let Some(id) = &step.host else { return Ok(&self.world.local) };
        self.world.host(id).ok_or_else(|| RunError::UnknownHost { host: id.clone() })
    }

    /// Journals an event, then tells it. What is not in the journal has not happened.
    fn emit(&self, what: What) -> Result<(), RunError> {
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
    fn journal_before(&self, before: &Before) -> Result<(), RunError> {
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

    /// Forward to the end; back when it fails before the point of no return.
    async fn go_on(&self) -> Result<RunReport, RunError> {
        let _listening = self.interrupt.listen();
        self.forward().await?;
        if !self.failed.load(Ordering::SeqCst) {
            let partial = report::is_partial(&self.shared().state);
            let outcome = if partial { Outcome::Partial } else { Outcome::Verified };
            return self.end(outcome);
        }
        if self.shared().state.past_no_return(self.plan).is_some() {
            return self.end(Outcome::Failed);
        }
        self.interrupt.clear();
        self.backward().await
    }

    async fn go_back(&self) -> Result<RunReport, RunError> {
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
    fn report(&self) -> Result<RunReport, RunError> {
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
