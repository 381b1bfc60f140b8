//! `rekindle unstick`: what will not go away, who holds it, and the safest way to let it go.

use super::api::{Api, Session};
use crate::args::Consent;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use clap::{Args as ClapArgs, ValueEnum};
use rekindle_diagnose::stuck;
use rekindle_model::API_VERSION;
use rekindle_model::kube::stuck::{Action, Stuck, StuckFacts, StuckKind};
use rekindle_plan::kube::unstick::{Permits, plan};
use rekindle_world::objects;
use rekindle_world::ssh::SshOptions;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write;

/// `rekindle unstick`
#[derive(Debug, ClapArgs)]
pub(crate) struct Unstick {
    /// What kind of object. Without it: everything that is stuck is listed, nothing is changed.
    kind: Option<Kind>,
    /// Name of the object. Without it: all stuck objects of the kind.
    name: Option<String>,
    /// Namespace of the object (pods and claims). Default: any.
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    /// Permit to take finalizers off, where nothing safer is left: what they protect is then not done.
    #[arg(long)]
    remove_finalizers: bool,
    #[command(flatten)]
    api: Api,
    #[command(flatten)]
    consent: Consent,
}

/// Kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Pods that are Terminating past their grace period.
    #[value(alias = "pods")]
    Pod,
    /// Namespaces that are Terminating.
    #[value(alias = "namespaces", alias = "ns")]
    Namespace,
    /// CustomResourceDefinitions that are Terminating, or whose conversion webhook does not answer.
    #[value(alias = "crds")]
    Crd,
    /// Volumes and claims that are Terminating.
    #[value(alias = "pv", alias = "pvcs")]
    Pvc,
    /// Admission webhooks without a backend.
    #[value(alias = "webhooks")]
    Webhook,
    /// APIServices that are not available.
    #[value(alias = "apiservices")]
    Apiservice,
}

impl Kind {
    fn stuck(self) -> StuckKind {
        match self {
            Self::Pod => StuckKind::Pod,
            Self::Namespace => StuckKind::Namespace,
            Self::Crd => StuckKind::Crd,
            Self::Pvc => StuckKind::Pvc,
            Self::Webhook => StuckKind::Webhook,
            Self::Apiservice => StuckKind::ApiService,
        }
    }
}

/// What `rekindle unstick` prints.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StuckReport {
    /// `rekindle/v1alpha1`.
    api_version: String,
    /// `StuckReport`.
    kind: String,
    /// When, milliseconds since the Unix epoch.
    taken_ms: i64,
    /// What is stuck, the lowest layer first.
    stuck: Vec<Stuck>,
    /// What could not be read, and why.
    unread: Vec<String>,
}

pub(super) fn run(args: &Unstick, output: &Output) -> Result<Exit, Failure> {
    let Some(kind) = args.kind else { return list(args, output) };
    let session = Session::begin(&args.api, Some(&args.consent))?;
    // what holds a namespace or a CRD may be an API group that can't be listed
    let beneath = [StuckKind::ApiService, StuckKind::Crd];
    let mut kinds = BTreeSet::from([kind.stuck()]);
    if matches!(kind, Kind::Namespace | Kind::Crd) {
        kinds.extend(beneath);
    }
    let facts = session.runtime.block_on(objects::stuck::read(&session.cluster, &kinds));
    let wanted: Vec<Stuck> =
        stuck::find(&facts).into_iter().filter(|one| is_wanted(one, kind, args)).collect();
    for line in &facts.unread {
        output.say(&format!("not read: {line}"));
    }
    if wanted.is_empty() {
        if let Some(unread) = nothing_but_unread(&facts.unread) {
            return Err(unread);
        }
        if let Some(name) = &args.name {
            output.say(&format!("{name} is not stuck, or does not exist"));
        }
    }
    let permits = Permits { remove_finalizers: args.remove_finalizers };
    let outcome = plan(&session.base, &wanted, permits);
    session.finish(outcome, &args.consent, &SshOptions::default(), output)
}

