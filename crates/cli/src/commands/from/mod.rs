//! A point in time out of a vault: resolved, fetched, checked, and made into what the other verbs restore from.
//!
//! - `args.rs`: the flags. `reach.rs`: which full and which pieces of the stream lead to a point, or the nearest points.
//! - `fetch.rs`: the history is read, the parts are fetched and checked.
//! - `find.rs`: the history of one key (`rekindle backup find`, and `--before-delete-of`).
//!
//! ```text
//! vault ──▶ manifests ──▶ Way (reach.rs) ──▶ Fetched ──┬─▶ a member's data dir, in one pass (snapshot restore)
//! spool ──▶ pieces    ──┘                  base + pieces └─▶ one snapshot file (recover, plan, snapshot export)
//! ```

mod args;
mod fetch;
mod find;
mod reach;

pub(crate) use args::FromVault;
pub(super) use args::signers;
pub(crate) use fetch::{Fetched, fetch, private_folder};
pub(crate) use find::{BackupFind, Find, run as find};

use crate::commands::snapshot::bar;
use crate::failure::Failure;
use crate::output::Output;
use crate::render::units::{duration_ms, time};
use camino::{Utf8Path, Utf8PathBuf};
use etcd_disk::restore::Reached;
use rekindle_model::source::{PointProof, VaultPoint};
use std::fmt::Write;

/// A point in time as one snapshot file.
pub(crate) struct Made {
    /// The file, with its sha256 at the end.
    pub(crate) file: Utf8PathBuf,
    /// What it is.
    pub(crate) point: VaultPoint,
}

/// Makes the snapshot file of the point the flags name; what is fetched for it lies beside it for the time being.
/// None without `--from`.
pub(crate) async fn make(
    args: &FromVault,
    file: Utf8PathBuf,
    output: &Output,
) -> Result<Option<Made>, Failure> {
    let Some(url) = &args.from else { return Ok(None) };
    let folder = file.parent().unwrap_or(Utf8Path::new("."));
    let fetched = fetch(args, url, folder, output).await?;
    let written = tokio::task::block_in_place(|| {
        let (base, changes) = (&fetched.base, &fetched.changes);
        let mut progress = bar(output, "replaying");
        etcd_disk::restore::write_snapshot(
            base,
            changes,
            args.accept_unproved,
            file.as_std_path(),
            &mut progress,
        )
    });
    let written = written.map_err(|error| fetched.failure(error))?;
    let point = fetched.point(written.reached.as_ref());
    output.say(&text(&point));
    Ok(Some(Made { file, point }))
}

impl Fetched {
    /// What was reached, and what proves it.
    pub(crate) fn point(&self, reached: Option<&Reached>) -> VaultPoint {
        let hash = |sample: &etcd_disk::segment::HashSample| rekindle_model::etcd::HashKv {
            hash: sample.hash_kv.hash,
            revision: sample.hash_kv.revision,
            compact_revision: sample.hash_kv.compact_revision,
        };
        let proof = match reached.map(|reached| (&reached.proof, &reached.disproof)) {
            Some((Some(sample), _)) => PointProof::Equal(hash(sample)),
            Some((None, Some(sample))) => PointProof::Different(hash(sample)),
            _ => PointProof::None,
        };
        let revision = reached.map_or(self.full_revision, |reached| reached.revision);
        let received_ms = reached.and_then(|reached| reached.received_ms).unwrap_or(self.full_taken_ms);
        let still = self.changes.current_until_ms(revision);
        VaultPoint {
            vault: self.vault.clone(),
            cluster: self.cluster.clone(),
            timeline: self.timeline.clone(),
            full: self.full,
            segments: self.segments,
            revision,
            received_ms,
            current_ms: still.map_or(received_ms, |still| still.max(received_ms)),
            next_received_ms: reached.and_then(|reached| reached.next_received_ms),
            proof,
        }
    }
}

/// A point for people.
pub(crate) fn text(point: &VaultPoint) -> String {
    let mut text = format!("{}\n  {}\n", point, point.made_of());
    let over = match point.next_received_ms {
        Some(next) => {
            format!(
                "the next revision came at {}, {} later",
                time(next),
                duration_ms(next - point.received_ms)
            )
        }
        None => "no later revision is known".into(),
    };
    let _ = write!(text, "  {over}\n  {}", point.proof);
    text
}
