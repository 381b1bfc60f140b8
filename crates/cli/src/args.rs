//! The command line as types. Help texts are the documentation: short, true, with the units.

use crate::commands::from::FromVault;
use camino::Utf8PathBuf;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use rekindle_world::ClusterOptions;
use rekindle_world::ssh::SshOptions;

/// Brings a Kubernetes cluster back.
///
/// Finds the root cause with the API server down, shows a plan, carries it out without ever harming the only copy,
/// proves the result, and reports RTO and RPO.
#[derive(Debug, Parser)]
#[command(name = "rekindle", version, propagate_version = true, max_term_width = 110)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags that every verb takes.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Common {
    /// Form of the answer on standard output.
    #[arg(short = 'o', long, value_enum, default_value_t = Format::Table, global = true)]
    pub(crate) output: Format,
    /// No colours (also: environment variable NO_COLOR).
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

impl Args {
    /// The form of the lines on standard error.
    pub(crate) fn log_format(&self) -> LogFormat {
        match &self.verb {
            Verb::Agent(args) => args.log_format,
            _ => LogFormat::Text,
        }
    }
}

/// Forms of the lines on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people, and for a journal that adds the time.
    Text,
    /// One JSON object a line: time (RFC 3339), level, message, and fields of their own.
    Json,
}

/// Forms of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For people, only what is wrong.
    Short,
    /// JSON with apiVersion and kind.
    Json,
    /// YAML with apiVersion and kind.
    Yaml,
}

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Look at the control plane, lowest layer first, and say what is wrong and why. Changes nothing.
    Check(Check),
    /// Find out what is wrong and print the plan to mend it. Changes nothing.
    Plan(Plan),
    /// Carry out a plan that `rekindle plan -o json` wrote, if the cluster is still as the plan saw it.
    Apply(Apply),
    /// Find what is wrong, show the plan, carry it out after consent, prove the result and report it.
    Recover(Recover),
    /// List earlier runs, show one, finish an interrupted one, or take one back.
    Runs(Runs),
    /// Save, verify, restore and export etcd snapshots.
    Snapshot(Snapshot),
    /// Take, list, verify and prune backups in a vault.
    Backup(crate::commands::backup::Backup),
    /// List, drain, fence and remove nodes.
    Node(crate::commands::node::Node),
    /// Find what will not go away (pods, namespaces, CRDs, volumes, webhooks, APIServices), and let it go safely.
    Unstick(crate::commands::unstick::Unstick),
    /// Restore a backup in a sandbox for trial, boot it, compare it, measure RTO and RPO; list earlier drills.
    Drill(crate::commands::drill::Drill),
    /// Write a runbook that is true for this cluster: what to do for each failure, with Rekindle and by hand.
    Runbook(Box<crate::commands::runbook::Runbook>),
    /// Protect a cluster continuously: every change into a vault within seconds, and full backups on a schedule.
    Agent(Agent),
    /// Look at every certificate of the hosts, and make certificates anew.
    Certs(crate::commands::certs::Certs),
    /// Take one kubeadm host out of its cluster: what `kubeadm reset` deletes is archived, its etcd member removed.
    Reset(crate::commands::reset::Reset),
    /// Back up and restore objects through the API, as a folder of YAML: for managed clusters and single namespaces.
    Resources(crate::commands::resources::Resources),
    /// Print a shell completion script.
    Completion {
        /// Shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
    /// Print the JSON Schema of a document kind.
    Schema {
        /// Kind.
        kind: Kind,
    },
    /// The far end of an SSH channel; started by rekindle itself.
    #[command(hide = true)]
    Serve,
}

