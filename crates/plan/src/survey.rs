//! Whose members they are: the cluster's members by all evidence, matched with the hosts that were given.
//!
//! A restore that leaves a living member out makes two clusters of one, so a member that no given host runs and no
//! `--lost` names stops the planning.

use rekindle_model::HostId;
use rekindle_model::diagnosis::{Diagnosis, MemberVerdict};
use rekindle_model::etcd::{EtcdConfig, EtcdMember};
use rekindle_model::host::{HostFacts, Layout};
use rekindle_model::inventory::Inventory;
use rekindle_model::plan::Goal;
use std::collections::BTreeMap;

/// What planning works on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) inventory: &'a Inventory,
    pub(crate) diagnosis: &'a Diagnosis,
    pub(crate) goal: &'a Goal,
    pub(crate) now_ms: i64,
}

/// A host that runs (or ran) a member, with the member's settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) host: &'a HostFacts,
    pub(crate) config: &'a EtcdConfig,
    pub(crate) verdict: Option<&'a MemberVerdict>,
}

/// A member without a host at hand: lost with its host, or not covered by any host given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Absent {
    pub(crate) name: String,
    pub(crate) peer_urls: Vec<String>,
}

/// The cluster's members.
#[derive(Debug)]
pub(crate) struct Survey<'a> {
    /// Members on hosts at hand, in the order of the hosts.
    pub(crate) members: Vec<Member<'a>>,
    /// Members of hosts attested lost.
    pub(crate) lost: Vec<Absent>,
    /// Members nobody told where they are.
    pub(crate) uncovered: Vec<Absent>,
    /// Hosts of a control plane whose etcd can't be planned for, with the reason.
    pub(crate) unreadable: Vec<(HostId, String)>,
    /// How many voting members the cluster had.
    pub(crate) voters: usize,
}

impl<'a> Context<'a> {
    /// Verdict over a host's member.
    pub(crate) fn verdict(&self, host: &HostId) -> Option<&'a MemberVerdict> {
        self.diagnosis.members.get(host)
    }

    /// Whether the operator attests that a host is off for good.
    pub(crate) fn is_lost(&self, host: &HostId) -> bool {
        self.inventory.lost_hosts.contains(host)
    }

    /// Members, hosts and what is missing. `extra` are members by the source that is restored.
    pub(crate) fn survey(&self, extra: &[EtcdMember]) -> Survey<'a> {
        let mut members = Vec::new();
        let mut unreadable = Vec::new();
        for host in self.inventory.hosts.iter().filter(|h| !self.is_lost(&h.id)) {
            if let Some(why) = &host.unreachable {
                unreadable.push((host.id.clone(), format!("the host can't be reached: {why}")));
            } else if let Some(config) = host.etcd_config.known() {
                members.push(Member { host, config, verdict: self.verdict(&host.id) });
            } else if host.layout != Layout::None {
                let why = host.etcd_config.why_unknown().unwrap_or_default();
                unreadable.push((host.id.clone(), format!("etcd's settings could not be read: {why}")));
            }
        }
        let known = self.known_members(&members, extra);
        let mut lost: Vec<Absent> = Vec::new();
        let mut uncovered = Vec::new();
        for absent in known.iter().filter(|k| !members.iter().any(|m| covers(m.config, k))) {
            let attested = self.inventory.lost_hosts.iter().any(|id| names_host(id, absent));
            if attested { lost.push(absent.clone()) } else { uncovered.push(absent.clone()) }
        }
        let voters = members.len() + lost.len() + uncovered.len();
        Survey { members, lost, uncovered, unreadable, voters }
    }

    /// Voting members by evidence: what survivors and their dbs list, and what the source lists; only when nothing of that is
    /// there, the `--initial-cluster` settings (they name who there was when a member joined, and grow old).
    fn known_members(&self, members: &[Member<'a>], extra: &[EtcdMember]) -> Vec<Absent> {
        let mut by_url: BTreeMap<Vec<String>, String> = BTreeMap::new();
        let mut add = |name: &str, urls: &[String]| {
            let mut urls = urls.to_vec();
            urls.sort();
            let known = by_url.entry(urls).or_default();
            if known.is_empty() {
                name.clone_into(known);
            }
        };
        for member in members {
            let live = member.host.etcd_live.known().and_then(|l| l.members.known());
            let stored = member.host.etcd_data.known().and_then(|d| d.db.known()).map(|d| &d.members);
            let listed = live.into_iter().chain(stored).flatten().filter(|m| !m.is_learner);
            listed.for_each(|m| add(&m.name, &m.peer_urls));
        }
        extra.iter().filter(|m| !m.is_learner).for_each(|m| add(&m.name, &m.peer_urls));
        if by_url.is_empty() {
            for (name, url) in members.iter().flat_map(|m| &m.config.initial_cluster) {
                let mut urls = vec![url.clone()];
                urls.sort();
                by_url.entry(urls).or_insert_with(|| name.clone());
            }
        }
        by_url.into_iter().map(|(peer_urls, name)| Absent { name, peer_urls }).collect()
    }
}

