//! From the flags to local files: the history is read, the way chosen, every part fetched (decrypted, decompressed, its
//! sizes and digests compared with the signed manifest), and the stream surveyed.

use super::args::{Asked, FromVault};
use super::find;
use super::reach::{At, Line, Piece, Way};
use crate::commands::backup;
use crate::commands::snapshot::bar;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use camino::{Utf8Path, Utf8PathBuf};
use etcd_disk::changes::{Changes, Point};
use etcd_disk::segment::{self, Evidence, HashSample};
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy};
use rekindle_model::etcd::HashKv;
use rekindle_vault::history::{History, Timeline};
use rekindle_vault::manifest::Part;
use rekindle_vault::{Identities, Quiet, Scratch, Vault};
use std::path::PathBuf;
use std::sync::Arc;

/// Parts fetched at the same time.
const FETCHES: usize = 8;

/// What leads to a point, on this machine, for as long as this lives.
pub(crate) struct Fetched {
    /// The full.
    pub(crate) base: SnapshotFile,
    /// The stream behind it, and the point.
    pub(crate) changes: Changes,
    pub(super) vault: String,
    pub(super) cluster: String,
    pub(super) timeline: String,
    pub(super) full: u64,
    pub(super) full_revision: i64,
    pub(super) full_taken_ms: i64,
    pub(super) segments: u64,
    nearest: String,
    _folder: Scratch,
}

impl Fetched {
    /// What a failed restore means for the point asked for: a point that can't be had, or is disproved, is a refusal.
    pub(crate) fn failure(&self, error: etcd_disk::Error) -> Failure {
        use etcd_disk::Error as E;
        let what = format!("{} can't be restored from {}", self.changes.point(), self.vault);
        match error {
            E::Point { .. } => Failure::refused(what).because(error).hint(&self.nearest),
            E::Proof { .. } | E::Mixed { .. } => Failure::refused(what).because(error).hint(
                "an earlier point may be proved; --accept-unproved restores this one although a member answered \
                 something else",
            ),
            error => Failure::new(what).because(error),
        }
    }
}

/// A vault that is open, with what decrypts it and a folder for what is fetched.
pub(super) struct Open<'a> {
    pub(super) vault: Vault,
    pub(super) identities: Arc<Identities>,
    pub(super) folder: &'a Utf8Path,
    pub(super) output: &'a Output,
}

impl Open<'_> {
    /// Fetches one part.
    pub(super) async fn fetch(&self, part: &Part, to: &Utf8Path) -> Result<(), Failure> {
        let fetched = self.vault.fetch(part, &self.identities, to.as_std_path()).await;
        fetched.doing(|| format!("cannot fetch {}", self.vault.object(&part.name)))
    }

    /// Fetches parts side by side, each with the number of its manifest; those that are there already are not fetched.
    async fn fetch_all(&self, mut parts: Vec<(u64, Part, Utf8PathBuf)>) -> Result<(), Unfetched> {
        parts.retain(|(_, _, to)| !to.exists());
        let total = parts.iter().map(|(_, part, _)| part.size_bytes).sum();
        let (mut progress, mut done) = (bar(self.output, "fetching"), 0u64);
        let mut running = tokio::task::JoinSet::new();
        let mut waiting = parts.into_iter();
        loop {
            while running.len() < FETCHES
                && let Some((sequence, part, to)) = waiting.next()
            {
                let (vault, identities) = (self.vault.clone(), self.identities.clone());
                running.spawn(async move {
                    let fetched = vault.fetch(&part, &identities, to.as_std_path()).await;
                    let fetched = fetched.doing(|| format!("cannot fetch {}", vault.object(&part.name)));
                    let unfetched = |failure| Unfetched { sequence: Some(sequence), failure };
                    fetched.map(|()| part.size_bytes).map_err(unfetched)
                });
            }
            let Some(fetched) = running.join_next().await else { return Ok(()) };
            done += fetched.doing(|| "a fetch was cut short".into())??;
            progress(done, total);
        }
    }
}

/// What could not be fetched.
struct Unfetched {
    /// The number of its manifest; none: it was something else that failed.
    sequence: Option<u64>,
    failure: Failure,
}

impl From<Failure> for Unfetched {
    fn from(failure: Failure) -> Self {
        Self { sequence: None, failure }
    }
}

