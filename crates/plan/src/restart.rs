//! Nothing is lost: what is stopped is started, what was moved away is put back, what is broken is repaired.
//!
//! etcd first: an API server that finds no etcd exits, and kubelet waits longer after each time. So once the members
//! answer, kubelet is restarted where an API server was down with them, which makes it forget those waits.

use crate::build::Steps;
use crate::parts::{
    add_found_manifest, add_repair, add_start_unit, add_stop_unit, add_wait_component, add_wait_nodes,
    add_wait_peers_served, has_api_server,
};
use crate::parts_plan::{Parts, assemble};
use crate::refuse;
use crate::sources::{choose, none_needed};
use crate::survey::{Context, Survey, kubelet_unit, lost_nodes};
use crate::words::and_list;
use rekindle_model::Seen;
use rekindle_model::diagnosis::{ComponentVerdict, EtcdVerdict, MemberVerdict};
use rekindle_model::etcd::EtcdDefinition;
use rekindle_model::finding::Severity;
use rekindle_model::host::{Component, HostFacts, Layout};
use rekindle_model::plan::{Cost, Phase, PlanOutcome};
use rekindle_model::step::{Reversibility, Step};

/// Plans the starts, or says that nothing is wrong.
pub(crate) fn plan(context: &Context<'_>) -> PlanOutcome {
    let survey = context.survey(&[]);
    let starts = Starts::find(context);
    if starts.hosts.is_empty() {
        return nothing_to_start(context);
    }
    if let Some(why) = expired_below(context) {
        let possible = vec![format!("make them anew first: {RENEW}; it starts what is down as well")];
        return refuse::because(choose(context), why, possible);
    }
    let mut steps = Steps::default();
    starts.add_etcd(&mut steps, &survey);
    starts.add_clients(&mut steps);
    if steps.is_empty() {
        return nothing_to_start(context);
    }
    let steps = steps.into_vec();
    let mut hosts: Vec<_> = steps.iter().filter_map(|s| s.host.clone()).collect();
    hosts.sort();
    hosts.dedup();
    let names: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    PlanOutcome::Plan(Box::new(assemble(
        context,
        Parts {
            hosts,
            summary: format!(
                "No data is lost. What stands still on {} is started again; nothing is restored.",
                and_list(&names)
            ),
            choice: none_needed(context),
            cost: nothing_lost(),
            steps,
            how_to_go_back: format!(
                "`rekindle runs undo {}` stops what was started and puts replaced files back. No data is touched.",
                context.goal.run_id
            ),
            warnings: unresolved(context),
        },
    )))
}

/// What makes certificates anew.
const RENEW: &str = "rekindle certs renew --all, with every --host";
/// Certificates without which nothing that is started stays up.
const VITAL: [&str; 6] =
    ["kubelet-client", "kubelet.conf", "apiserver", "apiserver-etcd-client", "etcd-server", "etcd-peer"];

/// Why starting would be in vain: certificates that have expired.
fn expired_below(context: &Context<'_>) -> Option<String> {
    let hosts = context.inventory.hosts.iter().filter(|h| !context.is_lost(&h.id));
    hosts.into_iter().find_map(|host| {
        let now_s = context.inventory.host_now_s(host);
        let mut files = host.certificates.known()?.files.iter();
        let expired = files.find(|file| {
            VITAL.contains(&file.name.as_str())
                && file.certificate.known().is_some_and(|c| !c.is_valid_at(now_s))
        })?;
        Some(format!("{} on {} has expired: what is started would not stay up", expired.name, host.id))
    })
}

/// The cost of a plan that restores nothing.
pub(crate) fn nothing_lost() -> Cost {
    Cost {
        restored_revision: None,
        lost_end_revision: Seen::Unknown("nothing is restored".into()),
        evidence: "nothing is restored: what was acknowledged is in the members that hold data".into(),
        time_lost_seconds: Seen::Known(0),
    }
}

