//! The flags of `rekindle resources`.

use crate::args::{Consent, Kubeconfig};
use camino::Utf8PathBuf;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use rekindle_resources::plan::Existing;
use rekindle_resources::select::Selection;

/// `rekindle resources`
#[derive(Debug, ClapArgs)]
pub(crate) struct Resources {
    #[command(subcommand)]
    pub(super) verb: ResourcesVerb,
}

/// `rekindle resources ...`
#[derive(Debug, Subcommand)]
pub(super) enum ResourcesVerb {
    /// Write every object of the cluster into a folder (one YAML file each, Secrets encrypted) or into a vault. What is left
    /// out, and why, is in the answer. An earlier backup in the folder is replaced when the new one is complete; if the new
    /// one could not read what the earlier one has, that one stays beside it as `resources.previous`.
    Backup(Backup),
    /// List what a backup holds, and what it left out.
    List(List),
    /// Compare a backup with the cluster: what a restore would do, object by object. Changes nothing.
    Diff(Diff),
    /// Restore objects from a backup: shows what would be done, asks, and reports each object.
    Restore(Restore),
    /// Finish a restore that was cut off.
    Resume(Resume),
    /// Take a restore back: what it made is deleted, what it changed is as it was. Namespaces, CustomResourceDefinitions,
    /// volumes and their claims stay.
    Undo(Undo),
}

/// Which objects.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Select {
    /// Only this namespace; repeat for several. A backup then also has the CustomResourceDefinitions and PersistentVolumes
    /// that its objects need.
    #[arg(short = 'n', long = "namespace", value_name = "NAME")]
    namespaces: Vec<String>,
    /// Not this namespace; repeat for several.
    #[arg(long = "exclude-namespace", value_name = "NAME")]
    exclude_namespaces: Vec<String>,
    /// Only this kind, as kubectl calls it (deploy, Secret, things.example.com, or *.example.com); repeat for several.
    #[arg(long = "include", value_name = "KIND")]
    include: Vec<String>,
    /// Not this kind; repeat for several.
    #[arg(long = "exclude", value_name = "KIND")]
    exclude: Vec<String>,
    /// Only objects with these labels, as kubectl's: a=b,c!=d,e in (f,g),h,!i.
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
}

impl Select {
    pub(super) fn selection(&self) -> Selection {
        Selection {
            namespaces: self.namespaces.clone(),
            exclude_namespaces: self.exclude_namespaces.clone(),
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            selector: self.selector.clone(),
        }
    }
}

/// `rekindle resources backup`
#[derive(Debug, ClapArgs)]
pub(super) struct Backup {
    /// The folder. It may be a git work tree: only its sub-folder `resources` is written.
    #[arg(required_unless_present = "vault", conflicts_with = "vault")]
    pub(super) folder: Option<Utf8PathBuf>,
    #[command(flatten)]
    pub(super) into: IntoVault,
    #[command(flatten)]
    pub(super) api: Kubeconfig,
    #[command(flatten)]
    pub(super) select: Select,
    /// Public key that Secrets are encrypted to: `age1...` as `age-keygen` prints it; repeat for several.
    #[arg(long = "recipient", value_name = "KEY", conflicts_with = "plain_secrets")]
    pub(super) recipients: Vec<String>,
    /// Write Secrets in the clear.
    #[arg(long)]
    pub(super) plain_secrets: bool,
    /// Most objects in one answer of the API server.
    #[arg(long, value_name = "COUNT", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) chunk_size: u64,
}

/// A vault that the backup goes into.
#[derive(Debug, Clone, ClapArgs)]
#[command(next_help_heading = "Into a vault")]
pub(super) struct IntoVault {
    /// Put it into this vault: a folder, `file:///FOLDER`, `s3://BUCKET/PREFIX`, ... Everything is encrypted to the
    /// recipients there.
    #[arg(long, value_name = "URL", requires_all = ["signing_key", "recipients"])]
    pub(super) vault: Option<String>,
    /// The cluster's name in the vault. Default: the UID of its namespace kube-system.
    #[arg(long, value_name = "NAME", requires = "vault")]
    pub(super) cluster: Option<String>,
    /// The key that signs, as `backup init` made it.
    #[arg(long, value_name = "FILE", requires = "vault")]
    pub(super) signing_key: Option<Utf8PathBuf>,
    /// A folder with room for the backup, twice.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/rekindle")]
    pub(super) scratch: Utf8PathBuf,
    /// Show what would be read and written, and where; write nothing.
    #[arg(long, requires = "vault")]
    pub(super) dry_run: bool,
}

/// `rekindle resources list`
#[derive(Debug, ClapArgs)]
pub(super) struct List {
    #[command(flatten)]
    pub(super) place: Place,
}