/// Kinds of documents.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum Kind {
    /// What `check` prints.
    CheckReport,
    /// What `plan` prints.
    Plan,
    /// What `recover`, `apply` and `runs show` print.
    RunReport,
    /// What the `snapshot` verbs print.
    SnapshotReport,
    /// What `backup init` prints.
    BackupInit,
    /// What `backup init`, `run` and `bundle` print with `--dry-run`.
    BackupPlan,
    /// What `backup run` and `backup show` print.
    BackupReport,
    /// What `backup list` prints.
    BackupList,
    /// What `backup verify` prints.
    BackupVerification,
    /// What `backup prune` prints.
    BackupPrune,
    /// What `backup find` prints.
    BackupFind,
    /// What `node list` prints.
    NodeList,
    /// What `unstick` prints.
    StuckReport,
    /// What `drill run` prints.
    DrillReport,
    /// What `drill history` prints.
    DrillHistory,
    /// What `runbook -o json` prints.
    Runbook,
    /// The configuration file of `agent`.
    AgentConfig,
    /// What `certs check` prints.
    CertificateReport,
    /// What `resources backup` and `resources list` print, and a backup's index.
    ResourceBackup,
    /// What `resources diff` and `resources restore --dry-run` print.
    ResourceDiff,
    /// What `resources restore` and `resources resume` print.
    ResourceRestore,
    /// What `resources undo` prints.
    ResourceUndo,
}

/// How hosts are reached.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Ssh {
    /// OpenSSH configuration file (as `ssh -F`).
    #[arg(long, value_name = "FILE")]
    pub(crate) ssh_config: Option<Utf8PathBuf>,
    /// Become root on the hosts with `sudo -n`.
    #[arg(long)]
    pub(crate) sudo: bool,
    /// The rekindle binary to send to hosts of another system than this one.
    #[arg(long, value_name = "FILE")]
    pub(crate) helper: Option<Utf8PathBuf>,
}

impl Ssh {
    /// As the seam takes them.
    pub(crate) fn options(&self) -> SshOptions {
        SshOptions { config: self.ssh_config.clone(), helper: self.helper.clone(), sudo: self.sudo }
    }
}

/// Which API server is asked, and as whom.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct Kubeconfig {
    /// kubeconfig of the cluster; exec credentials work. Default: ~/.kube/config, then /etc/kubernetes/admin.conf, then
    /// the service account of the pod this runs in; verbs that look at hosts: the one kubeadm left on each, or, away from
    /// control-plane hosts, that default where it names a provider's cluster.
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<Utf8PathBuf>,
    /// Context of the kubeconfig. Default: the current one.
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

impl Kubeconfig {
    /// As the seam takes it.
    pub(crate) fn options(&self) -> ClusterOptions {
        ClusterOptions { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() }
    }
}

/// Which hosts are looked at, and how they are reached.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Hosts {
    /// A control-plane host to reach with your own ssh, for example root@10.0.0.11; repeat for several. Without it:
    /// the host this runs on.
    #[arg(long = "host", value_name = "DESTINATION")]
    pub(crate) hosts: Vec<String>,
    /// A control-plane host that is off for good: you attest that it can't come back on its own.
    #[arg(long = "lost", value_name = "NAME")]
    pub(crate) lost: Vec<String>,
    #[command(flatten)]
    pub(crate) ssh: Ssh,
    /// Another root folder of the local host, for example a mounted disk.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: Utf8PathBuf,
    #[command(flatten)]
    pub(crate) api: Kubeconfig,
    /// Where runs are kept on this machine.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/rekindle")]
    pub(crate) state_dir: Utf8PathBuf,
}

/// What is restored, and how.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct Restore {
    /// A snapshot file, or a folder whose newest verified snapshot is taken.
    #[arg(long, value_name = "PATH")]
    pub(crate) snapshot: Option<Utf8PathBuf>,
    /// Keep every revision as it was. Without it the revision is raised above all that clients have seen, so that
    /// their watches start anew.
    #[arg(long)]
    pub(crate) exact: bool,
    /// Restore into this folder instead, and change the etcd manifest and kubeadm-config to it.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<Utf8PathBuf>,
    /// Accept a source that can't be told to be of this cluster.
    #[arg(long)]
    pub(crate) accept_unknown_identity: bool,
    /// Accept a source that carries a CORRUPT alarm.
    #[arg(long)]
    pub(crate) accept_corrupt_alarm: bool,
    /// Accept a copied db (`member/snap/db`), which does not end with the SHA-256 that a saved snapshot has.
    #[arg(long)]
    pub(crate) skip_hash_check: bool,
    #[command(flatten)]
    pub(crate) from: FromVault,
}

