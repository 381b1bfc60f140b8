//! `rekindle backup run`: a snapshot as `snapshot save` takes it (verified, compared with the member), then into the vault.
//! The agent takes its fulls through [`take`] and [`put`], too.

use super::args::Run;
use super::dry::BackupPlan;
use super::report::BackupReport;
use super::{cluster_name, recipients, scratch, signing_key, store, writer_name};
use crate::commands::snapshot::save;
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use crate::render::units::bytes;
use camino::{Utf8Path, Utf8PathBuf};
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy, Verified};
use rekindle_model::etcd::{EtcdEndpoint, EtcdStatus};
use rekindle_vault::manifest::{ClusterIdentity, TimelineRef};
use rekindle_vault::{
    ClusterName, FullMeta, History, Manifest, PartKind, Recipients, SigningKey, Store, Vault, Writer,
};
use rekindle_world::Host;

/// A verified snapshot in a local file, and whose it is.
pub(in crate::commands) struct Taken {
    /// Of whom, as of just before.
    status: EtcdStatus,
    /// The cluster.
    pub(in crate::commands) identity: ClusterIdentity,
    /// When it was begun to be taken, milliseconds since the Unix epoch.
    pub(in crate::commands) taken_ms: i64,
    endpoint: EtcdEndpoint,
    verified: Verified,
}

impl Taken {
    /// The revision it is of.
    pub(in crate::commands) fn revision(&self) -> i64 {
        self.verified.revision
    }
}

pub(super) async fn run(args: &Run, output: &Output) -> Result<Exit, Failure> {
    let host = connect::local("/".into());
    let Decided { store, key, recipients, named, endpoints } = decide(args, &*host, output).await?;
    if args.dry_run {
        let plan = planned(args, &store, &key, named, &endpoints, &*host).await?;
        return plan.show(output);
    }
    let scratch = scratch(&args.scratch)?;
    let file = Utf8PathBuf::try_from(scratch.path().join("snapshot.db"))
        .doing(|| format!("{} is not UTF-8", args.scratch))?;
    let taken = take(&endpoints, &*host, &file, output).await?;
    let cluster = match named {
        Some(cluster) => cluster,
        None => own_name(&taken.identity)?,
    };
    let into = || format!("cannot put the backup into {}", store.url());
    let vault = Vault::new(&store, cluster, &[key.signer()]).doing(into)?;
    let writer = vault.writer(writer_name()?, key, recipients).await.doing(into)?;
    let (history, _) = vault.history().await.doing(into)?;
    same_cluster(&history, &taken.identity, store.url())?;
    // an agent may have stored younger revisions than the snapshot's while that was taken
    let now = host.etcd_status(&taken.endpoint).await.map_or(0, |status| status.revision);
    let timeline = history.timeline_for(&taken.identity, now.max(taken.verified.revision));
    let manifest = put(&writer, &file, taken, timeline).await.doing(into)?;
    let report = BackupReport::new(store.url(), manifest);
    output.document(&report, |_| report.table())?;
    Ok(Exit::Ok)
}

/// What is known before anything is asked for or written.
struct Decided {
    store: Store,
    key: SigningKey,
    recipients: Recipients,
    /// The cluster's name, when it does not come out of the snapshot.
    named: Option<ClusterName>,
    endpoints: Vec<EtcdEndpoint>,
}

/// What would make the backup useless shows here, before etcd is asked for anything.
async fn decide(args: &Run, host: &dyn Host, output: &Output) -> Result<Decided, Failure> {
    Ok(Decided {
        store: store(&args.place)?,
        key: signing_key(&args.signing_key)?,
        recipients: recipients(&args.encrypt)?,
        named: args.cluster.as_deref().map(cluster_name).transpose()?,
        endpoints: save::endpoints_of(&args.etcd, host, "backup run", output).await?,
    })
}

