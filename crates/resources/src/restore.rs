//! Carries out a plan: wave after wave (`order`), the objects of a wave side by side, in passes for what others must be
//! there for first.

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::journal::{Done, Outcome, Run};
use crate::kinds::{Kind, Kinds};
use crate::list::is_passing;
use crate::order;
use crate::owners::Owners;
use crate::plan::{Action, Entry, Plan};
use crate::policy::is_built_in;
use crate::report::RestoreReport;
use crate::write::{Writing, Written};
use crate::{backup::now_ms, prepare};
use futures::{StreamExt as _, TryStreamExt as _};
use rekindle_world::cluster::Cluster;
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Objects written at a time.
const AT_A_TIME: usize = 16;
/// Objects that one line of the journal names.
const CHUNK: usize = 512;
/// How long the kinds of restored CustomResourceDefinitions may take to be served.
const SERVED_WITHIN: Duration = Duration::from_secs(60);
/// Pauses before what failed is tried again at the end: backends of webhooks start meanwhile.
const PAUSES_S: [u64; 3] = [1, 3, 6];

/// An object that has to wait, and what for.
type Waiting = (usize, String);

/// Restores what the plan says. The report has a line for each object.
///
/// # Errors
/// When the cluster answers no more or the journal can't be written: what was done is in the journal, `resume` goes on.
pub async fn restore(
    cluster: &Cluster,
    folder: Arc<Folder>,
    plan: Plan,
    run: &Run,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<RestoreReport> {
    let started_ms = now_ms();
    let restorer = Restorer {
        served: Mutex::new(Arc::new(plan.target.clone())),
        owners: Owners::new(&plan, run),
        results: plan.entries.iter().map(|_| Mutex::new(None)).collect(),
        finished: std::sync::atomic::AtomicU64::new(0),
        cluster,
        folder,
        plan: &plan,
        run,
        progress,
    };
    restorer.take_over();
    let mut waiting: Vec<Waiting> = Vec::new();
    let waves: Vec<_> = plan.entries.iter().map(|entry| plan.kind(entry).map_or(0, order::wave)).collect();
    let mut at = 0;
    while let Some(wave) = waves.get(at).copied() {
        let end = waves.iter().skip(at).position(|w| *w != wave).map_or(waves.len(), |more| at + more);
        waiting.extend((at..end).filter(|n| !restorer.is_done(*n)).map(|n| (n, String::new())));
        waiting = restorer.passes(waiting).await?;
        if wave == order::CRDS && waves.len() > end {
            restorer.until_served().await?;
        }
        at = end;
    }
    for pause_s in PAUSES_S {
        if waiting.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(pause_s)).await;
        waiting = restorer.passes(waiting).await?;
    }
    for (at, why) in waiting {
        restorer.conclude(at, Outcome::Failed, None, None, vec![why])?;
    }
    let results = restorer.results.iter();
    let results = results.filter_map(|r| r.lock().unwrap_or_else(PoisonError::into_inner).take()).collect();
    let report = RestoreReport::new(&plan, run, &restorer.folder, started_ms, results);
    run.report(&report)?;
    Ok(report)
}

struct Restorer<'a> {
    cluster: &'a Cluster,
    folder: Arc<Folder>,
    plan: &'a Plan,
    run: &'a Run,
    /// What the cluster has, by now.
    served: Mutex<Arc<Kinds>>,
    owners: Owners,
    results: Vec<Mutex<Option<Done>>>,
    finished: std::sync::atomic::AtomicU64,
    progress: &'a (dyn Fn(u64, u64) + Sync),
}

/// What one try of an object came to.
enum Try {
    Concluded,
    /// Something else must be there first, or the cluster may take it later.
    Later(String),
}

