//! `rekindle backup bundle`: what a restore needs beside etcd's data, as a tar archive in the vault.
//!
//! Names in the archive are the host's paths without the leading `/`. Links are kept as links; a path that is itself a link
//! is followed, so that a `/etc/kubernetes` that lies elsewhere is in the bundle.

use super::args::Bundle;
use super::dry::BackupPlan;
use super::report::BackupReport;
use super::{recipients, scratch, signing_key, store, vault, writer_name};
use crate::commands::managed;
use crate::commands::snapshot::save;
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use crate::render::units::bytes;
use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::etcd::EtcdEndpoint;
use rekindle_vault::manifest::ClusterIdentity;
use rekindle_vault::{BundleMeta, PartKind, Store, Vault};
use rekindle_world::Host;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

/// Where kubeadm and plain units keep what makes a control-plane host. What is not there is left out.
const PATHS: [&str; 12] = [
    "/etc/kubernetes",
    "/var/lib/kubelet/config.yaml",
    "/var/lib/kubelet/kubeadm-flags.env",
    "/var/lib/kubelet/pki",
    "/etc/etcd",
    "/etc/default/kubelet",
    "/etc/default/etcd",
    "/etc/sysconfig/kubelet",
    "/etc/systemd/system",
    "/etc/containerd/config.toml",
    "/etc/crictl.yaml",
    // the runbook, where the agent keeps it: what is needed together lies together
    "/var/lib/rekindle/agent/runbook",
];
/// Its flag names a file with the keys of the secrets in etcd, wherever that lies.
const API_SERVER: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
const ENCRYPTION_FLAG: &str = "--encryption-provider-config=";
/// A bundle that is larger holds something that is no configuration.
const BUNDLE_MAX_BYTES: u64 = 1 << 30;

pub(super) async fn run(args: &Bundle, output: &Output) -> Result<Exit, Failure> {
    let host = connect::local("/".into());
    let endpoints = save::endpoints(&args.etcd, &*host).await.unwrap_or_default();
    if endpoints.is_empty() && args.etcd.api.kubeconfig.is_some() {
        managed::refuse_etcd(&args.etcd.api, "backup bundle", output).await?;
    }
    let (store, key, recipients) =
        (store(&args.place)?, signing_key(&args.signing_key)?, recipients(&args.encrypt)?);
    let into = || format!("cannot put the bundle into {}", store.url());
    let vault = vault(&store, args.cluster.as_deref(), &[key.signer()]).await?;
    let (found, left_out) = find(&wanted(&args.paths), &args.paths)?;
    for path in &left_out {
        output.say(&format!("{path} is not here: left out"));
    }
    if args.dry_run {
        return planned(args, &vault, &store, &found).await?.show(output);
    }
    let writer = vault.writer(writer_name()?, key, recipients).await.doing(into)?;
    let scratch = scratch(&args.scratch)?;
    let archive = scratch.path().join("bundle.tar");
    let taken_ms = jiff::Timestamp::now().as_millisecond();
    let written = || format!("cannot write {}", archive.display());
    let file = File::options().write(true).create_new(true).open(&archive).doing(written)?;
    pack(&found, BufWriter::new(file))?;
    let identity = identity(&*host, &endpoints, output).await;
    let meta = BundleMeta { identity, host: writer_name()?.to_string(), taken_ms };
    let manifest = writer.put_bundle(archive, meta).await.doing(into)?;
    let report = BackupReport::new(store.url(), manifest);
    output.document(&report, |_| report.table())?;
    Ok(Exit::Ok)
}

/// The usual paths, what the API server's manifest names, and those given.
fn wanted(given: &[Utf8PathBuf]) -> Vec<Utf8PathBuf> {
    let mut paths: Vec<Utf8PathBuf> = PATHS.map(Utf8PathBuf::from).into();
    if let Ok(manifest) = std::fs::read_to_string(API_SERVER) {
        paths.extend(encryption_config(&manifest));
    }
    paths.extend_from_slice(given);
    // a path inside another one is in the archive already
    let inside = |path: &Utf8PathBuf| paths.iter().any(|other| path != other && path.starts_with(other));
    let mut outermost: Vec<_> = paths.iter().filter(|path| !inside(path)).cloned().collect();
    outermost.sort();
    outermost.dedup();
    outermost
}

/// What a flag (`--name=`) says in a manifest's text.
pub(in crate::commands) fn flag_of<'m>(manifest: &'m str, flag: &str) -> Option<&'m str> {
    let value = manifest.split_once(flag)?.1;
    let end = value.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')).unwrap_or(value.len());
    value.get(..end)
}

fn encryption_config(manifest: &str) -> Option<Utf8PathBuf> {
    flag_of(manifest, ENCRYPTION_FLAG).filter(|path| path.starts_with('/')).map(Utf8PathBuf::from)
}

