//! The flags of `rekindle backup`.

use crate::args::{Consent, EtcdFlags};
use camino::Utf8PathBuf;
use clap::{Args as ClapArgs, Subcommand};

/// `rekindle backup`
#[derive(Debug, ClapArgs)]
pub(crate) struct Backup {
    #[command(subcommand)]
    pub(super) verb: BackupVerb,
}

/// `rekindle backup ...`
#[derive(Debug, Subcommand)]
pub(super) enum BackupVerb {
    /// Prepare a vault: make the signing key, prove that the store is fit and that your identity reads what will be
    /// written.
    Init(Init),
    /// Take a full backup now: a snapshot of etcd, verified, encrypted, signed, in the vault.
    Run(Run),
    /// Put what else a restore needs of this host into the vault: PKI, manifests, kubeadm and kubelet configuration, units.
    /// Run it on each control-plane host, as root.
    Bundle(Bundle),
    /// List what the vault holds: timelines with fulls, segments and gaps, and bundles.
    List(Read),
    /// Show what is said of one backup.
    Show {
        /// Number of the backup, as `list` shows it. Default: the newest full.
        sequence: Option<u64>,
        #[command(flatten)]
        read: Read,
    },
    /// Verify all backups: signatures, chain, sizes and digests; with an identity also every content.
    Verify(Verify),
    /// Show the history of one key: when it was written and deleted, from all fulls and segments.
    Find(crate::commands::from::Find),
    /// Remove what retention does not keep. The newest good full stays whatever the rules say.
    Prune(Prune),
}

/// Which vault.
#[derive(Debug, ClapArgs)]
pub(super) struct Place {
    /// The vault: a folder, `file:///FOLDER`, `s3://BUCKET/PREFIX` (credentials and endpoint from AWS_ACCESS_KEY_ID,
    /// AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT, AWS_ALLOW_HTTP or the instance), `gs://BUCKET/PREFIX`
    /// (GOOGLE_SERVICE_ACCOUNT or the instance), `az://CONTAINER/PREFIX` (AZURE_STORAGE_ACCOUNT_NAME, ... or the instance).
    #[arg(long = "vault", value_name = "URL", env = "REKINDLE_VAULT")]
    pub(super) url: String,
}

/// A cluster in a vault, and whose signature counts.
#[derive(Debug, ClapArgs)]
pub(crate) struct Read {
    #[command(flatten)]
    pub(super) place: Place,
    /// The cluster's name in the vault. Default: the only one there.
    #[arg(long, value_name = "NAME")]
    pub(super) cluster: Option<String>,
    /// Whose backups count: `ed25519:...` as `init` prints it; repeat for several.
    #[arg(long = "signer", value_name = "KEY", required_unless_present = "signing_key")]
    pub(super) signers: Vec<String>,
    /// Backups signed with this key count, too.
    #[arg(long, value_name = "FILE")]
    pub(super) signing_key: Option<Utf8PathBuf>,
}

impl Read {
    /// The vault's address.
    pub(crate) fn url(&self) -> &str {
        &self.place.url
    }
}

/// To whom is encrypted.
#[derive(Debug, ClapArgs)]
pub(super) struct Encrypt {
    /// Public key that backups are encrypted to: `age1...` as `age-keygen` prints it; repeat for several.
    #[arg(long = "recipient", value_name = "KEY", required_unless_present = "passphrase_file")]
    pub(super) recipients: Vec<String>,
    /// Encrypt with the passphrase in this file instead.
    #[arg(long, value_name = "FILE", conflicts_with = "recipients")]
    pub(super) passphrase_file: Option<Utf8PathBuf>,
}

