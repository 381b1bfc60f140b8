//! `rekindle node list`: all nodes, and the causes told apart.

use super::super::api::{Api, Session};
use super::super::check::options;
use super::args::List;
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use rekindle_diagnose::fleet;
use rekindle_model::API_VERSION;
use rekindle_model::finding::{Finding, Severity};
use rekindle_model::kube::nodes::{Node, NodeState, NodeVerdict, Thresholds};
use rekindle_world::objects::nodes;
use rekindle_world::observe::observe;
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt::Write;

/// What `rekindle node list` prints.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeList {
    /// `rekindle/v1alpha1`.
    api_version: String,
    /// `NodeList`.
    kind: String,
    /// When, milliseconds since the Unix epoch.
    taken_ms: i64,
    /// How long a node may be silent.
    thresholds: Thresholds,
    /// What is said of each node.
    verdicts: Vec<NodeVerdict>,
    /// The nodes as the API has them, in the same order.
    nodes: Vec<Node>,
    /// What is wrong: a shared cause first.
    findings: Vec<Finding>,
}

pub(super) fn run(args: &List, output: &Output) -> Result<Exit, Failure> {
    let api = Api { cluster: args.hosts.api.clone(), state_dir: args.hosts.state_dir.clone() };
    let session = Session::begin(&api, None)?;
    let list = session.runtime.block_on(look(&session, args))?;
    output.document(&list, |short| table(&list, short))?;
    let failing = list.findings.iter().any(|finding| finding.severity == Severity::Failure);
    Ok(if failing { Exit::Findings } else { Exit::Ok })
}

async fn look(session: &Session, args: &List) -> Result<NodeList, Failure> {
    let cluster = &session.cluster;
    let read = tokio::try_join!(nodes::read(cluster, args.selector.as_deref()), nodes::thresholds(cluster));
    let (mut found, thresholds) = read.doing(|| "cannot read the nodes".into())?;
    nodes::reach(cluster, &mut found).await;
    // what a host tells is looked at only where the user names hosts
    let inventory = if args.hosts.hosts.is_empty() {
        None
    } else {
        let world = connect::world(&args.hosts).await?;
        Some(observe(&world, &options(&args.hosts, None, None)).await)
    };
    let host_findings =
        inventory.as_ref().map(|all| rekindle_diagnose::diagnose(all).findings).unwrap_or_default();
    let now_ms = rekindle_run::now_ms();
    let seen = fleet::Seen {
        nodes: &found,
        thresholds: &thresholds,
        now_ms,
        hosts: inventory.as_ref(),
        host_findings: &host_findings,
    };
    let fleet = fleet::judge(&seen);
    Ok(NodeList {
        api_version: API_VERSION.into(),
        kind: "NodeList".into(),
        taken_ms: now_ms,
        thresholds,
        verdicts: fleet.nodes,
        nodes: found,
        findings: fleet.findings,
    })
}

fn table(list: &NodeList, short: bool) -> String {
    let mut text = String::new();
    let width = list.verdicts.iter().map(|one| one.name.len()).max().unwrap_or_default().max(4);
    let _ = writeln!(text, "{:<width$} {:<18} {:<14} {:<12} LEASE", "NAME", "STATE", "ZONE", "VERSION");
    for (verdict, node) in list.verdicts.iter().zip(&list.nodes) {
        if short && verdict.state == NodeState::Ready {
            continue;
        }
        let lease = verdict.lease_age_seconds.map_or("none".to_owned(), |age| format!("{age} s"));
        let _ = writeln!(
            text,
            "{:<width$} {:<18} {:<14} {:<12} {lease}",
            verdict.name,
            word(verdict.state),
            node.zone,
            node.kubelet_version
        );
        if !verdict.detail.is_empty() {
            let _ = writeln!(text, "{:<width$}   {}", "", verdict.detail);
        }
    }
    let grace = &list.thresholds;
    let _ = writeln!(text, "\nA node may be silent for {} s ({}).", grace.grace_period_seconds, grace.source);
    for finding in &list.findings {
        let _ = writeln!(text, "{} {}\n    hint: {}", finding.code, finding.summary, finding.remedy);
    }
    text
}

fn word(state: NodeState) -> &'static str {
    match state {
        NodeState::Ready => "Ready",
        NodeState::Pressure => "Pressure",
        NodeState::Cordoned => "Cordoned",
        NodeState::KubeletDown => "KubeletDown",
        NodeState::KubeletFrozen => "KubeletFrozen",
        NodeState::CertificateExpired => "CertificateExpired",
        NodeState::HostSilent => "HostSilent",
        NodeState::CutOff => "CutOff",
        NodeState::RuntimeDown => "RuntimeDown",
        NodeState::NetworkNotReady => "NetworkNotReady",
        NodeState::Stale => "Stale",
        NodeState::NotReady => "NotReady",
    }
}