/// What [`run`] would do; all files are read, as they would be then.
async fn planned(
    args: &Bundle,
    vault: &Vault,
    store: &Store,
    found: &[Found],
) -> Result<BackupPlan, Failure> {
    let size = bytes(pack(found, std::io::sink())?);
    let mut plan = BackupPlan::new(store.url()).reads("the signing key", args.signing_key.as_str());
    for Found { path, real } in found {
        let place = if path.as_std_path() == real {
            path.to_string()
        } else {
            format!("{path} ({})", real.display())
        };
        plan = plan.reads(if real.is_dir() { "all files of" } else { "the file" }, place);
    }
    let unread = || format!("cannot read {}", store.url());
    let [part, manifest] = vault.next_objects(PartKind::Bundle, &writer_name()?).await.doing(unread)?;
    Ok(plan
        .writes(format!("an archive of {size}, until it is in the vault"), args.scratch.as_str())
        .writes("the archive, compressed and encrypted", part)
        .writes("what is said of it, signed", manifest))
}

/// A path of this host, and what it leads to.
struct Found {
    path: Utf8PathBuf,
    real: PathBuf,
}

/// What is here of the usual paths, and what is not; one that was asked for must be.
fn find(paths: &[Utf8PathBuf], given: &[Utf8PathBuf]) -> Result<(Vec<Found>, Vec<Utf8PathBuf>), Failure> {
    let (mut found, mut left_out) = (Vec::new(), Vec::new());
    for path in paths {
        match path.canonicalize() {
            Ok(real) => found.push(Found { path: path.clone(), real }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !given.contains(path) => {
                left_out.push(path.clone());
            }
            Err(error) => return Err(Failure::new(format!("cannot read {path}")).because(error)),
        }
    }
    if found.is_empty() {
        return Err(Failure::new("this host has nothing of what a bundle holds")
            .hint("run it on a control-plane host, or name files with --path"));
    }
    Ok((found, left_out))
}

/// Writes the archive; its size in bytes.
fn pack(found: &[Found], to: impl Write) -> Result<u64, Failure> {
    let mut tar = tar::Builder::new(Counted { to, bytes: 0 });
    tar.follow_symlinks(false);
    for Found { path, real } in found {
        add(&mut tar, path, real).doing(|| format!("cannot read {path}"))?;
    }
    let written = tar.into_inner().and_then(|mut counted| counted.flush().map(|()| counted.bytes));
    let size_bytes = written.doing(|| "cannot write the bundle".into())?;
    if size_bytes > BUNDLE_MAX_BYTES {
        return Err(Failure::refused(format!(
            "the bundle has {size_bytes} bytes: more than configuration takes"
        ))
        .hint("move what is large out of the folders that are named here"));
    }
    Ok(size_bytes)
}

/// Counts what passes.
struct Counted<W> {
    to: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.bytes = self.bytes.saturating_add(count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

fn add<W: Write>(tar: &mut tar::Builder<W>, path: &Utf8Path, real: &std::path::Path) -> std::io::Result<()> {
    let name = path.as_str().trim_start_matches('/');
    if real.is_dir() { tar.append_dir_all(name, real) } else { tar.append_path_with_name(real, name) }
}

/// The etcd cluster this host belongs to, when its etcd answers: verification compares it with that of the fulls.
async fn identity(host: &dyn Host, endpoints: &[EtcdEndpoint], output: &Output) -> ClusterIdentity {
    for endpoint in endpoints {
        if let Ok(status) = host.etcd_status(endpoint).await {
            return ClusterIdentity {
                etcd_cluster_id: Some(status.cluster_id),
                ..ClusterIdentity::default()
            };
        }
    }
    output.say("etcd does not answer: the bundle does not say which cluster it is of");
    ClusterIdentity::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    // The keys of the secrets may lie anywhere: a restore without them has secrets that nobody can read.
    #[test]
    fn the_encryption_configuration_is_found() {
        let manifest = "    - --encryption-provider-config=/srv/keys/enc.yaml\n    - --etcd-servers=x";
        assert_eq!(encryption_config(manifest), Some("/srv/keys/enc.yaml".into()));
        assert_eq!(encryption_config("- \"--encryption-provider-config=/a b\""), Some("/a".into()));
        assert_eq!(encryption_config("- --encryption-provider-config=relative"), None);
        assert_eq!(encryption_config("nothing"), None);
    }

    #[test]
    fn paths_inside_others_are_named_once() {
        let paths = wanted(&["/etc/kubernetes/pki".into(), "/srv/x".into(), "/srv/x".into()]);
        assert!(!paths.contains(&"/etc/kubernetes/pki".into()));
        assert_eq!(paths.iter().filter(|path| *path == "/srv/x").count(), 1);
    }
}
