//! `rekindle node fence`: a host is off, for certain.

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
    match &args.fence_command {
        _ if args.release => Ok(None),
        Some(command) => {
            let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
            if words.is_empty() {
                return Err(Failure::usage("--fence-command is empty"));
            }
            Ok(Some(Proof::Command(words)))
        }
        None if args.attest_off => Ok(Some(Proof::Attested)),
        None => Err(Failure::usage("nothing proves that the host is off").hint(
            "give --fence-command 'COMMAND {node}', or say with --attest-off that you have proved it; a host that still \
             runs would go on writing to its volumes",
        )),
    }
}
