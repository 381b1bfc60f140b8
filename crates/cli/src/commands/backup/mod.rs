//! `rekindle backup`: the vault on the command line. What it is stands in `crates/vault` and `docs/formats/vault.md`.

mod args;
mod bundle;
mod deep;
mod dry;
mod init;
mod list;
mod prune;
mod report;
pub(super) mod take;
mod verify;

pub(crate) use args::{Backup, Read};
pub(super) use bundle::flag_of;
pub(crate) use dry::BackupPlan;
pub(super) use prune::ms as span_ms;
pub(crate) use report::{BackupInit, BackupList, BackupPrune, BackupReport, BackupVerification};

use crate::connect;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use args::{BackupVerb, Encrypt, Place};
use camino::Utf8Path;
use rekindle_model::Redacted;
use rekindle_vault::{ClusterName, Error, Recipients, Scratch, Signer, SigningKey, Store, Vault, WriterName};

pub(crate) fn run(args: Backup, output: &Output) -> Result<Exit, Failure> {
    let runtime = connect::runtime()?;
    match args.verb {
        BackupVerb::Init(args) => runtime.block_on(init::run(&args, output)),
        BackupVerb::Run(args) => runtime.block_on(take::run(&args, output)),
        BackupVerb::Bundle(args) => runtime.block_on(bundle::run(&args, output)),
        BackupVerb::List(read) => runtime.block_on(list::list(&read, output)),
        BackupVerb::Show { sequence, read } => runtime.block_on(list::show(sequence, &read, output)),
        BackupVerb::Verify(args) => runtime.block_on(verify::run(&args, output)),
        BackupVerb::Find(args) => runtime.block_on(super::from::find(&args, output)),
        BackupVerb::Prune(args) => runtime.block_on(prune::run(&args, output)),
    }
}

fn store(place: &Place) -> Result<Store, Failure> {
    open_store(&place.url)
}

pub(super) fn open_store(url: &str) -> Result<Store, Failure> {
    Store::open(url).map_err(|error| {
        Failure::usage("the vault can't be opened")
            .because(error)
            .hint("a folder must exist: make it, or mount it; `rekindle backup init` checks the rest")
    })
}

/// The vault that is read, of the cluster named or the only one there is.
pub(super) async fn open(read: &Read) -> Result<Vault, Failure> {
    let mut trusted: Vec<Signer> = read
        .signers
        .iter()
        .map(|text| text.parse().map_err(|error: Error| Failure::usage(error.to_string())))
        .collect::<Result<_, _>>()?;
    if let Some(path) = &read.signing_key {
        trusted.push(signing_key(path)?.signer());
    }
    vault(&store(&read.place)?, read.cluster.as_deref(), &trusted).await
}

pub(super) async fn vault(
    store: &Store,
    cluster: Option<&str>,
    trusted: &[Signer],
) -> Result<Vault, Failure> {
    let cluster = match cluster {
        Some(name) => cluster_name(name)?,
        None => only_cluster(store).await?,
    };
    Vault::new(store, cluster, trusted).doing(|| format!("cannot read {}", store.url()))
}

async fn only_cluster(store: &Store) -> Result<ClusterName, Failure> {
    let mut clusters = Vault::clusters(store).await.doing(|| format!("cannot list {}", store.url()))?;
    match (clusters.pop(), clusters.len()) {
        (Some(only), 0) => Ok(only),
        (None, _) => Err(Failure::new(format!("{} holds no backups", store.url()))
            .hint("`rekindle backup run` takes the first; is the address right, with its prefix?")),
        (Some(last), _) => {
            let names: Vec<&str> = clusters.iter().chain([&last]).map(ClusterName::as_str).collect();
            Err(Failure::usage(format!("{} holds several clusters: {}", store.url(), names.join(", ")))
                .hint("name one with --cluster"))
        }
    }
}

pub(super) fn cluster_name(name: &str) -> Result<ClusterName, Failure> {
    ClusterName::new(name).map_err(|error| Failure::usage(error.to_string()))
}

pub(super) fn signing_key(path: &Utf8Path) -> Result<SigningKey, Failure> {
    SigningKey::read(path.as_std_path()).map_err(|error| {
        Failure::new("there is no key to sign with")
            .because(error)
            .hint("`rekindle backup init --signing-key FILE` makes one")
    })
}

fn recipients(encrypt: &Encrypt) -> Result<Recipients, Failure> {
    match &encrypt.passphrase_file {
        Some(path) => Ok(Recipients::passphrase(passphrase(path)?)),
        None => Recipients::new(encrypt.recipients.iter().map(String::as_str)).map_err(|error| {
            Failure::usage(error.to_string()).hint("`age-keygen` makes an identity and prints its public key")
        }),
    }
}

pub(super) fn passphrase(path: &Utf8Path) -> Result<Redacted<String>, Failure> {
    let text = std::fs::read_to_string(path).doing(|| format!("cannot read {path}"))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Failure::usage(format!("{path} holds no passphrase")));
    }
    Ok(Redacted::new(text.to_owned()))
}

/// A folder of one's own in `parent`, which is made where it is missing; gone again when dropped.
pub(super) fn scratch(parent: &Utf8Path) -> Result<Scratch, Failure> {
    std::fs::create_dir_all(parent).doing(|| format!("cannot make {parent}"))?;
    let folder = Scratch::new(parent.as_std_path(), "backup");
    folder.doing(|| format!("cannot make a folder in {parent}"))
}

/// This host, as part of the names of what it writes.
pub(super) fn writer_name() -> Result<WriterName, Failure> {
    let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
    let name: String = host.chars().map(|c| if fits(c) { c } else { '-' }).take(64).collect();
    let name = name.trim_matches(['.', '-']);
    WriterName::new(if name.is_empty() { "host" } else { name })
        .doing(|| format!("cannot name {host} as a writer"))
}
