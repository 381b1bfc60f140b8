//! `rekindle drill run`: from the backup to the report.

use super::args::Run;
use super::report::{Check, DrillReport, Outcome, Phase, Restored, Rpo, Targets};
use super::sandbox::{self, Spec, Told};
use super::{BOOTS, MEMBER, history, keys, programs, render};
use crate::commands::agent::{AgentConfig, DrillDefaults, NodesConfig};
use crate::commands::backup;
use crate::commands::from::{self, Fetched};
use crate::commands::snapshot;
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use crate::render::units::{duration_ms, time};
use camino::{Utf8Path, Utf8PathBuf};
use etcd_disk::restore::{Form, NewCluster, RestoreOptions, RestoredDb, Target, restore_members};
use etcd_disk::snapshot::SnapshotFile;
use rekindle_model::etcd::HashKv;
use std::time::{Instant, UNIX_EPOCH};

/// Inside the sandbox nobody else listens.
const PEER_URL: &str = "http://127.0.0.1:2380";

pub(super) fn run(mut args: Run, output: &Output) -> Result<Exit, Failure> {
    let hosts = &args.live.hosts;
    let names_hosts = !hosts.hosts.is_empty() || !hosts.lost.is_empty() || hosts.root != "/";
    if names_hosts || args.live.node.is_some() || args.live.consent.dry_run {
        return Err(Failure::usage(
            "--host, --lost, --root, --node and --dry-run are for --scenario: a drill in the sandbox touches no cluster",
        ));
    }
    let Settled { targets, .. } = settle(&mut args)?;
    let place = args.from.from.clone().or(args.snapshot.as_ref().map(ToString::to_string));
    let place = place.ok_or_else(|| Failure::usage("nothing to restore from: give --snapshot or --from"))?;
    let mut report = DrillReport::begin(place, backup::writer_name()?.to_string(), targets);
    let drilled = connect::runtime()?.block_on(async {
        let mut drill = Drill { args: &args, report: &mut report, clock: Instant::now(), output };
        drill.all().await
    });
    if let Err(failure) = &drilled {
        output.fail(failure);
        report.failure = Some(failure.line());
    }
    conclude(report, &args.reports.report_dir, output)
}

/// Judges a drill, keeps its report and shows it; the exit code tells how it ended.
pub(super) fn conclude(
    mut report: DrillReport,
    report_dir: &Utf8Path,
    output: &Output,
) -> Result<Exit, Failure> {
    report.judge();
    history::keep(report_dir, &report)?;
    output.document(&report, |short| render::text(&report, short))?;
    Ok(match report.outcome {
        Outcome::Passed => Exit::Ok,
        Outcome::Missed => Exit::Findings,
        Outcome::Failed => Exit::Error,
    })
}

/// What flags and configuration say together.
pub(super) struct Settled {
    pub(super) targets: Targets,
    /// UIDs of the clusters that may be broken.
    pub(super) clusters: Vec<String>,
    pub(super) nodes: NodesConfig,
}

/// What no flag says, the configuration says.
pub(super) fn settle(args: &mut Run) -> Result<Settled, Failure> {
    let mut targets = Targets {
        rto_ms: args.target_rto.as_ref().map(|span| backup::span_ms("--target-rto", span)).transpose()?,
        rpo_ms: args.target_rpo.as_ref().map(|span| backup::span_ms("--target-rpo", span)).transpose()?,
        boot: args.require_boot,
    };
    let (mut clusters, mut nodes) = (Vec::new(), NodesConfig::default());
    if let Some(file) = args.config.clone() {
        let mut defaults = AgentConfig::file(&file)?.drills()?;
        clusters = std::mem::take(&mut defaults.clusters);
        nodes = std::mem::take(&mut defaults.nodes);
        fill(args, &mut targets, defaults);
    }
    Ok(Settled { targets, clusters, nodes })
}

fn fill(args: &mut Run, targets: &mut Targets, defaults: DrillDefaults) {
    if args.snapshot.is_none() && args.from.from.is_none() {
        args.from.from = Some(defaults.vault);
        args.from.cluster.get_or_insert(defaults.cluster);
        args.from.trusted_signers.extend(defaults.signers);
        args.from.credentials = defaults.credentials;
        if args.from.passphrase_file.is_none() && args.from.identity.is_none() {
            args.from.identity = defaults.identity;
        }
    }
    args.bin_dir = args.bin_dir.take().or(defaults.bin_dir);
    targets.rto_ms = targets.rto_ms.or(defaults.rto_ms);
    targets.rpo_ms = targets.rpo_ms.or(defaults.rpo_ms);
    targets.boot |= defaults.require_boot;
}

