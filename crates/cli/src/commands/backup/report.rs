//! What the backup verbs tell.

use super::deep::Deep;
use crate::render::units::{bytes, duration_ms, time};
use camino::Utf8Path;
use rekindle_model::API_VERSION;
use rekindle_vault::history::{History, Item, Timeline};
use rekindle_vault::manifest::{Content, Full, Manifest, Part, Resources};
use rekindle_vault::{Fault, PruneReport, Signer, VerifyReport};
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt::Write;

/// A vault that is ready.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackupInit {
    /// `rekindle/v1alpha1`.
    api_version: &'static str,
    /// `BackupInit`.
    kind: &'static str,
    /// The vault.
    vault: String,
    /// Whose signature the backups will carry: what readers trust.
    signer: Signer,
    /// The file with its key.
    signing_key: String,
    /// The key was made just now.
    made: bool,
    /// The store creates an object only if there is none of that name.
    conditional_put_proved: bool,
    /// The identity decrypted what was encrypted to the recipients.
    identity_proved: bool,
}

impl BackupInit {
    /// After both proofs.
    pub(super) fn new(vault: &str, signer: Signer, signing_key: &Utf8Path, made: bool) -> Self {
        Self {
            api_version: API_VERSION,
            kind: "BackupInit",
            vault: vault.to_owned(),
            signer,
            signing_key: signing_key.to_string(),
            made,
            conditional_put_proved: true,
            identity_proved: true,
        }
    }

    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "√ {} creates objects only if absent", self.vault);
        let _ = writeln!(text, "√ the identity reads what is encrypted to the recipients");
        let made = if self.made { "made" } else { "there already" };
        let _ = writeln!(text, "√ signing key {} ({made})", self.signing_key);
        let _ = writeln!(text, "signer  {}", self.signer);
        text
    }
}

/// One backup.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackupReport {
    /// `rekindle/v1alpha1`.
    api_version: &'static str,
    /// `BackupReport`.
    kind: &'static str,
    /// The vault.
    vault: String,
    /// What is said of it there, signed.
    manifest: Manifest,
}

impl BackupReport {
    pub(in crate::commands) fn new(vault: &str, manifest: Manifest) -> Self {
        Self { api_version: API_VERSION, kind: "BackupReport", vault: vault.to_owned(), manifest }
    }

    pub(in crate::commands) fn table(&self) -> String {
        let (mut text, manifest) = (String::new(), &self.manifest);
        let _ = writeln!(text, "backup    {} of {} in {}", manifest.sequence, manifest.cluster, self.vault);
        let _ = writeln!(
            text,
            "written   {} by {} ({})",
            time(manifest.written_ms),
            manifest.writer,
            manifest.program
        );
        match &manifest.content {
            Content::Full(full) => {
                let _ = writeln!(text, "kind      full, taken {}", time(full.taken_ms));
                part(&mut text, &full.part);
                full_lines(&mut text, full);
            }
            Content::Segment(segment) => {
                let _ = writeln!(text, "kind      segment");
                part(&mut text, &segment.part);
                let _ = writeln!(text, "revisions {} to {}", segment.first_revision, segment.last_revision);
                let _ = writeln!(text, "received  {} to {}", time(segment.first_ms), time(segment.last_ms));
                for run in &segment.replaces {
                    let _ = writeln!(text, "replaces  {} to {}", run.first, run.last);
                }
                let _ = writeln!(text, "timeline  {}", segment.timeline.id);
            }
            Content::Bundle(bundle) => {
                let _ =
                    writeln!(text, "kind      bundle of {}, taken {}", bundle.host, time(bundle.taken_ms));
                part(&mut text, &bundle.part);
            }
            Content::Resources(objects) => {
                let _ = writeln!(text, "kind      objects, taken {}", time(objects.taken_ms));
                part(&mut text, &objects.part);
                let _ = writeln!(text, "objects   {} ({})", objects.objects, scope(objects));
                if objects.problems > 0 {
                    let _ = writeln!(text, "× partial: {} kinds could not be read", objects.problems);
                }
            }
            Content::Prune(prune) => {
                let _ = writeln!(text, "kind      record of retention");
                for run in &prune.removed {
                    let _ = writeln!(text, "removed   {} to {}", run.first, run.last.sequence);
                }
            }
        }
        text
    }
}

/// Which objects.
fn scope(objects: &Resources) -> &str {
    if objects.scope.is_empty() { "all of the cluster" } else { &objects.scope }
}

