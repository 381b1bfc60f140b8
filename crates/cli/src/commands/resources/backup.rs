//! `rekindle resources backup` and `list`.

use super::args::{Backup, List};
use super::vault::{Opened, Target};
use super::{folder, of_flags, tables};
use crate::commands::backup::{BackupReport, scratch};
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use camino::Utf8PathBuf;
use rekindle_resources::Error;
use rekindle_resources::backup::{Request, backup};
use rekindle_resources::index::{ClusterFacts, Index};
use rekindle_resources::select::Selection;
use rekindle_vault::Recipients;
use rekindle_world::Cluster;

pub(super) async fn run(args: Backup, output: &Output) -> Result<Exit, Failure> {
    let selection = args.select.selection();
    if selection.wants_secrets() && args.recipients.is_empty() && !args.plain_secrets {
        return Err(Failure::refused("Secrets are not written in the clear unless you say so").hint(
            "encrypt them with --recipient age1... (`age-keygen` makes one), leave them out with --exclude secrets, or \
             give --plain-secrets",
        ));
    }
    let recipients = if args.recipients.is_empty() {
        None
    } else {
        let keys = Recipients::new(args.recipients.iter().map(String::as_str));
        Some(keys.map_err(|error| Failure::usage(error.to_string()))?)
    };
    let target = Target::of_flags(&args.into)?;
    let (cluster, facts) = of_flags(&args.api).await?;
    match (target, recipients, &args.folder) {
        (Some(target), Some(recipients), _) => {
            into_vault(&args, selection, target, recipients, (&cluster, facts), output).await
        }
        (_, recipients, folder) => {
            let folder = folder.clone().unwrap_or_default();
            let index = take(&args, selection, recipients, (&cluster, facts), &folder).await?;
            output.document(&index, |short| tables::index(folder.as_str(), &index, short))?;
            Ok(exit(&index))
        }
    }
}

fn exit(index: &Index) -> Exit {
    if index.problems.is_empty() { Exit::Ok } else { Exit::Partial }
}

async fn take(
    args: &Backup,
    selection: Selection,
    recipients: Option<Recipients>,
    (cluster, facts): (&Cluster, ClusterFacts),
    folder: &Utf8PathBuf,
) -> Result<Index, Failure> {
    let recipients = recipients.map(|keys| (keys, args.recipients.clone()));
    let request = Request { folder: folder.clone(), selection, recipients, chunk_size: args.chunk_size };
    backup(cluster, facts, request).await.map_err(|error| {
        let is_busy = matches!(error, Error::BeingWritten { .. });
        let mut failure = Failure::new(format!("no backup into {folder}")).because(error);
        if is_busy {
            failure.exit = Exit::Refused;
            failure = failure.hint("wait for it to end");
        }
        failure
    })
}

async fn into_vault(
    args: &Backup,
    selection: Selection,
    target: Target,
    recipients: Recipients,
    (cluster, facts): (&Cluster, ClusterFacts),
    output: &Output,
) -> Result<Exit, Failure> {
    let vault = target.vault(&facts).await?;
    if args.into.dry_run {
        return target.planned(args, &vault, &facts, output).await;
    }
    let url = target.url().to_owned();
    let scratch = scratch(&args.into.scratch)?;
    let folder = Utf8PathBuf::try_from(scratch.path().join("backup"))
        .doing(|| format!("{} is not UTF-8", args.into.scratch))?;
    let index = take(args, selection, Some(recipients.clone()), (cluster, facts), &folder).await?;
    let manifest = target.put(&vault, recipients, &folder, &index).await?;
    let report = BackupReport::new(&url, manifest);
    output.document(&report, |short| report.table() + &tables::index(&url, &index, short))?;
    for problem in &index.problems {
        output.say(&format!("{} could not be read: {}", problem.what, problem.why));
    }
    Ok(exit(&index))
}

pub(super) async fn list(args: &List, output: &Output) -> Result<Exit, Failure> {
    let opened = Opened::of_flags(&args.place, None, output).await?;
    let folder = folder(&opened.folder, None, false)?;
    let place = args.place.vault.from.as_deref().unwrap_or(opened.folder.as_str());
    output.document(&folder.index, |short| tables::index(place, &folder.index, short))?;
    Ok(Exit::Ok)
}
