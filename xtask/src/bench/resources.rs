//! Objects through the API: a backup of a filled cluster, and its restore into an empty one. No stock tool does either;
//! beside them stand figures that users of Velero published.

use super::measure::{Cost, once};
use anyhow::{Context, Result};
use camino::Utf8Path;
use std::process::Command;
use testbed::plane::{Options, Plane};
use testbed::{cache, cmd, components};

const OBJECTS: usize = 30_000;

/// Runs both and prints them as a table.
#[allow(clippy::print_stdout)] // the table is this task's answer
pub(super) fn run(rekindle: &Utf8Path) -> Result<()> {
    components::build(&["kubernetes".into(), "age".into()])?;
    let dir = cache::root()?.join("bench/resources");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    for name in ["from", "into"] {
        std::fs::create_dir_all(dir.join(name))?;
    }
    let identity = dir.join("identity.txt");
    let (secret, recipient) = scenarios::identity()?;
    cache::write(&identity, secret)?;
    let from = Plane::start(&dir.join("from"), &Options::default())?;
    cmd::note(&format!("making {OBJECTS} objects"));
    from.fill(OBJECTS)?;
    let folder = dir.join("backup");
    let backup = once(
        Command::new(rekindle)
            .args(["resources", "backup", folder.as_str(), "--recipient", &recipient])
            .args(["--kubeconfig", from.kubeconfig().as_str()]),
    )?;
    drop(from);
    let into = Plane::start(&dir.join("into"), &Options::default())?;
    let restore = once(
        Command::new(rekindle)
            .args(["resources", "restore", folder.as_str(), "--yes", "--identity", identity.as_str()])
            .args(["--kubeconfig", into.kubeconfig().as_str(), "--state-dir", dir.join("state").as_str()]),
    )?;
    drop(into);
    println!("| {OBJECTS} objects through the API | published for Velero | rekindle | must reach |");
    println!("|---|---|---|---|");
    line("backup", "167 down to 3 objects/s, 3 to 4.5 GiB", backup, "3,000 objects/s, 256 MiB");
    line("restore", "10 to 20 objects/s", restore, "300 objects/s, 256 MiB");
    std::fs::remove_dir_all(&dir).context("cannot clean up")
}

#[allow(clippy::print_stdout)]
fn line(work: &str, published: &str, ours: Cost, must: &str) {
    #[allow(clippy::cast_precision_loss)] // a rate in whole objects
    let rate = OBJECTS as f64 / ours.time.as_secs_f64();
    let (seconds, peak_mib) = (ours.time.as_secs_f64(), ours.peak_mib);
    println!("| {work} | {published} | {seconds:.2} s, {rate:.0} objects/s, {peak_mib} MiB | {must} |");
}