impl Survey<'_> {
    /// Members that hold data by their verdict.
    pub(crate) fn intact(&self) -> usize {
        use MemberVerdict::{Healthy, NoQuorum, StoppedIntact};
        self.members.iter().filter(|m| matches!(m.verdict, Some(Healthy | StoppedIntact | NoQuorum))).count()
    }

    /// How many members a quorum needs.
    pub(crate) fn quorum(&self) -> usize {
        self.voters / 2 + 1
    }
}

/// Whether so many members are whole that starting them brings quorum back: then nothing needs to be lost.
pub(crate) fn intact_quorum(context: &Context<'_>) -> bool {
    let survey = context.survey(&[]);
    survey.voters > 1 && survey.intact() >= survey.quorum()
}

fn covers(config: &EtcdConfig, absent: &Absent) -> bool {
    (!absent.name.is_empty() && config.name == absent.name)
        || absent.peer_urls.iter().any(|url| config.peer_urls.contains(url))
}

/// Whether the user's name of a host (`root@10.0.0.13`, `cp3`) means this member's host.
fn names_host(id: &HostId, absent: &Absent) -> bool {
    let bare = id.bare();
    absent.name == bare || absent.peer_urls.iter().any(|url| url_host(url) == bare)
}

/// Nodes that nobody need wait for: those of lost members, and those that are named like lost hosts or have their
/// addresses, whose members may have left long ago.
pub(crate) fn lost_nodes(context: &Context<'_>, survey: &Survey<'_>) -> Vec<String> {
    let mut names: Vec<String> = survey.lost.iter().map(|l| l.name.clone()).collect();
    for node in context.inventory.cluster.nodes.known().into_iter().flatten() {
        let mut hosts = context.inventory.lost_hosts.iter().map(HostId::bare);
        let lost = hosts.any(|host| node.name == host || node.addresses.iter().any(|a| a == host));
        if lost && !names.contains(&node.name) {
            names.push(node.name.clone());
        }
    }
    names
}

/// The host part of a URL, without brackets.
pub(crate) fn url_host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or(rest);
    match rest.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => rest.rsplit_once(':').map_or(rest, |(host, _)| host),
    }
}

/// The kubelet's unit.
pub(crate) fn kubelet_unit(host: &HostFacts) -> &str {
    host.unit_named("kubelet").unwrap_or("kubelet.service")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_host_is_known_by_address_or_member_name() {
        let member = Absent { name: "cp3".into(), peer_urls: vec!["https://10.0.0.13:2380".into()] };
        for name in ["root@10.0.0.13", "10.0.0.13", "cp3", "root@cp3"] {
            assert!(names_host(&HostId(name.into()), &member), "{name}");
        }
        assert!(!names_host(&HostId("10.0.0.1".into()), &member));
        assert_eq!(url_host("https://[fd00::1]:2380"), "fd00::1");
    }
}