impl Restorer<'_> {
    /// Objects that an earlier attempt of this run concluded, and those for which nothing is to be done.
    fn take_over(&self) {
        for (at, entry) in self.plan.entries.iter().enumerate() {
            match self.run.done.get(&entry.path) {
                Some(done) if done.result != Outcome::Failed => self.set(at, done.clone()),
                _ => {}
            }
        }
    }

    fn set(&self, at: usize, done: Done) {
        self.owners.concluded(&done.path, done.uid.as_deref(), done.result);
        if let Some(result) = self.results.get(at) {
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        }
        let finished = self.finished.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        (self.progress)(finished, self.results.len() as u64);
    }

    fn is_done(&self, at: usize) -> bool {
        self.results.get(at).is_some_and(|r| r.lock().unwrap_or_else(PoisonError::into_inner).is_some())
    }

    fn conclude(
        &self,
        at: usize,
        result: Outcome,
        uid: Option<String>,
        before: Option<u64>,
        notes: Vec<String>,
    ) -> Result<()> {
        let Some(entry) = self.plan.entries.get(at) else { return Ok(()) };
        let done = Done { path: entry.path.clone(), result, uid, before, notes };
        self.run.done(done.clone())?;
        self.set(at, done);
        Ok(())
    }

    /// Tries all, and again what had to wait, as long as that helps.
    async fn passes(&self, mut waiting: Vec<Waiting>) -> Result<Vec<Waiting>> {
        loop {
            let mut later = Vec::new();
            for chunk in waiting.chunks(CHUNK) {
                let entries = chunk.iter().filter_map(|(at, _)| self.plan.entries.get(*at));
                let made = entries.filter(|entry| entry.action == Action::Create);
                self.run.intend(made.map(|entry| entry.path.clone()).collect())?;
                let tries =
                    chunk.iter().map(|(at, _)| async move { Ok::<_, Error>((*at, self.object(*at).await?)) });
                let tried: Vec<_> =
                    futures::stream::iter(tries).buffer_unordered(AT_A_TIME).try_collect().await?;
                later.extend(tried.into_iter().filter_map(|(at, tried)| match tried {
                    Try::Later(why) => Some((at, why)),
                    Try::Concluded => None,
                }));
            }
            if later.is_empty() || later.len() == waiting.len() {
                return Ok(later);
            }
            waiting = later;
        }
    }

    async fn object(&self, at: usize) -> Result<Try> {
        let Some(entry) = self.plan.entries.get(at) else { return Ok(Try::Concluded) };
        let Some(kind) = self.plan.kind(entry) else { return Ok(Try::Concluded) };
        let conclude = |result, notes| {
            self.conclude(at, result, entry.uid.clone(), None, notes).map(|()| Try::Concluded)
        };
        match entry.action {
            Action::Unchanged => return self.unchanged(at, entry),
            Action::Skip => return conclude(Outcome::Skipped, vec!["it is there, and different".into()]),
            Action::Impossible => return conclude(Outcome::Failed, entry.places.clone()),
            Action::Create | Action::Update | Action::Recreate => {}
        }
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(served) = served.of(&kind.api_version(), &kind.kind) else {
            let why = format!("this cluster does not serve {} {}", kind.api_version(), kind.kind);
            return Ok(Try::Later(why));
        };
        let (mut object, mut notes) = match self.prepared(entry, kind) {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(left_out)) => return conclude(Outcome::LeftOut, vec![left_out]),
            Err(why) => return conclude(Outcome::Failed, vec![why]),
        };
        match self.owners.resolve(self.cluster, self.plan, entry, &mut object).await? {
            Ok(more) => notes.extend(more),
            Err(owner) => return Ok(Try::Later(format!("its owner {owner} is not there"))),
        }
        let writing = Writing { cluster: self.cluster, kind: served, plan: self.plan, run: self.run, entry };
        let status = if served.has_status || is_built_in(kind) { take_status(&mut object) } else { None };
        let status = status.filter(|_| self.plan.choices.with_status);
        match writing.object(object, status, self.run.intended.contains(&entry.path)).await? {
            Ok(Written { result, uid, before, notes: more }) => {
                notes.extend(more);
                self.conclude(at, result, uid, before, notes)?;
                Ok(Try::Concluded)
            }
            Err(error) if error.is_for_good => {
                self.conclude(at, Outcome::Failed, error.uid, None, vec![error.why])?;
                Ok(Try::Concluded)
            }
            Err(error) => Ok(Try::Later(error.why)),
        }
    }

    /// As it should be: from the start, or by an earlier attempt of this run that died before it could say so.
    fn unchanged(&self, at: usize, entry: &Entry) -> Result<Try> {
        let before = self.run.before(&entry.path);
        let result = match before {
            Some(_) => Outcome::Updated,
            None if self.run.intended.contains(&entry.path) => Outcome::Created,
            None => Outcome::Unchanged,
        };
        self.conclude(at, result, entry.uid.clone(), before, Vec::new()).map(|()| Try::Concluded)
    }

    /// The object as it will be sent, and notes; `Ok(Err)`: why it is left out; `Err`: what is wrong with it.
    #[allow(clippy::type_complexity)] // three ways to go on
    fn prepared(
        &self,
        entry: &Entry,
        kind: &Kind,
    ) -> std::result::Result<std::result::Result<(Value, Vec<String>), String>, String> {
        let mut object = self.folder.object(&entry.path).map_err(|error| error.line())?;
        if let Some(reason) = prepare::not_restored(kind, &object) {
            return Ok(Err(reason.to_owned()));
        }
        self.plan.choices.changes.apply(kind, &entry.place.namespace, &entry.place.name, &mut object)?;
        let notes = prepare::detach(kind, &mut object, &self.plan.around);
        Ok(Ok((object, notes)))
    }

    /// Waits until the kinds of all restored CustomResourceDefinitions are served.
    async fn until_served(&self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + SERVED_WITHIN;
        loop {
            let served = Kinds::discover(self.cluster).await?;
            let missing = self.plan.kinds.iter().any(|kind| {
                served.of(&kind.api_version(), &kind.kind).is_none()
                    && self
                        .plan
                        .entries
                        .iter()
                        .any(|e| e.action == Action::Create && self.plan.kind(e) == Some(kind))
            });
            *self.served.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(served);
            if !missing || tokio::time::Instant::now() > deadline {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn take_status(object: &mut Value) -> Option<Value> {
    object.as_object_mut().and_then(|fields| fields.shift_remove("status"))
}

/// Whether trying again later can help.
pub(crate) fn may_help_later(error: &rekindle_world::cluster::ClusterError) -> bool {
    is_passing(error) || !matches!(error.status(), Some(400 | 413 | 415 | 422))
}
