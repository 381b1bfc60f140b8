//! The flags of `rekindle drill`.

use crate::args::{Consent, Hosts};
use crate::commands::from::FromVault;
use crate::operator_command::OperatorCommand;
use camino::Utf8PathBuf;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use jiff::Span;

/// `rekindle drill`
#[derive(Debug, ClapArgs)]
pub(crate) struct Drill {
    #[command(subcommand)]
    pub(super) verb: DrillVerb,
}

/// `rekindle drill ...`
#[derive(Debug, Subcommand)]
pub(super) enum DrillVerb {
    /// Restore a backup into a sandbox that can't reach anything, boot etcd and an API server from it, compare every object,
    /// and measure RTO and RPO. Touches no cluster, unless --scenario has one broken and recovered that is there for it.
    Run(Box<Run>),
    /// List earlier drills with their trend.
    History(History),
    /// The inside of the sandbox; started by rekindle itself.
    #[command(hide = true)]
    Inside,
}

/// `rekindle drill run`
#[derive(Debug, ClapArgs)]
pub(super) struct Run {
    /// A snapshot file, or a folder whose newest `.db` file is taken.
    #[arg(long, value_name = "PATH", conflicts_with = "from", required_unless_present_any = ["from", "config"])]
    pub(super) snapshot: Option<Utf8PathBuf>,
    #[command(flatten)]
    pub(super) from: FromVault,
    /// The agent's configuration file: its vault, `drill` and `targets` count where no flag says otherwise.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<Utf8PathBuf>,
    /// Take `etcd` and `kube-apiserver` from this folder. Default: those in PATH, else the ones that run on this host.
    #[arg(long, value_name = "DIR")]
    pub(super) bin_dir: Option<Utf8PathBuf>,
    /// A copy of /etc/kubernetes/pki: the service-account keys and the CA must fit the backup. Default: those of the newest
    /// bundle in the vault.
    #[arg(long, value_name = "DIR")]
    pub(super) pki: Option<Utf8PathBuf>,
    /// The API server's configuration of encryption at rest. Default: that of the newest bundle in the vault.
    #[arg(long, value_name = "FILE")]
    pub(super) encryption_config: Option<Utf8PathBuf>,
    /// A command of yours that must succeed inside the sandbox, run by `sh -c` with KUBECONFIG set; repeat for several.
    #[arg(long, value_name = "COMMAND")]
    pub(super) check_command: Vec<String>,
    /// A file of manifests, JSON or YAML, that the restored API server must take (server-side apply); repeat for several.
    #[arg(long, value_name = "FILE")]
    pub(super) check_manifest: Vec<Utf8PathBuf>,
    /// The drill fails with exit code 3 if it takes longer from its start until everything is verified: `15m`.
    #[arg(long, value_name = "TIME")]
    pub(super) target_rto: Option<Span>,
    /// ... or if more would have been lost than this: `5s`.
    #[arg(long, value_name = "TIME")]
    pub(super) target_rpo: Option<Span>,
    /// The drill ends with exit code 3 if no API server could be booted on what was restored: nothing was shown to run then.
    #[arg(long)]
    pub(super) require_boot: bool,
    /// A folder with room for twice the database.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/rekindle")]
    pub(super) scratch: Utf8PathBuf,
    #[command(flatten)]
    pub(super) reports: Reports,
    #[command(flatten)]
    pub(super) live: Live,
}

/// A drill on a living cluster.
#[derive(Debug, ClapArgs)]
pub(super) struct Live {
    /// No sandbox: break this cluster for real, recover it as after a failure, and measure. Refused unless the namespace
    /// kube-system carries the label rekindle.dev/drill=allowed and its UID stands in `drill.clusters` of --config.
    #[arg(
        long,
        value_enum,
        requires = "config",
        conflicts_with_all = ["bin_dir", "pki", "encryption_config", "check_command", "check_manifest", "require_boot"]
    )]
    pub(super) scenario: Option<Scenario>,
    /// The node that `--scenario node-lost` takes.
    #[arg(long, value_name = "NAME", required_if_eq("scenario", "node-lost"), requires = "scenario")]
    pub(super) node: Option<String>,
    /// The command that turns its host off, and fails if the host is not off then; `{node}` in it becomes the node's name.
    /// Default: `nodes.fenceCommand` of --config.
    #[arg(long, value_name = "COMMAND", requires = "node")]
    pub(super) fence_command: Option<OperatorCommand>,
    /// The command that turns its host on again. Default: `nodes.returnCommand` of --config.
    #[arg(long, value_name = "COMMAND", requires = "node")]
    pub(super) return_command: Option<OperatorCommand>,
    #[command(flatten)]
    pub(super) hosts: Hosts,
    #[command(flatten)]
    pub(super) consent: Consent,
}

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Scenario {
    /// Every etcd member loses its data.
    DataLost,
    /// So many of three or more members lose their data that no quorum is left.
    QuorumLost,
    /// One of three or more members loses its data.
    MemberLost,
    /// The host of a node that is none of the control plane's is turned off, and its pods are brought back (--node).
    NodeLost,
    /// Every certificate of the hosts given has expired, but for the authorities.
    CertificatesExpired,
    /// No data is lost: etcd's static pod loses its manifest, or the unit of the API server is stopped.
    Stopped,
}

/// `rekindle drill history`
#[derive(Debug, ClapArgs)]
pub(super) struct History {
    #[command(flatten)]
    pub(super) reports: Reports,
}

/// Where reports are kept.
#[derive(Debug, ClapArgs)]
pub(super) struct Reports {
    /// Where the reports of drills are kept: one file each as JSON, Markdown and HTML.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/rekindle/drills")]
    pub(super) report_dir: Utf8PathBuf,
}
