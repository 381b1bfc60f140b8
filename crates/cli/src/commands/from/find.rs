//! `rekindle backup find KEY`: the history of one key, from the fulls and the stream; and where it was last deleted.

use super::fetch::{Open, private_folder};
use super::reach::{At, Line};
use crate::commands::backup;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use crate::render::units::{bytes, time};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args as ClapArgs;
use etcd_disk::rows::{KvRef, RowKey};
use etcd_disk::segment::{Record, SegmentReader};
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy};
use rekindle_model::API_VERSION;
use rekindle_vault::Identities;
use rekindle_vault::history::Timeline;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// `rekindle backup find`
#[derive(Debug, ClapArgs)]
pub(crate) struct Find {
    /// The key in etcd, for example `/registry/configmaps/NAMESPACE/NAME`.
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) read: backup::Read,
    /// The identity file that decrypts (`age-keygen`).
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "passphrase_file",
        required_unless_present = "passphrase_file"
    )]
    pub(crate) identity: Option<Utf8PathBuf>,
    /// Decrypt with the passphrase in this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<Utf8PathBuf>,
    /// A folder with room for one part.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/rekindle")]
    pub(crate) scratch: Utf8PathBuf,
}

/// What `backup find` prints.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackupFind {
    /// `rekindle/v1alpha1`.
    api_version: &'static str,
    /// `BackupFind`.
    kind: &'static str,
    /// The vault.
    vault: String,
    /// The cluster.
    cluster: String,
    /// The key.
    key: String,
    /// Its histories, the newest last.
    timelines: Vec<KeyHistory>,
}

/// The history of a key in one timeline.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct KeyHistory {
    /// The timeline.
    timeline: String,
    /// Revisions in which the key was written or deleted.
    events: Vec<KeyEvent>,
    /// Revisions that no backup has, as first and last: what happened to the key there is not known.
    gaps: Vec<(i64, i64)>,
}

/// One revision of a key.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct KeyEvent {
    /// The revision.
    revision: i64,
    /// Whether it was deleted.
    deleted: bool,
    /// When it was received, milliseconds since the Unix epoch; none: it was in a full already.
    received_ms: Option<i64>,
    /// How often it was written since it was created; none when deleted.
    version: Option<i64>,
    /// Size of its value; none when deleted.
    value_bytes: Option<u64>,
    /// Number of the backup it was found in.
    backup: u64,
}

/// What a part tells of the key, by revision.
type Events = BTreeMap<i64, KeyEvent>;

/// `rekindle backup find`
pub(crate) async fn run(args: &Find, output: &Output) -> Result<Exit, Failure> {
    let identities = match (&args.identity, &args.passphrase_file) {
        (Some(path), _) => {
            Identities::read(path.as_std_path()).doing(|| "no identity to read with".into())?
        }
        (None, Some(path)) => Identities::passphrase(backup::passphrase(path)?),
        (None, None) => return Err(Failure::usage("no identity was given")),
    };
    let url = args.read.url();
    let vault = backup::open(&args.read).await?;
    let (history, _) = vault.history().await.doing(|| format!("cannot read {url}"))?;
    let folder = private_folder(&args.scratch)?;
    let path = Utf8Path::from_path(folder.path());
    let path = path.ok_or_else(|| Failure::usage(format!("{} is not UTF-8", args.scratch)))?;
    let cluster = vault.cluster().to_string();
    let open = Open { vault, identities: Arc::new(identities), folder: path, output };
    let mut timelines = Vec::new();
    for timeline in &history.timelines {
        timelines.push(of_timeline(&open, timeline, &args.key).await?);
    }
    let key = args.key.clone();
    let found = BackupFind {
        api_version: API_VERSION,
        kind: "BackupFind",
        vault: url.to_owned(),
        cluster,
        key,
        timelines,
    };
    output.document(&found, |_| found.table())?;
    Ok(Exit::Ok)
}

/// The fulls that begin a stretch tell what was before the stream; the stream tells the rest.
async fn of_timeline(open: &Open<'_>, timeline: &Timeline, key: &str) -> Result<KeyHistory, Failure> {
    let mut events = Events::new();
    let begins = |revision: i64| timeline.restorable.iter().any(|stretch| stretch.first_revision == revision);
    let no_stream = timeline.segments.is_empty();
    for full in timeline.fulls.iter().filter(|full| no_stream || begins(full.content.revision)) {
        let file = open.folder.join("full.db");
        open.fetch(&full.content.part, &file).await?;
        let read = tokio::task::block_in_place(|| in_full(&file, key.as_bytes(), full.sequence, &mut events));
        let _ = std::fs::remove_file(&file);
        read.doing(|| format!("the full backup {} can't be read", full.sequence))?;
    }
    for segment in timeline.widest() {
        let file = open.folder.join("part.seg");
        open.fetch(&segment.content.part, &file).await?;
        let read =
            tokio::task::block_in_place(|| in_segment(&file, key.as_bytes(), segment.sequence, &mut events));
        let _ = std::fs::remove_file(&file);
        read.doing(|| format!("the segment {} can't be read", segment.sequence))?;
    }
    let gaps = timeline.gaps.iter().map(|gap| (gap.first_revision, gap.last_revision)).collect();
    Ok(KeyHistory { timeline: timeline.timeline.id.clone(), events: events.into_values().collect(), gaps })
}

