//! `rekindle node remove`: a lost or emptied node leaves the cluster.

use super::super::api::Session;
use super::Fleet;
use super::args::Remove;
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use rekindle_model::etcd::EtcdMember;
use rekindle_model::kube::nodes::Node;
use rekindle_model::{HostId, MemberId};
use rekindle_plan::kube::members;
use rekindle_plan::kube::nodes::{Member, Removal, remove};
use rekindle_world::objects::{nodes, pods};
use rekindle_world::observe::{ObserveOptions, observe};
use std::collections::BTreeSet;

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
    let staying: Vec<&Node> = fleet.all.iter().filter(|one| one.name() != node.name()).collect();
    let member =
        if args.hosts.is_empty() { None } else { session.runtime.block_on(member(args, node, &staying))? };
    let removal = Removal { node, pods: &pods, attachments: &attachments, member: member.as_ref() };
    let outcome = remove(&session.base, &removal, &fleet.thresholds, fleet.shared_cause.as_ref());
    session.finish(outcome, &args.consent, &args.ssh.options(), output)
}

/// The node's etcd member, and a survivor that is in a quorum.
async fn member(args: &Remove, node: &Node, staying: &[&Node]) -> Result<Option<Member>, Failure> {
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
    let voters = members.iter().filter(|one| !one.is_learner).count();
    let mut healthy: BTreeSet<MemberId> = inventory
        .hosts
        .iter()
        .filter(in_quorum)
        .filter_map(|host| host.etcd_live.known()?.status.known())
        .map(|status| status.member_id)
        .collect();
    let own = own(&members, node, staying, &healthy)?;
    if let Some(own) = &own {
        healthy.remove(&own.id);
    }
    Ok(Some(Member {
        host: survivor.id.clone(),
        endpoint,
        member: own,
        healthy_others: healthy.len(),
        voters,
    }))
}

/// The node's member; none only when every member of the list is another node's, or answers.
fn own(
    listed: &[EtcdMember],
    node: &Node,
    staying: &[&Node],
    answering: &BTreeSet<MemberId>,
) -> Result<Option<EtcdMember>, Failure> {
    let named = |members: &[&EtcdMember]| {
        let each = members.iter().map(|one| format!("{} {} {}", one.id, one.name, one.peer_urls.join(",")));
        each.collect::<Vec<_>>().join("; ")
    };
    let by_hand = "look at them with `etcdctl member list`, remove the node's with `etcdctl member remove ID`, then try again";
    let found: Vec<&EtcdMember> = listed.iter().filter(|one| members::is_of(one, node)).collect();
    match found.as_slice() {
        [] => {}
        [one] => return Ok(Some((*one).clone())),
        several => {
            let what = format!("{} has several etcd members: {}", node.name(), named(several));
            return Err(Failure::refused(what).hint(by_hand));
        }
    }
    let unclear = members::unclear(listed, staying, answering);
    if unclear.is_empty() {
        return Ok(None);
    }
    let what = format!(
        "no etcd member goes by the name or an address of {}, and these are of no other node and do not answer: {}; one of \
         them may be its own, and would count for quorum for ever",
        node.name(),
        named(&unclear)
    );
    Err(Failure::refused(what)
        .hint(format!("name every control-plane host that is left with --host; else {by_hand}")))
}
