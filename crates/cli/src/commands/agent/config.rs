//! The agent's configuration file, YAML: `rekindle schema AgentConfig` prints its schema.

use super::schedule::Schedule;
use crate::args::{EtcdFlags, Kubeconfig};
use crate::commands::backup;
use crate::commands::snapshot::save;
use crate::connect;
use crate::failure::{Doing, Failure};
use crate::operator_command::OperatorCommand;
use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::Redacted;
use rekindle_model::etcd::EtcdEndpoint;
use rekindle_runbook::site::{Contact, Notes, VaultNote};
use rekindle_vault::{ClusterName, Recipients, Signer, SigningKey, Store, WriterName};
use schemars::JsonSchema;
use serde::Deserialize;
use std::io::Read;
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
    /// Settings and credentials of the vault's provider, one `NAME=VALUE` a line (`AWS_ACCESS_KEY_ID=...`); they go before
    /// those of the environment. Read again on SIGHUP. Nobody else may read the file.
    #[schemars(with = "Option<String>")]
    vault_credentials: Option<Utf8PathBuf>,
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
    /// How often a member is asked for a full HashKV, in milliseconds; default: never. It proves the newest revisions, which
    /// otherwise only the next compaction or full does, and holds up the member that computes it. Never the leader is
    /// asked, unless it is the only member.
    #[schemars(range(min = 10_000))]
    prove_every_ms: Option<u32>,
    /// When fulls are taken, and the vault is verified.
    #[serde(default)]
    schedule: ScheduleConfig,
    /// Where several agents run: a Lease of the Kubernetes API makes one of them the writer.
    kubernetes: Option<KubernetesConfig>,
    /// Where `/metrics` and `/healthz` are served.
    #[serde(default = "listen")]
    listen: SocketAddr,
    /// Drills: the newest state in the vault restored and booted in a sandbox. None: `schedule.drill` does not count.
    drill: Option<DrillConfig>,
    /// What drills are measured against.
    #[serde(default)]
    targets: TargetsConfig,
    /// Whom to call when the cluster breaks: `rekindle runbook --config` names them.
    #[serde(default)]
    contacts: Vec<ContactConfig>,
    /// How hosts of nodes are turned off and on: `rekindle node fence --config`, `rekindle drill run --scenario node-lost` and the
    /// runbook take these. The agent itself runs none of them.
    #[serde(default)]
    nodes: NodesConfig,
    /// The runbook, kept current: made at the start, with each changed configuration, and by `schedule.runbook`. None: none is
    /// kept.
    runbook: Option<RunbookConfig>,
}

/// Where the runbook is kept, and of which hosts it is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RunbookConfig {
    /// The folder. Default: `runbook` in `stateDir`, where `rekindle backup bundle` finds it; another one is named to that with
    /// `--path`.
    #[schemars(with = "Option<String>")]
    dir: Option<Utf8PathBuf>,
    /// Control-plane hosts to reach with the agent's own ssh, such as root@10.0.0.11. Default: this host.
    #[serde(default)]
    hosts: Vec<String>,
}

/// Commands about the host of a node; `{node}` in them stands for the node's name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::commands) struct NodesConfig {
    /// Turns the host off if it is not, and succeeds only when it is off.
    pub(in crate::commands) fence_command: Option<OperatorCommand>,
    /// Turns the host on again.
    pub(in crate::commands) return_command: Option<OperatorCommand>,
}

/// Somebody to call.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ContactConfig {
    /// Who.
    name: String,
    /// For what.
    role: String,
    /// How.
    reach: String,
}

/// How drills are done.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DrillConfig {
    /// The identity file that decrypts the backups (`age-keygen`). Whoever reads it reads all Secrets of all times: better
    /// drill on a host of its own than on a control-plane host.
    #[schemars(with = "String")]
    identity: Utf8PathBuf,
    /// The folder of `etcd` and `kube-apiserver`. Default: those in PATH, else the ones that run on this host.
    #[schemars(with = "Option<String>")]
    bin_dir: Option<Utf8PathBuf>,
    /// A drill that boots no API server has not passed.
    #[serde(default)]
    require_boot: bool,
    /// Clusters that `drill run --scenario` may break: the UIDs of their namespace `kube-system`.
    #[serde(default)]
    clusters: Vec<String>,
}

