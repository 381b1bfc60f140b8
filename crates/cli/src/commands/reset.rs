//! `rekindle reset`: takes one kubeadm host out of its cluster, everything it had archived first.

use super::managed;
use super::recover::carry_out_asked;
use crate::args::{Consent, Hosts};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use clap::Args as ClapArgs;
use rekindle_model::HostId;

/// `rekindle reset`
#[derive(Debug, ClapArgs)]
pub(crate) struct Reset {
    /// The host to reset, as it is given with --host; the other hosts given are its survivors.
    #[arg(default_value = "local")]
    pub(crate) target: String,
    #[command(flatten)]
    pub(crate) hosts: Hosts,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

pub(super) fn run(args: &Reset, output: &Output) -> Result<Exit, Failure> {
    let instead = "remove the node with `rekindle node remove`, and let the provider replace it";
    managed::refuse_alone(&args.hosts, "reset", instead, output)?;
    let target = HostId(args.target.clone());
    carry_out_asked(&args.hosts, &args.consent, output, |inventory, diagnosis, goal, now_ms| {
        rekindle_plan::reset::reset(inventory, diagnosis, goal, &target, now_ms)
    })
}
