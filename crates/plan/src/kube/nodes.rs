//! Fencing a node whose host is off, letting it back, and removing a node that is lost.

use super::{Base, names, refused};
use crate::build::Steps;
use rekindle_model::HostId;
use rekindle_model::etcd::{EtcdEndpoint, EtcdMember};
use rekindle_model::finding::Finding;
use rekindle_model::kube::nodes::{Node, OUT_OF_SERVICE, Pod, Thresholds};
use rekindle_model::kube::{Change, ObjectRef};
use rekindle_model::plan::{Phase, PlanOutcome};
use rekindle_model::step::{Reversibility, Step};
use serde_json::json;

/// Longest wait for pods and volumes to leave a fenced node, and for attachments of a removed one, in seconds: a driver
/// that detaches takes minutes.
const EMPTY_SECONDS: u64 = 900;

/// How it is known that a host is off.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A command of the operator's that must succeed for each node.
    Command(Vec<String>),
    /// The operator says so, by name.
    Attested,
}

/// Whether a node reports: Ready, with a lease renewed within the threshold.
pub(super) fn reports(node: &Node, thresholds: &Thresholds, now_ms: i64) -> bool {
    node.is_ready() && node.lease_renewed_ms.is_none_or(|at| thresholds.allow(at, now_ms))
}

fn taint() -> Change {
    let item = json!({"key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"});
    Change::AddItem { pointer: "/spec/taints".into(), item }
}

/// The plan that fences nodes: proof, taint, wait.
pub fn fence(
    base: &Base,
    nodes: &[Node],
    thresholds: &Thresholds,
    proof: &Proof,
    shared_cause: Option<&Finding>,
) -> PlanOutcome {
    if let Some(finding) = shared_cause {
        return refused(format!("nothing is fenced: {}", finding.summary), vec![finding.remedy.clone()]);
    }
    if let Some(node) = nodes.iter().find(|node| reports(node, thresholds, base.now_ms)) {
        return refused(
            format!("{} reports that it is Ready: it is not off", node.name()),
            vec![format!("to empty it: `rekindle node drain {}`", node.name())],
        );
    }
    let mut steps = Steps::default();
    for node in nodes {
        steps.stage();
        if let Proof::Command(command) = proof {
            let summary = format!("prove that the host of {} is off: {}", node.name(), command.join(" "));
            let step = Step::Fence { node: node.object.clone(), command: command.clone() };
            steps.add(None, Phase::Change, Reversibility::Compensated, summary, step);
        }
        steps.add(
            None,
            Phase::Change,
            Reversibility::Reversible,
            format!(
                "mark {} as out of service: its pods are deleted by force, its volumes detached",
                node.name()
            ),
            Step::ChangeObject { object: node.object.clone(), changes: vec![taint()] },
        );
    }
    steps.stage();
    for node in nodes {
        steps.add(
            None,
            Phase::Verify,
            Reversibility::Compensated,
            format!("wait until no pod and no volume is left on {}", node.name()),
            Step::WaitNodeEmpty { node: node.object.clone(), timeout_seconds: EMPTY_SECONDS },
        );
    }
    let listed = names(nodes.iter().map(|node| &node.object));
    let warnings = match proof {
        Proof::Command(_) => Vec::new(),
        Proof::Attested => vec![format!(
            "You say that {listed} is off. If it is not, its pods go on beside their copies and may destroy what is on \
             their volumes."
        )],
    };
    let back = "`rekindle runs undo`, or `rekindle node fence --release` once the node is back, removes the taint. Pods \
                that were deleted run elsewhere.";
    base.plan(format!("Fence {listed}."), Vec::new(), steps.into_vec(), back.into(), warnings)
}

/// The plan that takes the out-of-service taint off nodes that are back.
pub fn release(base: &Base, nodes: &[Node], thresholds: &Thresholds) -> PlanOutcome {
    let fenced: Vec<&Node> = nodes.iter().filter(|node| node.is_out_of_service()).collect();
    if fenced.is_empty() {
        return PlanOutcome::NothingToDo("no node of those is out of service".into());
    }
    if let Some(node) = fenced.iter().find(|node| !reports(node, thresholds, base.now_ms)) {
        return refused(format!("{} is not back: it does not report", node.name()), Vec::new());
    }
    let mut steps = Steps::default();
    for node in &fenced {
        let summary = format!("take the out-of-service taint off {}", node.name());
        // by key: the operator who set it may have given it another value
        let changes =
            node.taints.iter().filter(|taint| taint.key == OUT_OF_SERVICE).map(|taint| Change::RemoveItem {
                pointer: "/spec/taints".into(),
                item: json!({"key": taint.key, "effect": taint.effect}),
            });
        let step = Step::ChangeObject { object: node.object.clone(), changes: changes.collect() };
        steps.add(None, Phase::Change, Reversibility::Reversible, summary, step);
    }
    let listed = names(fenced.iter().map(|node| &node.object));
    base.plan(
        format!("Let {listed} back into service."),
        Vec::new(),
        steps.into_vec(),
        "`rekindle runs undo` puts the taint back.".into(),
        Vec::new(),
    )
}

/// The etcd member of a control-plane node, and a survivor that removes it.
#[derive(Clone, Debug)]
pub struct Member {
    /// The host of the survivor.
    pub host: HostId,
    /// The survivor, as seen from its host.
    pub endpoint: EtcdEndpoint,
    /// The member to remove; none = it is in the list no more.
    pub member: Option<EtcdMember>,
    /// Voting members that answer and are not the one to remove.
    pub healthy_others: usize,
    /// Voting members in the list, the one to remove included.
    pub voters: usize,
}

