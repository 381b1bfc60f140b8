//! What the agent knows when it starts, though the vault be out of reach: which timeline it writes, and how far that is
//! stored. One small file beside the spool.

use super::config::{Live, Settings};
use crate::connect;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use camino::{Utf8Path, Utf8PathBuf};
use rekindle_agent::spool::Spool;
use rekindle_model::MemberId;
use rekindle_vault::manifest::{ClusterIdentity, TimelineRef};
use rekindle_vault::{ClusterName, History, Vault};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::time::{Duration, Instant};

/// So long members may be behind what is known, or not answer, before that is believed.
const SETTLE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(300);

/// Where the stream stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct State {
    pub(super) vault: String,
    pub(super) cluster: ClusterName,
    pub(super) timeline: TimelineRef,
    pub(super) identity: ClusterIdentity,
    /// All up to it is in the vault.
    pub(super) stored_revision: Option<i64>,
    /// The newest full of this timeline. Until there is one, nothing says that the folder is of this cluster.
    pub(super) last_full: Option<LastFull>,
    /// The last time that the vault was verified.
    #[serde(default)]
    pub(super) last_verify: Option<LastVerify>,
    /// The last drill.
    #[serde(default)]
    pub(super) last_drill: Option<LastDrill>,
}

/// How a drill ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LastDrill {
    /// When it was begun, milliseconds since the Unix epoch.
    pub(super) at_ms: i64,
    /// All was as it should be, within the targets.
    pub(super) passed: bool,
    /// When the last one that passed was begun.
    pub(super) passed_ms: Option<i64>,
    /// From its start until verified; none: not booted.
    pub(super) rto_ms: Option<u64>,
    /// What would have been lost; none: not known.
    pub(super) rpo_ms: Option<i64>,
}

impl LastDrill {
    /// One that did not come to a report.
    pub(super) fn failed(at_ms: i64) -> Self {
        Self { at_ms, passed: false, passed_ms: None, rto_ms: None, rpo_ms: None }
    }
}

/// What a verification of the vault found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LastVerify {
    /// When it was begun, milliseconds since the Unix epoch.
    pub(super) at_ms: i64,
    /// Objects that are not as their manifests say.
    pub(super) faults: usize,
}

/// A full in the vault.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LastFull {
    pub(super) revision: i64,
    /// When it was begun to be taken, milliseconds since the Unix epoch.
    pub(super) taken_ms: i64,
}

impl State {
    fn path(state_dir: &Utf8Path) -> Utf8PathBuf {
        state_dir.join("agent.json")
    }

