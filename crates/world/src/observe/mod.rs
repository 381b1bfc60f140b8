//! Reading an inventory: every host, the cluster's objects, every source, with requests that change nothing.
//!
//! All hosts are read side by side, and the parts of a host too (`host`); each wait is bounded, and what can't be read
//! says why. `manifests`, `units`, `etcd` and `settings` find how the control plane is configured; `probes`, `logs`,
//! `certificates` and `cluster` ask what runs; `sources` and `identity` find what can be restored, and whose it is.

mod ask;
mod certificates;
mod cluster;
mod earlier;
mod etcd;
mod host;
mod identity;
mod logs;
mod manifests;
mod pod;
mod probes;
mod settings;
mod sources;
mod unit_text;
mod units;

use crate::World;
use crate::host::Host;
use crate::local::now_ms;
use camino::Utf8PathBuf;
use futures::future::join_all;
use rekindle_model::etcd::{EtcdConfig, EtcdLive};
use rekindle_model::host::Component;
use rekindle_model::inventory::{EarlierRun, Inventory};
use rekindle_model::source::VaultPoint;
use rekindle_model::{HostId, HostPath, Seen};
use sha2::{Digest as _, Sha256};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// What to look at.
#[derive(Clone, Debug)]
pub struct ObserveOptions {
    /// Snapshot file, or a folder of them, on the machine Rekindle runs on.
    pub snapshot: Option<Utf8PathBuf>,
    /// A snapshot file there that was made of a vault's history, and of which point.
    pub point: Option<(HostPath, VaultPoint)>,
    /// Hosts the operator attests to be off for good.
    pub lost: Vec<HostId>,
    /// kubeconfig on the machine Rekindle runs on; none = those kubeadm leaves on the hosts.
    pub kubeconfig: Option<Utf8PathBuf>,
    /// Context of that kubeconfig; none = its current one.
    pub context: Option<String>,
    /// Where runs are kept.
    pub state_dir: Utf8PathBuf,
    /// Folder on the hosts that etcd's data is to be restored into, when it is another than now.
    pub data_dir: Option<Utf8PathBuf>,
}

/// Reads everything. Never fails: what can't be read stands in the inventory as unknown, with the reason.
pub async fn observe(world: &World, options: &ObserveOptions) -> Inventory {
    let asked: Vec<&dyn Host> = world
        .hosts
        .iter()
        .filter(|h| !options.lost.contains(h.id()))
        .map(std::convert::AsRef::as_ref)
        .collect();
    let snapshot = options.snapshot.clone().map(HostPath);
    let kubeconfig = options
        .kubeconfig
        .clone()
        .map(|file| cluster::OwnKubeconfig { file: HostPath(file), context: options.context.clone() });
    let etcd_down = EtcdDown::new(asked.len());
    let (facts, (server, readyz), earlier_runs) = tokio::join!(
        join_all(asked.iter().map(|h| host::observe(*h, options, &etcd_down))),
        cluster::endpoint(world, &asked, kubeconfig.as_ref(), &etcd_down),
        earlier_runs(world, &asked, options)
    );
    let (mut cluster, sources) = tokio::join!(
        cluster::objects(world, &facts, kubeconfig.as_ref()),
        sources::find(world, &facts, snapshot.as_ref(), options.point.as_ref(), now_ms())
    );
    (cluster.control_plane_endpoint, cluster.endpoint_readyz) = (server, readyz);
    Inventory {
        taken_ms: now_ms(),
        hosts: facts,
        lost_hosts: options.lost.clone(),
        cluster,
        sources,
        earlier_runs,
    }
}

/// Known once no etcd of all hosts serves. No API server of theirs can be ready then, and one that tries can take twice as
/// long as it took etcd to say so, a scheduler without its API server too: they are given little longer.
struct EtcdDown {
    /// Hosts of which it is not known yet.
    open: AtomicUsize,
    known: Semaphore,
}

impl EtcdDown {
    /// How much longer an answer is waited for.
    const GRACE: Duration = Duration::from_millis(300);

    fn new(hosts: usize) -> Self {
        Self { open: AtomicUsize::new(hosts), known: Semaphore::const_new(0) }
    }

    /// What one host's etcd was found to be; a host that has none does not count.
    fn tell(&self, live: Option<&EtcdLive>) {
        let serves = |live: &EtcdLive| match live.quorum.known() {
            Some(quorum) => *quorum,
            // one that can't be spoken with, for a certificate of ours maybe, may well serve others
            None => live.status.known().is_some() || live.note.is_some(),
        };
        if !live.is_some_and(serves) && self.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.known.add_permits(1);
        }
    }

    /// The answer, unless it has not come when it can't be a good one any more.
    async fn or<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let too_late = async {
            match self.known.acquire().await {
                Ok(known) => {
                    // back at once: the others wait for it too
                    drop(known);
                    tokio::time::sleep(Self::GRACE).await;
                }
                Err(_never_closed) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = answer => Some(answer),
            () = too_late => None,
        }
    }
}

/// What stands in the place of an answer that was not waited for.
const ETCD_DOWN: &str = "no answer yet when it was known that no etcd serves";

async fn earlier_runs(world: &World, asked: &[&dyn Host], options: &ObserveOptions) -> Vec<EarlierRun> {
    let state_dir = HostPath(options.state_dir.clone());
    let mut places: Vec<&dyn Host> = vec![world.local.as_ref()];
    places.extend(asked.iter().filter(|h| !h.id().is_local()));
    let mut found: Vec<EarlierRun> = join_all(places.into_iter().map(|h| earlier::runs(h, &state_dir)))
        .await
        .into_iter()
        .flatten()
        .collect();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found.dedup_by(|a, b| a.id == b.id);
    found
}

/// How etcd is configured on a host, and nothing else.
pub async fn etcd_config(host: &dyn Host) -> Seen<EtcdConfig> {
    let hostname = match ask::within(host, ask::QUICK, "who it is", host.identity()).await {
        Ok(identity) => identity.hostname,
        Err(error) => return Seen::Unknown(error.what),
    };
    let folder = manifests::folder(host, None).await;
    let (manifests, units) = tokio::join!(manifests::find(host, &folder), units::find(host));
    let manifests = manifests.unwrap_or_default();
    etcd::find(host, &manifests, &units, &hostname).await.config
}

/// Whether a host has a part of a control plane of its own, running or not: the manifest or the unit of a component, or the
/// kubeconfig that kubeadm leaves where the others may be what is lost.
pub async fn is_control_plane(host: &dyn Host) -> bool {
    let folder = manifests::folder(host, None).await;
    let (manifests, units) = tokio::join!(manifests::find(host, &folder), units::find(host));
    let runs = manifests.unwrap_or_default().iter().any(|manifest| manifest.component.is_some())
        || Component::ALL.into_iter().any(|component| units::of(&units, component).is_some());
    runs || ask::exists(host, &HostPath::from(crate::cluster::KUBEADM_ADMIN)).await
}

/// SHA-256 (hex).
fn sha256(bytes: &[u8]) -> String {
    crate::local::files::hex(&Sha256::digest(bytes))
}