/// Nothing to start: all is well, or what is wrong is not to be mended by starting something.
fn nothing_to_start(context: &Context<'_>) -> PlanOutcome {
    let failures: Vec<_> =
        context.diagnosis.findings.iter().filter(|f| f.severity == Severity::Failure).collect();
    let unresolved = unresolved(context);
    if failures.is_empty() && unresolved.is_empty() && context.diagnosis.etcd == EtcdVerdict::Healthy {
        return PlanOutcome::NothingToDo(
            "all etcd members answer in one quorum and the control plane runs: there is nothing to recover"
                .into(),
        );
    }
    let root = failures.iter().find(|f| f.caused_by.is_none()).map(|f| f.summary.clone());
    let reason = unresolved.first().cloned().or(root).unwrap_or_else(|| "etcd has no quorum".into());
    let mut possible: Vec<String> =
        failures.iter().filter(|f| !f.remedy.is_empty()).map(|f| f.remedy.clone()).collect();
    possible.extend(refuse::unread_hosts(context));
    possible.dedup();
    refuse::because(choose(context), format!("there is nothing that starting would mend: {reason}"), possible)
}

/// What is down and can't be helped by this plan.
pub(crate) fn unresolved(context: &Context<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    for (host, components) in &context.diagnosis.components {
        for (component, verdict) in components {
            match verdict {
                ComponentVerdict::Down(why) => {
                    notes.push(format!("{component} on {host} is down, and nothing seen tells how to start it: {why}."));
                }
                ComponentVerdict::ManifestMissing => notes.push(format!(
                    "The manifest of {component} on {host} is gone and no copy was found: `kubeadm init phase` writes a \
                     new one."
                )),
                _ => {}
            }
        }
    }
    for host in context.inventory.hosts.iter().filter(|h| h.unreachable.is_some() && !context.is_lost(&h.id))
    {
        notes.push(format!("{} can't be reached, so nothing is done there.", host.id));
    }
    notes
}

/// What is to be started where.
pub(crate) struct Starts<'c, 'a> {
    context: &'c Context<'a>,
    hosts: Vec<&'a HostFacts>,
}

impl<'c, 'a> Starts<'c, 'a> {
    /// The hosts on which something can be started.
    pub(crate) fn find(context: &'c Context<'a>) -> Self {
        let reachable = |h: &&HostFacts| h.unreachable.is_none() && !context.is_lost(&h.id);
        let hosts = context.inventory.hosts.iter().filter(reachable);
        let mut starts = Self { context, hosts: Vec::new() };
        let hosts: Vec<&HostFacts> = hosts.filter(|h| starts.has_work(h)).collect();
        starts.hosts = hosts;
        starts
    }

    fn verdicts(&self, host: &HostFacts) -> impl Iterator<Item = (Component, &'a ComponentVerdict)> {
        let components = self.context.diagnosis.components.get(&host.id);
        components.into_iter().flatten().map(|(component, verdict)| (*component, verdict))
    }

    fn has_work(&self, host: &HostFacts) -> bool {
        use ComponentVerdict::{ContainerStopped, ManifestBroken, ManifestMoved, UnitStopped};
        let startable = |v: &ComponentVerdict| {
            matches!(v, UnitStopped { .. } | ManifestMoved { .. } | ManifestBroken { .. } | ContainerStopped)
        };
        self.kubelet_stopped(host)
            || self.etcd_stopped(host)
            || self.verdicts(host).any(|(_, v)| startable(v))
    }

    fn kubelet_stopped(&self, host: &HostFacts) -> bool {
        self.context.diagnosis.kubelets_stopped.contains(&host.id)
    }

    /// Whether this host's etcd is to be started: stopped with its data whole, and its definition at hand.
    fn etcd_stopped(&self, host: &HostFacts) -> bool {
        self.context.verdict(&host.id) == Some(&MemberVerdict::StoppedIntact)
            && !self.verdicts(host).any(|(c, v)| {
                c == Component::Etcd
                    && matches!(v, ComponentVerdict::ManifestMissing | ComponentVerdict::Down(_))
            })
    }

