//! The agent's configuration file, YAML: `rekindle schema AgentConfig` prints its schema.

use crate::args::EtcdFlags;
use crate::commands::backup;
use crate::commands::snapshot::save;
use crate::connect;
use crate::failure::{Doing, Failure};
use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::etcd::EtcdEndpoint;
use rekindle_vault::{ClusterName, Recipients, Signer, SigningKey, Store, WriterName};
use schemars::JsonSchema;
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// A configuration file that is larger holds something else.
const FILE_MAX_BYTES: u64 = 1 << 20;
/// A member that hashes its store all the time serves nobody.
const PROVE_EVERY_MIN_MS: u32 = 10_000;

/// What `rekindle agent` is told.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AgentConfig {
    /// The vault: a folder, `file:///FOLDER`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`.
    vault: String,
    /// The cluster's name in the vault.
    cluster: ClusterName,
    /// The key that signs, as `rekindle backup init` made it.
    #[schemars(with = "String")]
    signing_key: Utf8PathBuf,
    /// Public keys that backups are encrypted to: `age1...`.
    #[schemars(length(min = 1))]
    recipients: Vec<String>,
    /// Who else writes backups of this cluster: `ed25519:...`. This agent's own count always.
    #[serde(default)]
    trusted_signers: Vec<Signer>,
    /// Default: the etcd of this host, read from its manifest or unit.
    #[serde(default)]
    etcd: EtcdConfig,
    /// The agent's folder: changes that are not yet in the vault, and room for one snapshot. Nobody else may read it.
    #[serde(default = "state_dir")]
    #[schemars(with = "String")]
    state_dir: Utf8PathBuf,
    /// How much may wait in that folder for the vault, in MiB.
    #[serde(default = "spool_max_mib")]
    #[schemars(range(min = 16))]
    spool_max_mib: u32,
    /// How long changes are gathered before they are put into the vault, in milliseconds.
    #[serde(default = "segment_age_ms")]
    #[schemars(range(min = 100, max = 3_600_000))]
    segment_age_ms: u32,
    /// Time between two fulls, in minutes; up to a tenth is added at random.
    #[serde(default = "full_interval_minutes")]
    #[schemars(range(min = 1))]
    full_interval_minutes: u32,
    /// How often a member is asked for a full HashKV, in milliseconds; default: never. It proves the newest revisions, which
    /// otherwise only the next compaction or full does, and holds up the member that computes it. Never the leader is
    /// asked, unless it is the only member.
    #[schemars(range(min = 10_000))]
    prove_every_ms: Option<u32>,
    /// Where `/metrics` and `/healthz` are served.
    #[serde(default = "listen")]
    listen: SocketAddr,
}

/// Which etcd is followed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EtcdConfig {
    /// Endpoints in order of preference: that of this host first.
    #[serde(default)]
    endpoints: Vec<String>,
    /// CA certificate of etcd.
    #[schemars(with = "Option<String>")]
    cacert: Option<Utf8PathBuf>,
    /// Client certificate. It is root on the cluster's data.
    #[schemars(with = "Option<String>")]
    cert: Option<Utf8PathBuf>,
    /// Client key.
    #[schemars(with = "Option<String>")]
    key: Option<Utf8PathBuf>,
}

fn state_dir() -> Utf8PathBuf {
    "/var/lib/rekindle/agent".into()
}

fn spool_max_mib() -> u32 {
    1024
}

fn segment_age_ms() -> u32 {
    2000
}

fn full_interval_minutes() -> u32 {
    360
}

fn listen() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 9475).into()
}

/// The configuration, with every file that it names read and found good.
pub(super) struct Settings {
    pub(super) vault: String,
    pub(super) cluster: ClusterName,
    pub(super) writer: WriterName,
    pub(super) signing_key: Utf8PathBuf,
    pub(super) recipients: Recipients,
    /// This agent first.
    pub(super) signers: Vec<Signer>,
    pub(super) endpoints: Vec<EtcdEndpoint>,
    pub(super) state_dir: Utf8PathBuf,
    pub(super) spool_max_bytes: u64,
    pub(super) segment_age: Duration,
    pub(super) full_interval: Duration,
    pub(super) prove_every: Option<Duration>,
    pub(super) listen: SocketAddr,
}

