//! `rekindle node drain` and `uncordon`.

use super::super::api::Session;
use super::Fleet;
use super::args::{Drain, Uncordon};
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use rekindle_model::kube::nodes::DrainMethod;
use rekindle_plan::kube::drain::{self, Flags, Seen};
use rekindle_world::objects::{nodes, pods};
use rekindle_world::ssh::SshOptions;
use rekindle_world::{Cluster, ClusterError};
use std::collections::BTreeSet;

/// Seconds of a duration as Go and kubectl write it: `90s`, `1h30m`.
pub(super) fn duration(text: &str) -> Result<u64, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|error| format!("not a duration: {error}"))?;
    u64::try_from(span.as_secs()).map_err(|_| "a duration is not negative".into())
}

pub(super) fn run(args: &Drain, output: &Output) -> Result<Exit, Failure> {
    let session = Session::begin(&args.api, Some(&args.consent))?;
    let fleet = Fleet::read(&session)?;
    let wanted = match &args.selector {
        Some(selector) => {
            let read = session.runtime.block_on(nodes::read(&session.cluster, Some(selector)));
            read.doing(|| format!("cannot read the nodes with {selector}"))?
        }
        None => fleet.named(&args.nodes)?,
    };
    if wanted.is_empty() {
        return Err(Failure::usage("no node has these labels"));
    }
    let names: Vec<&str> = wanted.iter().map(|node| node.name()).collect();
    let read = session.runtime.block_on(read(&session.cluster, &names, args.pod_selector.as_deref()));
    let (pods, budgets) = read.doing(|| "cannot read the pods and their budgets".into())?;
    let seen = Seen { nodes: wanted, pods, budgets, shared_cause: fleet.shared_cause };
    let flags = Flags {
        ignore_daemonsets: args.ignore_daemonsets,
        delete_emptydir_data: args.delete_emptydir_data,
        force: args.force,
        pod_selector: args.pod_selector.clone(),
        method: if args.disable_eviction { DrainMethod::Delete } else { DrainMethod::Evict },
        grace_period_seconds: u64::try_from(args.grace_period).ok(),
        timeout_seconds: Some(args.timeout).filter(|seconds| *seconds > 0),
        stall_seconds: args.stall_timeout,
    };
    let outcome = drain::plan(&session.base, &seen, &flags);
    session.finish(outcome, &args.consent, &SshOptions::default(), output)
}

async fn read(
    cluster: &Cluster,
    nodes: &[&str],
    selector: Option<&str>,
) -> Result<(Vec<rekindle_model::kube::nodes::Pod>, Vec<rekindle_model::kube::nodes::Budget>), ClusterError> {
    let mut found = pods::on(cluster, nodes, selector).await?;
    let namespaces: BTreeSet<String> = found.iter().filter_map(|pod| pod.object.namespace.clone()).collect();
    pods::mark_orphans(cluster, &mut found).await?;
    let (budgets, ()) = tokio::join!(pods::budgets(cluster, namespaces), pods::measure(cluster, &mut found));
    Ok((found, budgets?))
}

pub(super) fn uncordon(args: &Uncordon, output: &Output) -> Result<Exit, Failure> {
    let session = Session::begin(&args.api, Some(&args.consent))?;
    let nodes = Fleet::read(&session)?.named(&args.nodes)?;
    let outcome = drain::uncordon(&session.base, &nodes);
    session.finish(outcome, &args.consent, &SshOptions::default(), output)
}
