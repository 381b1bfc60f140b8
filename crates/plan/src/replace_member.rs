//! Quorum holds: members whose data is gone or can't be trusted are replaced, nothing is restored.
//!
//! A member that lost its log must not come back under its old id: it forgot what it voted for. So it is stopped, its
//! data moved aside, its id removed, and it joins as a learner under a new id and is promoted once it has caught up.
//! Its API server is stopped with it and starts after the promotion: before that it could only fail at its etcd, longer
//! each time, and what it remembers may be of another history.
//! Members that are down go first, all removed before one is added (etcd refuses to add while a voter is down); those
//! that still answer follow one by one, each only while the others make a quorum without it.

use crate::build::Steps;
use crate::manifest::EtcdEdit;
use crate::parts::{
    add_settings, add_start_clients, add_start_unit, add_stop_clients, add_stop_containers, add_stop_unit,
    has_api_server,
};
use crate::parts_plan::{Parts, assemble};
use crate::paths::Swap;
use crate::refuse;
use crate::restart::{self, Starts, nothing_lost, unresolved};
use crate::saves::add_saves;
use crate::sources::{choose, host_of, none_needed};
use crate::survey::{Context, Member, Survey, kubelet_unit};
use crate::words::and_list;
use rekindle_model::diagnosis::MemberVerdict;
use rekindle_model::etcd::{EtcdDefinition, EtcdEndpoint, EtcdMember};
use rekindle_model::host::Component;
use rekindle_model::plan::{Phase, PlanOutcome};
use rekindle_model::source::SourceKind;
use rekindle_model::step::{Reversibility, Step};
use rekindle_model::{HostId, MemberId};

/// How long a learner may take to catch up with a large store over a slow line.
const CATCH_UP_SECONDS: u64 = 900;

/// Plans the replacements; with none, the starts.
pub(crate) fn plan(context: &Context<'_>) -> PlanOutcome {
    let survey = context.survey(&[]);
    let bad: Vec<&Member<'_>> =
        survey.members.iter().filter(|m| m.verdict.is_some_and(MemberVerdict::is_lost)).collect();
    if bad.is_empty() && survey.lost.is_empty() {
        return restart::plan(context);
    }
    let Some(helper) = helper(&survey) else { return crate::restore::plan(context) };
    let Some(current) = member_list(&survey) else {
        let why = "no healthy member told who the members are, so none can be replaced";
        return refuse::because(choose(context), why, vec!["run `rekindle check` and plan again".into()]);
    };
    if let Some((host, why)) = survey.unreadable.first()
        && !bad.is_empty()
    {
        let possible =
            vec![format!("make {host} readable, or give it up with --lost {host} when it is off for good")];
        let why =
            format!("etcd adds no member while another may be down: {host} can't be planned for: {why}");
        return refuse::because(choose(context), why, possible);
    }
    let replace = Replace { context, survey: &survey, helper: &helper, current, bad };
    if !replace.keeps_quorum() {
        return crate::restore::plan(context);
    }
    match replace.steps() {
        Ok(steps) => replace.finish(steps),
        Err(why) => refuse::because(
            choose(context),
            why,
            vec!["put the text into the form kubeadm (or a plain unit file) has, and plan again".to_owned()],
        ),
    }
}

/// A member in quorum (or one that will be once it is started), and its host.
fn helper(survey: &Survey<'_>) -> Option<(HostId, EtcdEndpoint)> {
    let of = |wanted: &[MemberVerdict]| {
        let found = survey.members.iter().find(|m| m.verdict.is_some_and(|v| wanted.contains(v)))?;
        Some((found.host.id.clone(), found.config.endpoint.clone()))
    };
    of(&[MemberVerdict::Healthy]).or_else(|| of(&[MemberVerdict::NoQuorum, MemberVerdict::StoppedIntact]))
}

/// The cluster's members, as a healthy one lists them, else as one that is whole has them stored.
fn member_list(survey: &Survey<'_>) -> Option<Vec<EtcdMember>> {
    let whole = || survey.members.iter().filter(|m| m.verdict.is_some_and(|v| !v.is_lost()));
    let live = whole().find_map(|m| m.host.etcd_live.known()?.members.known());
    let list = live.or_else(|| whole().find_map(|m| Some(&m.host.etcd_data.known()?.db.known()?.members)))?;
    (!list.is_empty()).then(|| list.clone())
}

struct Replace<'c, 'a> {
    context: &'c Context<'a>,
    survey: &'c Survey<'a>,
    helper: &'c (HostId, EtcdEndpoint),
    current: Vec<EtcdMember>,
    bad: Vec<&'c Member<'a>>,
}

