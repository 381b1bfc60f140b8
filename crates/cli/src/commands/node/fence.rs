//! `rekindle node fence`: a host is off, for certain.

use super::super::agent::AgentConfig;
use super::super::api::Session;
use super::Fleet;
use super::args::Fence;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use rekindle_plan::kube::nodes::{Proof, fence, release};
use rekindle_world::ssh::SshOptions;

pub(super) fn run(args: &Fence, output: &Output) -> Result<Exit, Failure> {
    let proof = proof(args)?;
    let session = Session::begin(&args.api, Some(&args.consent))?;
    let fleet = Fleet::read(&session)?;
    let nodes = fleet.named(&args.nodes)?;
    let outcome = match &proof {
        None => release(&session.base, &nodes, &fleet.thresholds),
        Some(proof) => fence(&session.base, &nodes, &fleet.thresholds, proof, fleet.shared_cause.as_ref()),
    };
    session.finish(outcome, &args.consent, &SshOptions::default(), output)
}

/// How it is known that the hosts are off; none = they are let back.
fn proof(args: &Fence) -> Result<Option<Proof>, Failure> {
    if args.release {
        return Ok(None);
    }
    if args.attest_off {
        return Ok(Some(Proof::Attested));
    }
    let configured = match &args.config {
        Some(file) => AgentConfig::file(file)?.nodes().fence_command,
        None => None,
    };
    match args.fence_command.clone().or(configured) {
        Some(command) => Ok(Some(Proof::Command(command.into_words()))),
        None => Err(Failure::usage("nothing proves that the host is off").hint(
            "give --fence-command 'COMMAND {node}', or --config FILE with `nodes.fenceCommand` in it, or say with \
             --attest-off that you have proved it; a host that still runs would go on writing to its volumes",
        )),
    }
}
