//! The flags of `rekindle node`; where kubectl has the same verb, its flag names.

use super::super::api::Api;
use crate::args::{Consent, Hosts, Ssh};
use crate::operator_command::OperatorCommand;
use camino::Utf8PathBuf;
use clap::{Args as ClapArgs, Subcommand};

/// `rekindle node`
#[derive(Debug, ClapArgs)]
pub(crate) struct Node {
    #[command(subcommand)]
    pub(super) verb: NodeVerb,
}

/// `rekindle node ...`
#[derive(Debug, Subcommand)]
pub(super) enum NodeVerb {
    /// List the nodes, and for each that does not work why: kubelet down, host silent, cut off, certificate expired,
    /// runtime down, under pressure, forgotten. Changes nothing.
    List(List),
    /// Empty nodes: cordon all, then evict their pods side by side as budgets allow, until each is gone.
    Drain(Drain),
    /// Make nodes schedulable again.
    Uncordon(Uncordon),
    /// Give up a node whose host is proved to be off: its pods are deleted by force, its volumes detached. With --release,
    /// let a node that is back into service again.
    Fence(Fence),
    /// Remove a node that is lost or drained: its etcd member, its Node object, its volume attachments.
    Remove(Remove),
}

/// `rekindle node list`
#[derive(Debug, ClapArgs)]
pub(super) struct List {
    /// Only nodes with these labels (as kubectl's -l).
    #[arg(short = 'l', long)]
    pub(super) selector: Option<String>,
    #[command(flatten)]
    pub(super) hosts: Hosts,
}

/// `rekindle node drain`
#[derive(Debug, ClapArgs)]
pub(super) struct Drain {
    /// Nodes.
    #[arg(required_unless_present = "selector", conflicts_with = "selector")]
    pub(super) nodes: Vec<String>,
    /// All nodes with these labels (as kubectl's -l).
    #[arg(short = 'l', long)]
    pub(super) selector: Option<String>,
    /// Leave pods of DaemonSets where they are.
    #[arg(long)]
    pub(super) ignore_daemonsets: bool,
    /// Go on although pods have emptyDir volumes: their data is lost.
    #[arg(long)]
    pub(super) delete_emptydir_data: bool,
    /// Go on although pods have no controller: they are lost.
    #[arg(long)]
    pub(super) force: bool,
    /// Seconds each pod is given to end; negative = its own.
    #[arg(long, value_name = "SECONDS", default_value_t = -1, allow_negative_numbers = true)]
    pub(super) grace_period: i64,
    /// Longest time for all of it, such as 10m; 0s = as long as something moves.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = super::drain::duration)]
    pub(super) timeout: u64,
    /// Give up a pod when for so long neither it nor its budget has moved.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = super::drain::duration)]
    pub(super) stall_timeout: u64,
    /// Only pods with these labels.
    #[arg(long)]
    pub(super) pod_selector: Option<String>,
    /// Delete instead of evicting: past all budgets.
    #[arg(long)]
    pub(super) disable_eviction: bool,
    #[command(flatten)]
    pub(super) api: Api,
    #[command(flatten)]
    pub(super) consent: Consent,
}

/// `rekindle node uncordon`
#[derive(Debug, ClapArgs)]
pub(super) struct Uncordon {
    /// Nodes.
    #[arg(required = true)]
    pub(super) nodes: Vec<String>,
    #[command(flatten)]
    pub(super) api: Api,
    #[command(flatten)]
    pub(super) consent: Consent,
}

/// `rekindle node fence`
#[derive(Debug, ClapArgs)]
pub(super) struct Fence {
    /// Nodes.
    #[arg(required = true)]
    pub(super) nodes: Vec<String>,
    /// A command that must succeed only when the host is off (it may also switch it off); {node} stands for the node's
    /// name. Its words are separated as in a shell, but no shell runs it.
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["attest_off", "release"])]
    pub(super) fence_command: Option<OperatorCommand>,
    /// The agent's configuration file, whose `nodes.fenceCommand` is taken.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["fence_command", "attest_off", "release"])]
    pub(super) config: Option<Utf8PathBuf>,
    /// You say that the hosts of these nodes are off, by whatever proof.
    #[arg(long, conflicts_with = "release")]
    pub(super) attest_off: bool,
    /// Take the out-of-service taint off nodes that are back.
    #[arg(long)]
    pub(super) release: bool,
    #[command(flatten)]
    pub(super) api: Api,
    #[command(flatten)]
    pub(super) consent: Consent,
}

/// `rekindle node remove`
#[derive(Debug, ClapArgs)]
pub(super) struct Remove {
    /// The node.
    pub(super) node: String,
    /// For a control-plane node: a control-plane host that survives, to reach with your own ssh (or `local`).
    #[arg(long = "host", value_name = "DESTINATION")]
    pub(super) hosts: Vec<String>,
    #[command(flatten)]
    pub(super) ssh: Ssh,
    #[command(flatten)]
    pub(super) api: Api,
    #[command(flatten)]
    pub(super) consent: Consent,
}
