//! `Drain`: pods leave their nodes, as many at once as their budgets permit.
//!
//! Pods of one budget wait in one line: the first is asked for again as soon as the budget may have moved, instead of all
//! of them every few seconds. Pods without a budget go side by side. The step is done when every pod is gone; a pod that
//! does not go is left with the reason, never called done. Evicting again a pod that is going is harmless, so a resumed
//! run begins anew.
//!
//! The pods were listed when the plan was made, before the nodes were cordoned: at the end the nodes are listed again, and
//! what came in between is left too. It has no consent to go.

use super::super::context::{Ctx, outputs};
use super::newcomers::newcomers;
use super::watch::Gone;
use super::{list, text};
use crate::error::StepError;
use rekindle_model::event::{Event, Outputs, What};
use rekindle_model::kube::ObjectRef;
use rekindle_model::kube::nodes::{DrainMethod, DrainPod, DrainScope, Fate, Pod};
use rekindle_world::cluster::{Cluster, ClusterError, Method, Sent};
use rekindle_world::objects::pods;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Requests under way at once.
const AT_ONCE: usize = 32;
/// How often a budget that refused is looked at: it moves as fast as pods become ready. Looking costs an API server little,
/// and asking for an eviction much more.
const RETRY: Duration = Duration::from_millis(250);
/// Looks at a budget that does not move before another eviction is asked for: a pod that is not ready may go all the same.
const LOOKS: usize = 4;
/// How long a budget must stand as one that can permit nothing. While a pod that was evicted is not made again yet, one over
/// a number of pods looks so for a moment.
const SETTLED: Duration = Duration::from_secs(10);
/// How often the time is looked at while a pod ends.
const LOOK: Duration = Duration::from_millis(500);

/// What a drain needs at hand.
struct Draining<'a> {
    ctx: &'a Ctx<'a>,
    cluster: &'a Cluster,
    gone: Gone,
    method: DrainMethod,
    grace_period_seconds: Option<u64>,
    stall: Duration,
    requests: tokio::sync::Semaphore,
    deadline: Option<Instant>,
    done: AtomicU64,
    total: u64,
}

pub(in super::super) async fn drain(
    ctx: &Ctx<'_>,
    pods: &[DrainPod],
    scope: &DrainScope,
    method: DrainMethod,
    grace_period_seconds: Option<u64>,
    (timeout_seconds, stall_seconds): (Option<u64>, u64),
) -> Result<Outputs, StepError> {
    let cluster = ctx.cluster()?;
    let leaving: Vec<&DrainPod> = pods.iter().filter(|pod| pod.fate != Fate::Stays).collect();
    let uids: BTreeSet<String> = leaving.iter().map(|pod| pod.pod.uid.clone()).collect();
    let nodes: BTreeSet<String> = leaving.iter().map(|pod| pod.node.clone()).collect();
    let (gone, _watching) = Gone::start(cluster, uids, nodes);
    let draining = Draining {
        ctx,
        cluster,
        gone,
        method,
        grace_period_seconds,
        stall: Duration::from_secs(stall_seconds),
        requests: tokio::sync::Semaphore::new(AT_ONCE),
        deadline: timeout_seconds
            .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds))),
        done: AtomicU64::new(0),
        total: leaving.len() as u64,
    };
    let working = lines(&leaving).into_iter().map(|line| draining.line(line));
    let mut left: Vec<Left> = futures::future::join_all(working).await.into_iter().flatten().collect();
    let mut of = leaving.len();
    if left.is_empty() {
        let names: Vec<&str> = scope.nodes.iter().map(String::as_str).collect();
        let found = pods::on(cluster, &names, scope.pod_selector.as_deref()).await?;
        left = newcomers(&found, pods, scope).map(Left::came).collect();
        of += left.len();
    }
    if left.is_empty() {
        return Ok(outputs! { "gone" => leaving.len() });
    }
    let told = left.iter().map(|left| format!("{}: {}", left.pod.full_name(), left.why));
    Err(StepError::PodsLeft { left: left.len(), of, told: told.collect::<Vec<_>>().join("; ") })
}

/// A pod that did not go.
struct Left {
    pod: ObjectRef,
    why: String,
}

impl Left {
    fn came(pod: &Pod) -> Self {
        let node = &pod.node;
        let why =
            format!("it came to {node} after the plan was made; drain again: `rekindle node drain {node}`");
        Self { pod: pod.object.clone(), why }
    }
}

/// What came of asking for an eviction.
enum Asked {
    /// The pod goes, or is gone.
    Going,
    /// Its budget says not now.
    NotNow(String),
    /// It can't be evicted.
    Never(String),
}

