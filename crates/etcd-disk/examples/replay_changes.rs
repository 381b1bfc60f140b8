//! The speed of a restore to a point in time.
//!
//! - `replay_changes make FOLDER`: a snapshot of 264 MB (`base.db`: 180,000 live keys of 1.1 KB, and older versions) and
//!   132,000 further revisions in four segments (`*.seg`).
//! - `replay_changes exact|bumped FOLDER OUT`: the snapshot and all changes into the new database `OUT`; with `base-`
//!   before the form, the snapshot alone. Prints the seconds.

use etcd_disk::changes::{Changes, Point};
use etcd_disk::proto::KeyValue;
use etcd_disk::restore::{Form, NewCluster, RestoreOptions, write_db};
use etcd_disk::rows::{Revision, row_key};
use etcd_disk::segment::{Header, Origin, SegmentWriter};
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy};
use prost::Message;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

const KEYS: i64 = 180_000;
const BASE_REVISIONS: i64 = 212_000;
const CHANGES: i64 = 132_000;
const SEGMENTS: i64 = 4;
const VALUE_BYTES: usize = 1_040;

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["make", folder] => make(Path::new(folder)),
        [form, folder, out] => restore(form, Path::new(folder), Path::new(out)),
        _ => Err("usage: replay_changes make FOLDER | [base-](exact|bumped) FOLDER OUT".into()),
    }
}

/// The row of a revision: keys come round in an order that is not theirs.
fn row(revision: i64) -> Vec<u8> {
    let key = format!("/registry/pods/namespace-{}/pod-{:06}", revision % 50, revision * 7919 % KEYS);
    let noise = (0..VALUE_BYTES).map(|at| (revision as u64).wrapping_mul(at as u64 | 1).to_le_bytes()[2]);
    let (create_revision, mod_revision) = (revision, revision);
    let value = noise.collect();
    KeyValue { key: key.into(), create_revision, mod_revision, version: 1, value, lease: 0 }.encode_to_vec()
}

fn make(folder: &Path) -> Outcome {
    std::fs::create_dir_all(folder)?;
    let file = std::fs::File::create_new(folder.join("base.db"))?;
    let mut writer = boltfile::Writer::create("base.db", file, 4096)?;
    for name in ["cluster", "key", "lease", "meta"] {
        let mut bucket = writer.bucket(name.as_bytes())?;
        for main in (2..=BASE_REVISIONS).filter(|_| name == "key") {
            bucket.put(&row_key(Revision { main, sub: 0 }), &row(main))?;
        }
    }
    let finished = writer.finish()?;
    finished.file.sync_all()?;
    let origin = Origin { cluster_id: 1, timeline: [1; 16] };
    for n in 0..SEGMENTS {
        let first_revision = BASE_REVISIONS + 1 + n * (CHANGES / SEGMENTS);
        let header = Header { origin, first_revision, created_ms: 0, writer: "bench".into() };
        let mut writer = SegmentWriter::create(&folder.join(format!("{n}.seg")), header)?;
        for revision in first_revision..first_revision + CHANGES / SEGMENTS {
            writer.row(revision, revision, false, &row(revision))?;
            writer.end_revision()?;
        }
        writer.close()?;
    }
    Ok(())
}

#[allow(clippy::print_stdout)] // the figures are what it is for
fn restore(form: &str, folder: &Path, out: &Path) -> Outcome {
    let begun = Instant::now();
    let (form, alone) = form.strip_prefix("base-").map_or((form, false), |form| (form, true));
    let form = match form {
        "exact" => Form::Exact,
        "bumped" => Form::BumpedBy { revisions: 1_000_000_000 },
        other => return Err(format!("no form {other}").into()),
    };
    let paths: Vec<PathBuf> = (0..SEGMENTS).map(|n| folder.join(format!("{n}.seg"))).collect();
    let changes = if alone { None } else { Some(Changes::open(&paths, Point::Latest)?) };
    let surveyed = begun.elapsed();
    let source = SnapshotFile::open(&folder.join("base.db"), TrailerPolicy::Skip)?;
    let cluster = NewCluster::from_initial_cluster("m1=http://127.0.0.1:2380", "recovered")?;
    let options = RestoreOptions { changes: changes.as_ref(), ..RestoreOptions::default() };
    let restored = write_db(&source, form, &cluster, &options, out, &mut |_, _| ())?;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{seconds:.3} s, {:.3} s of it the first reading of the segments: revision {}, {} rows, {} live keys, {} bytes",
        surveyed.as_secs_f64(),
        restored.revision,
        restored.rows,
        restored.live_keys,
        restored.bytes
    );
    Ok(())
}