fn part(text: &mut String, part: &Part) {
    let _ = writeln!(text, "part      {}", part.name);
    let (stored, plain) = (bytes(part.size_bytes), bytes(part.plain_size_bytes));
    let _ = writeln!(text, "size      {stored} stored, {plain} of content");
    let _ = writeln!(text, "sha256    {} stored", part.sha256);
    let _ = writeln!(text, "          {} of content", part.plain_sha256);
}

fn full_lines(text: &mut String, full: &Full) {
    let none = "not known".to_owned();
    let _ = writeln!(text, "revision  {} (compacted at {})", full.revision, full.compact_revision);
    for sample in &full.hash_kv {
        let _ = writeln!(text, "hashKV    {} at {}", sample.hash, sample.revision);
    }
    let _ = writeln!(text, "keys      {} live, {} rows", full.live_keys, full.rows);
    let _ = writeln!(text, "timeline  {}", full.timeline.id);
    let _ = writeln!(text, "cluster   {}", full.identity.kube_system_uid.as_ref().unwrap_or(&none));
    let names: Vec<&str> = full.members.iter().map(|member| member.name.as_str()).collect();
    let _ = writeln!(text, "members   {}", names.join(", "));
    let _ = writeln!(text, "etcd      {}", full.etcd_version.as_ref().unwrap_or(&none));
}

/// What a vault holds of a cluster.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackupList {
    /// `rekindle/v1alpha1`.
    api_version: &'static str,
    /// `BackupList`.
    kind: &'static str,
    /// The vault.
    vault: String,
    #[serde(flatten)]
    history: History,
    /// Manifests that don't count, and why.
    faults: Vec<Fault>,
}

impl BackupList {
    pub(super) fn new(vault: &str, history: History, faults: Vec<Fault>) -> Self {
        Self { api_version: API_VERSION, kind: "BackupList", vault: vault.to_owned(), history, faults }
    }

    pub(super) fn table(&self, short: bool) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "cluster {} in {}", self.history.cluster, self.vault);
        for timeline in &self.history.timelines {
            let _ = writeln!(text, "\ntimeline {}", timeline.timeline.id);
            if !short {
                rows(&mut text, timeline);
            }
            for s in &timeline.restorable {
                let (from, to) = (time(s.first_ms), time(s.last_ms));
                let _ = writeln!(
                    text,
                    "  √ revisions {} to {}, {from} to {to}",
                    s.first_revision, s.last_revision
                );
            }
            if timeline.segments.is_empty() && !timeline.gaps.is_empty() {
                let _ = writeln!(text, "  ‼ no change stream: between the fulls nothing can be restored");
                continue;
            }
            for gap in &timeline.gaps {
                let at = |ms: Option<i64>| ms.map_or("?".to_owned(), time);
                let (from, to) = (at(gap.after_ms), at(gap.before_ms));
                let _ =
                    writeln!(text, "  ‼ gap {} to {}, {from} to {to}", gap.first_revision, gap.last_revision);
            }
        }
        if !self.history.bundles.is_empty() && !short {
            let _ = writeln!(text, "\nbundles");
            for bundle in &self.history.bundles {
                let when = time(bundle.content.taken_ms);
                row(&mut text, bundle, &bundle.content.host, &when, &bundle.content.part);
            }
        }
        if !self.history.resources.is_empty() && !short {
            let _ = writeln!(text, "\nobjects through the API");
            for one in &self.history.resources {
                let objects = &one.content;
                let partial = if objects.problems > 0 { " (partial)" } else { "" };
                let what = format!("{}{partial}", objects.objects);
                row(&mut text, one, &what, &time(objects.taken_ms), &objects.part);
                let _ = writeln!(text, "          {}", scope(objects));
            }
        }
        faults(&mut text, &self.faults);
        text
    }
}

/// Fulls and segments by revision.
fn rows(text: &mut String, timeline: &Timeline) {
    let mut lines: Vec<(i64, String)> = Vec::new();
    for full in &timeline.fulls {
        let mut line = String::new();
        let what = format!("full {}", full.content.revision);
        row(&mut line, full, &what, &time(full.content.taken_ms), &full.content.part);
        lines.push((full.content.revision, line));
    }
    for segment in &timeline.segments {
        let content = &segment.content;
        let mut line = String::new();
        let what = format!("segment {}-{}", content.first_revision, content.last_revision);
        row(&mut line, segment, &what, &time(content.last_ms), &content.part);
        lines.push((content.first_revision, line));
    }
    lines.sort_by_key(|(revision, _)| *revision);
    text.extend(lines.into_iter().map(|(_, line)| line));
}