/// `rekindle check`
#[derive(Debug, ClapArgs)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) hosts: Hosts,
    /// Also look at these snapshots.
    #[arg(long, value_name = "PATH")]
    pub(crate) snapshot: Option<Utf8PathBuf>,
    /// From which severity on the exit code tells: `fail` gives 3, `warn` also gives 4 for warnings.
    #[arg(long, value_enum, default_value_t = FailOn::Fail)]
    pub(crate) fail_on: FailOn,
}

/// From which severity on `check` fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    /// Failures only.
    Fail,
    /// Warnings too.
    Warn,
}

/// `rekindle plan`
#[derive(Debug, ClapArgs)]
pub(crate) struct Plan {
    #[command(flatten)]
    pub(crate) hosts: Hosts,
    #[command(flatten)]
    pub(crate) restore: Restore,
}

/// `rekindle apply`
#[derive(Debug, ClapArgs)]
pub(crate) struct Apply {
    /// The plan, JSON.
    pub(crate) file: Utf8PathBuf,
    #[command(flatten)]
    pub(crate) hosts: Hosts,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// `rekindle recover`
#[derive(Debug, ClapArgs)]
pub(crate) struct Recover {
    #[command(flatten)]
    pub(crate) hosts: Hosts,
    #[command(flatten)]
    pub(crate) restore: Restore,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// Consent.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Consent {
    /// Go on without asking.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Show what would be done, do nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `rekindle runs`
#[derive(Debug, ClapArgs)]
pub(crate) struct Runs {
    /// Where runs are kept on this machine.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/rekindle", global = true)]
    pub(crate) state_dir: Utf8PathBuf,
    #[command(subcommand)]
    pub(crate) verb: Option<RunsVerb>,
}

/// `rekindle runs ...`
#[derive(Debug, Subcommand)]
pub(crate) enum RunsVerb {
    /// Show a run's report.
    Show {
        /// Run id, or the end of one.
        id: String,
    },
    /// Finish an interrupted run.
    Resume(RunsAct),
    /// Put everything back as it was before a run.
    Undo(RunsAct),
}

/// A run that is taken up again.
#[derive(Debug, ClapArgs)]
pub(crate) struct RunsAct {
    /// Run id, or the end of one.
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) ssh: Ssh,
    /// The root folder of the local host that the run was begun with.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: Utf8PathBuf,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// `rekindle snapshot`
#[derive(Debug, ClapArgs)]
pub(crate) struct Snapshot {
    #[command(subcommand)]
    pub(crate) verb: SnapshotVerb,
}

/// `rekindle snapshot ...`
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotVerb {
    /// Save a snapshot of a running etcd and verify it before saying so.
    Save(SnapshotSave),
    /// Verify a snapshot: its sha256, the whole structure, HashKV, and count what it holds.
    Verify {
        /// Snapshot file.
        file: Utf8PathBuf,
        /// The file is a copied db without the sha256 at its end.
        #[arg(long)]
        skip_hash_check: bool,
    },
    /// Write the data dir of one etcd member from a snapshot. Needs no root and no cluster.
    Restore(SnapshotRestore),
    /// Write a snapshot's live keys and values as JSON lines.
    Export(SnapshotExport),
}

/// `rekindle snapshot export`
#[derive(Debug, ClapArgs)]
pub(crate) struct SnapshotExport {
    /// Snapshot file.
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    pub(crate) file: Option<Utf8PathBuf>,
    /// Only keys that begin with this.
    #[arg(long, default_value = "")]
    pub(crate) prefix: String,
    /// The file is a copied db without the sha256 at its end.
    #[arg(long)]
    pub(crate) skip_hash_check: bool,
    #[command(flatten)]
    pub(crate) from: FromVault,
    /// A folder with room for twice the database; used with --from.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub(crate) scratch: Utf8PathBuf,
}

/// `rekindle snapshot save`
#[derive(Debug, ClapArgs)]
pub(crate) struct SnapshotSave {
    /// File to write; it must not exist.
    pub(crate) file: Utf8PathBuf,
    #[command(flatten)]
    pub(crate) etcd: EtcdFlags,
}

/// `rekindle agent`
#[derive(Debug, ClapArgs)]
pub(crate) struct Agent {
    /// The configuration, YAML; `rekindle schema AgentConfig` prints its schema. SIGHUP makes a running agent read it
    /// again.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Utf8PathBuf,
    /// Only say whether the configuration is good, with all files that it names.
    #[arg(long)]
    pub(crate) check_config: bool,
    /// Form of the log on standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

/// Which etcd is asked.
#[derive(Debug, ClapArgs)]
pub(crate) struct EtcdFlags {
    /// etcd endpoints, tried in this order. Default: the etcd of this host, read from its manifest or unit.
    #[arg(long, value_delimiter = ',', env = "ETCDCTL_ENDPOINTS")]
    pub(crate) endpoints: Vec<String>,
    /// CA certificate of etcd.
    #[arg(long, env = "ETCDCTL_CACERT")]
    pub(crate) cacert: Option<Utf8PathBuf>,
    /// Client certificate.
    #[arg(long, env = "ETCDCTL_CERT")]
    pub(crate) cert: Option<Utf8PathBuf>,
    /// Client key.
    #[arg(long, env = "ETCDCTL_KEY")]
    pub(crate) key: Option<Utf8PathBuf>,
    /// The API tells whether the etcd of a cluster can be reached at all, where this host has none.
    #[command(flatten)]
    pub(crate) api: Kubeconfig,
}

/// `rekindle snapshot restore`, with etcdutl's flag names.
#[derive(Debug, ClapArgs)]
pub(crate) struct SnapshotRestore {
    /// Snapshot file.
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    pub(crate) file: Option<Utf8PathBuf>,
    /// Data dir to write; it must not exist or be empty. Default: NAME.etcd
    #[arg(long)]
    pub(crate) data_dir: Option<Utf8PathBuf>,
    /// WAL dir, when it is to lie elsewhere.
    #[arg(long)]
    pub(crate) wal_dir: Option<Utf8PathBuf>,
    /// Name of this member.
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// All members: NAME=PEER-URL, comma-separated.
    #[arg(long, default_value = "default=http://localhost:2380")]
    pub(crate) initial_cluster: String,
    /// Token of the new cluster.
    #[arg(long, default_value = "etcd-cluster")]
    pub(crate) initial_cluster_token: String,
    /// Peer URLs of this member, comma-separated.
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2380")]
    pub(crate) initial_advertise_peer_urls: Vec<String>,
    /// The file is a copied db without the sha256 at its end.
    #[arg(long)]
    pub(crate) skip_hash_check: bool,
    /// Raise the latest revision by this much; needs --mark-compacted.
    #[arg(long, value_name = "REVISIONS", requires = "mark_compacted")]
    pub(crate) bump_revision: Option<u64>,
    /// Mark everything below the raised revision as compacted; needs --bump-revision.
    #[arg(long, requires = "bump_revision")]
    pub(crate) mark_compacted: bool,
    /// Accept a snapshot that carries a CORRUPT alarm.
    #[arg(long)]
    pub(crate) accept_corrupt_alarm: bool,
    /// The member's quota in bytes (etcd's --quota-backend-bytes), for a snapshot with a NOSPACE alarm.
    #[arg(long, value_name = "BYTES", default_value_t = 2 * 1024 * 1024 * 1024)]
    pub(crate) quota_backend_bytes: u64,
    /// Show what would be written, write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) from: FromVault,
}
