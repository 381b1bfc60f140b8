//! How a drill on the loss of a node begins: a host is turned off, by the operator's own means.

use super::nodes::reports;
use super::{Base, refused};
use crate::breaking::{how_to_allow, may_be_broken};
use crate::build::Steps;
use rekindle_model::Seen;
use rekindle_model::kube::nodes::{Node, Thresholds};
use rekindle_model::plan::{Phase, PlanOutcome};
use rekindle_model::step::{Reversibility, Step};

/// A node to be lost, and what the cluster is like before.
#[derive(Clone, Copy, Debug)]
pub struct Loss<'a> {
    /// The node.
    pub node: &'a Node,
    /// All nodes.
    pub all: &'a [Node],
    /// How long they may be silent.
    pub thresholds: &'a Thresholds,
    /// Value of the label of `kube-system` that allows drills; empty when it is not there.
    pub label: &'a str,
    /// UIDs of `kube-system` that the operator's own configuration names.
    pub allowed: &'a [String],
    /// Turns the host off, and fails when it is not off then; `{node}` stands for the node's name.
    pub off: &'a [String],
    /// Turns it on again.
    pub on: &'a [String],
}

/// The plan that turns the host off, or why it is not.
pub fn turn_off(base: &Base, loss: &Loss<'_>) -> PlanOutcome {
    let Loss { node, all, thresholds, label, allowed, off, on } = *loss;
    let uid = Seen::Known(base.cluster.kube_system_uid.clone());
    if let Err(why) = may_be_broken(&uid, &Seen::Known(label.to_owned()), allowed) {
        return refused(why, vec![how_to_allow()]);
    }
    let name = node.name();
    if node.roles.iter().any(|role| role == "control-plane") {
        let possible = "for a member of etcd and its host there is --scenario member-lost";
        return refused(format!("{name} is a control-plane node"), vec![possible.into()]);
    }
    if let Some(ill) = all.iter().find(|one| !reports(one, thresholds, base.now_ms)) {
        return refused(
            format!("the cluster is not well: {} does not report", ill.name()),
            vec!["mend it first: `rekindle node list` names what is wrong".into()],
        );
    }
    if node.is_out_of_service() {
        let possible = format!("let it back first: `rekindle node fence --release {name}`");
        return refused(format!("{name} is out of service"), vec![possible]);
    }
    if !all.iter().any(|one| one.name() != name && !one.unschedulable) {
        return refused(
            format!("no other node could take the pods of {name}"),
            vec!["add a node, or uncordon one".into()],
        );
    }
    let mut steps = Steps::default();
    steps.add(
        None,
        Phase::Change,
        Reversibility::Compensated,
        format!("turn off the host of {name}: {}", off.join(" ")),
        Step::Fence { node: node.object.clone(), command: off.to_vec() },
    );
    base.plan(
        format!(
            "A drill loses the node {name}: its host is turned off. Then its pods are brought back as after a real loss, and \
             the host is turned on again."
        ),
        Vec::new(),
        steps.into_vec(),
        format!(
            "`{}` turns the host on again, and `rekindle node fence --release {name}` lets it back into service.",
            on.join(" ")
        ),
        vec!["Its pods end without grace, and what they keep on the host's own disk goes with them.".into()],
    )
}