/// What may be lost, and how long a recovery may take.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TargetsConfig {
    /// Seconds until everything is verified.
    rto_seconds: Option<u32>,
    /// Seconds of changes.
    rpo_seconds: Option<u32>,
}

/// What `drill run --config` takes of this file.
pub(in crate::commands) struct DrillDefaults {
    pub(in crate::commands) vault: String,
    pub(in crate::commands) cluster: String,
    pub(in crate::commands) signers: Vec<String>,
    pub(in crate::commands) credentials: Vec<(String, Redacted<String>)>,
    pub(in crate::commands) identity: Option<Utf8PathBuf>,
    pub(in crate::commands) bin_dir: Option<Utf8PathBuf>,
    pub(in crate::commands) require_boot: bool,
    pub(in crate::commands) clusters: Vec<String>,
    pub(in crate::commands) nodes: NodesConfig,
    pub(in crate::commands) rto_ms: Option<i64>,
    pub(in crate::commands) rpo_ms: Option<i64>,
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

/// Times, as cron lines: minute, hour, day of the month, month, day of the week.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ScheduleConfig {
    /// Full backups. The first is taken at once, and one more behind every gap of the stream.
    full: String,
    /// Every part in the vault read, and compared with its signed digest; contents are not decrypted. None: never.
    verify: Option<String>,
    /// Drills: the newest state in the vault restored and booted in a sandbox. Counts only with `drill`.
    drill: String,
    /// Looks at the cluster for the runbook. Counts only with `runbook`.
    runbook: String,
    /// The time zone of the lines, by its IANA name (`Europe/Berlin`).
    time_zone: String,
    /// Up to so many seconds later, at random, so that agents with the same line do not burden their store together.
    jitter_seconds: u32,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            full: "0 */6 * * *".into(),
            verify: None,
            drill: "0 3 1 * *".into(),
            runbook: "20 * * * *".into(),
            time_zone: "UTC".into(),
            jitter_seconds: 600,
        }
    }
}

/// The Lease (`coordination.k8s.io/v1`) that one agent holds.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct KubernetesConfig {
    /// kubeconfig of an identity that may get, create and update the Lease.
    #[schemars(with = "String")]
    pub(super) kubeconfig: Utf8PathBuf,
    /// The Lease's namespace.
    #[serde(default = "lease_namespace")]
    pub(super) namespace: String,
    /// The Lease's name.
    #[serde(default = "lease_name")]
    pub(super) lease: String,
}

fn lease_namespace() -> String {
    "kube-system".into()
}

fn lease_name() -> String {
    "rekindle-agent".into()
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

fn listen() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 9475).into()
}

/// The configuration, with every file that it names read and found good.
pub(super) struct Config {
    pub(super) settings: Settings,
    pub(super) live: Live,
}

/// What the stream begins with: a running agent that is told otherwise begins anew.
#[derive(Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) vault: String,
    pub(super) cluster: ClusterName,
    pub(super) writer: WriterName,
    pub(super) endpoints: Vec<EtcdEndpoint>,
    pub(super) state_dir: Utf8PathBuf,
    pub(super) spool_max_bytes: u64,
    pub(super) segment_age: Duration,
    pub(super) prove_every: Option<Duration>,
    pub(super) listen: SocketAddr,
    pub(super) kubernetes: Option<KubernetesConfig>,
}

/// A runbook that is kept current.
#[derive(Clone)]
pub(super) struct KeptRunbook {
    pub(super) dir: Utf8PathBuf,
    /// Empty: this host.
    pub(super) hosts: Vec<String>,
    pub(super) schedule: Schedule,
}

/// What a running agent takes over without a break in the stream.
#[derive(Clone)]
pub(super) struct Live {
    signing_key: Utf8PathBuf,
    pub(super) recipients: Recipients,
    /// This agent first.
    pub(super) signers: Vec<Signer>,
    credentials: Vec<(String, Redacted<String>)>,
    pub(super) full: Schedule,
    pub(super) verify: Option<Schedule>,
    /// None: drills are not configured.
    pub(super) drill: Option<Schedule>,
    /// None: no runbook is kept.
    pub(super) runbook: Option<KeptRunbook>,
    /// The configuration's file.
    pub(super) file: Utf8PathBuf,
}

impl Config {
    /// Reads the file, and what it names.
    pub(super) async fn read(path: &Utf8Path) -> Result<Self, Failure> {
        AgentConfig::file(path)?.read(path).await.map_err(|failure| match failure.hint {
            Some(_) => failure,
            None => failure.hint(format!("set it right in {path}")),
        })
    }