    fn read(state_dir: &Utf8Path) -> Result<Option<Self>, Failure> {
        let path = Self::path(state_dir);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::new(format!("cannot read {path}")).because(error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            Failure::new(format!("{path} is damaged"))
                .because(error)
                .hint("move it away: the agent then asks the vault where the stream stands")
        })
    }

    /// Writes it, whole or not at all.
    pub(super) fn write(&self, state_dir: &Utf8Path) -> Result<(), Failure> {
        let path = Self::path(state_dir);
        let doing = || format!("cannot write {path}");
        let mut file = tempfile::NamedTempFile::new_in(state_dir).doing(doing)?;
        file.write_all(&serde_json::to_vec_pretty(self).doing(doing)?).doing(doing)?;
        file.as_file().sync_all().doing(doing)?;
        file.persist(&path).doing(doing)?;
        std::fs::File::open(state_dir).and_then(|dir| dir.sync_all()).doing(doing)
    }

    /// Where the stream goes on when nothing is in the spool; none: with the next revision.
    pub(super) fn next_revision(&self) -> Option<i64> {
        let stored = self.stored_revision.or(self.last_full.map(|full| full.revision));
        stored.map(|stored| stored + 1)
    }

    /// The timeline's id, as segments have it.
    pub(super) fn timeline_id(&self) -> Result<[u8; 16], Failure> {
        let id = uuid::Uuid::parse_str(&self.timeline.id);
        Ok(id.doing(|| format!("the timeline {} of the vault has no UUID", self.timeline.id))?.into_bytes())
    }

    /// The state the agent left, if that still fits the cluster; else what the vault says of it. With `others`, the vault
    /// is asked in any case: what other agents have stored meanwhile is not stored again.
    pub(super) async fn begin(
        settings: &Settings,
        live: &Live,
        others: bool,
        output: &Output,
    ) -> Result<Self, Failure> {
        // also keeps a second agent out before anything is touched
        let spool = Spool::open(&settings.spool()).doing(|| "the spool can't be used".into())?;
        let left = Self::read(&settings.state_dir)?
            .filter(|state| state.vault == settings.vault && state.cluster == settings.cluster);
        let known = match &left {
            Some(state) => {
                let spooled = spool.newest(state.timeline_id()?).map(|newest| newest.last);
                spooled.max(state.stored_revision).unwrap_or(0)
            }
            None => 0,
        };
        drop(spool);
        let now = now(settings, known).await;
        match (left, now) {
            (Some(state), None) => Ok(state),
            (Some(state), Some((id, revision)))
                if state.identity.etcd_cluster_id == Some(id) && revision >= known =>
            {
                if !others {
                    return Ok(state);
                }
                match Self::of_vault(settings, live, id, revision).await {
                    Ok(of_vault) => {
                        let state = state.beside(of_vault);
                        state.write(&settings.state_dir)?;
                        Ok(state)
                    }
                    // it may be away: what is stored twice does no harm
                    Err(_) => Ok(state),
                }
            }
            (_, None) => {
                Err(Failure::new("no etcd answers").hint("is it running, and are the certificates right?"))
            }
            (left, Some((id, revision))) => {
                if left.is_some() {
                    output.say("this etcd is not the one that was followed, or was set back: a new timeline");
                }
                let state = Self::of_vault(settings, live, id, revision).await?;
                state.write(&settings.state_dir)?;
                Ok(state)
            }
        }
    }

    /// With what other agents have stored since it was left.
    fn beside(self, of_vault: Self) -> Self {
        if self.timeline.id != of_vault.timeline.id {
            return of_vault;
        }
        let newest = |full: &LastFull| full.taken_ms;
        Self {
            stored_revision: self.stored_revision.max(of_vault.stored_revision),
            last_full: [self.last_full, of_vault.last_full].into_iter().flatten().max_by_key(newest),
            ..self
        }
    }

    async fn of_vault(
        settings: &Settings,
        live: &Live,
        id: MemberId,
        revision: i64,
    ) -> Result<Self, Failure> {
        let read = || format!("cannot read {}", settings.vault);
        let store = live.store(&settings.vault).doing(read)?;
        let vault = Vault::new(&store, settings.cluster.clone(), &live.signers).doing(read)?;
        let (history, _) = vault.history().await.doing(read)?;
        let mut identity = ClusterIdentity { kube_system_uid: None, etcd_cluster_id: Some(id) };
        let timeline = history.timeline_for(&identity, revision);
        let full = last_full(&history, &timeline);
        if let Some((_, of_full)) = &full {
            identity.kube_system_uid.clone_from(&of_full.kube_system_uid);
        }
        Ok(Self {
            vault: settings.vault.clone(),
            cluster: settings.cluster.clone(),
            stored_revision: stored_revision(&history, &timeline),
            last_full: full.map(|(full, _)| full),
            last_verify: None,
            last_drill: None,
            timeline,
            identity,
        })
    }
}

fn last_full<'h>(history: &'h History, of: &TimelineRef) -> Option<(LastFull, &'h ClusterIdentity)> {
    let timeline = history.timelines.iter().find(|timeline| timeline.timeline == *of)?;
    let full = &timeline.fulls.iter().max_by_key(|full| full.content.taken_ms)?.content;
    Some((LastFull { revision: full.revision, taken_ms: full.taken_ms }, &full.identity))
}

fn stored_revision(history: &History, of: &TimelineRef) -> Option<i64> {
    let timeline = history.timelines.iter().find(|timeline| timeline.timeline == *of)?;
    let fulls = timeline.fulls.iter().map(|full| full.content.revision);
    fulls.chain(timeline.segments.iter().map(|segment| segment.content.last_revision)).max()
}

/// The etcd cluster's id and its revision, the highest that a member tells; waits for one that is not behind `known`.
async fn now(settings: &Settings, known: i64) -> Option<(MemberId, i64)> {
    let host = connect::local("/".into());
    let begun = Instant::now();
    loop {
        let mut seen: Option<(MemberId, i64)> = None;
        for endpoint in &settings.endpoints {
            let Ok(status) = host.etcd_status(endpoint).await else { continue };
            let (id, revision) = seen.unwrap_or((status.cluster_id, status.revision));
            seen = Some((id, if id == status.cluster_id { revision.max(status.revision) } else { revision }));
        }
        if seen.is_some_and(|(_, revision)| revision >= known) || begun.elapsed() > SETTLE {
            return seen;
        }
        tokio::time::sleep(RETRY).await;
    }
}