impl Settings {
    /// Reads the file, and what it names.
    pub(super) async fn read(path: &Utf8Path) -> Result<Self, Failure> {
        let size_bytes = std::fs::metadata(path).doing(|| format!("cannot read {path}"))?.len();
        if size_bytes > FILE_MAX_BYTES {
            return Err(Failure::usage(format!("{path} is no configuration: it has {size_bytes} bytes")));
        }
        let text = std::fs::read_to_string(path).doing(|| format!("cannot read {path}"))?;
        let config: AgentConfig = serde_saphyr::from_str(&text).map_err(|error| {
            Failure::usage(format!("{path} is not a configuration of the agent"))
                .because(error)
                .hint("`rekindle schema AgentConfig` prints what it may hold")
        })?;
        config.settings().await.map_err(|failure| match failure.hint {
            Some(_) => failure,
            None => failure.hint(format!("set it right in {path}")),
        })
    }

    /// A key of its own for each use: it is not copied.
    pub(super) fn key(&self) -> Result<SigningKey, Failure> {
        backup::signing_key(&self.signing_key)
    }

    pub(super) fn spool(&self) -> Utf8PathBuf {
        self.state_dir.join("spool")
    }

    /// What is stored and waits to be merged.
    pub(super) fn held(&self) -> Utf8PathBuf {
        self.state_dir.join("held")
    }
}

impl AgentConfig {
    async fn settings(self) -> Result<Settings, Failure> {
        let EtcdConfig { endpoints, cacert, cert, key } = self.etcd;
        let etcd = EtcdFlags { endpoints, cacert, cert, key };
        let host = connect::local("/".into());
        let own = backup::signing_key(&self.signing_key)?.signer();
        if self.segment_age_ms < 100 || self.full_interval_minutes == 0 || self.spool_max_mib < 16 {
            return Err(Failure::usage(
                "segmentAgeMs is at least 100, fullIntervalMinutes 1, spoolMaxMib 16",
            ));
        }
        if self.prove_every_ms.is_some_and(|ms| ms < PROVE_EVERY_MIN_MS) {
            return Err(Failure::usage(format!("proveEveryMs is at least {PROVE_EVERY_MIN_MS}")));
        }
        let recipients = Recipients::new(self.recipients.iter().map(String::as_str));
        Ok(Settings {
            endpoints: save::endpoints(&etcd, &*host).await?,
            vault: self.vault,
            cluster: self.cluster,
            writer: backup::writer_name()?,
            signing_key: self.signing_key,
            recipients: recipients.map_err(|error| Failure::usage(error.to_string()))?,
            signers: [own].into_iter().chain(self.trusted_signers).collect(),
            state_dir: self.state_dir,
            spool_max_bytes: u64::from(self.spool_max_mib) << 20,
            segment_age: Duration::from_millis(self.segment_age_ms.into()),
            full_interval: Duration::from_secs(u64::from(self.full_interval_minutes) * 60),
            prove_every: self.prove_every_ms.map(|ms| Duration::from_millis(ms.into())),
            listen: self.listen,
        })
    }
}

impl Settings {
    /// Opens the store; a folder that is not there is an error.
    pub(super) fn store(&self) -> rekindle_vault::Result<Store> {
        Store::open(&self.vault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A setting with a typo must not be a setting that is silently left at its default.
    #[test]
    fn only_what_is_known_is_taken() {
        let least = "vault: /v\ncluster: prod\nsigningKey: /k\nrecipients: [age1x]\n";
        let config: AgentConfig = serde_saphyr::from_str(least).unwrap();
        assert!(config.listen.ip().is_loopback());
        assert_eq!((config.segment_age_ms, config.full_interval_minutes), (2000, 360));
        assert!(serde_saphyr::from_str::<AgentConfig>(&format!("{least}segmentAge: 3\n")).is_err());
        assert!(serde_saphyr::from_str::<AgentConfig>("vault: /v\ncluster: ../x\n").is_err());
    }
}