/// What is removed.
#[derive(Clone, Debug)]
pub struct Removal<'a> {
    /// The node.
    pub node: &'a Node,
    /// The pods on it.
    pub pods: &'a [Pod],
    /// VolumeAttachments of it.
    pub attachments: &'a [ObjectRef],
    /// Its etcd member, for a control-plane node.
    pub member: Option<&'a Member>,
}

/// The plan that removes a node.
pub fn remove(
    base: &Base,
    removal: &Removal<'_>,
    thresholds: &Thresholds,
    shared_cause: Option<&Finding>,
) -> PlanOutcome {
    let node = removal.node;
    let name = node.name();
    if let Some(finding) = shared_cause {
        return refused(format!("nothing is removed: {}", finding.summary), vec![finding.remedy.clone()]);
    }
    let alive = reports(node, thresholds, base.now_ms);
    let at_work: Vec<&Pod> =
        removal.pods.iter().filter(|pod| !pod.is_finished() && !pod.is_of_its_node()).collect();
    if alive && !at_work.is_empty() {
        return refused(
            format!("{name} reports, and runs {} pods", at_work.len()),
            vec![format!("empty it first: `rekindle node drain {name}`")],
        );
    }
    if !alive
        && !node.is_out_of_service()
        && let Some(reason) = second_writer(removal, &at_work)
    {
        return refused(reason, vec![format!("prove that it is off: `rekindle node fence {name}`")]);
    }
    let mut steps = Steps::default();
    if node.roles.iter().any(|role| role == "control-plane") {
        let Some(member) = removal.member else {
            return refused(
                format!(
                    "{name} is a control-plane node, and its etcd member can't be removed through the API"
                ),
                vec!["name a control-plane host that survives: --host root@ADDRESS".into()],
            );
        };
        if let Err(refusal) = add_member(&mut steps, name, member) {
            return refusal;
        }
    }
    steps.stage();
    add_objects(&mut steps, removal);
    let back = "`rekindle runs undo` makes the Node object again (a kubelet that comes back makes it by itself). An etcd \
                member that was removed is added anew by joining the host to the cluster.";
    base.plan(format!("Remove node {name}."), Vec::new(), steps.into_vec(), back.into(), Vec::new())
}

/// What two would write to if a node that is taken out goes on running.
fn second_writer(removal: &Removal<'_>, at_work: &[&Pod]) -> Option<String> {
    let name = removal.node.name();
    if !removal.attachments.is_empty() {
        return Some(format!(
            "{} volumes are attached to {name}, and nothing proves that it is off: detached from a host that runs they may \
             be written to by two",
            removal.attachments.len()
        ));
    }
    let stateful: Vec<&Pod> = at_work.iter().copied().filter(|pod| pod.is_stateful()).collect();
    (!stateful.is_empty()).then(|| {
        format!(
            "pods on {name} keep an identity or a volume ({}), and nothing proves that it is off: without the node they are \
             made anew elsewhere, and a second copy beside the first may destroy data",
            names(stateful.iter().map(|pod| &pod.object))
        )
    })
}

fn add_member(steps: &mut Steps, name: &str, member: &Member) -> Result<(), PlanOutcome> {
    if let Some(gone) = &member.member {
        let left = member.voters.saturating_sub(1);
        if member.healthy_others < member.voters / 2 + 1 || member.healthy_others < left / 2 + 1 || left == 0
        {
            return Err(refused(
                format!(
                    "of {} etcd members {} answer without {name}: quorum would not stay",
                    member.voters, member.healthy_others
                ),
                vec![
                    "name all control-plane hosts that are left with --host: a member that is not asked does not count"
                        .into(),
                    "bring the other members back first: `rekindle check`, `rekindle recover`".into(),
                ],
            ));
        }
        steps.add(
            Some(&member.host),
            Phase::Change,
            Reversibility::Compensated,
            format!("remove the etcd member {} of {name}", gone.id),
            Step::RemoveMember { endpoint: member.endpoint.clone(), member: gone.clone() },
        );
    }
    steps.add(
        Some(&member.host),
        Phase::Change,
        Reversibility::Compensated,
        "delete address leases of API servers that no longer run".to_owned(),
        Step::DeleteStaleMasterleases { endpoint: member.endpoint.clone() },
    );
    Ok(())
}

fn add_objects(steps: &mut Steps, removal: &Removal<'_>) {
    let delete = |object: &ObjectRef, put_back| Step::DeleteObject {
        object: object.clone(),
        grace_period_seconds: None,
        put_back,
    };
    let node = &removal.node.object;
    let summary = format!("delete {node}");
    steps.add(None, Phase::Change, Reversibility::Compensated, summary, delete(node, true));
    for one in removal.attachments {
        let summary = format!("delete {one}: its driver detaches the volume");
        steps.add(None, Phase::Change, Reversibility::Compensated, summary, delete(one, false));
    }
    steps.stage();
    for one in removal.attachments {
        let step = Step::WaitGone { object: one.clone(), timeout_seconds: EMPTY_SECONDS, put_back: false };
        steps.add(None, Phase::Verify, Reversibility::Compensated, format!("wait until {one} is gone"), step);
    }
}