/// Where a backup is read from.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Place {
    /// The folder with the backup, or `FOLDER/resources.previous`.
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    pub(super) folder: Option<Utf8PathBuf>,
    /// The identity file that decrypts (`age-keygen`): the Secrets of a folder, everything of a vault.
    #[arg(long, value_name = "FILE")]
    pub(super) identity: Option<Utf8PathBuf>,
    #[command(flatten)]
    pub(super) vault: OutOfVault,
}

/// A backup in a vault.
#[derive(Debug, Clone, ClapArgs)]
#[command(next_help_heading = "From a vault")]
pub(super) struct OutOfVault {
    /// Read the backup in this vault.
    #[arg(long, value_name = "URL", requires_all = ["trusted_signers", "identity"])]
    pub(super) from: Option<String>,
    /// The cluster's name in the vault. Default: the only one there.
    #[arg(long, value_name = "NAME", requires = "from")]
    pub(super) cluster: Option<String>,
    /// Whose backups count: `ed25519:...` as `backup init` prints it, a file of such lines, or a signing key file; repeat
    /// for several.
    #[arg(long = "trusted-signer", value_name = "KEY|FILE", requires = "from")]
    pub(super) trusted_signers: Vec<String>,
    /// Number of the backup, as `backup list` shows it. Default: the newest that is of the whole cluster, else the newest;
    /// partial ones only where there is no other.
    #[arg(long, value_name = "NUMBER", requires = "from")]
    pub(super) number: Option<u64>,
    /// A folder with room for the backup, twice.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/rekindle")]
    pub(super) scratch: Utf8PathBuf,
}

/// A backup that is compared or restored.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Source {
    #[command(flatten)]
    pub(super) place: Place,
    /// Take files that were changed by hand since the backup.
    #[arg(long)]
    pub(super) accept_edited: bool,
}

/// How it is restored.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct How {
    #[command(flatten)]
    pub(super) select: Select,
    /// What is done with an object that is there, but different.
    #[arg(long, value_enum, default_value_t = ExistingFlag::Skip)]
    pub(super) existing: ExistingFlag,
    /// Give a namespace another name: OLD=NEW; repeat for several.
    #[arg(long = "map-namespace", value_name = "OLD=NEW")]
    pub(super) map_namespaces: Vec<String>,
    /// Give a storage class another name: OLD=NEW; repeat for several.
    #[arg(long = "map-storage-class", value_name = "OLD=NEW")]
    pub(super) map_storage_classes: Vec<String>,
    /// Replace the start of container images: OLD=NEW, such as docker.io/=registry.example/; repeat for several.
    #[arg(long = "map-image", value_name = "OLD=NEW")]
    pub(super) map_images: Vec<String>,
    /// JSON patches for some objects: a YAML file with a list of {kind, namespace, name, patch}.
    #[arg(long = "patches", value_name = "FILE")]
    pub(super) patches: Option<Utf8PathBuf>,
    /// Also put back `status` of custom resources, and of Jobs that have not finished.
    #[arg(long)]
    pub(super) with_status: bool,
}

/// What is done with an object that is there, but different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ExistingFlag {
    /// It stays as it is.
    Skip,
    /// The backup's fields are applied to it; what others added stays.
    Update,
    /// It is deleted and made anew; Namespaces, CustomResourceDefinitions, volumes and claims are updated.
    Recreate,
}

impl std::convert::From<ExistingFlag> for Existing {
    fn from(flag: ExistingFlag) -> Self {
        match flag {
            ExistingFlag::Skip => Self::Skip,
            ExistingFlag::Update => Self::Update,
            ExistingFlag::Recreate => Self::Recreate,
        }
    }
}

/// `rekindle resources diff`
#[derive(Debug, ClapArgs)]
pub(super) struct Diff {
    #[command(flatten)]
    pub(super) source: Source,
    #[command(flatten)]
    pub(super) api: Kubeconfig,
    #[command(flatten)]
    pub(super) how: How,
}

/// `rekindle resources restore`
#[derive(Debug, ClapArgs)]
pub(super) struct Restore {
    #[command(flatten)]
    pub(super) source: Source,
    #[command(flatten)]
    pub(super) api: Kubeconfig,
    #[command(flatten)]
    pub(super) how: How,
    #[command(flatten)]
    pub(super) state: State,
    #[command(flatten)]
    pub(super) consent: Consent,
}

/// Where runs are kept.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct State {
    /// Where runs are kept on this machine.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/rekindle")]
    pub(super) state_dir: Utf8PathBuf,
}

/// `rekindle resources resume`
#[derive(Debug, ClapArgs)]
pub(super) struct Resume {
    /// Id of the restore, or the end of it. Default: the newest.
    pub(super) id: Option<String>,
    #[command(flatten)]
    pub(super) state: State,
    #[command(flatten)]
    pub(super) consent: Consent,
}

/// `rekindle resources undo`
#[derive(Debug, ClapArgs)]
pub(super) struct Undo {
    /// Id of the restore, or the end of it.
    pub(super) id: String,
    #[command(flatten)]
    pub(super) state: State,
    #[command(flatten)]
    pub(super) consent: Consent,
}
