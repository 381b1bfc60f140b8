//! `rekindle snapshot restore FILE`: one member's data dir, with etcdutl's flags and etcdutl's meaning.

use super::{bar, open, size};
use crate::args::SnapshotRestore;
use crate::commands::from::{self, Fetched};
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use camino::{Utf8Path, Utf8PathBuf};
use etcd_disk::restore::{Form, NewCluster, RestoreOptions, Target, restore_members};
use etcd_disk::snapshot::SnapshotFile;
use rekindle_model::API_VERSION;
use rekindle_model::etcd::HashKv;
use rekindle_model::source::VaultPoint;
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RestoreReport {
    api_version: &'static str,
    kind: &'static str,
    dry_run: bool,
    data_dir: Utf8PathBuf,
    name: String,
    member_id: String,
    cluster_id: String,
    revision: i64,
    compact_revision: i64,
    hash_kv: Option<HashKv>,
    live_keys: u64,
    size_bytes: u64,
    cleared_alarms: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    point: Option<VaultPoint>,
}

/// What is restored from.
enum Source {
    /// A snapshot file.
    File(SnapshotFile, Utf8PathBuf),
    /// A full backup and the stream behind it, out of a vault.
    Vault(Box<Fetched>),
    /// The snapshot file of a point in a vault: a dry run looks into it, and it goes away with its folder.
    Point { snapshot: SnapshotFile, made: from::Made, _folder: rekindle_vault::Scratch },
}

impl Source {
    fn open(args: &SnapshotRestore, data_dir: &Utf8Path, output: &Output) -> Result<Self, Failure> {
        let (None, Some(url)) = (&args.file, &args.from.from) else {
            let file = args.file.clone().unwrap_or_default();
            return Ok(Self::File(open(&file, args.skip_hash_check)?, file));
        };
        // what is fetched lies on the file system that it is restored to
        let beside =
            data_dir.parent().filter(|parent| !parent.as_str().is_empty()).unwrap_or(Utf8Path::new("."));
        let runtime = connect::runtime()?;
        if !args.dry_run {
            let fetched = runtime.block_on(from::fetch(&args.from, url, beside, output))?;
            return Ok(Self::Vault(Box::new(fetched)));
        }
        let folder = from::private_folder(beside)?;
        let file = Utf8PathBuf::try_from(folder.path().join("point.db"))
            .doing(|| format!("{beside} is not UTF-8"))?;
        let made = runtime.block_on(from::make(&args.from, file, output))?;
        let made = made.ok_or_else(|| Failure::usage("give a snapshot file, or --from URL"))?;
        Ok(Self::Point { snapshot: open(&made.file, false)?, made, _folder: folder })
    }

    fn snapshot(&self) -> &SnapshotFile {
        match self {
            Self::File(snapshot, _) | Self::Point { snapshot, .. } => snapshot,
            Self::Vault(fetched) => &fetched.base,
        }
    }

    fn path(&self) -> &Utf8Path {
        match self {
            Self::File(_, path) => path,
            Self::Point { made, .. } => &made.file,
            Self::Vault(fetched) => Utf8Path::from_path(fetched.base.path()).unwrap_or(Utf8Path::new("")),
        }
    }

    fn made(&self) -> Option<&from::Made> {
        match self {
            Self::Point { made, .. } => Some(made),
            _ => None,
        }
    }

    fn fetched(&self) -> Option<&Fetched> {
        match self {
            Self::Vault(fetched) => Some(fetched),
            _ => None,
        }
    }
}

