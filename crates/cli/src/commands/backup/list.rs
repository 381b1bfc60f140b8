//! `rekindle backup list` and `show`.

use super::args::Read;
use super::open;
use super::report::{BackupList, BackupReport};
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;

pub(super) async fn list(read: &Read, output: &Output) -> Result<Exit, Failure> {
    let vault = open(read).await?;
    let (history, faults) = vault.history().await.doing(|| format!("cannot read {}", read.place.url))?;
    let report = BackupList::new(&read.place.url, history, faults);
    output.document(&report, |short| report.table(short))?;
    Ok(Exit::Ok)
}

pub(super) async fn show(sequence: Option<u64>, read: &Read, output: &Output) -> Result<Exit, Failure> {
    let vault = open(read).await?;
    let unread = || format!("cannot read {}", read.place.url);
    let sequence = match sequence {
        Some(sequence) => sequence,
        None => {
            let (history, _) = vault.history().await.doing(unread)?;
            let newest = history.newest_full().map(|full| full.sequence);
            newest.ok_or_else(|| {
                Failure::new(format!("{} holds no full backup of {}", read.place.url, vault.cluster()))
                    .hint("`rekindle backup list` shows what there is, and what does not count")
            })?
        }
    };
    let manifest = vault.manifest(sequence).await.doing(unread)?;
    let report = BackupReport::new(&read.place.url, manifest);
    output.document(&report, |_| report.table())?;
    Ok(Exit::Ok)
}