    /// Whether the vault's address and settings are good; it may be away for now.
    pub(super) fn check_vault(&self) -> Result<(), Failure> {
        let url = &self.settings.vault;
        self.live.store(url).map(drop).doing(|| format!("the vault {url} can't be opened"))
    }
}

/// A small file's text.
fn bounded(path: &Utf8Path) -> Result<String, Failure> {
    let doing = || format!("cannot read {path}");
    let mut text = String::new();
    let read = std::fs::File::open(path).doing(doing)?.take(FILE_MAX_BYTES + 1).read_to_string(&mut text);
    if read.doing(doing)? as u64 > FILE_MAX_BYTES {
        return Err(Failure::usage(format!(
            "{path} is no configuration: it has more than {FILE_MAX_BYTES} bytes"
        )));
    }
    Ok(text)
}

/// `NAME=VALUE` a line, as systemd's `EnvironmentFile=` has it. No error quotes a value.
fn credentials(path: &Utf8Path) -> Result<Vec<(String, Redacted<String>)>, Failure> {
    let text = bounded(path)?;
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let parsed = lines.map(|(number, line)| {
        let (name, value) = line
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("line {} of {path} is not NAME=VALUE", number + 1)))?;
        let value = value.trim().trim_matches('"');
        Ok((name.trim().to_ascii_lowercase(), Redacted::new(value.to_owned())))
    });
    parsed.collect()
}

impl AgentConfig {
    /// What the file says; what it names is not read.
    pub(in crate::commands) fn file(path: &Utf8Path) -> Result<Self, Failure> {
        serde_saphyr::from_str(&bounded(path)?).map_err(|error| {
            Failure::usage(format!("{path} is not a configuration of the agent"))
                .because(error)
                .hint("`rekindle schema AgentConfig` prints what it may hold")
        })
    }

    /// What drills take of it.
    pub(in crate::commands) fn drills(self) -> Result<DrillDefaults, Failure> {
        let ms = |seconds: u32| i64::from(seconds) * 1000;
        let own = self.signing_key.to_string();
        let others = self.trusted_signers.iter().map(ToString::to_string);
        Ok(DrillDefaults {
            vault: self.vault,
            cluster: self.cluster.to_string(),
            signers: [own].into_iter().chain(others).collect(),
            credentials: self.vault_credentials.as_deref().map_or(Ok(Vec::new()), credentials)?,
            bin_dir: self.drill.as_ref().and_then(|drill| drill.bin_dir.clone()),
            require_boot: self.drill.as_ref().is_some_and(|drill| drill.require_boot),
            clusters: self.drill.as_ref().map(|drill| drill.clusters.clone()).unwrap_or_default(),
            identity: self.drill.map(|drill| drill.identity),
            nodes: self.nodes,
            rto_ms: self.targets.rto_seconds.map(ms),
            rpo_ms: self.targets.rpo_seconds.map(ms),
        })
    }

    /// How hosts of nodes are turned off and on.
    pub(in crate::commands) fn nodes(self) -> NodesConfig {
        self.nodes
    }

    /// What a runbook says of it. The own signer counts if its key is on this machine.
    pub(in crate::commands) fn notes(self) -> Notes {
        let own = backup::signing_key(&self.signing_key).ok().map(|key| key.signer().to_string());
        let others = self.trusted_signers.iter().map(ToString::to_string);
        let contact = |one: ContactConfig| Contact { name: one.name, role: one.role, reach: one.reach };
        Notes {
            cluster: Some(self.cluster.to_string()),
            vault: Some(VaultNote {
                url: self.vault,
                cluster: self.cluster.to_string(),
                signers: own.into_iter().chain(others).collect(),
            }),
            contacts: self.contacts.into_iter().map(contact).collect(),
            fence_command: self.nodes.fence_command.map(OperatorCommand::into_words),
        }
    }

