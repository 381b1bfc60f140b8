//! What follows from what: the lowest failing layer is the root, and what its code says may follow from it is marked so.

use crate::codes;
use crate::report::Report;
use rekindle_model::finding::{CheckLine, Finding, Layer};
use rekindle_model::host::Component;

/// Marks consequences, and orders findings so that a cause stands before what follows from it: roots first, each rank
/// by layer. Check lines are put in layer order; their references follow.
pub(crate) fn link(report: Report) -> (Vec<CheckLine>, Vec<Finding>) {
    let Report { mut checks, findings, about, .. } = report;
    let causes: Vec<Option<usize>> = (0..findings.len()).map(|at| cause(&findings, &about, at)).collect();
    let depth = |mut at: usize| {
        let mut depth = 0;
        while let Some(Some(next)) = causes.get(at) {
            depth += 1;
            at = *next;
            if depth > causes.len() {
                break;
            }
        }
        depth
    };
    let mut order: Vec<usize> = (0..findings.len()).collect();
    order.sort_by_key(|&at| {
        (depth(at), findings.get(at).map(|f| (f.layer, std::cmp::Reverse(f.severity))), at)
    });
    let place = |old: usize| order.iter().position(|&at| at == old);
    let sorted = order
        .iter()
        .filter_map(|&at| {
            let mut finding = findings.get(at)?.clone();
            finding.caused_by = causes.get(at).copied().flatten().and_then(place);
            Some(finding)
        })
        .collect();
    for check in &mut checks {
        check.finding = check.finding.and_then(place);
    }
    checks.sort_by_key(|check| check.layer);
    (checks, sorted)
}

/// The cause of a finding: of those its code may follow from that bear on it, the one of the lowest layer. Causes lie
/// at a lower rank, or earlier in the list of the same rank, so that there is no circle.
fn cause(findings: &[Finding], about: &[Option<Component>], at: usize) -> Option<usize> {
    let finding = findings.get(at)?;
    let entry = codes::entry(&finding.code);
    let component = |at: usize| about.get(at).copied().flatten();
    findings
        .iter()
        .enumerate()
        .filter(|(other, candidate)| {
            (rank(candidate, component(*other)), *other) < (rank(finding, component(at)), at)
                && entry.follows.contains(&candidate.code.as_str())
                && bears_by_place(finding, candidate)
                && bears_by_component(finding.layer, component(at), component(*other))
        })
        .min_by_key(|(other, candidate)| (rank(candidate, component(*other)), *other))
        .map(|(other, _)| other)
}

/// On the same host, or of the whole cluster. Of another host only where members of etcd keep each other from working,
/// and where the cluster as a whole suffers (but a node without a host of ours is no whole).
fn bears_by_place(finding: &Finding, candidate: &Finding) -> bool {
    let across = match finding.code.as_str() {
        "RK-E06" => candidate.code == "RK-E08",
        "RK-E07" => true,
        _ => finding.host.is_none() && finding.layer != Layer::Nodes,
    };
    candidate.host.is_none() || candidate.host == finding.host || across
}

/// A component suffers from itself and those started before it; etcd from its own definition only.
fn bears_by_component(layer: Layer, suffers: Option<Component>, broken: Option<Component>) -> bool {
    let Some(broken) = broken else { return true };
    match (layer, suffers) {
        (_, Some(suffers)) => broken <= suffers && (broken == suffers || broken <= Component::KubeApiserver),
        (Layer::Etcd, None) => broken == Component::Etcd,
        (Layer::ApiServer | Layer::Vip, None) => broken <= Component::KubeApiserver,
        (_, None) => true,
    }
}

/// Layers in the order of causes: the other components than etcd that do not run or work come after etcd, what defines
/// them (manifests, flags, certificates) before it.
fn rank(finding: &Finding, about: Option<Component>) -> (Layer, bool) {
    let state = matches!(finding.code.as_str(), "RK-C01" | "RK-C06" | "RK-C07");
    match about {
        Some(component) if state && component != Component::Etcd => (Layer::Etcd, true),
        _ => (finding.layer, false),
    }
}
