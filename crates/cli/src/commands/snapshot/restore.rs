//! `rekindle snapshot restore FILE`: one member's data dir, with etcdutl's flags and etcdutl's meaning.

use super::{bar, open, size};
use crate::args::SnapshotRestore;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use camino::Utf8PathBuf;
use etcd_disk::restore::{Form, NewCluster, RestoreOptions, Target, restore_members};
use rekindle_model::API_VERSION;
use rekindle_model::etcd::HashKv;
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
}

pub(super) fn run(args: &SnapshotRestore, output: &Output) -> Result<Exit, Failure> {
    let cluster = NewCluster::from_initial_cluster(&args.initial_cluster, &args.initial_cluster_token)
        .map_err(|error| Failure::usage("--initial-cluster can't be used").because(error))?;
    check_own_urls(args, &cluster)?;
    let data_dir = args.data_dir.clone().unwrap_or_else(|| format!("{}.etcd", args.name).into());
    let member_id = cluster
        .member_id(&args.name)
        .ok_or_else(|| Failure::usage(format!("--initial-cluster does not name the member {}", args.name)))?;
    let snapshot = open(&args.file, args.skip_hash_check)?;
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
        size_bytes: snapshot.db_bytes(),
        cleared_alarms: Vec::new(),
    };
    if args.dry_run {
        let verified = super::verify::verify(&snapshot, &args.file, output)?;
        report.revision =
            verified.revision + i64::try_from(args.bump_revision.unwrap_or(0)).unwrap_or(i64::MAX);
        report.compact_revision = verified.compact_revision;
        report.live_keys = verified.live_keys;
    } else {
        write(args, &cluster, &snapshot, &data_dir, &mut report, output)?;
    }
    output.document(&report, |_| table(&report))?;
    Ok(Exit::Ok)
}

fn write(
    args: &SnapshotRestore,
    cluster: &NewCluster,
    snapshot: &etcd_disk::snapshot::SnapshotFile,
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
        ..RestoreOptions::default()
    };
    let target = Target {
        name: args.name.clone(),
        data_dir: data_dir.clone().into_std_path_buf(),
        wal_dir: args.wal_dir.clone().map(Utf8PathBuf::into_std_path_buf),
    };
    let restored =
        restore_members(snapshot, form, cluster, &options, &[target], &mut bar(output, "restoring"))
            .doing(|| format!("cannot restore {} into {data_dir}", args.file))?;
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
    let alarms = match report.cleared_alarms.as_slice() {
        [] => String::new(),
        cleared => format!("cleared     {}\n", cleared.join(", ")),
    };
    format!(
        "{verb} {}\nmember      {} {}\ncluster     {}\nrevision    {} (compacted at {})\n{hash}live keys   {}\n\
         size        {}\n{alarms}",
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
