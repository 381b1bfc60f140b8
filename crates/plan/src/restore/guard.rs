//! What stops a restore before it starts: a member nobody named, a survivor that was not read, a full disk.

use crate::refuse;
use crate::sources::{Choice, host_of, readable};
use crate::space;
use crate::survey::{Context, Survey};
use rekindle_model::HostPath;
use rekindle_model::diagnosis::MemberVerdict;
use rekindle_model::etcd::DbFacts;
use rekindle_model::plan::PlanOutcome;
use rekindle_model::source::SourceKind;

/// Why a restore may not start, and what is possible then.
type Obstacle = (String, String);

/// Refuses where a restore would split the cluster, pass over a survivor, meet a full disk, or not fit the hosts.
pub(super) fn guard(
    context: &Context<'_>,
    survey: &Survey<'_>,
    choice: &Choice,
    facts: &DbFacts,
) -> Option<PlanOutcome> {
    let (reason, possible) = hosts(survey)
        .or_else(|| folders(context, survey))
        .or_else(|| room(context, survey, choice, facts))?;
    Some(refuse::because(choice.clone(), reason, vec![possible]))
}

/// Every member must be on a host at hand or attested lost.
fn hosts(survey: &Survey<'_>) -> Option<Obstacle> {
    if let Some((host, why)) = survey.unreadable.first() {
        return Some((
            format!("{host} can't be planned for: {why}"),
            format!("make it readable, or give it up with --lost {host} when it is off for good"),
        ));
    }
    if let Some(absent) = survey.uncovered.first() {
        let urls = absent.peer_urls.join(", ");
        return Some((
            format!("member {:?} ({urls}) is of this cluster, but its host was not given", absent.name),
            "name its host with --host, or with --lost (by address or member name) when it is off for good; a member \
             that comes back beside a restored cluster would make two of one"
                .to_owned(),
        ));
    }
    survey.members.is_empty().then(|| {
        (
            "no given host runs an etcd member".to_owned(),
            "name the control-plane hosts with --host".to_owned(),
        )
    })
}

/// Refuses where a member's data is whole but could not be read (its etcd holds it open and does not answer): it may be
/// the newest.
pub(super) fn unread_survivor(context: &Context<'_>, choice: &Choice) -> Option<PlanOutcome> {
    let survey = context.survey(&[]);
    let (reason, possible) = survey.members.iter().find_map(|member| {
        let host = &member.host.id;
        if !matches!(member.verdict, Some(MemberVerdict::StoppedIntact | MemberVerdict::NoQuorum)) {
            return None;
        }
        let mut why = "its etcd runs, but does not answer".to_owned();
        for source in context.inventory.sources.iter().filter(|s| host_of(&s.kind) == Some(host)) {
            why = readable(context.inventory, source).err()?;
        }
        Some((
            format!("the member on {host} holds whole data that could not be read: {why}"),
            format!(
                "plan again in a moment (it may be starting and failing over and over), or stop etcd on {host}, so that \
                 its data can be read, and plan again"
            ),
        ))
    })?;
    Some(refuse::because(choice.clone(), reason, vec![possible]))
}

/// The folders must be ones that can be swapped.
fn folders(context: &Context<'_>, survey: &Survey<'_>) -> Option<Obstacle> {
    for member in &survey.members {
        let (host, config) = (member.host, member.config);
        if context.goal.data_dir.as_ref() == Some(&config.data_dir) {
            return Some((
                format!("--data-dir {} is the data dir in use", config.data_dir),
                "leave --data-dir out: the data is swapped in place".to_owned(),
            ));
        }
        let device = |path: &HostPath| host.disks.get(path)?.known().map(|d| d.device);
        if let Some(wal_dir) = &config.wal_dir
            && let (Some(own), Some(above)) =
                (device(wal_dir), wal_dir.parent().map(HostPath::from).and_then(|p| device(&p)))
            && own != above
        {
            return Some((
                format!("the WAL dir {wal_dir} on {} is a mount point, so it can't be swapped", host.id),
                "set --wal-dir to a folder below the mount point, and plan again".to_owned(),
            ));
        }
    }
    None
}

/// Room for copies, the new store and the new members.
fn room(context: &Context<'_>, survey: &Survey<'_>, choice: &Choice, facts: &DbFacts) -> Option<Obstacle> {
    let held = |s: &&rekindle_model::source::SourceCandidate| host_of(&s.kind).is_some();
    let sizes = context.inventory.sources.iter().filter(held).filter_map(|s| s.facts.known());
    let mut saved: u64 = sizes.fold(0, |sum, f| sum.saturating_add(f.size_bytes));
    if choice.source().is_some_and(|(source, _)| matches!(source.kind, SourceKind::Served(_))) {
        // Saved twice: before, and once more when its clients are stopped.
        saved = saved.saturating_add(facts.size_bytes);
    }
    let lacking = space::lacking(context, &survey.members, facts.size_bytes, saved);
    (!lacking.is_empty()).then(|| {
        (
            format!("there is not enough room for the restore: {}", lacking.join("; ")),
            "make room there, or restore to another file system with --data-dir DIR".to_owned(),
        )
    })
}