    /// Whether etcd's manifest was moved away: kubelet stops it, or has yet to, and then takes its time to start it again.
    fn etcd_put_back(&self, host: &HostFacts) -> bool {
        let moved = |verdict: &ComponentVerdict| matches!(verdict, ComponentVerdict::ManifestMoved { .. });
        !self.is_replaced(host) && self.verdicts(host).any(|(c, v)| c == Component::Etcd && moved(v))
    }

    /// Whether this host's etcd will have been started by the plan.
    fn etcd_starts(&self, host: &HostFacts) -> bool {
        self.etcd_stopped(host) || self.etcd_put_back(host)
    }

    /// Whether a member whose data is gone sits here: another road replaces it.
    fn is_replaced(&self, host: &HostFacts) -> bool {
        self.context.verdict(&host.id).is_some_and(MemberVerdict::is_lost)
    }

    /// Repairs, puts back and starts, members one after the other; ends when those that were stopped answer in a quorum.
    pub(crate) fn add_etcd(&self, steps: &mut Steps, survey: &Survey<'_>) {
        let mut members: Vec<_> = survey.members.iter().filter(|m| self.etcd_starts(m.host)).collect();
        members.sort_by_key(|member| self.hosts.iter().position(|host| host.id == member.host.id));
        steps.stage();
        for host in self.hosts.iter().filter(|h| !self.is_replaced(h)) {
            for component in Component::ALL {
                add_repair(self.context, steps, host, component, Phase::Start);
                add_found_manifest(
                    self.context,
                    steps,
                    host,
                    component,
                    Phase::Start,
                    Reversibility::Reversible,
                );
            }
            match host.layout {
                Layout::Units => self.add_etcd_unit(steps, host),
                Layout::StaticPods | Layout::None => self.add_kubelet(steps, host),
            }
            // the last one is followed by none
            if let Some(member) = members.iter().rev().skip(1).find(|m| m.host.id == host.id) {
                add_wait_peers_served(steps, &host.id, member.config);
                steps.stage();
            }
        }
        steps.stage();
        for member in members {
            let step = Step::ProveMember { endpoint: member.config.endpoint.clone(), members: survey.voters };
            let summary = format!("wait until member {} answers in a quorum", member.config.name);
            steps.add(Some(&member.host.id), Phase::Verify, Reversibility::Reversible, summary, step);
        }
    }

    fn add_etcd_unit(&self, steps: &mut Steps, host: &HostFacts) {
        if self.kubelet_stopped(host) {
            add_start_unit(steps, &host.id, kubelet_unit(host), false, Reversibility::Compensated);
        }
        let given = self.verdicts(host).find_map(|(component, verdict)| match verdict {
            ComponentVerdict::UnitStopped { unit } if component == Component::Etcd => Some(unit.as_str()),
            _ => None,
        });
        let unit = given.or_else(|| match &host.etcd_config.known()?.defined_in {
            EtcdDefinition::Unit { name, .. } if self.etcd_stopped(host) => Some(name.as_str()),
            _ => None,
        });
        if let Some(unit) = unit {
            add_start_unit(steps, &host.id, unit, false, Reversibility::Compensated);
        }
    }

    /// Starts kubelet, or restarts it where it waits to start a container again, or to end one.
    fn add_kubelet(&self, steps: &mut Steps, host: &HostFacts) {
        use ComponentVerdict::{ContainerStopped, ManifestBroken};
        let unit = kubelet_unit(host);
        let waits = self.verdicts(host).any(|(_, v)| matches!(v, ContainerStopped | ManifestBroken { .. }));
        if self.kubelet_stopped(host) {
            add_start_unit(steps, &host.id, unit, false, Reversibility::Compensated);
        } else if waits || self.etcd_starts(host) {
            add_restart_kubelet(steps, host);
        }
    }