/// The revision in which a key was last deleted: the newest part that tells is the one that counts.
pub(super) async fn last_delete(open: &Open<'_>, line: &Line<'_>, key: &str) -> Result<i64, Failure> {
    let deleted =
        |events: &Events| events.values().filter(|event| event.deleted).map(|event| event.revision).max();
    let mut newest_first: Vec<_> = line.pieces.iter().collect();
    newest_first.sort_by_key(|piece| std::cmp::Reverse(piece.last));
    for piece in newest_first {
        let mut events = Events::new();
        let read = match &piece.at {
            At::Vault(sequence, part) => {
                let file = open.folder.join("part.seg");
                open.fetch(part, &file).await?;
                let read =
                    tokio::task::block_in_place(|| in_segment(&file, key.as_bytes(), *sequence, &mut events));
                let _ = std::fs::remove_file(&file);
                read
            }
            At::Spool(path, _) => {
                tokio::task::block_in_place(|| in_segment(path, key.as_bytes(), 0, &mut events))
            }
        };
        read.doing(|| format!("the change stream from revision {} can't be read", piece.first))?;
        if let Some(revision) = deleted(&events) {
            return Ok(revision);
        }
    }
    for full in line.timeline.fulls.iter().rev() {
        let (mut events, file) = (Events::new(), open.folder.join("full.db"));
        open.fetch(&full.content.part, &file).await?;
        let read = tokio::task::block_in_place(|| in_full(&file, key.as_bytes(), full.sequence, &mut events));
        let _ = std::fs::remove_file(&file);
        read.doing(|| format!("the full backup {} can't be read", full.sequence))?;
        if let Some(revision) = deleted(&events) {
            return Ok(revision);
        }
    }
    Err(Failure::refused(format!("no backup tells of a deletion of {key}")).hint(
        "`rekindle backup find KEY` shows its history; a key has the form /registry/RESOURCE/NAMESPACE/NAME",
    ))
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn in_full(file: &Utf8Path, key: &[u8], backup: u64, events: &mut Events) -> Result<(), AnyError> {
    let snapshot = SnapshotFile::open(file.as_std_path(), TrailerPolicy::Required)?;
    let Some(rows) = snapshot.bolt().bucket(b"key")? else { return Ok(()) };
    let mut cursor = rows.cursor();
    while let Some((row, value)) = cursor.next()? {
        let row = RowKey::parse(row)?;
        take(key, row.revision.main, row.tombstone, value, None, backup, events)?;
    }
    Ok(())
}

fn in_segment(file: &Utf8Path, key: &[u8], backup: u64, events: &mut Events) -> Result<(), AnyError> {
    let mut reader = SegmentReader::open(file.as_std_path())?;
    while let Some(record) = reader.next()? {
        let Record::Rows(rows) = record else { continue };
        for row in rows.iter() {
            take(key, rows.revision, row.tombstone, row.value, Some(rows.received_ms), backup, events)?;
        }
    }
    Ok(())
}

fn take(
    key: &[u8],
    revision: i64,
    deleted: bool,
    value: &[u8],
    received_ms: Option<i64>,
    backup: u64,
    events: &mut Events,
) -> Result<(), AnyError> {
    // a raised revision leaves a row without content
    if value.is_empty() {
        return Ok(());
    }
    let kv = KvRef::parse(value)?;
    if kv.key == key {
        let version = (!deleted).then_some(kv.version);
        let value_bytes = (!deleted).then_some(kv.value.len() as u64);
        let event = KeyEvent { revision, deleted, received_ms, version, value_bytes, backup };
        // the earliest receipt is the one that counts
        let known = events.entry(revision).or_insert_with(|| event.clone());
        if received_ms.is_some_and(|at_ms| known.received_ms.is_none_or(|known| at_ms < known)) {
            *known = event;
        }
    }
    Ok(())
}

impl BackupFind {
    fn table(&self) -> String {
        let mut text = format!("{}\n", self.key);
        for history in &self.timelines {
            let _ = writeln!(text, "timeline {}", history.timeline);
            let _ = writeln!(
                text,
                "  {:>12}  {:<8} {:<24} {:>7} {:>10}  BACKUP",
                "REVISION", "WHAT", "RECEIVED", "VERSION", "VALUE"
            );
            for event in &history.events {
                let what = if event.deleted { "deleted" } else { "written" };
                let when = event.received_ms.map_or_else(|| "before the stream".into(), time);
                let version = event.version.map_or_else(String::new, |version| version.to_string());
                let value = event.value_bytes.map_or_else(String::new, bytes);
                let (revision, backup) = (event.revision, event.backup);
                let _ = writeln!(
                    text,
                    "  {revision:>12}  {what:<8} {when:<24} {version:>7} {value:>10}  {backup}"
                );
            }
            if history.events.is_empty() {
                let _ = writeln!(text, "  never there");
            }
            for (first, last) in &history.gaps {
                let _ = writeln!(
                    text,
                    "  ‼ revisions {first} to {last} are in no backup: nothing is known of them"
                );
            }
        }
        text
    }
}
