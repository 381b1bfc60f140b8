//! The pods of a drain for people: what becomes of each, and why.

use super::units::bytes;
use rekindle_model::Seen;
use rekindle_model::kube::nodes::{DrainPod, Fate};
use rekindle_model::step::Step;
use std::fmt::Write;

/// Adds a table of the pods, if the step is a drain. Those that stay are counted, the rest is told one by one.
pub(crate) fn pods(text: &mut String, step: &Step) {
    let Step::Drain { pods, .. } = step else { return };
    let width = pods.iter().map(|pod| pod.pod.full_name().len()).max().unwrap_or_default();
    for pod in pods.iter().filter(|pod| pod.fate != Fate::Stays) {
        let name = pod.pod.full_name();
        let _ = writeln!(text, "       {:<8} {name:<width$}  {}{}", fate(pod.fate), pod.node, more(pod));
    }
    let stay = pods.iter().filter(|pod| pod.fate == Fate::Stays).count();
    if stay > 0 {
        let _ = writeln!(text, "       {:<8} {stay} pods of DaemonSets, or static", fate(Fate::Stays));
    }
}

fn fate(fate: Fate) -> &'static str {
    match fate {
        Fate::Moves => "moves",
        Fate::Lost => "LOST",
        Fate::Ends => "ends",
        Fate::Blocked => "BLOCKED",
        Fate::Stays => "stays",
    }
}

fn more(pod: &DrainPod) -> String {
    let mut more = String::new();
    if !pod.why.is_empty() {
        let _ = write!(more, "  {}", pod.why);
    }
    for dir in &pod.empty_dirs {
        let held = match &dir.used_bytes {
            Seen::Known(count) => bytes(*count),
            Seen::Unknown(_) => "size unknown".into(),
        };
        let _ = write!(more, "  emptyDir {} is lost ({held})", dir.name);
    }
    more
}
