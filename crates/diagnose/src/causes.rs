//! What follows from what: the lowest failing layer is the root, and what its code says may follow from it is marked so.

use crate::codes;
use crate::report::Report;
use rekindle_model::finding::{CheckLine, Finding};

/// Marks consequences, and orders findings so that a cause stands before what follows from it: roots first, each rank
/// by layer. Check lines are put in layer order; their references follow.
pub(crate) fn link(report: Report) -> (Vec<CheckLine>, Vec<Finding>) {
    let Report { mut checks, findings, .. } = report;
    let causes: Vec<Option<usize>> = (0..findings.len()).map(|at| cause(&findings, at)).collect();
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

/// The cause of a finding: of those its code may follow from, on its own host or of the cluster, the one of the lowest
/// layer. Causes lie in a lower layer, or earlier in the list of the same layer, so that there is no circle.
fn cause(findings: &[Finding], at: usize) -> Option<usize> {
    let finding = findings.get(at)?;
    let entry = codes::entry(&finding.code);
    findings
        .iter()
        .enumerate()
        .filter(|(other, candidate)| {
            let below = (candidate.layer, *other) < (finding.layer, at);
            let near = candidate.host.is_none() || finding.host.is_none() || candidate.host == finding.host;
            below && entry.follows.contains(&candidate.code.as_str()) && near
        })
        .min_by_key(|(other, candidate)| (candidate.layer, *other))
        .map(|(other, _)| other)
}
