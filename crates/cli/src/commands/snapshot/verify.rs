//! `rekindle snapshot verify FILE`

use super::{SnapshotReport, bar, open};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use camino::Utf8Path;
use etcd_disk::snapshot::{SnapshotFile, Verified, VerifyOptions};

/// The prefix kube-apiserver stores under, unless told otherwise.
const REGISTRY: &str = "/registry/";

pub(super) fn run(file: &Utf8Path, skip_hash_check: bool, output: &Output) -> Result<Exit, Failure> {
    let snapshot = open(file, skip_hash_check)?;
    let verified = verify(&snapshot, file, output)?;
    let report = SnapshotReport::new(file.as_str(), verified);
    output.document(&report, |short| report.table(short))?;
    Ok(Exit::Ok)
}

fn resource_of(key: &[u8]) -> &str {
    kube_storage::resource_of(key, REGISTRY)
}

/// Verifies all of it: sha256, structure, HashKV, counts per resource.
pub(in crate::commands) fn verify(
    snapshot: &SnapshotFile,
    file: &Utf8Path,
    output: &Output,
) -> Result<Verified, Failure> {
    let options = VerifyOptions { group: Some(&resource_of), ..VerifyOptions::default() };
    let mut progress = bar(output, "verifying");
    snapshot.verify(&options, &mut progress).map_err(|error| {
        Failure::new(format!("{file} does not verify"))
            .because(error)
            .hint("do not restore from it; try an older snapshot, or a member's own data dir")
    })
}
