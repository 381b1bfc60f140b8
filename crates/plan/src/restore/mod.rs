//! The full restore: quorum is lost, so every member starts anew from one source, in a cluster of its own token.
//!
//! Order: everything that holds data is saved; the new store is built and staged while nothing is stopped, so that a
//! full disk or a bad source costs nothing; then all stop, all swap, all start; every member is proved; only then do
//! API servers start, and that is the point of no return. A source that still serves writes, or an empty cluster that
//! sits in the place of the lost one, is stopped first instead.

mod data;
mod guard;
mod open;
mod words;

use crate::build::Steps;
use crate::manifest::EtcdEdit;
use crate::parts_plan::{Parts, assemble};
use crate::saves::add_saves;
use crate::sources::{Choice, choose};
use crate::survey::{Context, Member, Survey};
use crate::{refuse, revision};
use rekindle_model::diagnosis::EtcdVerdict;
use rekindle_model::etcd::DbFacts;
use rekindle_model::plan::{Plan, PlanOutcome, PlannedStep};
use rekindle_model::source::SourceCandidate;
use rekindle_model::step::{NewMember, RestoreForm};

/// What the steps of one restore share.
struct Restore<'c, 'a> {
    context: &'c Context<'a>,
    survey: &'c Survey<'a>,
    source: &'c SourceCandidate,
    facts: &'c DbFacts,
    new_members: Vec<NewMember>,
    form: RestoreForm,
    edit: EtcdEdit,
}

/// Plans a full restore, or refuses.
pub(crate) fn plan(context: &Context<'_>) -> PlanOutcome {
    let choice = choose(context);
    if let Some(why) = refuse::undecided(context) {
        let possible =
            vec!["mend what could not be read on that host, or give it up with --lost HOST".to_owned()];
        return refuse::because(choice, why, possible);
    }
    if let Some(refusal) = guard::unread_survivor(context, &choice) {
        return refusal;
    }
    let Some((source, facts)) = choice.source().map(|(s, f)| (s.clone(), f.clone())) else {
        return refuse::no_source(context, choice);
    };
    let survey = context.survey(&facts.members);
    if let Some(refusal) = guard::guard(context, &survey, &choice, &facts) {
        return refusal;
    }
    let form = match form(context, &source) {
        Ok(form) => form,
        Err(why) => return refuse::because(choice, why, vec!["restore as it is: --exact".into()]),
    };
    let new_members: Vec<NewMember> = survey.members.iter().map(new_member).collect();
    let pairs = new_members.iter().flat_map(|m| m.peer_urls.iter().map(|u| (m.name.clone(), u.clone())));
    let edit = EtcdEdit { initial_cluster: pairs.collect(), data_dir: None };
    let restore =
        Restore { context, survey: &survey, source: &source, facts: &facts, new_members, form, edit };
    match restore.steps(&choice) {
        Ok(steps) => PlanOutcome::Plan(Box::new(restore.finish(steps, choice.clone()))),
        Err(why) => {
            let possible = vec![
                "put the text into the form kubeadm (or a plain unit file) has, and plan again".to_owned(),
            ];
            refuse::because(choice, why, possible)
        }
    }
}

/// Exact, or raised above every revision in evidence.
fn form(context: &Context<'_>, source: &SourceCandidate) -> Result<RestoreForm, String> {
    if context.goal.exact {
        return Ok(RestoreForm::Exact);
    }
    let floor = revision::floor(context.inventory, &source.taken_ms, context.now_ms)?;
    Ok(RestoreForm::Bumped { to_revision: floor.to_revision })
}

fn new_member(member: &Member<'_>) -> NewMember {
    NewMember {
        host: member.host.id.clone(),
        name: member.config.name.clone(),
        peer_urls: member.config.peer_urls.clone(),
    }
}

impl Restore<'_, '_> {
    /// All steps in order.
    fn steps(&self, choice: &Choice) -> Result<Vec<PlannedStep>, String> {
        let mut steps = Steps::default();
        let saved = add_saves(self.context, &mut steps, |_| true);
        let first_copy = choice.taken.and_then(|index| saved.get(&index)).cloned();
        let served = self.still_written();
        let imposter = self.context.diagnosis.etcd == EtcdVerdict::EmptyImposter;
        steps.stage();
        if served || imposter {
            self.add_stop(&mut steps, !served);
        }
        let file = if served { self.add_last_save(&mut steps)? } else { first_copy };
        steps.stage();
        self.add_build(&mut steps, file)?;
        steps.stage();
        for member in &self.survey.members {
            self.add_stage_member(&mut steps, member);
        }
        steps.stage();
        if !served && !imposter {
            self.add_stop(&mut steps, true);
        } else if served {
            self.survey.members.iter().for_each(|m| self.add_stop_etcd(&mut steps, m));
        }
        steps.stage();
        let mut reload = Vec::new();
        for member in &self.survey.members {
            reload.push(self.add_swap(&mut steps, member)?);
        }
        self.add_start_members(&mut steps, &reload);
        self.add_open(&mut steps);
        Ok(steps.into_vec())
    }

    /// The plan around the steps.
    fn finish(&self, steps: Vec<PlannedStep>, choice: Choice) -> Plan {
        let cost = crate::cost::of_restore(self.context, self.survey, &choice);
        assemble(
            self.context,
            Parts {
                hosts: self.survey.members.iter().map(|m| m.host.id.clone()).collect(),
                summary: self.summary(),
                warnings: self.warnings(&cost),
                how_to_go_back: self.how_to_go_back(),
                choice,
                cost,
                steps,
            },
        )
    }
}
