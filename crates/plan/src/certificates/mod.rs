//! Renewing certificates: keys and requests on the hosts they are for, signatures where the authority's key lies, then
//! the swap and the restart of what uses them.
//!
//! While everything works, one host after another, and quorum and API server are proved before the next. When it does not
//! (all certificates have expired, so no member of etcd trusts another) there is nothing to keep up: all hosts at once.
//! Components are stopped before the swap and started after it, so that taking it back in reverse order does the same.
//!
//! [`pick`] says what is renewed and who signs it, [`identity`] what another host may sign, [`steps`] how it is carried out, [`expiry`] what a drill does instead.

pub(crate) mod expiry;
mod identity;
mod pick;
mod steps;

use crate::build::Steps;
use crate::parts::has_api_server;
use crate::parts_plan::{Parts, assemble};
use crate::refuse;
use crate::restart::nothing_lost;
use crate::saves::add_saves;
use crate::sources::{host_of, none_needed};
use crate::survey::{Context, Survey};
use crate::words::and_list;
use pick::{KUBELET_SERVING, Work, left_out, reachable, work};
use rekindle_model::HostId;
use rekindle_model::certificate::CertificateFile;
use rekindle_model::diagnosis::{Diagnosis, EtcdVerdict};
use rekindle_model::host::{ApiProbe, Component, HostFacts};
use rekindle_model::inventory::Inventory;
use rekindle_model::plan::{Goal, PlanOutcome};
use rekindle_model::source::SourceKind;
use std::collections::BTreeSet;
use steps::{add_proofs, add_signed, add_swap, add_waits};

/// Which certificates are renewed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renew {
    /// By name, on every host that has them.
    pub names: Vec<String>,
    /// All of them.
    pub all: bool,
    /// Names and addresses that server certificates among the named ones are also to be for.
    pub added_names: Vec<String>,
}

/// Plans the renewal.
pub fn renew_certificates(
    inventory: &Inventory,
    diagnosis: &Diagnosis,
    goal: &Goal,
    wanted: &Renew,
    now_ms: i64,
) -> PlanOutcome {
    let context = Context { inventory, diagnosis, goal, now_ms };
    let refused =
        |reason: String, possible: Vec<String>| refuse::because(none_needed(&context), reason, possible);
    if let Some(name) = unknown_name(&context, wanted) {
        return refused(format!("no host given has a certificate named {name}"), vec![names_there(&context)]);
    }
    if let Some(why) = left_out(&context) {
        let without =
            "reach it and plan again, or leave it out of --host: then its certificates stay as they are";
        return refused(format!("not every host given could be read: {why}"), vec![without.into()]);
    }
    let mut external = Vec::new();
    let mut works: Vec<Work<'_>> = Vec::new();
    for host in reachable(&context) {
        match work(&context, host, wanted, &mut external) {
            Ok(Some(work)) => works.push(work),
            Ok(None) => {}
            Err(why) => {
                let others =
                    "name the others, or make this one with `kubeadm init phase certs` or `kubeconfig`";
                return refused(why, vec![others.into()]);
            }
        }
    }
    if works.is_empty() && external.is_empty() {
        return PlanOutcome::NothingToDo("there is no certificate to renew on these hosts".into());
    }
    if works.is_empty() {
        let sign =
            "sign them where the authority's key is kept; `kubeadm certs generate-csr` writes the requests";
        return refused(external.join("; "), vec![sign.into()]);
    }
    let survey = context.survey(&[]);
    let rolling = is_healthy(&context);
    let restarts_etcd = works.iter().any(|w| w.components.contains(&Component::Etcd));
    if !rolling
        && restarts_etcd
        && let Some(missing) = survey.uncovered.first()
    {
        return refused(
            format!(
                "etcd has no quorum, and its member {} is on a host that was not given: it would not come back",
                missing.name
            ),
            vec!["give every control-plane host with --host".into()],
        );
    }
    PlanOutcome::Plan(Box::new(assemble(&context, parts(&context, &survey, &works, rolling, external))))
}