/// Since when nothing has moved in a line, and how its budget stood then.
struct Patience {
    moved: Instant,
    seen: Option<Standing>,
}

/// How a budget stands.
#[derive(PartialEq)]
struct Standing {
    /// Healthy pods, those it wants, those it counts, and how many may go now.
    numbers: [i64; 4],
    /// Why it can permit nothing ever.
    never: Option<String>,
}

impl Standing {
    fn permits_one(&self) -> bool {
        let [.., allowed] = self.numbers;
        allowed > 0
    }
}

/// Pods of one budget stand in one line; each other one alone.
fn lines<'p>(pods: &[&'p DrainPod]) -> Vec<Vec<&'p DrainPod>> {
    let mut budgets: BTreeMap<&ObjectRef, Vec<&'p DrainPod>> = BTreeMap::new();
    let mut lines: Vec<Vec<&DrainPod>> = Vec::new();
    for pod in pods {
        match &pod.budget {
            Some(budget) => budgets.entry(budget).or_default().push(pod),
            None => lines.push(vec![*pod]),
        }
    }
    lines.extend(budgets.into_values());
    lines
}

impl Draining<'_> {
    /// Asks for one pod after the other, and waits until they are gone.
    async fn line(&self, line: Vec<&DrainPod>) -> Vec<Left> {
        let (mut left, mut going) = (Vec::new(), Vec::new());
        let mut waiting = VecDeque::from(line);
        let mut patience = Patience { moved: Instant::now(), seen: None };
        while let Some(pod) = waiting.pop_front() {
            if self.gone.is_gone(&pod.pod.uid) {
                self.tell(pod, "gone already");
                continue;
            }
            match self.ask(pod).await {
                Asked::Going => {
                    going.push((pod, Instant::now()));
                    patience.moved = Instant::now();
                }
                Asked::Never(why) => left.push(Left { pod: pod.pod.clone(), why }),
                Asked::NotNow(refused) => {
                    // another one of the line may be let go: one that is not ready anyway
                    waiting.push_back(pod);
                    if let Some(why) = self.give_up(pod, &refused, &mut patience).await {
                        left.extend(
                            waiting.drain(..).map(|pod| Left { pod: pod.pod.clone(), why: why.clone() }),
                        );
                    } else {
                        self.until_it_moves(pod, &patience).await;
                    }
                }
            }
        }
        for (pod, since) in going {
            match self.wait(pod, since).await {
                Ok(()) => self.tell(pod, "gone"),
                Err(why) => left.push(Left { pod: pod.pod.clone(), why }),
            }
        }
        left
    }

    /// Whether it is time to stop, and why.
    fn stop(&self) -> Option<String> {
        if self.ctx.interrupt.asked() {
            return Some("interrupted".into());
        }
        let late = self.deadline.is_some_and(|at| Instant::now() >= at);
        late.then(|| "the time given with --timeout is over".into())
    }

    /// Why a line is given up: the time is over, its budget can permit nothing, or nothing has moved for long.
    async fn give_up(&self, pod: &DrainPod, refused: &str, patience: &mut Patience) -> Option<String> {
        if let Some(why) = self.stop() {
            return Some(format!("{why}; {refused}"));
        }
        if let Some(budget) = &pod.budget {
            let seen = self.budget(budget).await;
            if seen != patience.seen {
                *patience = Patience { moved: Instant::now(), seen };
            } else if let Some(Standing { never: Some(why), .. }) = seen
                && patience.moved.elapsed() >= SETTLED
            {
                return Some(why);
            }
        }
        let stalled = patience.moved.elapsed() >= self.stall;
        stalled.then(|| format!("nothing has moved for {} s: {refused}", self.stall.as_secs()))
    }

    /// Waits until a pod's budget stands otherwise than last seen or permits one to go, or has been looked at for long
    /// enough.
    async fn until_it_moves(&self, pod: &DrainPod, patience: &Patience) {
        tokio::time::sleep(RETRY).await;
        let Some(budget) = &pod.budget else { return };
        for _ in 1..LOOKS {
            let seen = self.budget(budget).await;
            if self.stop().is_some() || seen != patience.seen || seen.is_none_or(|s| s.permits_one()) {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// How a budget stands.
    async fn budget(&self, budget: &ObjectRef) -> Option<Standing> {
        let found = self.cluster.get(&budget.path()).await.ok()??;
        let number =
            |name: &str| found.pointer(&format!("/status/{name}")).and_then(Value::as_i64).unwrap_or(0);
        let (desired, expected) = (number("desiredHealthy"), number("expectedPods"));
        let (current, allowed) = (number("currentHealthy"), number("disruptionsAllowed"));
        let never = (expected > 0 && desired >= expected && current >= expected).then(|| {
            format!(
                "{budget} needs {desired} healthy pods of {expected} and permits none to go, now or later: scale up by \
                 one, or change the budget"
            )
        });
        Some(Standing { numbers: [current, desired, expected, allowed], never })
    }

    async fn ask(&self, pod: &DrainPod) -> Asked {
        let (method, path, body) = self.request(&pod.pod);
        let _permit = self.requests.acquire().await;
        let answer = self.cluster.send(&method, &path, Sent::Object(&body)).await;
        match answer {
            // the eviction API answers "more than one budget" with a Status of failure
            Ok(status) if text(&status, "/status") == "Failure" => {
                Asked::Never(text(&status, "/message").into())
            }
            Ok(_) => Asked::Going,
            Err(error) => self.judge(pod, error).await,
        }
    }

    fn request(&self, pod: &ObjectRef) -> (Method, String, Value) {
        let mut options = json!({"preconditions": {"uid": pod.uid}});
        if let (Some(seconds), Some(map)) = (self.grace_period_seconds, options.as_object_mut()) {
            map.insert("gracePeriodSeconds".into(), seconds.into());
        }
        match self.method {
            DrainMethod::Delete => (Method::DELETE, pod.path(), options),
            DrainMethod::Evict => {
                let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "deleteOptions": options,
                    "metadata": {"name": pod.name, "namespace": pod.namespace}});
                (Method::POST, format!("{}/eviction", pod.path()), eviction)
            }
        }
    }

    async fn judge(&self, pod: &DrainPod, error: ClusterError) -> Asked {
        match &error {
            ClusterError::Refused { status: 404, .. } => {
                self.gone.set_gone(&pod.pod.uid);
                Asked::Going
            }
            // by UID: another pod has its name
            ClusterError::Refused { status: 409, .. } => match super::get(self.cluster, &pod.pod).await {
                Ok(None) => {
                    self.gone.set_gone(&pod.pod.uid);
                    Asked::Going
                }
                _ => Asked::NotNow(error.to_string()),
            },
            ClusterError::Refused { status: 429, message, .. } => Asked::NotNow(self.blocked(pod, message)),
            ClusterError::Refused { status: 500, message, .. } if message.contains("PodDisruptionBudget") => {
                Asked::Never(message.clone())
            }
            ClusterError::Refused { status: 500..=599, .. } | ClusterError::Unreachable { .. } => {
                Asked::NotNow(error.to_string())
            }
            _ => Asked::Never(error.to_string()),
        }
    }

    fn blocked(&self, pod: &DrainPod, message: &str) -> String {
        match &pod.budget {
            Some(budget) => format!("blocked by {budget}: {message}"),
            None => message.to_owned(),
        }
    }

    /// Waits until a pod that goes is gone: its grace period, and the stall time more.
    async fn wait(&self, pod: &DrainPod, since: Instant) -> Result<(), String> {
        let grace = self.grace_period_seconds.unwrap_or(pod.grace_seconds);
        let longest = Duration::from_secs(grace).saturating_add(self.stall);
        while !self.gone.is_gone(&pod.pod.uid) {
            let over = since.elapsed() >= longest;
            if let Some(why) = self.stop().or_else(|| over.then(|| self.overdue(since))) {
                // the last look counts: nothing is called left that is gone
                return match super::get(self.cluster, &pod.pod).await {
                    Ok(None) => Ok(()),
                    Ok(Some(present)) => Err(format!("{why}; it is still Terminating{}", held(&present))),
                    Err(error) => Err(format!("{why}; {error}")),
                };
            }
            self.gone.change(LOOK).await;
        }
        Ok(())
    }

    fn overdue(&self, since: Instant) -> String {
        format!(
            "its deletion was accepted {} s ago, and its kubelet has not ended it",
            since.elapsed().as_secs()
        )
    }

    /// One line a pod, and how far the whole is.
    fn tell(&self, pod: &DrainPod, what: &str) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let emit = |what| (self.ctx.sink)(&Event { at_ms: crate::now_ms(), what });
        emit(What::Note {
            text: format!("[{done}/{}] {} on {}: {what}", self.total, pod.pod.full_name(), pod.node),
        });
    }
}

/// What holds a pod that is going.
fn held(pod: &Value) -> String {
    let finalizers: Vec<&str> = list(pod, "/metadata/finalizers").iter().filter_map(Value::as_str).collect();
    if finalizers.is_empty() { String::new() } else { format!(", held by {}", finalizers.join(", ")) }
}
