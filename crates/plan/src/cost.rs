//! What a restore costs: both ends of the loss with their evidence, and a bound where an end is not known.

use crate::sources::{Choice, host_of, same_history};
use crate::survey::{Context, Survey};
use crate::words::{span, time};
use rekindle_model::Seen;
use rekindle_model::etcd::DbFacts;
use rekindle_model::plan::Cost;
use rekindle_model::source::{SourceCandidate, SourceKind};

/// The cost of restoring the candidate taken.
pub(crate) fn of_restore(context: &Context<'_>, survey: &Survey<'_>, choice: &Choice) -> Cost {
    let Some((source, facts)) = choice.source() else { return Cost::default() };
    let mut cost = match (&source.kind, survey.voters) {
        (SourceKind::SnapshotFile(_), _) => of_file(context, source, facts),
        (SourceKind::Served(_), 0 | 1) => nothing_lost(facts, "the only member still serves all it acknowledged, and is saved once more when the API servers have stopped"),
        (SourceKind::Store(host), 0 | 1) => of_only_store(context, host, facts),
        (SourceKind::OpenDb(_), 0 | 1) => Cost {
            lost_end_revision: Seen::Unknown("its WAL is gone with the last writes".into()),
            evidence: "the deleted but open db lacks what was acknowledged after its last commit; etcd commits every \
                       100 ms unless told otherwise"
                .into(),
            time_lost_seconds: Seen::Known(1),
            ..Cost::default()
        },
        _ => of_lone_survivor(context, survey, source, facts),
    };
    cost.restored_revision = Some(facts.revision);
    cost
}

/// End of acknowledged writes, for a loss that begins at `from_ms`: the first evidence of the failure, else now. An
/// evidence before the beginning is not that end: clients went on writing.
fn end(context: &Context<'_>, from_ms: i64) -> (i64, String) {
    let now = time(context.now_ms);
    match &context.diagnosis.failed_since {
        Some((ms, what)) if *ms > from_ms => (*ms, format!("the failure at {} ({what})", time(*ms))),
        Some(_) => (context.now_ms, format!("now, {now}")),
        None => (context.now_ms, format!("now, {now}, as nothing tells when it failed")),
    }
}

fn nothing_lost(facts: &DbFacts, evidence: &str) -> Cost {
    Cost {
        lost_end_revision: Seen::Known(facts.revision),
        evidence: evidence.to_owned(),
        time_lost_seconds: Seen::Known(0),
        ..Cost::default()
    }
}

/// A single member's own store: whole when its WAL can be read.
fn of_only_store(context: &Context<'_>, host: &rekindle_model::HostId, facts: &DbFacts) -> Cost {
    let data = context.inventory.host(host).and_then(|h| h.etcd_data.known());
    match data.map(|d| &d.wal) {
        Some(Seen::Known(_)) => {
            nothing_lost(facts, "the only member's db and WAL are whole: its WAL is replayed to the end")
        }
        _ => Cost {
            lost_end_revision: Seen::Unknown("the WAL can't be read".into()),
            evidence:
                "the only member's db is whole, its WAL is not: the db lacks what was acknowledged after its \
                       last commit; etcd commits every 100 ms unless told otherwise"
                    .into(),
            time_lost_seconds: Seen::Known(1),
            ..Cost::default()
        },
    }
}

/// A snapshot file: from its time to the end; the lost end is the highest revision still seen in its history.
fn of_file(context: &Context<'_>, source: &SourceCandidate, facts: &DbFacts) -> Cost {
    let last = last_seen(context, facts);
    let (end_ms, end_text) = end(context, source.taken_ms.known().copied().unwrap_or(i64::MIN));
    let time_lost_seconds = match source.taken_ms.known() {
        Some(taken) => Seen::Known((end_ms.saturating_sub(*taken) / 1000).max(0)),
        None => Seen::Unknown("the snapshot's time is not known".into()),
    };
    let from = source.taken_ms.known().map_or("a time not known".into(), |t| time(*t));
    let lost = match &last {
        Some((revision, whose)) => format!("revision {revision} was seen {whose}"),
        None => "no revision after the snapshot's is told by anything that is left".into(),
    };
    Cost {
        lost_end_revision: match last {
            Some((revision, _)) => Seen::Known(revision),
            None => Seen::Unknown("nothing that is left tells the last acknowledged revision".into()),
        },
        evidence: match &source.point {
            Some(point) => format!(
                "from {from}, when revision {} was the newest by what the vault tells, to {end_text}; {lost}",
                point.revision
            ),
            None => format!("from the snapshot (its file's time: {from}) to {end_text}; {lost}"),
        },
        time_lost_seconds,
        ..Cost::default()
    }
}

/// The highest revision of the same history seen on any host, not below the source's.
fn last_seen(context: &Context<'_>, facts: &DbFacts) -> Option<(i64, String)> {
    let mut seen: Vec<(i64, String)> = Vec::new();
    for host in &context.inventory.hosts {
        if let Some(db) = host.etcd_data.known().and_then(|d| d.db.known())
            && same_history(db, facts)
        {
            seen.push((db.revision, format!("in the db on {}", host.id)));
        }
    }
    for source in &context.inventory.sources {
        if let Some(other) = source.facts.known()
            && same_history(other, facts)
        {
            seen.push((other.revision, format!("in {}", source.kind)));
        }
    }
    seen.into_iter().filter(|(r, _)| *r > facts.revision).max_by_key(|(r, _)| *r)
}

/// A survivor of several members: the others may have acknowledged writes without it, so it never shows what was lost.
/// Its own file's time bounds nothing: an etcd that starts and fails writes to it too.
fn of_lone_survivor(
    context: &Context<'_>,
    survey: &Survey<'_>,
    source: &SourceCandidate,
    facts: &DbFacts,
) -> Cost {
    let mut bounds: Vec<(i64, String)> = Vec::new();
    // It holds at least what an older snapshot of its history holds, so the loss began after that.
    for other in &context.inventory.sources {
        if let (SourceKind::SnapshotFile(path), Some(other_facts), Some(taken)) =
            (&other.kind, other.facts.known(), other.taken_ms.known())
            && other_facts.revision <= facts.revision
            && same_history(other_facts, facts)
        {
            let (end_ms, end_text) = end(context, *taken);
            let seconds = (end_ms.saturating_sub(*taken) / 1000).max(1);
            bounds.push((
                seconds,
                format!("snapshot {path}, which it contains, of {}, to {end_text}", time(*taken)),
            ));
        }
    }
    let best = bounds.into_iter().min();
    let survivor = host_of(&source.kind).map_or_else(|| source.kind.to_string(), ToString::to_string);
    let may_lack = format!(
        "{survivor} is one of {} members: the others may have acknowledged writes that never reached it",
        survey.voters
    );
    let (evidence, time_lost_seconds) = match best {
        Some((bound, by)) => {
            (format!("{may_lack}; no more than {} of them, from {by}", span(bound)), Seen::Known(bound))
        }
        None => {
            let why = "nothing that is left bounds how far the survivor lagged behind";
            (format!("{may_lack}; {why}"), Seen::Unknown(why.into()))
        }
    };
    Cost { lost_end_revision: Seen::Unknown(may_lack), evidence, time_lost_seconds, ..Cost::default() }
}