fn row<T>(text: &mut String, item: &Item<T>, what: &str, when: &str, part: &Part) {
    let (number, size, writer) = (item.sequence, bytes(part.size_bytes), &item.writer);
    let _ = writeln!(text, "  {number:>6}  {what:32}  {when:20}  {size:>10}  {writer}");
}

fn faults(text: &mut String, faults: &[Fault]) {
    for fault in faults {
        let _ = writeln!(text, "× {}\n    {}", fault.object, fault.error.join("\n    because: "));
    }
}

/// What verification found.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackupVerification {
    /// `rekindle/v1alpha1`.
    api_version: &'static str,
    /// `BackupVerification`.
    kind: &'static str,
    /// The vault.
    vault: String,
    #[serde(flatten)]
    report: VerifyReport,
    /// The restore for trial, with `--deep`.
    deep: Option<Deep>,
}

impl BackupVerification {
    pub(super) fn new(vault: &str, report: VerifyReport, deep: Option<Deep>) -> Self {
        Self { api_version: API_VERSION, kind: "BackupVerification", vault: vault.to_owned(), report, deep }
    }

    pub(super) fn table(&self) -> String {
        let (mut text, report) = (String::new(), &self.report);
        let depth = if report.content_read { "every content read" } else { "contents not read: no identity" };
        let _ = writeln!(text, "cluster {} in {} ({depth})", report.cluster, self.vault);
        let _ = writeln!(
            text,
            "{} manifests, {} good parts, {} good fulls, {} read",
            report.manifests,
            report.parts,
            report.good_fulls.len(),
            bytes(report.read_bytes)
        );
        if !report.gaps.is_empty() {
            let _ = writeln!(text, "‼ gaps: {} (`rekindle backup list` shows them)", report.gaps.len());
        }
        faults(&mut text, &report.faults);
        if let Some(deep) = &self.deep {
            let etcd = deep.booted.as_ref().map_or("no etcd in PATH to boot from it".into(), |version| {
                format!("etcd {version} booted from it and answers the same")
            });
            let (revision, hash) = (deep.revision, deep.hash_kv.hash);
            let took = duration_ms(i64::try_from(deep.took_ms).unwrap_or(i64::MAX));
            let _ =
                writeln!(text, "√ backup {} and {} segments restored in {took}", deep.full, deep.segments);
            let _ = writeln!(text, "  revision {revision}, HashKV {hash}; {etcd}");
        }
        if report.faults.is_empty() {
            let _ = writeln!(text, "√ all as it should be");
        }
        text
    }
}

/// What was removed, or would be.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackupPrune {
    /// `rekindle/v1alpha1`.
    api_version: &'static str,
    /// `BackupPrune`.
    kind: &'static str,
    /// The vault.
    vault: String,
    #[serde(flatten)]
    report: PruneReport,
}

impl BackupPrune {
    pub(super) fn new(vault: &str, report: PruneReport) -> Self {
        Self { api_version: API_VERSION, kind: "BackupPrune", vault: vault.to_owned(), report }
    }

    /// Nothing is to be removed.
    pub(super) fn is_nothing(&self) -> bool {
        self.report.removed.is_empty() && self.report.left_behind.is_empty()
    }

    pub(super) fn table(&self, short: bool) -> String {
        let (mut text, report) = (String::new(), &self.report);
        let _ = writeln!(text, "cluster {} in {}", report.cluster, self.vault);
        for kept in report.kept.iter().filter(|_| !short) {
            let _ = writeln!(text, "  kept    {:>6}  {}", kept.sequence, kept.reasons.join(", "));
        }
        let verb = if report.dry_run { "to go" } else { "gone" };
        for removed in &report.removed {
            let name = removed.part.as_deref().unwrap_or("an earlier record of retention");
            let _ =
                writeln!(text, "  {verb:6}  {:>6}  {name}  {}", removed.sequence, bytes(removed.size_bytes));
        }
        for name in &report.left_behind {
            let _ = writeln!(text, "  {verb:6}          {name}  (left behind without a manifest)");
        }
        faults(&mut text, &report.skipped);
        let freed = if report.dry_run { "to be freed" } else { "freed" };
        let _ = writeln!(
            text,
            "{} kept, {} {verb}, {} {freed}",
            report.kept.len(),
            report.removed.len(),
            bytes(report.freed_bytes)
        );
        text
    }
}