/// Nothing was found, and not everything was looked at: that is no answer.
fn nothing_but_unread(unread: &[String]) -> Option<Failure> {
    if unread.is_empty() {
        return None;
    }
    let message =
        format!("whether something is stuck can't be told, this could not be read: {}", unread.join("; "));
    let hint = "the rights it needs are in deploy/rbac/unstick.yaml; an API group that can't be listed may be stuck \
                itself: `rekindle unstick apiservice`";
    Some(Failure::new(message).hint(hint))
}

fn is_wanted(one: &Stuck, kind: Kind, args: &Unstick) -> bool {
    let named = args.name.as_ref().is_none_or(|name| *name == one.object.name);
    let within =
        args.namespace.as_ref().is_none_or(|namespace| one.object.namespace.as_ref() == Some(namespace));
    one.kind == kind.stuck() && named && within
}

fn list(args: &Unstick, output: &Output) -> Result<Exit, Failure> {
    let session = Session::begin(&args.api, None)?;
    let facts: StuckFacts =
        session.runtime.block_on(objects::stuck::read(&session.cluster, &StuckKind::ALL.into()));
    let report = StuckReport {
        api_version: API_VERSION.into(),
        kind: "StuckReport".into(),
        taken_ms: facts.taken_ms,
        stuck: stuck::find(&facts),
        unread: facts.unread,
    };
    output.document(&report, |_| text(&report))?;
    if !report.stuck.is_empty() {
        return Ok(Exit::Findings);
    }
    nothing_but_unread(&report.unread).map_or(Ok(Exit::Ok), Err)
}

fn text(report: &StuckReport) -> String {
    let mut text = String::new();
    if report.stuck.is_empty() && report.unread.is_empty() {
        let _ = writeln!(text, "Nothing is stuck.");
    }
    for one in &report.stuck {
        let _ = writeln!(text, "{} {}", one.finding.code, one.finding.summary);
        for holder in &one.holders {
            let _ = writeln!(text, "    held by: {holder}");
        }
        for (number, rung) in one.ladder.iter().enumerate() {
            let _ = writeln!(text, "    {}. {}", number + 1, rung.text);
        }
        if one.ladder.iter().any(|rung| rung.action != Action::ByHand) {
            let namespace =
                one.object.namespace.as_ref().map(|name| format!(" -n {name}")).unwrap_or_default();
            let kind = word(one.kind);
            let _ = writeln!(text, "    hint: rekindle unstick {kind} {}{namespace}", one.object.name);
        }
        text.push('\n');
    }
    for line in &report.unread {
        let _ = writeln!(text, "? not read: {line}");
    }
    text
}

fn word(kind: StuckKind) -> &'static str {
    match kind {
        StuckKind::Pod => "pod",
        StuckKind::Namespace => "namespace",
        StuckKind::Crd => "crd",
        StuckKind::Pvc => "pvc",
        StuckKind::Webhook => "webhook",
        StuckKind::ApiService => "apiservice",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(unread: &[&str]) -> StuckReport {
        StuckReport {
            api_version: API_VERSION.into(),
            kind: "StuckReport".into(),
            taken_ms: 0,
            stuck: Vec::new(),
            unread: unread.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    // A person may not list pods. Nothing that could be read is stuck: that is not said of all, and the exit code is an
    // error's that names what was not read.
    #[test]
    fn what_was_not_read_is_not_called_clear() {
        let refused = "GET https://10.0.0.10:6443/api/v1/pods: 403 Forbidden: pods is forbidden";
        let text = text(&report(&[refused]));
        assert!(!text.contains("Nothing is stuck") && text.contains(refused), "{text}");
        let failure = nothing_but_unread(&[refused.to_owned()]).unwrap();
        assert!(failure.exit == Exit::Error && failure.line().contains(refused), "{failure:?}");
        assert!(nothing_but_unread(&[]).is_none());
        assert!(super::text(&report(&[])).contains("Nothing is stuck."));
    }
}