    /// Starts what needs etcd, and waits for all of it.
    pub(crate) fn add_clients(&self, steps: &mut Steps) {
        let etcd_was_down = self.hosts.iter().any(|h| self.etcd_stopped(h));
        let all = || {
            self.context
                .inventory
                .hosts
                .iter()
                .filter(|h| h.unreachable.is_none() && !self.context.is_lost(&h.id))
        };
        steps.stage();
        for host in all() {
            let down = self
                .verdicts(host)
                .any(|(c, v)| c == Component::KubeApiserver && matches!(v, ComponentVerdict::Consequence));
            match host.layout {
                _ if self.is_replaced(host) => {}
                Layout::Units => self.add_unit(steps, host, Component::KubeApiserver),
                _ if down && etcd_was_down || self.is_shaken(host) => add_restart_kubelet(steps, host),
                _ => {}
            }
        }
        let is_down = |h: &&HostFacts| {
            let ready = h.api.known().is_some_and(|a| a.is_ready());
            !self.is_replaced(h) && (!ready || self.is_shaken(h))
        };
        steps.stage();
        for host in all().filter(is_down).filter(|h| has_api_server(h) && self.api_can_start(h)) {
            let summary = "wait until its API server is ready";
            steps.add(
                Some(&host.id),
                Phase::Ready,
                Reversibility::Reversible,
                summary,
                Step::WaitApiReady {},
            );
        }
        steps.stage();
        for host in all() {
            for component in [Component::KubeControllerManager, Component::KubeScheduler] {
                if host.layout == Layout::Units && !self.is_replaced(host) {
                    self.add_unit(steps, host, component);
                }
                let healthy = host.healthz.get(&component).and_then(|h| h.known()) == Some(&true);
                let hopeless = self.verdicts(host).any(|(c, v)| c == component && hopeless(v));
                let known =
                    self.verdicts(host).any(|(c, _)| c == component) || host.manifest(component).is_some();
                if known && (!healthy || self.is_shaken(host)) && !hopeless {
                    add_wait_component(steps, &host.id, component);
                }
            }
        }
        steps.stage();
        if let Some(host) = all().find(|h| has_api_server(h) && self.api_can_start(h)) {
            let nodes = lost_nodes(self.context, &self.context.survey(&[]));
            add_wait_nodes(steps, &host.id, nodes);
        }
    }

    /// Whether what runs on a host lost its etcd, and may end of it yet, however well it looked: kubelet would wait longer
    /// each time before it starts that again.
    fn is_shaken(&self, host: &HostFacts) -> bool {
        let quorum = matches!(self.context.diagnosis.etcd, EtcdVerdict::Healthy | EtcdVerdict::QuorumHolds);
        let any = self.hosts.iter().any(|h| self.etcd_starts(h));
        any && host.layout == Layout::StaticPods && (!quorum || self.etcd_starts(host))
    }

    fn api_can_start(&self, host: &HostFacts) -> bool {
        !self.verdicts(host).any(|(c, v)| c == Component::KubeApiserver && hopeless(v))
    }

    /// Starts a component's unit when it is down by itself or by etcd.
    fn add_unit(&self, steps: &mut Steps, host: &HostFacts, component: Component) {
        for (_, verdict) in self.verdicts(host).filter(|(c, _)| *c == component) {
            let unit = match verdict {
                ComponentVerdict::UnitStopped { unit } => Some(unit.as_str()),
                ComponentVerdict::Consequence => host.unit_of(component),
                _ => None,
            };
            if let Some(unit) = unit {
                add_start_unit(steps, &host.id, unit, false, Reversibility::Compensated);
            }
        }
    }
}

fn hopeless(verdict: &ComponentVerdict) -> bool {
    matches!(verdict, ComponentVerdict::Down(_) | ComponentVerdict::ManifestMissing)
}

fn add_restart_kubelet(steps: &mut Steps, host: &HostFacts) {
    add_stop_unit(steps, &host.id, kubelet_unit(host), false);
    add_start_unit(steps, &host.id, kubelet_unit(host), false, Reversibility::Compensated);
}