fn is_healthy(context: &Context<'_>) -> bool {
    let serves = |h: &HostFacts| !has_api_server(h) || h.api.known().is_some_and(ApiProbe::is_ready);
    context.diagnosis.etcd == EtcdVerdict::Healthy && reachable(context).all(serves)
}

fn all_names(context: &Context<'_>) -> BTreeSet<String> {
    let facts = reachable(context).filter_map(|h| h.certificates.known());
    let renewable = |f: &&CertificateFile| f.authority.is_some() || f.name == KUBELET_SERVING;
    facts.flat_map(|f| f.files.iter().filter(renewable)).map(|f| f.name.clone()).collect()
}

fn unknown_name(context: &Context<'_>, wanted: &Renew) -> Option<String> {
    let known = all_names(context);
    wanted.names.iter().find(|name| !known.contains(*name)).cloned()
}

fn names_there(context: &Context<'_>) -> String {
    let names: Vec<String> = all_names(context).into_iter().collect();
    format!("these are there: {}", names.join(", "))
}

fn parts(
    context: &Context<'_>,
    survey: &Survey<'_>,
    works: &[Work<'_>],
    rolling: bool,
    external: Vec<String>,
) -> Parts {
    let mut steps = Steps::default();
    let stops_etcd =
        |id: &HostId| works.iter().any(|w| &w.host.id == id && w.components.contains(&Component::Etcd));
    steps.stage();
    // A stopped member's files are not touched: only what runs, and is stopped, is saved.
    let is_running = |kind: &SourceKind| matches!(kind, SourceKind::Served(_) | SourceKind::OpenDb(_));
    add_saves(context, &mut steps, |kind| is_running(kind) && host_of(kind).is_some_and(stops_etcd));
    add_signed(&mut steps, works);
    if rolling {
        for work in works {
            steps.stage();
            add_swap(&mut steps, work);
            add_waits(&mut steps, survey, std::slice::from_ref(work), rolling);
        }
    } else {
        steps.stage();
        works.iter().for_each(|work| add_swap(&mut steps, work));
        add_waits(&mut steps, survey, works, rolling);
    }
    add_proofs(context, &mut steps, works);
    let mut hosts: Vec<HostId> = works.iter().map(|w| w.host.id.clone()).collect();
    let steps = steps.into_vec();
    hosts.extend(steps.iter().filter_map(|s| s.host.clone()));
    hosts.sort();
    hosts.dedup();
    Parts {
        hosts,
        summary: summary(works, rolling),
        choice: none_needed(context),
        cost: nothing_lost(),
        steps,
        how_to_go_back: format!(
            "`rekindle runs undo {}` puts the old certificates and keys back and restarts what uses them.",
            context.goal.run_id
        ),
        warnings: warnings(works, external),
    }
}

fn summary(works: &[Work<'_>], rolling: bool) -> String {
    let of_host = |w: &Work<'_>| {
        let count = w.renewals.len() + w.set_aside.len().div_ceil(2);
        format!("{count} on {}", w.host.id)
    };
    let counts: Vec<String> = works.iter().map(of_host).collect();
    let order = if rolling {
        "One host after another: quorum and API server are proved before the next."
    } else {
        "The control plane does not work as it is, so all hosts are done at once."
    };
    format!(
        "Certificates are made anew with the local authority, for the same subjects, names and usages and for as long as \
         before: {}. New keys are made on their hosts and never leave them; the old certificates and keys are kept in \
         folders of the run. {order}",
        and_list(&counts)
    )
}

fn warnings(works: &[Work<'_>], external: Vec<String>) -> Vec<String> {
    let mut warnings: Vec<String> = external.into_iter().map(|why| format!("Not renewed: {why}.")).collect();
    if works.iter().any(|w| w.renewals.iter().any(|(_, r)| r.name.ends_with("admin.conf"))) {
        warnings.push(
            "Copies of admin.conf (~/.kube/config, pipelines) hold the old certificate: copy it anew.".into(),
        );
    }
    warnings
}
