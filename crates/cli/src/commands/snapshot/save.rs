//! `rekindle snapshot save FILE`: streamed aside, verified (stream hash, structure, HashKV against the member), renamed.

use super::{SnapshotReport, open};
use crate::args::{EtcdFlags, SnapshotSave};
use crate::commands::managed;
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use camino::{Utf8Path, Utf8PathBuf};
use etcd_disk::snapshot::{Verified, VerifyOptions};
use rekindle_model::HostPath;
use rekindle_model::etcd::EtcdEndpoint;
use rekindle_world::Host;

pub(super) fn run(args: &SnapshotSave, output: &Output) -> Result<Exit, Failure> {
    if args.file.exists() {
        return Err(Failure::refused(format!("{} exists already", args.file)).hint("give a new name"));
    }
    let file = std::path::absolute(&args.file).doing(|| format!("cannot resolve {}", args.file))?;
    let file = Utf8PathBuf::try_from(file).doing(|| format!("{} is not UTF-8", args.file))?;
    connect::runtime()?.block_on(save(args, &file, output))
}

async fn save(args: &SnapshotSave, file: &Utf8Path, output: &Output) -> Result<Exit, Failure> {
    let host = connect::local("/".into());
    let endpoints = endpoints_of(&args.etcd, &*host, "snapshot save", output).await?;
    let part = Utf8PathBuf::from(format!("{file}.rekindle-part"));
    let mut failures = Vec::new();
    for endpoint in &endpoints {
        match save_from(endpoint, &*host, &part, output).await {
            Ok(verified) => {
                connect::rename_new(&part, file)?;
                let report = SnapshotReport::new(file.as_str(), verified);
                output.document(&report, |short| format!("saved {file}\n{}", report.table(short)))?;
                return Ok(Exit::Ok);
            }
            Err(failure) => {
                let _ = std::fs::remove_file(&part);
                output.say(&format!("{}: not saved from here, trying the next endpoint", endpoint.url));
                failures.push(failure);
            }
        }
    }
    Err(failures.pop().unwrap_or_else(|| Failure::usage("no endpoint was given")))
}

/// As [`endpoints`], for a verb that can't go on without: it says so where the cluster's etcd is a provider's.
pub(in crate::commands) async fn endpoints_of(
    args: &EtcdFlags,
    host: &dyn Host,
    verb: &str,
    output: &Output,
) -> Result<Vec<EtcdEndpoint>, Failure> {
    let found = endpoints(args, host).await;
    if found.is_err() {
        managed::refuse_etcd(&args.api, verb, output).await?;
    }
    found
}

/// The endpoints given, or the etcd of this host.
pub(in crate::commands) async fn endpoints(
    args: &EtcdFlags,
    host: &dyn Host,
) -> Result<Vec<EtcdEndpoint>, Failure> {
    let path = |p: &Option<Utf8PathBuf>| p.clone().map(HostPath::from);
    if !args.endpoints.is_empty() {
        let (cacert, cert, key) = (path(&args.cacert), path(&args.cert), path(&args.key));
        let with_scheme = |url: &String| match (url.contains("://"), cacert.is_some()) {
            (true, _) => url.clone(),
            (false, true) => format!("https://{url}"),
            (false, false) => format!("http://{url}"),
        };
        return Ok(args
            .endpoints
            .iter()
            .map(|url| EtcdEndpoint {
                url: with_scheme(url),
                cacert: cacert.clone(),
                cert: cert.clone(),
                key: key.clone(),
            })
            .collect());
    }
    let facts = rekindle_world::observe::etcd_config(host).await;
    match facts {
        rekindle_model::Seen::Known(config) => Ok(vec![config.endpoint]),
        rekindle_model::Seen::Unknown(why) => {
            Err(Failure::usage(format!("no etcd was found on this host: {why}"))
                .hint("name it with --endpoints, --cacert, --cert and --key"))
        }
    }
}

/// Saves to `part` from one endpoint, verifies it, and compares its HashKV with the member's.
pub(in crate::commands) async fn save_from(
    endpoint: &EtcdEndpoint,
    host: &dyn Host,
    part: &Utf8Path,
    output: &Output,
) -> Result<Verified, Failure> {
    let url = &endpoint.url;
    host.etcd_snapshot(endpoint, &HostPath::from(part)).await.doing(|| format!("no snapshot from {url}"))?;
    let snapshot = open(part, false)?;
    let verified = tokio::task::block_in_place(|| super::verify::verify(&snapshot, part, output))?;
    let answer = host
        .etcd_hash_kv(endpoint, verified.hash_kv.revision)
        .await
        .doing(|| format!("{url} did not answer HashKV at revision {}", verified.hash_kv.revision))?;
    let native = if answer.compact_revision == verified.hash_kv.compact_revision {
        verified.hash_kv.hash
    } else {
        // The member compacted between the two calls: hash the same rows it did.
        let options = VerifyOptions {
            hash_revision: Some(answer.revision),
            compact_revision: Some(answer.compact_revision),
            ..VerifyOptions::default()
        };
        let again = snapshot.verify(&options, &mut |_, _| ()).doing(|| format!("cannot hash {part}"))?;
        again.hash_kv.hash
    };
    if native != answer.hash {
        return Err(Failure::new(format!(
            "the snapshot from {url} holds other data than the member: HashKV {native}, the member says {} at \
             revision {}",
            answer.hash, answer.revision
        ))
        .hint("the member's memory and its file differ: check it with `rekindle check`"));
    }
    Ok(verified)
}
