//! Refusals: what was tried, why there is no plan, and what is possible.

use crate::sources::{Choice, choose};
use crate::survey::Context;
use rekindle_model::diagnosis::{EtcdVerdict, MemberVerdict};
use rekindle_model::plan::{PlanOutcome, Refusal};
use rekindle_model::source::Identity;

/// A refusal with the candidates as they were looked at.
pub(crate) fn because(mut choice: Choice, reason: impl Into<String>, possible: Vec<String>) -> PlanOutcome {
    if let Some((_, sentence)) = choice.taken.and_then(|taken| choice.candidates.get_mut(taken)) {
        *sentence = format!("would be {sentence}");
    }
    PlanOutcome::Refused(Refusal { reason: reason.into(), candidates: choice.candidates, possible })
}

/// The state of etcd could not be told.
pub(crate) fn unknown(context: &Context<'_>, why: &str) -> PlanOutcome {
    let mut possible = unread_hosts(context);
    possible
        .push("run `rekindle check` for every line that could not be read, mend that, and plan again".into());
    because(choose(context), format!("the state of etcd could not be told: {why}"), possible)
}

/// No candidate may be restored.
pub(crate) fn no_source(context: &Context<'_>, choice: Choice) -> PlanOutcome {
    let reason = if choice.candidates.is_empty() {
        "etcd's data is lost and there is nothing to restore it from: no snapshot was given and no member holds data"
            .to_owned()
    } else {
        format!("etcd's data is lost and none of the {} candidates can be restored", choice.candidates.len())
    };
    let mut possible = vec![
        "give another snapshot: --snapshot PATH (a file, or a folder whose newest verified one is taken)"
            .to_owned(),
    ];
    let reason = match choice.candidates.iter().find(|(c, _)| c.point.is_some()) {
        Some((_, why)) if context.goal.go_back => format!("the point asked for can't be restored: {why}"),
        _ => reason,
    };
    let only_identity = choice.candidates.iter().any(|(c, _)| {
        matches!(c.identity, Identity::Unknown(_)) && c.facts.known().is_some_and(|f| f.violations.is_empty())
    });
    if only_identity && !context.goal.accept_unknown_identity {
        possible.push(
            "take a source whose cluster can't be told, when you know that it is this one: --accept-unknown-identity"
                .to_owned(),
        );
    }
    if choice.candidates.iter().any(|(c, _)| c.copied_db && c.facts.known().is_some())
        && !context.goal.skip_hash_check
    {
        possible.push("take the copied db, whose content nothing proves: --skip-hash-check".to_owned());
    }
    let corrupt = |f: &rekindle_model::etcd::DbFacts| f.alarms.iter().any(|a| a.contains("CORRUPT"));
    if choice.candidates.iter().any(|(c, _)| c.facts.known().is_some_and(corrupt))
        && !context.goal.accept_corrupt_alarm
    {
        possible.push("take the source with the CORRUPT alarm: --accept-corrupt-alarm".to_owned());
    }
    possible.extend(unread_hosts(context));
    possible.push(
        "look for another member's disk or an image of one: an etcd started on a copy of it can save a snapshot".to_owned(),
    );
    because(choice, reason, possible)
}

/// What can be done about hosts that could not be read.
pub(crate) fn unread_hosts(context: &Context<'_>) -> Vec<String> {
    let hosts = context.inventory.hosts.iter().filter(|h| !context.is_lost(&h.id));
    hosts
        .filter_map(|h| {
            let why = h.unreachable.as_ref()?;
            Some(format!(
                "reach {} ({why}), or give it up with --lost {} when it is off for good",
                h.id, h.id
            ))
        })
        .collect()
}

/// Why a restore may not go on for members that can't be told; none when all can.
pub(crate) fn undecided(context: &Context<'_>) -> Option<String> {
    context.diagnosis.members.iter().find_map(|(host, verdict)| match verdict {
        MemberVerdict::Unknown(why) if !context.is_lost(host) => {
            let what = match context.diagnosis.etcd {
                EtcdVerdict::EmptyImposter => "it may hold the only good copy",
                _ => "it may hold newer data",
            };
            Some(format!("the state of the member on {host} could not be told ({why}), and {what}"))
        }
        _ => None,
    })
}