pub(super) fn run(args: &SnapshotRestore, output: &Output) -> Result<Exit, Failure> {
    let cluster = NewCluster::from_initial_cluster(&args.initial_cluster, &args.initial_cluster_token)
        .map_err(|error| Failure::usage("--initial-cluster can't be used").because(error))?;
    check_own_urls(args, &cluster)?;
    let data_dir = args.data_dir.clone().unwrap_or_else(|| format!("{}.etcd", args.name).into());
    let member_id = cluster
        .member_id(&args.name)
        .ok_or_else(|| Failure::usage(format!("--initial-cluster does not name the member {}", args.name)))?;
    let source = Source::open(args, &data_dir, output)?;
    let mut report = RestoreReport {
        api_version: API_VERSION,
        kind: "SnapshotRestoreReport",
        dry_run: args.dry_run,
        data_dir: data_dir.clone(),
        name: args.name.clone(),
        member_id: member_id.to_string(),
        cluster_id: cluster.cluster_id().to_string(),
        revision: 0,
        compact_revision: 0,
        hash_kv: None,
        live_keys: 0,
        size_bytes: source.snapshot().db_bytes(),
        cleared_alarms: Vec::new(),
        point: None,
    };
    if args.dry_run {
        let verified = super::verify::verify(source.snapshot(), source.path(), output)?;
        report.revision =
            verified.revision + i64::try_from(args.bump_revision.unwrap_or(0)).unwrap_or(i64::MAX);
        report.compact_revision = verified.compact_revision;
        report.live_keys = verified.live_keys;
        report.point = source.made().map(|made| made.point.clone());
    } else {
        write(args, &cluster, &source, &data_dir, &mut report, output)?;
    }
    output.document(&report, |_| table(&report))?;
    Ok(Exit::Ok)
}

fn write(
    args: &SnapshotRestore,
    cluster: &NewCluster,
    source: &Source,
    data_dir: &Utf8PathBuf,
    report: &mut RestoreReport,
    output: &Output,
) -> Result<(), Failure> {
    let form = match args.bump_revision {
        Some(revisions) => Form::BumpedBy { revisions },
        None => Form::Exact,
    };
    let options = RestoreOptions {
        quota_bytes: Some(args.quota_backend_bytes),
        allow_corrupt_alarm: args.accept_corrupt_alarm,
        allow_disproved: args.from.accept_unproved,
        changes: source.fetched().map(|fetched| &fetched.changes),
        ..RestoreOptions::default()
    };
    let target = Target {
        name: args.name.clone(),
        data_dir: data_dir.clone().into_std_path_buf(),
        wal_dir: args.wal_dir.clone().map(Utf8PathBuf::into_std_path_buf),
    };
    let restored =
        restore_members(source.snapshot(), form, cluster, &options, &[target], &mut bar(output, "restoring"));
    let restored = restored.map_err(|error| match source.fetched() {
        Some(fetched) => fetched.failure(error),
        None => Failure::new(format!("cannot restore {} into {data_dir}", source.path())).because(error),
    })?;
    report.point = source.fetched().map(|fetched| fetched.point(restored.reached.as_ref()));
    report.revision = restored.revision;
    report.compact_revision = restored.compact_revision;
    report.hash_kv = Some(HashKv {
        hash: restored.hash_kv.hash,
        revision: restored.hash_kv.revision,
        compact_revision: restored.hash_kv.compact_revision,
    });
    report.live_keys = restored.live_keys;
    report.size_bytes = restored.bytes;
    report.cleared_alarms =
        restored.cleared_alarms.iter().map(|a| format!("{} {:?}", a.member, a.kind)).collect();
    Ok(())
}

/// etcd refuses to boot when the two flags disagree: better said now than then.
fn check_own_urls(args: &SnapshotRestore, cluster: &NewCluster) -> Result<(), Failure> {
    let Some(member) = cluster.by_id().iter().map(|(_, member)| member).find(|m| m.name == args.name) else {
        return Ok(());
    };
    let (mut ours, mut theirs) = (args.initial_advertise_peer_urls.clone(), member.peer_urls.clone());
    ours.sort();
    theirs.sort();
    if ours == theirs {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "--initial-cluster gives {} the peer URLs {}, --initial-advertise-peer-urls says {}",
        args.name,
        theirs.join(","),
        ours.join(",")
    )))
}

fn table(report: &RestoreReport) -> String {
    let verb = if report.dry_run { "would write" } else { "wrote" };
    let hash = report.hash_kv.map_or(String::new(), |h| format!("hashKV      {}\n", h.hash));
    let point = report.point.as_ref().map_or(String::new(), |point| format!("{}\n", from::text(point)));
    let alarms = match report.cleared_alarms.as_slice() {
        [] => String::new(),
        cleared => format!("cleared     {}\n", cleared.join(", ")),
    };
    format!(
        "{verb} {}\nmember      {} {}\ncluster     {}\nrevision    {} (compacted at {})\n{hash}live keys   {}\n\
         size        {}\n{alarms}{point}",
        report.data_dir,
        report.name,
        report.member_id,
        report.cluster_id,
        report.revision,
        report.compact_revision,
        report.live_keys,
        size(report.size_bytes)
    )
}