/// What is restored from.
enum Backup {
    File(SnapshotFile, Utf8PathBuf),
    Vault(Box<Fetched>),
}

struct Drill<'a> {
    args: &'a Run,
    report: &'a mut DrillReport,
    clock: Instant,
    output: &'a Output,
}

impl Drill<'_> {
    async fn all(&mut self) -> Result<(), Failure> {
        let scratch = from::private_folder(&self.args.scratch)?;
        let folder = Utf8Path::from_path(scratch.path());
        let folder = folder.ok_or_else(|| Failure::usage(format!("{} is not UTF-8", self.args.scratch)))?;
        self.clock = Instant::now();
        let backup = self.fetch(folder).await?;
        let (settings, bundle) = keys::find(self.args, folder).await?;
        self.report.source.bundle = bundle;
        self.phase("fetch");
        self.verify(&backup)?;
        let restored = tokio::task::block_in_place(|| {
            self.restore(&backup, &folder.join("etcd"), &settings.etcd_prefix)
        })?;
        self.phase("restore");
        let hash = restored.hash_kv.hash;
        self.lost(&backup, &restored);
        let programs = programs::find(self.args.bin_dir.as_deref(), folder).await?;
        let Some(etcd) = programs.etcd else {
            let why = "there is no etcd here: put it into PATH, or name its folder with --bin-dir";
            self.not_proved("etcd boots from it and answers the same HashKV", why);
            self.not_proved(BOOTS, why);
            return Ok(());
        };
        if programs.api_server.is_none() {
            self.not_proved(
                BOOTS,
                "there is no kube-apiserver here: put it into PATH, or name its folder with --bin-dir",
            );
        }
        let absolute = |path: &Utf8PathBuf| path.canonicalize_utf8().doing(|| format!("cannot read {path}"));
        let spec = Spec {
            outside: sandbox::network_namespace()?,
            folder: folder.canonicalize_utf8().doing(|| format!("cannot read {folder}"))?,
            data_dir: absolute(&folder.join("etcd"))?,
            peer_url: PEER_URL.into(),
            revision: restored.revision,
            hash,
            etcd,
            api_server: programs.api_server,
            settings,
            check_commands: self.args.check_command.clone(),
            check_manifests: self.args.check_manifest.iter().map(absolute).collect::<Result<_, _>>()?,
        };
        let told = sandbox::run(&spec).await?;
        self.take(told, &backup)
    }

    async fn fetch(&mut self, folder: &Utf8Path) -> Result<Backup, Failure> {
        if let Some(url) = &self.args.from.from {
            let fetched = from::fetch(&self.args.from, url, folder, self.output).await?;
            return Ok(Backup::Vault(Box::new(fetched)));
        }
        let path = newest(self.args.snapshot.as_deref().unwrap_or(Utf8Path::new("")))?;
        self.report.source.place = path.to_string();
        Ok(Backup::File(snapshot::open(&path, false)?, path))
    }

    fn verify(&mut self, backup: &Backup) -> Result<(), Failure> {
        let check = match backup {
            Backup::File(file, path) => {
                let verified = snapshot::verified(file, path, self.output)?;
                Check::passed(
                    "the snapshot is sound: sha256, structure, HashKV",
                    format!("{} live keys, revision {}", verified.live_keys, verified.revision),
                )
            }
            // all its parts were compared with their signed digests when they were fetched
            Backup::Vault(_) => Check::passed("every part is as its signed manifest says", ""),
        };
        self.report.checks.push(check);
        self.phase("verify");
        Ok(())
    }

    fn restore(
        &mut self,
        backup: &Backup,
        data_dir: &Utf8Path,
        etcd_prefix: &str,
    ) -> Result<RestoredDb, Failure> {
        let (base, fetched) = match backup {
            Backup::File(file, _) => (file, None),
            Backup::Vault(fetched) => (&fetched.base, Some(fetched)),
        };
        let failed = || "the backup can't be restored".to_owned();
        let cluster =
            NewCluster::from_initial_cluster(&format!("{MEMBER}={PEER_URL}"), MEMBER).doing(failed)?;
        let group = grouping(etcd_prefix);
        let options = RestoreOptions {
            // a drill looks at the data; what an alarm means is for a recovery to decide
            allow_corrupt_alarm: true,
            allow_disproved: self.args.from.accept_unproved,
            changes: fetched.map(|fetched| &fetched.changes),
            group: Some(&group),
            ..RestoreOptions::default()
        };
        let target = Target { name: MEMBER.into(), data_dir: data_dir.into(), wal_dir: None };
        let mut progress = snapshot::bar(self.output, "restoring");
        let restored = restore_members(base, Form::Exact, &cluster, &options, &[target], &mut progress);
        let restored = restored.map_err(|error| match fetched {
            Some(fetched) => fetched.failure(error),
            None => Failure::new(failed()).because(error),
        })?;
        self.report.source.point = fetched.map(|fetched| fetched.point(restored.reached.as_ref()));
        let (own, report) = (restored.hash_kv, &mut self.report);
        report.checks.push(Check::passed(
            "a member's store is written from it",
            format!("revision {}, HashKV {}, {} live keys", restored.revision, own.hash, restored.live_keys),
        ));
        // an empty store boots, too
        report.checks.push(match restored.groups.get("namespaces") {
            Some(count) => Check::passed("it holds a cluster", format!("{count} namespaces")),
            None => Check::failed("it holds a cluster", "there is no namespace in it"),
        });
        report.restored = Some(Restored {
            revision: restored.revision,
            hash_kv: HashKv {
                hash: own.hash,
                revision: own.revision,
                compact_revision: own.compact_revision,
            },
            live_keys: restored.live_keys,
            size_bytes: restored.bytes,
            keys_by_resource: restored.groups.clone(),
        });
        Ok(restored)
    }

    /// What a loss at the drill's start would have cost, as far as the backup itself says.
    fn lost(&mut self, backup: &Backup, restored: &RestoredDb) {
        let started_ms = self.report.started_ms;
        self.report.rpo = match (backup, &self.report.source.point) {
            (_, Some(point)) => Rpo {
                lost_ms: Some((started_ms - point.current_ms).max(0)),
                evidence: format!(
                    "the vault knows of nothing newer than revision {} until {}",
                    restored.revision,
                    time(point.current_ms)
                ),
            },
            (Backup::File(_, path), None) => Rpo { lost_ms: None, evidence: written(path, started_ms) },
            (Backup::Vault(_), None) => Rpo::default(),
        };
    }

    /// Takes over what was seen inside.
    fn take(&mut self, told: Told, backup: &Backup) -> Result<(), Failure> {
        let report = &mut *self.report;
        report.phases.extend(told.phases);
        report.checks.extend(told.checks);
        let until = |name: &str| {
            let index = report.phases.iter().position(|phase| phase.name == name)?;
            Some(report.phases.iter().take(index + 1).map(|phase| phase.took_ms).sum())
        };
        (report.rto_ready_ms, report.rto_verified_ms) = (until("apiServer"), until("compare"));
        let newest = told.booted.as_ref().and_then(|booted| {
            booted.sentinels.iter().filter(|one| one.what != "object created").max_by_key(|one| one.at_ms)
        });
        if let (Backup::File(..), Some(newest)) = (backup, newest) {
            report.rpo = Rpo {
                lost_ms: Some((report.started_ms - newest.at_ms).max(0)),
                evidence: format!("the newest sign of life in it: {} ({})", newest.object, newest.what),
            };
        }
        report.booted = told.booted;
        match told.failure {
            Some(failure) => {
                Err(Failure::new("the restored cluster is not as it should be").because(failure))
            }
            None => Ok(()),
        }
    }

    fn not_proved(&mut self, what: &str, why: &str) {
        self.report.checks.push(Check::not_proved(what, why));
    }

    fn phase(&mut self, name: &str) {
        let took = std::mem::replace(&mut self.clock, Instant::now()).elapsed();
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.report.phases.push(Phase { name: name.into(), took_ms });
    }
}

