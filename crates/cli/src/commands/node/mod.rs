//! `rekindle node`: list, drain, uncordon, fence and remove nodes.

mod args;
mod drain;
mod fence;
mod list;
mod remove;

pub(crate) use args::Node;
pub(super) use list::NodeList;

use super::api::Session;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use args::NodeVerb;
use rekindle_diagnose::fleet;
use rekindle_model::finding::Finding;
use rekindle_model::kube::nodes::{Node as NodeFacts, Thresholds};
use rekindle_world::objects::nodes;

pub(super) fn run(args: Node, output: &Output) -> Result<Exit, Failure> {
    match args.verb {
        NodeVerb::List(args) => list::run(&args, output),
        NodeVerb::Drain(args) => drain::run(&args, output),
        NodeVerb::Uncordon(args) => drain::uncordon(&args, output),
        NodeVerb::Fence(args) => fence::run(&args, output),
        NodeVerb::Remove(args) => remove::run(&args, output),
    }
}

/// All nodes, how long they may be silent, and whether they fail for one shared reason.
pub(super) struct Fleet {
    pub(super) all: Vec<NodeFacts>,
    pub(super) thresholds: Thresholds,
    pub(super) shared_cause: Option<Finding>,
}

impl Fleet {
    pub(super) fn read(session: &Session) -> Result<Self, Failure> {
        let read = session.runtime.block_on(async {
            tokio::try_join!(nodes::read(&session.cluster, None), nodes::thresholds(&session.cluster))
        });
        let (all, thresholds) = read.doing(|| "cannot read the nodes".into())?;
        let seen = fleet::Seen {
            nodes: &all,
            thresholds: &thresholds,
            now_ms: rekindle_run::now_ms(),
            hosts: None,
            host_findings: &[],
        };
        let shared_cause = fleet::shared_cause(&seen);
        Ok(Self { all, thresholds, shared_cause })
    }

    /// The nodes of these names; a name that there is not is an error.
    pub(super) fn named(&self, names: &[String]) -> Result<Vec<NodeFacts>, Failure> {
        let mut found: Vec<NodeFacts> = Vec::new();
        for name in names {
            let node = self.all.iter().find(|node| node.name() == name);
            let node = node.ok_or_else(|| {
                Failure::usage(format!("there is no node {name}")).hint("`rekindle node list` names them")
            })?;
            if !found.contains(node) {
                found.push(node.clone());
            }
        }
        Ok(found)
    }
}