/// Resolves the point the flags name, and fetches what leads to it into a folder in `beside`, which is made if need be.
pub(crate) async fn fetch(
    args: &FromVault,
    url: &str,
    beside: &Utf8Path,
    output: &Output,
) -> Result<Fetched, Failure> {
    let store = args.store(url)?;
    let identities = Arc::new(args.identities()?);
    let vault = backup::vault(&store, args.cluster.as_deref(), &args.signers()?).await?;
    let (history, faults) = vault.history().await.doing(|| format!("cannot read {url}"))?;
    let quiet = vault.quiet().await.doing(|| format!("cannot read {url}"))?;
    for fault in &faults {
        output.say(&format!("left out: {}: {}", fault.object, fault.error.join(": ")));
    }
    let folder = private_folder(beside)?;
    let path = Utf8Path::from_path(folder.path()).map(Utf8Path::to_owned);
    let path = path.ok_or_else(|| Failure::usage(format!("{beside} is not UTF-8")))?;
    let open = Open { vault, identities, folder: &path, output };
    let lines = lines(&history, &quiet, args)?;
    let mut asked = args.asked()?;
    if let Asked::BeforeDeleteOf(key) = &asked {
        let line = newest(&lines, url)?;
        let revision = find::last_delete(&open, line, key).await?;
        output.say(&format!("{key} was deleted in revision {revision}"));
        asked = Asked::Revision(revision - 1);
    }
    let mut line = choose(&lines, &asked, url)?.clone();
    let (base, changes) = bring_whole(&open, &mut line, &asked).await?;
    let way = line.way(&asked)?;
    if let Some((first, last)) = way.gap_behind {
        output.say(&format!(
            "revisions {first} to {last} are missing: what is behind them can't be reached, the newest point lies before"
        ));
    }
    let nearest = line.nearest(match asked {
        Asked::Revision(revision) => revision,
        _ => line.reach(way.base.content.revision).saturating_add(1),
    });
    Ok(Fetched {
        base,
        changes,
        vault: store.url().to_owned(),
        cluster: open.vault.cluster().to_string(),
        timeline: line.timeline.timeline.id.clone(),
        full: way.base.sequence,
        full_revision: way.base.content.revision,
        full_taken_ms: way.base.content.taken_ms,
        segments: way.pieces.len() as u64,
        nearest,
        _folder: folder,
    })
}

/// A folder that only its owner can look into: what is fetched holds every secret of the cluster.
pub(crate) fn private_folder(beside: &Utf8Path) -> Result<Scratch, Failure> {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
    builder.create(beside).doing(|| format!("cannot make {beside}"))?;
    let made = Scratch::new(beside.as_std_path(), "from");
    made.doing(|| format!("cannot make a folder in {beside}"))
}

/// The histories that count, each with what the spool has of it; the newest last.
fn lines<'h>(history: &'h History, quiet: &[Quiet], args: &FromVault) -> Result<Vec<Line<'h>>, Failure> {
    let spooled = args.spool.as_deref().map(spool).transpose()?.unwrap_or_default();
    let wanted = |timeline: &&Timeline| args.timeline.as_ref().is_none_or(|id| timeline.timeline.id == *id);
    let line = |timeline: &'h Timeline| {
        let id = uuid::Uuid::parse_str(&timeline.timeline.id).map(uuid::Uuid::into_bytes).ok();
        let ours = spooled.iter().filter(|(origin, _)| Some(*origin) == id);
        let mut line = Line::new(timeline, ours.map(|(_, piece)| piece.clone()).collect());
        let told = quiet.iter().filter(|quiet| quiet.timeline == timeline.timeline.id);
        line.quiet = told.map(|quiet| Evidence { at_ms: quiet.at_ms, revision: quiet.revision }).collect();
        line
    };
    Ok(history.timelines.iter().filter(wanted).map(line).collect())
}

/// The segments of a spool, each with its timeline. Those without a complete revision count for nothing.
fn spool(dir: &Utf8Path) -> Result<Vec<([u8; 16], Piece)>, Failure> {
    let mut pieces = Vec::new();
    let unread = || format!("cannot read the spool {dir}");
    for entry in dir.read_dir_utf8().doing(unread)? {
        let path = entry.doing(unread)?.into_path();
        if path.extension() != Some("seg") {
            continue;
        }
        let facts = segment::survey(path.as_std_path()).doing(|| format!("{path} can't be used"))?;
        let Some((first_ms, last_ms)) = facts.received_ms else { continue };
        let samples = facts.samples.iter().map(|sample| HashKv {
            hash: sample.hash_kv.hash,
            revision: sample.hash_kv.revision,
            compact_revision: sample.hash_kv.compact_revision,
        });
        let piece = Piece {
            first: facts.header.first_revision,
            last: facts.last_revision,
            first_ms,
            last_ms: facts.newest.map_or(last_ms, |newest| newest.at_ms.max(last_ms)),
            samples: samples.collect(),
            replaces: Vec::new(),
            at: At::Spool(path, facts.bytes),
        };
        pieces.push((facts.header.origin.timeline, piece));
    }
    Ok(pieces)
}

fn newest<'l, 'h>(lines: &'l [Line<'h>], url: &str) -> Result<&'l Line<'h>, Failure> {
    lines.last().ok_or_else(|| {
        Failure::new(format!("{url} holds no backup that counts of this cluster and timeline"))
            .hint("`rekindle backup list` shows what there is, and what does not count")
    })
}