/// Whether a member still takes part, though it must be replaced.
fn answers(member: &Member<'_>) -> bool {
    matches!(member.verdict, Some(MemberVerdict::RejoinedWiped | MemberVerdict::ServingFromLostFiles))
}

impl<'a> Replace<'_, 'a> {
    /// The entry of the member list for a host's member, if it is in it.
    fn listed(&self, member: &Member<'_>) -> Option<&EtcdMember> {
        let urls = &member.config.peer_urls;
        self.current.iter().find(|m| {
            m.peer_urls.iter().any(|u| urls.contains(u))
                || (!m.name.is_empty() && m.name == member.config.name)
        })
    }

    /// Walks through the replacements: at each removal the members that run must make a quorum of those listed.
    fn keeps_quorum(&self) -> bool {
        let voters = self.current.iter().filter(|m| !m.is_learner).count();
        let whole = self.survey.members.iter().filter(|m| m.verdict.is_some_and(|v| !v.is_lost()));
        let mut running = whole.count() + self.bad.iter().filter(|m| answers(m)).count();
        let mut voters = voters;
        let listed_down = self.bad.iter().filter(|m| !answers(m) && self.listed(m).is_some()).count();
        for _ in 0..listed_down + self.lost_listed().len() {
            if running < voters / 2 + 1 {
                return false;
            }
            voters -= 1;
        }
        let down = self.bad.iter().filter(|m| !answers(m)).count();
        running += down;
        voters += down;
        // Each one that still answers leaves, is removed and comes back.
        self.bad.iter().all(|m| !answers(m) || running > voters / 2 + 1)
    }

    /// Members of lost hosts that are still listed.
    fn lost_listed(&self) -> Vec<&EtcdMember> {
        let lost = &self.survey.lost;
        self.current
            .iter()
            .filter(|m| lost.iter().any(|l| l.peer_urls.iter().any(|u| m.peer_urls.contains(u))))
            .collect()
    }

    fn steps(&self) -> Result<Vec<rekindle_model::plan::PlannedStep>, String> {
        let mut steps = Steps::default();
        let starts = Starts::find(self.context);
        self.add_saves(&mut steps);
        starts.add_etcd(&mut steps, self.survey);
        let (answering, down): (Vec<&Member<'a>>, Vec<&Member<'a>>) =
            self.bad.iter().copied().partition(|m| answers(m));
        let mut present = self.current.clone();
        steps.stage();
        for member in &down {
            self.add_stop(&mut steps, member);
        }
        steps.stage();
        for member in &down {
            self.add_remove(&mut steps, self.listed(member), &mut present);
        }
        for member in self.lost_listed() {
            self.add_remove(&mut steps, Some(member), &mut present);
        }
        for member in down {
            self.add_join(&mut steps, member, &mut present)?;
        }
        for member in answering {
            steps.stage();
            self.add_stop(&mut steps, member);
            steps.stage();
            self.add_remove(&mut steps, self.listed(member), &mut present);
            self.add_join(&mut steps, member, &mut present)?;
        }
        starts.add_clients(&mut steps);
        Ok(steps.into_vec())
    }

    /// Saves what is stopped, and a healthy member beside it.
    fn add_saves(&self, steps: &mut Steps) {
        steps.stage();
        add_saves(self.context, steps, |kind| {
            let host = host_of(kind);
            self.bad.iter().any(|m| Some(&m.host.id) == host)
                || (Some(&self.helper.0) == host && matches!(kind, SourceKind::Served(_)))
        });
    }

    fn add_stop(&self, steps: &mut Steps, member: &Member<'_>) {
        let host = &member.host.id;
        add_stop_clients(self.context, steps, member.host);
        match &member.config.defined_in {
            EtcdDefinition::Manifest(_) => add_stop_containers(steps, host, &Component::ALL),
            EtcdDefinition::Unit { name, .. } => add_stop_unit(steps, host, name, true),
        }
        let swap = Swap::in_place(member.host, member.config, &self.context.goal.run_id);
        for (from, to) in swap.asides() {
            let step = Step::Rename { from, to, optional: true };
            let summary = "move the old data aside, on its own file system";
            steps.add(Some(host), Phase::Restore, Reversibility::Reversible, summary, step);
        }
    }

    fn add_remove(&self, steps: &mut Steps, member: Option<&EtcdMember>, present: &mut Vec<EtcdMember>) {
        let Some(member) = member else { return };
        present.retain(|m| m.id != member.id);
        let (host, endpoint) = self.helper;
        let step = Step::RemoveMember { endpoint: endpoint.clone(), member: member.clone() };
        let summary = format!("remove member {} ({}) from the cluster", member.name, member.id);
        steps.add(Some(host), Phase::Restore, Reversibility::Final, summary, step);
    }

    /// Joins a member anew: learner, settings, start, promotion, and its API server after it.
    fn add_join(
        &self,
        steps: &mut Steps,
        member: &Member<'a>,
        present: &mut Vec<EtcdMember>,
    ) -> Result<(), String> {
        let name = &member.config.name;
        let peer_urls = member.config.peer_urls.clone();
        let (helper, endpoint) = self.helper;
        steps.stage();
        let step = Step::AddLearner { endpoint: endpoint.clone(), peer_urls: peer_urls.clone() };
        let summary = format!("add {name} as a learner, under a new id");
        steps.add(Some(helper), Phase::Restore, Reversibility::Compensated, summary, step);
        present.push(EtcdMember {
            id: MemberId(0),
            name: name.clone(),
            peer_urls: peer_urls.clone(),
            client_urls: member.config.client_urls.clone(),
            is_learner: true,
        });
        steps.stage();
        let edit = EtcdEdit { initial_cluster: self.named(present), data_dir: None };
        let reload = add_settings(self.context, steps, member, &edit)?;
        match &member.config.defined_in {
            EtcdDefinition::Manifest(_) => {
                let unit = kubelet_unit(member.host);
                add_start_unit(steps, &member.host.id, unit, false, Reversibility::Compensated);
            }
            EtcdDefinition::Unit { name, .. } => {
                add_start_unit(steps, &member.host.id, name, reload, Reversibility::Compensated);
            }
        }
        steps.stage();
        let step =
            Step::PromoteLearner { endpoint: endpoint.clone(), peer_urls, timeout_seconds: CATCH_UP_SECONDS };
        let summary = format!("promote {name} once it has caught up, then compare HashKV of all members");
        steps.add(Some(helper), Phase::Verify, Reversibility::Final, summary, step);
        steps.stage();
        add_start_clients(self.context, steps, member.host, true, Reversibility::Compensated);
        if has_api_server(member.host) {
            let summary = "wait until its API server is ready";
            steps.add(
                Some(&member.host.id),
                Phase::Ready,
                Reversibility::Reversible,
                summary,
                Step::WaitApiReady {},
            );
        }
        steps.stage();
        add_start_clients(self.context, steps, member.host, false, Reversibility::Compensated);
        Ok(())
    }

    /// Names and peer URLs for `--initial-cluster`; a member that never started is named as its host has it.
    fn named(&self, present: &[EtcdMember]) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        for member in present {
            let config = self.survey.members.iter().map(|m| m.config);
            let by_host = config
                .filter(|c| c.peer_urls.iter().any(|u| member.peer_urls.contains(u)))
                .map(|c| c.name.clone())
                .next();
            let name = if member.name.is_empty() { by_host.unwrap_or_default() } else { member.name.clone() };
            pairs.extend(member.peer_urls.iter().map(|u| (name.clone(), u.clone())));
        }
        pairs
    }

    fn finish(&self, steps: Vec<rekindle_model::plan::PlannedStep>) -> PlanOutcome {
        let touched = |id: &HostId| steps.iter().any(|s| s.host.as_ref() == Some(id));
        let hosts = self.context.inventory.hosts.iter().map(|h| h.id.clone()).filter(touched).collect();
        let names: Vec<String> = self.bad.iter().map(|m| m.config.name.clone()).collect();
        let lost: Vec<String> = self.lost_listed().iter().map(|m| m.name.clone()).collect();
        let mut summary =
            "Enough members hold all data for a quorum, so nothing is restored and nothing is lost."
                .to_owned();
        if !names.is_empty() {
            let how = match names.as_slice() {
                [one] => {
                    format!(" {one} joins anew under a new member id and copies the data from the others.")
                }
                _ => format!(
                    " {} join anew under new member ids, one after the other, and copy the data from the others.",
                    and_list(&names)
                ),
            };
            summary.push_str(&how);
        }
        let mut warnings = unresolved(self.context);
        if !lost.is_empty() {
            summary.push_str(&format!(" Removed, as the host is lost: {}.", and_list(&lost)));
            warnings.push(format!(
                "You attest that the host of {} is off for good; add a new member as a learner when there is a host.",
                and_list(&lost)
            ));
        }
        warnings.push("While a member is being replaced, the others must all stay up.".to_owned());
        let run = &self.context.goal.run_id;
        let how_to_go_back = format!(
            "Until a member is removed from the cluster, `rekindle runs undo {run}` starts it again as it was. After \
             that undo refuses and `rekindle runs resume {run}` goes on. Old data stays in the folders moved aside."
        );
        PlanOutcome::Plan(Box::new(assemble(
            self.context,
            Parts {
                hosts,
                summary,
                choice: none_needed(self.context),
                cost: nothing_lost(),
                steps,
                how_to_go_back,
                warnings,
            },
        )))
    }
}
