//! A plan for people: what is wrong and why, what will be done where in which order, what it costs, how to go back.

use super::check::roots;
use super::units::{bytes, duration_ms, time};
use rekindle_model::Seen;
use rekindle_model::plan::{Plan, Refusal};
use rekindle_model::source::SourceCandidate;
use rekindle_model::step::Reversibility;
use std::fmt::Write;

/// The plan as text.
pub(crate) fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    if plan.cluster.is_none() || !plan.findings.is_empty() {
        let _ = writeln!(text, "What is wrong\n-------------");
        roots(&mut text, &plan.findings);
    }
    let _ = writeln!(text, "What will be done\n-----------------\n{}\n", plan.summary);
    candidates(&mut text, &plan.candidates);
    let _ = writeln!(text, "Steps");
    let last_reversible = plan.point_of_no_return();
    for step in &plan.steps {
        if Some(step.number) == last_reversible {
            let _ = writeln!(
                text,
                "  ---- point of no return: before it, `rekindle runs undo` puts everything back ----"
            );
        }
        let host = step.host.as_ref().map_or("here".to_owned(), ToString::to_string);
        let mark = match step.reversibility {
            Reversibility::Reversible => "reversible",
            Reversibility::Compensated => "compensated",
            Reversibility::Final => "final",
        };
        let _ = writeln!(text, "  {:>3}  {host}: {} [{mark}]", step.number, step.summary);
        super::drain::pods(&mut text, &step.step);
    }
    if plan.cluster.is_none() {
        cost(&mut text, plan);
    }
    let _ = writeln!(text, "\nHow to go back\n--------------\n{}", plan.how_to_go_back);
    for warning in &plan.warnings {
        let _ = writeln!(text, "\n‼ {warning}");
    }
    text
}

fn cost(text: &mut String, plan: &Plan) {
    let Some(revision) = plan.cost.restored_revision else {
        let _ = writeln!(text, "\nWhat it costs\n-------------\nNo data is restored and none is lost.");
        return;
    };
    let lost = match &plan.cost.lost_end_revision {
        Seen::Known(end) => {
            format!("{} revisions (restored {revision}, last known {end})", (end - revision).max(0))
        }
        Seen::Unknown(why) => format!("unknown how many revisions after {revision}: {why}"),
    };
    let seconds = match &plan.cost.time_lost_seconds {
        Seen::Known(seconds) => format!("at most {}", duration_ms(seconds.saturating_mul(1000))),
        Seen::Unknown(why) => format!("unknown: {why}"),
    };
    let _ = writeln!(text, "\nWhat it costs\n-------------\nlost writes: {lost}\ntime lost: {seconds}");
    let _ = writeln!(text, "evidence: {}", plan.cost.evidence);
}

fn candidates(text: &mut String, candidates: &[(SourceCandidate, String)]) {
    if candidates.is_empty() {
        return;
    }
    let _ = writeln!(text, "Where the data could come from");
    for (candidate, verdict) in candidates {
        match &candidate.point {
            Some(point) => {
                let _ = writeln!(text, "  {point}\n      {}, {}", point.made_of(), point.proof);
            }
            None => {
                let _ = writeln!(text, "  {}", candidate.kind);
            }
        }
        match &candidate.facts {
            Seen::Known(facts) => {
                let when = candidate.taken_ms.known().map_or("time unknown".to_owned(), |ms| time(*ms));
                let _ = writeln!(
                    text,
                    "      revision {}, {} live keys, {}, {when}",
                    facts.revision,
                    facts.live_keys,
                    bytes(facts.size_bytes)
                );
            }
            Seen::Unknown(why) => {
                let _ = writeln!(text, "      {why}");
            }
        }
        let _ = writeln!(text, "      {verdict}");
    }
    text.push('\n');
}

/// A refusal as text.
pub(crate) fn refusal(refusal: &Refusal) -> String {
    let mut text = format!("Refused: {}\nNothing was changed.\n\n", refusal.reason);
    candidates(&mut text, &refusal.candidates);
    if !refusal.possible.is_empty() {
        let _ = writeln!(text, "What is possible");
        for line in &refusal.possible {
            let _ = writeln!(text, "  - {line}");
        }
    }
    text
}
