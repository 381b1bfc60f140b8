//! `rekindle certs renew`: observe, diagnose, plan the renewal; then as every run: shown, agreed to, journaled, proved.

use super::args::Renew;
use crate::commands::managed;
use crate::commands::recover::carry_out_asked;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use rekindle_plan::certificates::renew_certificates;

pub(super) fn run(args: &Renew, output: &Output) -> Result<Exit, Failure> {
    let wanted = rekindle_plan::certificates::Renew {
        names: args.names.clone(),
        all: args.all,
        added_names: args.added_names.clone(),
    };
    managed::refuse_alone(&args.hosts, "certs renew", managed::CERTIFICATES, output)?;
    carry_out_asked(&args.hosts, &args.consent, output, |inventory, diagnosis, goal, now_ms| {
        renew_certificates(inventory, diagnosis, goal, &wanted, now_ms)
    })
}