    async fn read(self, file: &Utf8Path) -> Result<Config, Failure> {
        let EtcdConfig { endpoints, cacert, cert, key } = self.etcd;
        let etcd = EtcdFlags { endpoints, cacert, cert, key, api: Kubeconfig::default() };
        let host = connect::local("/".into());
        let own = backup::signing_key(&self.signing_key)?.signer();
        if self.segment_age_ms < 100 || self.spool_max_mib < 16 {
            return Err(Failure::usage("segmentAgeMs is at least 100, spoolMaxMib 16"));
        }
        if self.prove_every_ms.is_some_and(|ms| ms < PROVE_EVERY_MIN_MS) {
            return Err(Failure::usage(format!("proveEveryMs is at least {PROVE_EVERY_MIN_MS}")));
        }
        let ScheduleConfig { full, verify, drill, runbook, time_zone, jitter_seconds } = self.schedule;
        let schedule = |line: &str| Schedule::new(line, &time_zone, jitter_seconds);
        let kept = |kept: RunbookConfig| {
            let dir = kept.dir.unwrap_or_else(|| self.state_dir.join("runbook"));
            Ok::<_, Failure>(KeptRunbook { dir, hosts: kept.hosts, schedule: schedule(&runbook)? })
        };
        let kept = self.runbook.map(kept).transpose()?;
        let recipients = Recipients::new(self.recipients.iter().map(String::as_str));
        let live = Live {
            signing_key: self.signing_key,
            recipients: recipients.map_err(|error| Failure::usage(error.to_string()))?,
            signers: [own].into_iter().chain(self.trusted_signers).collect(),
            credentials: self.vault_credentials.as_deref().map_or(Ok(Vec::new()), credentials)?,
            full: schedule(&full)?,
            verify: verify.as_deref().map(schedule).transpose()?,
            drill: self.drill.map(|_| schedule(&drill)).transpose()?,
            runbook: kept,
            file: file.to_owned(),
        };
        let settings = Settings {
            endpoints: save::endpoints(&etcd, &*host).await?,
            vault: self.vault,
            cluster: self.cluster,
            writer: backup::writer_name()?,
            state_dir: self.state_dir,
            spool_max_bytes: u64::from(self.spool_max_mib) << 20,
            segment_age: Duration::from_millis(self.segment_age_ms.into()),
            prove_every: self.prove_every_ms.map(|ms| Duration::from_millis(ms.into())),
            listen: self.listen,
            kubernetes: self.kubernetes,
        };
        Ok(Config { settings, live })
    }
}

impl Settings {
    pub(super) fn spool(&self) -> Utf8PathBuf {
        self.state_dir.join("spool")
    }

    /// What is stored and waits to be merged.
    pub(super) fn held(&self) -> Utf8PathBuf {
        self.state_dir.join("held")
    }
}

impl Live {
    /// A key of its own for each use: it is not copied.
    pub(super) fn key(&self) -> Result<SigningKey, Failure> {
        backup::signing_key(&self.signing_key)
    }

    /// Opens the store; a folder that is not there is an error.
    pub(super) fn store(&self, url: &str) -> rekindle_vault::Result<Store> {
        let settings = self.credentials.iter().map(|(name, value)| (name.as_str(), value.expose().as_str()));
        Store::open_with(url, settings)
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
        assert_eq!((config.segment_age_ms, config.schedule.full.as_str()), (2000, "0 */6 * * *"));
        assert!(serde_saphyr::from_str::<AgentConfig>(&format!("{least}segmentAge: 3\n")).is_err());
        assert!(serde_saphyr::from_str::<AgentConfig>(&format!("{least}schedule: {{fulls: x}}\n")).is_err());
        assert!(serde_saphyr::from_str::<AgentConfig>("vault: /v\ncluster: ../x\n").is_err());
    }

    // A line of the file of credentials that is wrong is told by its number: its text is a secret.
    #[test]
    fn credentials_are_never_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(dir.path().join("env")).unwrap();
        std::fs::write(&path, "# S3\nAWS_ACCESS_KEY_ID=id\n\nAWS_SECRET_ACCESS_KEY=\"a=b\"\n").unwrap();
        let found = credentials(&path).unwrap();
        let found: Vec<_> =
            found.iter().map(|(name, value)| (name.as_str(), value.expose().as_str())).collect();
        assert_eq!(found, [("aws_access_key_id", "id"), ("aws_secret_access_key", "a=b")]);
        std::fs::write(&path, "AWS_ACCESS_KEY_ID=id\nhunter2\n").unwrap();
        let failure = credentials(&path).unwrap_err().to_string();
        assert!(failure.contains("line 2") && !failure.contains("hunter2"), "{failure}");
    }
}
