//! What a drain does with each pod, decided before anything is touched.
//!
//! The filters are kubectl's (`kubectl drain`, pkg/drain/filters.go of k8s.io/kubectl), with all reasons told, not only
//! the last. Budgets are judged as the eviction API judges them (pkg/registry/core/pod/storage/eviction.go).

use super::{Base, names, refused, schedulable};
use crate::build::Steps;
use rekindle_model::finding::Finding;
use rekindle_model::kube::nodes::{Budget, DrainMethod, DrainPod, DrainScope, Fate, Node, Pod};
use rekindle_model::plan::{Phase, PlanOutcome};
use rekindle_model::step::{Reversibility, Step};

/// What was read.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The nodes to drain.
    pub nodes: Vec<Node>,
    /// The pods on them.
    pub pods: Vec<Pod>,
    /// All budgets of the pods' namespaces.
    pub budgets: Vec<Budget>,
    /// What is wrong with the nodes of the cluster as a whole (`diagnose::fleet::shared_cause`).
    pub shared_cause: Option<Finding>,
}

/// kubectl's flags.
#[derive(Clone, Debug)]
pub struct Flags {
    /// `--ignore-daemonsets`
    pub ignore_daemonsets: bool,
    /// `--delete-emptydir-data`
    pub delete_emptydir_data: bool,
    /// `--force`
    pub force: bool,
    /// `--pod-selector`; none = all pods.
    pub pod_selector: Option<String>,
    /// Eviction, or with `--disable-eviction` deletion.
    pub method: DrainMethod,
    /// `--grace-period`; none = each pod's own.
    pub grace_period_seconds: Option<u64>,
    /// `--timeout`; none = as long as something moves.
    pub timeout_seconds: Option<u64>,
    /// A pod is given up when nothing has moved for so long.
    pub stall_seconds: u64,
}

/// The plan of a drain.
pub fn plan(base: &Base, seen: &Seen, flags: &Flags) -> PlanOutcome {
    if let Some(finding) = &seen.shared_cause {
        return refused(
            format!("nothing is drained: {}", finding.summary),
            vec![finding.remedy.clone(), "look at all nodes with `rekindle node list`".into()],
        );
    }
    let mut faults = Vec::new();
    let mut pods: Vec<DrainPod> = Vec::new();
    for pod in &seen.pods {
        match judge(pod, seen, flags) {
            Ok(drained) => pods.push(drained),
            Err(reasons) => faults.push(format!("{}: {}", pod.object.full_name(), reasons.join("; "))),
        }
    }
    if !faults.is_empty() {
        let reason =
            format!("{} of {} pods may not be taken off their nodes as asked", faults.len(), seen.pods.len());
        return refused(reason, faults);
    }
    pods.sort_by(|a, b| (&a.node, &a.pod).cmp(&(&b.node, &b.pod)));
    let leaving = pods.iter().filter(|pod| pod.fate != Fate::Stays).count();
    if leaving == 0 && seen.nodes.iter().all(|node| node.unschedulable) {
        return PlanOutcome::NothingToDo("every node is cordoned, and no pod has to leave".into());
    }
    let warnings = warnings(seen, &pods, flags);
    let mut steps = Steps::default();
    for node in &seen.nodes {
        let change = schedulable(false);
        let step = Step::ChangeObject { object: node.object.clone(), changes: vec![change] };
        let summary = format!("cordon {}", node.name());
        steps.add(None, Phase::Change, Reversibility::Reversible, summary, step);
    }
    steps.stage();
    // also when nothing has to leave: what comes until all are cordoned is looked for at its end
    add_drain(&mut steps, seen, pods, leaving, flags);
    let summary = format!(
        "Drain {}: all are cordoned first, then {leaving} pods leave.",
        names(seen.nodes.iter().map(|node| &node.object))
    );
    let back = "`rekindle runs undo` (or `rekindle node uncordon`) makes the nodes schedulable again. Pods that left run \
                elsewhere and do not come back by themselves.";
    base.plan(summary, Vec::new(), steps.into_vec(), back.into(), warnings)
}

fn add_drain(steps: &mut Steps, seen: &Seen, pods: Vec<DrainPod>, leaving: usize, flags: &Flags) {
    let nodes = names(seen.nodes.iter().map(|node| &node.object));
    let verb = if flags.method == DrainMethod::Evict { "evict" } else { "delete" };
    let summary = if leaving == 0 {
        format!("see that no pod has come to {nodes} that would have to leave")
    } else {
        format!("{verb} {leaving} pods of {nodes}, as budgets allow, and wait until each is gone")
    };
    let step = Step::Drain {
        pods,
        scope: DrainScope {
            nodes: seen.nodes.iter().map(|node| node.name().to_owned()).collect(),
            pod_selector: flags.pod_selector.clone(),
            ignore_daemonsets: flags.ignore_daemonsets,
        },
        method: flags.method,
        grace_period_seconds: flags.grace_period_seconds,
        timeout_seconds: flags.timeout_seconds,
        stall_seconds: flags.stall_seconds,
    };
    steps.add(None, Phase::Change, Reversibility::Compensated, summary, step);
}

