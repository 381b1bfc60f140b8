//! `rekindle backup verify`

use super::args::Verify;
use super::report::BackupVerification;
use super::{deep, open, passphrase};
use crate::commands::snapshot::bar;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use camino::Utf8Path;
use rekindle_resources::archive;
use rekindle_vault::{Identities, ReadObjects, VerifyLevel};
use std::sync::Arc;

/// Reads archives of objects; each is unpacked beside itself, in the folder that goes with it.
fn read_objects(identities: Arc<Identities>) -> Arc<ReadObjects> {
    Arc::new(move |path| {
        let archive = Utf8Path::from_path(path).ok_or_else(|| format!("{} is not UTF-8", path.display()))?;
        Ok(archive::read(archive, &archive.with_extension("unpacked"), identities.clone())?)
    })
}

pub(super) async fn run(args: &Verify, output: &Output) -> Result<Exit, Failure> {
    let identities = match (&args.identity, &args.passphrase_file) {
        (Some(path), _) => {
            Some(Identities::read(path.as_std_path()).doing(|| "no identity to read with".into())?)
        }
        (None, Some(path)) => Some(Identities::passphrase(passphrase(path)?)),
        (None, None) => None,
    };
    let identities = identities.map(Arc::new);
    let level = match &identities {
        None if args.deep => {
            return Err(Failure::usage("--deep reads: give --identity or --passphrase-file"));
        }
        None => VerifyLevel::Stored,
        Some(identities) => {
            std::fs::create_dir_all(&args.scratch).doing(|| format!("cannot make {}", args.scratch))?;
            VerifyLevel::Content {
                identities: identities.clone(),
                scratch: args.scratch.clone().into(),
                read_objects: read_objects(identities.clone()),
            }
        }
    };
    let vault = open(&args.read).await?;
    let url = &args.read.place.url;
    let unread = || format!("cannot read {url}");
    let report = vault.verify(&level, &mut bar(output, "verifying")).await.doing(unread)?;
    let deep = match &identities {
        Some(identities) if args.deep => {
            let (history, _) = vault.history().await.doing(unread)?;
            Some(deep::run(&vault, &history, identities, &args.scratch, output).await?)
        }
        _ => None,
    };
    let exit = if report.faults.is_empty() { Exit::Ok } else { Exit::Findings };
    let report = BackupVerification::new(url, report, deep);
    output.document(&report, |_| report.table())?;
    Ok(exit)
}