/// What [`run`] would do. The endpoints are asked for their status in its order, and the first that answers is shown.
async fn planned(
    args: &Run,
    store: &Store,
    key: &SigningKey,
    named: Option<ClusterName>,
    endpoints: &[EtcdEndpoint],
    host: &dyn Host,
) -> Result<BackupPlan, Failure> {
    let mut plan =
        BackupPlan::new(store.url()).reads(format!("the key of {}", key.signer()), args.signing_key.as_str());
    let mut last = Failure::usage("no endpoint was given");
    let mut asked = None;
    for endpoint in endpoints {
        match host.etcd_status(endpoint).await.doing(|| format!("{} does not answer", endpoint.url)) {
            Ok(status) => {
                asked = Some((endpoint, status));
                break;
            }
            Err(failure) => last = failure,
        }
    }
    let Some((endpoint, status)) = asked else { return Err(last) };
    let size = bytes(u64::try_from(status.db_size_bytes).unwrap_or_default());
    let what = format!("a snapshot of at most {size}, at revision {} or above", status.revision);
    plan = plan.reads(what, &endpoint.url);
    plan = plan.writes("the snapshot, until it is in the vault", args.scratch.as_str());
    let Some(cluster) = named else {
        let what = "the encrypted snapshot and its manifest, in a folder named by the cluster's UID, which the snapshot tells";
        return Ok(plan.writes(what, store.url()));
    };
    let unread = || format!("cannot read {}", store.url());
    let vault = Vault::new(store, cluster, &[key.signer()]).doing(unread)?;
    let [part, manifest] = vault.next_objects(PartKind::Full, &writer_name()?).await.doing(unread)?;
    Ok(plan
        .writes("the snapshot, compressed and encrypted", part)
        .writes("what is said of it, signed", manifest))
}

/// Refuses to mix two clusters in one folder of a vault.
pub(in crate::commands) fn same_cluster(
    history: &History,
    identity: &ClusterIdentity,
    url: &str,
) -> Result<(), Failure> {
    let Some(other) = history.other_cluster(identity) else { return Ok(()) };
    Err(Failure::refused(format!("{} in {url} is another cluster", history.cluster))
        .because(format!("its namespace kube-system has the UID {other}"))
        .hint("give this cluster a name of its own"))
}

/// Puts a snapshot into the vault.
pub(in crate::commands) async fn put(
    writer: &Writer,
    file: &Utf8Path,
    taken: Taken,
    timeline: TimelineRef,
) -> rekindle_vault::Result<Manifest> {
    let meta = FullMeta {
        timeline,
        identity: taken.identity,
        taken_ms: taken.taken_ms,
        etcd_version: Some(taken.status.version),
        samples: Vec::new(),
        verified: taken.verified,
    };
    writer.put_full(file.as_std_path(), meta).await
}

/// The first endpoint that gives a sound snapshot.
pub(in crate::commands) async fn take(
    endpoints: &[EtcdEndpoint],
    host: &dyn Host,
    file: &Utf8Path,
    output: &Output,
) -> Result<Taken, Failure> {
    let mut last = Failure::usage("no endpoint was given");
    for endpoint in endpoints {
        let taken_ms = jiff::Timestamp::now().as_millisecond();
        let taken = async {
            let status = host.etcd_status(endpoint).await;
            let status = status.doing(|| format!("{} does not answer", endpoint.url))?;
            let verified = save::save_from(endpoint, host, file, output).await?;
            let identity = ClusterIdentity {
                kube_system_uid: kube_system_uid(file, output)?,
                etcd_cluster_id: Some(status.cluster_id),
            };
            Ok(Taken { status, identity, endpoint: endpoint.clone(), taken_ms, verified })
        };
        match taken.await {
            Ok(taken) => return Ok(taken),
            Err(failure) => {
                let _ = std::fs::remove_file(file);
                output.say(&format!("{}: not saved from here, trying the next endpoint", endpoint.url));
                last = failure;
            }
        }
    }
    Err(last)
}

/// Whose data a snapshot is; none when it has no such namespace (an etcd that serves no Kubernetes), or one that can't be
/// read (encrypted at rest): that keeps no backup from being taken.
fn kube_system_uid(file: &Utf8Path, output: &Output) -> Result<Option<String>, Failure> {
    let unread = || format!("cannot read the namespace kube-system in {file}");
    let snapshot = SnapshotFile::open(file.as_std_path(), TrailerPolicy::Required).doing(unread)?;
    let key = kube_storage::kube_system_key(kube_storage::keys::DEFAULT_PREFIX);
    let found = etcd_disk::live::get(snapshot.bolt(), file.as_std_path(), key.as_bytes()).doing(unread)?;
    Ok(found.and_then(|row| match kube_storage::namespace_uid(&row.value) {
        Ok(uid) => Some(uid),
        Err(fault) => {
            output.say(&format!("the UID of the namespace kube-system is not known: {fault}"));
            None
        }
    }))
}

fn own_name(identity: &ClusterIdentity) -> Result<ClusterName, Failure> {
    let name = match (&identity.kube_system_uid, identity.etcd_cluster_id) {
        (Some(uid), _) => uid.to_ascii_lowercase(),
        (None, Some(id)) => format!("etcd-{id}"),
        (None, None) => String::new(),
    };
    cluster_name(&name).map_err(|failure| failure.hint("name the cluster with --cluster"))
}