/// What becomes of a pod, or every reason why it may not be touched.
fn judge(pod: &Pod, seen: &Seen, flags: &Flags) -> Result<DrainPod, Vec<String>> {
    let drained = |fate, why: &str| DrainPod {
        pod: pod.object.clone(),
        node: pod.node.clone(),
        fate,
        budget: None,
        grace_seconds: pod.grace_seconds,
        empty_dirs: pod.empty_dirs.clone(),
        why: why.into(),
    };
    if pod.mirror {
        return Ok(drained(Fate::Stays, "a static pod: only its manifest on the node can end it"));
    }
    if pod.is_finished() {
        return Ok(drained(Fate::Ends, "it has finished"));
    }
    let of_daemonset = pod.is_of_daemonset();
    if of_daemonset && !pod.orphaned && flags.ignore_daemonsets {
        return Ok(drained(Fate::Stays, "its DaemonSet would start it here again"));
    }
    let mut reasons = Vec::new();
    if of_daemonset && !pod.orphaned {
        reasons.push("it belongs to a DaemonSet (leave it with --ignore-daemonsets)".to_owned());
    }
    if !pod.empty_dirs.is_empty() && !flags.delete_emptydir_data {
        reasons.push(format!("it has data in {} (let it be lost with --delete-emptydir-data)", dirs(pod)));
    }
    let lost = pod.controller.is_none() || pod.orphaned;
    if lost && !flags.force {
        let why = if pod.orphaned { "its controller is gone" } else { "it has no controller" };
        reasons.push(format!("{why}, nothing makes it again (let it be lost with --force)"));
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let mut drained = if pod.deleted_ms.is_some() {
        drained(Fate::Ends, "it is being deleted already")
    } else if lost {
        drained(Fate::Lost, "nothing makes it again")
    } else {
        drained(Fate::Moves, "")
    };
    if flags.method == DrainMethod::Evict && drained.fate != Fate::Ends {
        under_budget(&mut drained, pod, &seen.budgets);
    }
    Ok(drained)
}

fn dirs(pod: &Pod) -> String {
    let each = pod.empty_dirs.iter().map(|dir| match &dir.used_bytes {
        rekindle_model::Seen::Known(bytes) => format!("emptyDir {} ({bytes} bytes)", dir.name),
        rekindle_model::Seen::Unknown(_) => format!("emptyDir {}", dir.name),
    });
    each.collect::<Vec<_>>().join(", ")
}

/// Finds the budget over a pod, and whether it can permit its eviction.
fn under_budget(drained: &mut DrainPod, pod: &Pod, budgets: &[Budget]) {
    let over: Vec<&Budget> = budgets
        .iter()
        .filter(|b| b.object.namespace == pod.object.namespace && b.selector.selects(&pod.labels))
        .collect();
    let [budget] = over.as_slice() else {
        if over.len() > 1 {
            drained.fate = Fate::Blocked;
            let each: Vec<String> = over.iter().map(|b| b.object.full_name()).collect();
            drained.why = format!(
                "{} are all over it, and the eviction API takes one at most: narrow a selector",
                each.join(", ")
            );
        }
        return;
    };
    drained.budget = Some(budget.object.clone());
    let healthy_counts = pod.ready || !budget.unhealthy_may_go;
    if budget.never_permits() && healthy_counts {
        drained.fate = Fate::Blocked;
        drained.why = format!(
            "{} wants {} healthy of {} pods: none may go until it is scaled up or the budget is changed",
            budget.object, budget.desired_healthy, budget.expected_pods
        );
    } else if budget.disruptions_allowed == 0 && drained.why.is_empty() {
        drained.why = format!(
            "waits for {}: {} healthy pods, {} wanted",
            budget.object, budget.current_healthy, budget.desired_healthy
        );
    }
}

fn warnings(seen: &Seen, pods: &[DrainPod], flags: &Flags) -> Vec<String> {
    let mut warnings = Vec::new();
    let count = |fate| pods.iter().filter(|pod| pod.fate == fate).count();
    let (lost, blocked) = (count(Fate::Lost), count(Fate::Blocked));
    if lost > 0 {
        warnings.push(format!("{lost} pods are lost: nothing makes them again."));
    }
    if blocked > 0 {
        warnings.push(format!(
            "{blocked} pods are blocked for good as things stand: the drain will do the rest, stop there, and can be resumed."
        ));
    }
    let emptied = pods.iter().filter(|pod| pod.fate != Fate::Stays && !pod.empty_dirs.is_empty()).count();
    if emptied > 0 {
        warnings.push(format!("{emptied} pods lose the data of their emptyDir volumes."));
    }
    if flags.method == DrainMethod::Delete {
        warnings.push(
            "--disable-eviction deletes past all budgets: applications may lose too many pods at once."
                .into(),
        );
    }
    for node in seen.nodes.iter().filter(|node| !node.is_ready()) {
        warnings.push(format!(
            "{} is not Ready: its kubelet may end no pod, and what can't be ended is left. If its host is off, \
             `rekindle node fence {}` is the way.",
            node.name(),
            node.name()
        ));
    }
    warnings
}

/// The plan that makes nodes schedulable again.
pub fn uncordon(base: &Base, nodes: &[Node]) -> PlanOutcome {
    let cordoned: Vec<&Node> = nodes.iter().filter(|node| node.unschedulable).collect();
    if cordoned.is_empty() {
        return PlanOutcome::NothingToDo("no node of those is cordoned".into());
    }
    let mut steps = Steps::default();
    for node in &cordoned {
        let step = Step::ChangeObject { object: node.object.clone(), changes: vec![schedulable(true)] };
        let summary = format!("make {} schedulable again", node.name());
        steps.add(None, Phase::Change, Reversibility::Reversible, summary, step);
    }
    let summary = format!("Uncordon {}.", names(cordoned.iter().map(|node| &node.object)));
    base.plan(
        summary,
        Vec::new(),
        steps.into_vec(),
        "`rekindle runs undo` cordons them again.".into(),
        Vec::new(),
    )
}
