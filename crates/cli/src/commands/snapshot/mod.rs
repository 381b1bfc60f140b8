//! `rekindle snapshot`: save, verify, restore, export. Works on any machine, without root and without a cluster.

mod export;
mod report;
mod restore;
pub(super) mod save;
mod verify;

pub(crate) use report::SnapshotReport;
pub(super) use verify::verify as verified;

use crate::args::{Snapshot, SnapshotVerb};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::byte_bar;
use crate::render::units::bytes;
use camino::Utf8Path;
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy};

pub(crate) fn run(args: Snapshot, output: &Output) -> Result<Exit, Failure> {
    match args.verb {
        SnapshotVerb::Save(args) => save::run(&args, output),
        SnapshotVerb::Verify { file, skip_hash_check } => verify::run(&file, skip_hash_check, output),
        SnapshotVerb::Restore(args) => restore::run(&args, output),
        SnapshotVerb::Export(args) => export::run(&args, output),
    }
}

/// Opens a snapshot as the flag says.
pub(super) fn open(file: &Utf8Path, skip_hash_check: bool) -> Result<SnapshotFile, Failure> {
    let policy = if skip_hash_check { TrailerPolicy::Skip } else { TrailerPolicy::Required };
    SnapshotFile::open(file.as_std_path(), policy).map_err(|error| {
        Failure::new(format!("{file} is not a usable snapshot"))
            .because(error)
            .hint("a copied member/snap/db has no sha256 at its end: then give --skip-hash-check")
    })
}

/// A progress callback that draws one bar on a terminal.
pub(super) fn bar(output: &Output, label: &str) -> impl FnMut(u64, u64) + use<> {
    let bar = output.live.then(|| byte_bar(label));
    move |done, total| {
        if let Some(bar) = &bar {
            bar.set_length(total);
            bar.set_position(done);
            if done >= total {
                bar.finish_and_clear();
            }
        }
    }
}

/// One line about a size, with its exact figure.
fn size(count: u64) -> String {
    format!("{} ({count} bytes)", bytes(count))
}
