//! `rekindle certs ...` on the command line.

use crate::args::{Consent, FailOn, Hosts};
use clap::{Args as ClapArgs, Subcommand};

/// `rekindle certs`
#[derive(Debug, ClapArgs)]
pub(crate) struct Certs {
    #[command(subcommand)]
    pub(crate) verb: CertsVerb,
}

/// `rekindle certs ...`
#[derive(Debug, Subcommand)]
pub(crate) enum CertsVerb {
    /// Every certificate of the hosts in one view: in files, in kubeconfigs, of kubelet, and as the ports serve them.
    Check(Check),
    /// Make certificates anew with the local authority, swap them in and restart what uses them. Works with everything
    /// down; workers may be given as hosts too, their keys never leave them.
    Renew(Renew),
}

/// `rekindle certs check`
#[derive(Debug, ClapArgs)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) hosts: Hosts,
    /// From which severity on the exit code tells: `fail` gives 3, `warn` also gives 4 for warnings.
    #[arg(long, value_enum, default_value_t = FailOn::Fail)]
    pub(crate) fail_on: FailOn,
}

/// `rekindle certs renew`
#[derive(Debug, ClapArgs)]
pub(crate) struct Renew {
    /// Names as `rekindle certs check` shows them: kubeadm's (apiserver, etcd-peer, admin.conf, ...), kubelet-client,
    /// kubelet-server, kubelet-serving.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) names: Vec<String>,
    /// All but the authorities.
    #[arg(long)]
    pub(crate) all: bool,
    /// A name or address that the server certificates named are also to be for; repeat for several.
    #[arg(long = "san", value_name = "NAME", conflicts_with = "all")]
    pub(crate) added_names: Vec<String>,
    #[command(flatten)]
    pub(crate) hosts: Hosts,
    #[command(flatten)]
    pub(crate) consent: Consent,
}