/// The history that holds the point: the newest one, unless only another one does.
fn choose<'l, 'h>(lines: &'l [Line<'h>], asked: &Asked, url: &str) -> Result<&'l Line<'h>, Failure> {
    let holds = |line: &&Line<'_>| match asked {
        Asked::Revision(revision) => line.holds(*revision),
        Asked::TimeMs(at_ms) => line.spans(*at_ms),
        Asked::Latest | Asked::BeforeDeleteOf(_) => false,
    };
    let holding: Vec<&Line<'_>> = lines.iter().filter(holds).collect();
    match holding.as_slice() {
        [] => newest(lines, url),
        [only] => Ok(only),
        several => {
            let ids: Vec<&str> = several.iter().map(|line| line.timeline.timeline.id.as_str()).collect();
            Err(Failure::refused(format!("{} histories hold this point: {}", ids.len(), ids.join(", ")))
                .hint("name one with --timeline; `rekindle backup list` shows them"))
        }
    }
}

/// Fetches what leads to the point. In the place of a piece that is missing or damaged come those it was merged of, or others
/// that hold the same, if they lead as far.
async fn bring_whole(
    open: &Open<'_>,
    line: &mut Line<'_>,
    asked: &Asked,
) -> Result<(SnapshotFile, Changes), Failure> {
    loop {
        let way = line.way(asked)?;
        let base = way.base.content.revision;
        let reached = line.reach(base);
        let Unfetched { sequence, failure } = match bring(open, line, &way).await {
            Ok(brought) => return Ok(brought),
            Err(unfetched) => unfetched,
        };
        let Some(piece) = sequence.and_then(|sequence| line.take(sequence)) else { return Err(failure) };
        let timeline = line.timeline;
        let id = &timeline.timeline.id;
        let parts = open.vault.merged_of(id, &piece.replaces).await;
        line.add(parts.doing(|| format!("cannot read {}", open.vault.object("manifest")))?);
        if line.reach(base) < reached {
            return Err(failure);
        }
        open.output.say(&format!("{failure}: others that hold the same are taken"));
    }
}

/// Fetches the way's parts and opens them.
async fn bring(
    open: &Open<'_>,
    line: &Line<'_>,
    way: &Way<'_>,
) -> Result<(SnapshotFile, Changes), Unfetched> {
    let base = open.folder.join("base.db");
    let mut parts = vec![(way.base.sequence, way.base.content.part.clone(), base.clone())];
    let mut files: Vec<PathBuf> = Vec::with_capacity(way.pieces.len());
    for (number, piece) in way.pieces.iter().enumerate() {
        let file = match &piece.at {
            At::Vault(sequence, part) => {
                let file = open.folder.join(format!("{sequence}.seg"));
                parts.push((*sequence, part.clone(), file.clone()));
                file
            }
            // a copy: whoever owns the spool may take it away meanwhile
            At::Spool(path, _) => {
                let file = open.folder.join(format!("spooled-{number}.seg"));
                std::fs::copy(path, &file).doing(|| format!("cannot copy {path} to {file}"))?;
                file
            }
        };
        files.push(file.into());
    }
    open.fetch_all(parts).await?;
    let snapshot = SnapshotFile::open(base.as_std_path(), TrailerPolicy::Required);
    let snapshot = snapshot.doing(|| format!("the full backup {} is not sound", way.base.sequence))?;
    let mut changes = Changes::open(&files, way.point).doing(|| "the change stream is not sound".into())?;
    let of_cluster = way.base.content.identity.etcd_cluster_id;
    if let (Some(origin), Some(expected)) = (changes.origin(), of_cluster)
        && origin.cluster_id != expected.0
    {
        return Err(Failure::refused(format!(
            "the change stream is of etcd cluster {:x}, the full backup of {expected}",
            origin.cluster_id
        ))
        .into());
    }
    line.quiet.iter().for_each(|told| changes.add_evidence(*told));
    // a full that was there by then tells so, too: nothing may have been written since
    if matches!(way.point, Point::TimeMs(asked) if way.base.written_ms <= asked) {
        let revision = way.base.content.revision;
        changes.add_evidence(Evidence { at_ms: way.base.written_ms, revision });
    }
    let fulls = line.timeline.fulls.iter();
    changes.add_samples(fulls.flat_map(|full| {
        full.content.hash_kv.iter().map(|sample| HashSample {
            at_ms: full.content.taken_ms,
            hash_kv: etcd_disk::hashkv::HashKv {
                hash: sample.hash,
                revision: sample.revision,
                compact_revision: sample.compact_revision,
            },
        })
    }));
    Ok((snapshot, changes))
}
