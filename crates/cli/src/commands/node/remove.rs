//! `rekindle node remove`: a lost or emptied node leaves the cluster.

use super::super::api::Session;
use super::Fleet;
use super::args::Remove;
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use rekindle_model::HostId;
use rekindle_model::kube::nodes::Node;
use rekindle_plan::kube::nodes::{Member, Removal, remove};
use rekindle_world::objects::{nodes, pods};
use rekindle_world::observe::{ObserveOptions, observe};

pub(super) fn run(args: &Remove, output: &Output) -> Result<Exit, Failure> {
    let session = Session::begin(&args.api, Some(&args.consent))?;
    let fleet = Fleet::read(&session)?;
    let found = fleet.named(std::slice::from_ref(&args.node))?;
    let Some(node) = found.first() else { return Err(Failure::new(format!("no node {}", args.node))) };
    let read = session.runtime.block_on(async {
        let names = [node.name()];
        tokio::try_join!(
            pods::on(&session.cluster, &names, None),
            nodes::attachments(&session.cluster, node.name())
        )
    });
    let (pods, attachments) = read.doing(|| format!("cannot read what is on {}", args.node))?;
    let member = if args.hosts.is_empty() { None } else { session.runtime.block_on(member(args, node))? };
    let removal = Removal { node, pods: &pods, attachments: &attachments, member: member.as_ref() };
    let outcome = remove(&session.base, &removal, &fleet.thresholds, fleet.shared_cause.as_ref());
    session.finish(outcome, &args.consent, &args.ssh.options(), output)
}

/// The node's etcd member, and a survivor that is in a quorum.
async fn member(args: &Remove, node: &Node) -> Result<Option<Member>, Failure> {
    let ids: Vec<HostId> = args.hosts.iter().map(|host| HostId(host.clone())).collect();
    let world = connect::world_of(&ids, &args.ssh.options(), "/".into()).await?;
    let options = ObserveOptions {
        snapshot: None,
        point: None,
        lost: Vec::new(),
        kubeconfig: None,
        context: None,
        state_dir: args.api.state_dir.clone(),
        data_dir: None,
    };
    let inventory = observe(&world, &options).await;
    let in_quorum = |host: &&rekindle_model::host::HostFacts| {
        host.etcd_live.known().is_some_and(|live| live.quorum.known() == Some(&true))
    };
    let Some(survivor) = inventory.hosts.iter().find(in_quorum) else {
        return Err(Failure::refused("no etcd member on the named hosts is in a quorum")
            .hint("bring etcd back first: `rekindle check`, `rekindle recover`"));
    };
    let members =
        survivor.etcd_live.known().and_then(|live| live.members.known().cloned()).unwrap_or_default();
    let endpoint = survivor.etcd_config.known().map(|config| config.endpoint.clone());
    let endpoint =
        endpoint.ok_or_else(|| Failure::new(format!("etcd's settings on {} can't be read", survivor.id)))?;
    let of_node = |one: &&rekindle_model::etcd::EtcdMember| {
        let address = |url: &String| node.addresses.iter().any(|one| url.contains(&format!("//{one}:")));
        one.name == node.name() || one.peer_urls.iter().any(address)
    };
    let own = members.iter().find(of_node).cloned();
    let voters = members.iter().filter(|one| !one.is_learner).count();
    let healthy: std::collections::BTreeSet<_> = inventory
        .hosts
        .iter()
        .filter(in_quorum)
        .filter_map(|host| host.etcd_live.known()?.status.known())
        .map(|status| status.member_id)
        .filter(|id| own.as_ref().is_none_or(|own| own.id != *id))
        .collect();
    Ok(Some(Member {
        host: survivor.id.clone(),
        endpoint,
        member: own,
        healthy_others: healthy.len(),
        voters,
    }))
}
