//! All parts of a plan mean the same cluster: names, peer URLs, token, settings, revision.

use super::{View, named};
use crate::manifest::{INITIAL_CLUSTER, INITIAL_CLUSTER_STATE, manifest_flag};
use crate::revision::evidence;
use rekindle_model::etcd::EtcdDefinition;
use rekindle_model::host::Component;
use rekindle_model::step::{NewMember, RestoreForm, Step};

/// One store, one token, one list of members; each member staged and proved once, on its own host, as its host is set
/// up.
pub(super) fn same_cluster(view: &View<'_>, notes: &mut Vec<String>) {
    let built = view.built();
    if built.len() > 1 {
        notes.push(format!("{} stores are built where one was expected", built.len()));
    }
    let Some(built) = built.first() else { return };
    for member in built.members {
        let Some(config) = view.inventory.host(&member.host).and_then(|h| h.etcd_config.known()) else {
            notes.push(format!("member {} is on {}, whose etcd is not known", member.name, member.host));
            continue;
        };
        if config.name != member.name || config.peer_urls != member.peer_urls {
            notes.push(format!("member {} is not set up like that on {}", member.name, member.host));
        }
        let staged = view.steps().filter(|s| {
            s.host.as_ref() == Some(&member.host)
                && matches!(&s.step, Step::StageMember { name, .. } if name == &member.name)
        });
        if staged.count() != 1 {
            notes.push(format!("member {} is not staged exactly once on {}", member.name, member.host));
        }
    }
    for step in view.steps() {
        match &step.step {
            Step::StageMember { members, token, .. } if members != built.members || token != built.token => {
                notes.push(format!("{} stages a member of another cluster", named(step)));
            }
            Step::ProveMember { members, .. } if *members != built.members.len() => {
                notes.push(format!(
                    "{} expects {members} members, {} are built",
                    named(step),
                    built.members.len()
                ));
            }
            _ => {}
        }
    }
}

/// Every restored member's manifest names all members and `existing`, whether it was edited or said so before.
pub(super) fn settings(view: &View<'_>, notes: &mut Vec<String>) {
    let built = view.built();
    for member in built.iter().flat_map(|b| b.members) {
        let Some(host) = view.inventory.host(&member.host) else { continue };
        let Some(config) = host.etcd_config.known() else { continue };
        if !matches!(config.defined_in, EtcdDefinition::Manifest(_)) {
            continue;
        }
        let written =
            view.steps().filter(|s| s.host.as_ref() == Some(&host.id)).find_map(|s| match &s.step {
                Step::ReplaceFile { path, text, .. }
                    if path.parent() == Some(host.manifest_dir.0.as_path())
                        && manifest_flag(text, INITIAL_CLUSTER).is_ok() =>
                {
                    Some(text.as_str())
                }
                _ => None,
            });
        let Some(text) = written.or_else(|| host.manifest(Component::Etcd).map(|m| m.text.as_str())) else {
            notes.push(format!("{} has no manifest of etcd after the plan", host.id));
            continue;
        };
        let all = built.iter().flat_map(|b| b.members).collect::<Vec<_>>();
        if manifest_flag(text, INITIAL_CLUSTER).ok().flatten() != Some(pairs(&all)) {
            notes.push(format!("etcd's manifest on {} does not name all members", host.id));
        }
        if manifest_flag(text, INITIAL_CLUSTER_STATE).ok().flatten().as_deref() != Some("existing") {
            notes.push(format!("etcd's manifest on {} does not say `existing`", host.id));
        }
    }
}

fn pairs(members: &[&NewMember]) -> String {
    let pairs = members.iter().flat_map(|m| m.peer_urls.iter().map(move |u| format!("{}={u}", m.name)));
    pairs.collect::<Vec<_>>().join(",")
}

/// A raised store starts above every revision in evidence.
pub(super) fn raised_above_evidence(view: &View<'_>, notes: &mut Vec<String>) {
    for built in view.built() {
        let RestoreForm::Bumped { to_revision } = built.form else { continue };
        for (revision, whose) in evidence(view.inventory).into_iter().filter(|(r, _)| r >= to_revision) {
            notes.push(format!(
                "{} raises to {to_revision}, but {revision} was seen: {whose}",
                named(built.at)
            ));
        }
    }
}