/// A file, or the newest `.db` of a folder: it is what a recovery would look at first.
fn newest(path: &Utf8Path) -> Result<Utf8PathBuf, Failure> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let unread = || format!("cannot read {path}");
    let mut found = Vec::new();
    for entry in path.read_dir_utf8().doing(unread)? {
        let entry = entry.doing(unread)?;
        if entry.path().extension() == Some("db") {
            let changed = entry.metadata().and_then(|metadata| metadata.modified()).doing(unread)?;
            found.push((changed, entry.into_path()));
        }
    }
    let newest = found.into_iter().max().map(|(_, path)| path);
    newest.ok_or_else(|| Failure::new(format!("{path} holds no snapshot (*.db)")))
}

/// What the time of a file says: its content is not younger.
fn written(path: &Utf8Path, started_ms: i64) -> String {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let written_ms = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let written_ms = written_ms.and_then(|at| i64::try_from(at.as_millis()).ok());
    match written_ms {
        Some(at) => format!(
            "not known: the file was written at {}, so at least {}",
            time(at),
            duration_ms((started_ms - at).max(0))
        ),
        None => "not known".into(),
    }
}

fn grouping(etcd_prefix: &str) -> impl for<'k> Fn(&'k [u8]) -> &'k str + Sync + '_ {
    move |key| kube_storage::resource_of(key, etcd_prefix)
}
