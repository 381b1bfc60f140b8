//! `rekindle certs`: what there is of certificates (`check`), and making them anew (`renew`).

mod args;
mod check;
mod renew;

pub(crate) use args::Certs;
pub(crate) use check::CertificateReport;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use args::CertsVerb;

pub(super) fn run(args: &Certs, output: &Output) -> Result<Exit, Failure> {
    match &args.verb {
        CertsVerb::Check(args) => check::run(args, output),
        CertsVerb::Renew(args) => renew::run(args, output),
    }
}