/// `rekindle backup init`
#[derive(Debug, ClapArgs)]
pub(super) struct Init {
    #[command(flatten)]
    pub(super) place: Place,
    /// The signing key: made when the file is not there. It stays on the hosts that write backups.
    #[arg(long, value_name = "FILE")]
    pub(super) signing_key: Utf8PathBuf,
    #[command(flatten)]
    pub(super) encrypt: Encrypt,
    /// The identity file (`age-keygen`): asked for once, to prove that it reads what will be written. Keep it outside
    /// the cluster and outside the bundles.
    #[arg(long, value_name = "FILE", required_unless_present = "passphrase_file")]
    pub(super) identity: Option<Utf8PathBuf>,
    /// Show what would be read and written, and where; write nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// `rekindle backup run`
#[derive(Debug, ClapArgs)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) place: Place,
    /// The cluster's name in the vault. Default: the UID of its namespace kube-system, else `etcd-` and its etcd cluster id.
    #[arg(long, value_name = "NAME")]
    pub(super) cluster: Option<String>,
    /// The key that signs, as `init` made it.
    #[arg(long, value_name = "FILE")]
    pub(super) signing_key: Utf8PathBuf,
    #[command(flatten)]
    pub(super) encrypt: Encrypt,
    #[command(flatten)]
    pub(super) etcd: EtcdFlags,
    /// A folder with room for one snapshot.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/rekindle")]
    pub(super) scratch: Utf8PathBuf,
    /// Show what would be read and written, and where; write nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// `rekindle backup bundle`
#[derive(Debug, ClapArgs)]
pub(super) struct Bundle {
    #[command(flatten)]
    pub(super) place: Place,
    /// The cluster's name in the vault. Default: the only one there.
    #[arg(long, value_name = "NAME")]
    pub(super) cluster: Option<String>,
    /// The key that signs, as `init` made it.
    #[arg(long, value_name = "FILE")]
    pub(super) signing_key: Utf8PathBuf,
    #[command(flatten)]
    pub(super) encrypt: Encrypt,
    #[command(flatten)]
    pub(super) etcd: EtcdFlags,
    /// Another file or folder that belongs into the bundle; repeat for several.
    #[arg(long = "path", value_name = "PATH")]
    pub(super) paths: Vec<Utf8PathBuf>,
    /// A folder with room for the bundle.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/rekindle")]
    pub(super) scratch: Utf8PathBuf,
    /// Show what would be read and written, and where; write nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// `rekindle backup verify`
#[derive(Debug, ClapArgs)]
pub(super) struct Verify {
    #[command(flatten)]
    pub(super) read: Read,
    /// Decrypt with this identity file, and verify every content: each snapshot in full, with its HashKV.
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    pub(super) identity: Option<Utf8PathBuf>,
    /// Decrypt with the passphrase in this file, and verify every content.
    #[arg(long, value_name = "FILE")]
    pub(super) passphrase_file: Option<Utf8PathBuf>,
    /// Also restore the newest state for trial, and boot an etcd from it where one is in PATH. Needs an identity.
    #[arg(long)]
    pub(super) deep: bool,
    /// A folder with room for one snapshot (with --deep: for two, and the segments behind it); used with an identity.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/rekindle")]
    pub(super) scratch: Utf8PathBuf,
}

/// `rekindle backup prune`
#[derive(Debug, ClapArgs)]
pub(super) struct Prune {
    #[command(flatten)]
    pub(super) place: Place,
    /// The cluster's name in the vault. Default: the only one there.
    #[arg(long, value_name = "NAME")]
    pub(super) cluster: Option<String>,
    /// Backups of other signers count, too: `ed25519:...`; repeat for several.
    #[arg(long = "signer", value_name = "KEY")]
    pub(super) signers: Vec<String>,
    /// The key that signs the record of what was removed.
    #[arg(long, value_name = "FILE")]
    pub(super) signing_key: Utf8PathBuf,
    /// Keep the newest so many fulls.
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    pub(super) keep_last: u32,
    /// Keep the newest full of each of so many hours.
    #[arg(long, value_name = "COUNT", default_value_t = 24)]
    pub(super) keep_hourly: u32,
    /// Keep the newest full of each of so many days.
    #[arg(long, value_name = "COUNT", default_value_t = 7)]
    pub(super) keep_daily: u32,
    /// Keep the newest full of each of so many weeks.
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub(super) keep_weekly: u32,
    /// Keep the newest full of each of so many months.
    #[arg(long, value_name = "COUNT", default_value_t = 12)]
    pub(super) keep_monthly: u32,
    /// Keep all fulls that are not older than this: `36h`, `14d`.
    #[arg(long, value_name = "TIME")]
    pub(super) keep_within: Option<jiff::Span>,
    /// Keep every moment restorable that is not older than this, and no segments that only older moments need. Default:
    /// a segment stays as long as a kept full leads to it.
    #[arg(long, value_name = "TIME")]
    pub(super) point_in_time: Option<jiff::Span>,
    #[command(flatten)]
    pub(super) consent: Consent,
}
