//! `rekindle resources backup` and `list`.

use super::args::{Backup, List};
use super::{folder, of_flags, tables};
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use rekindle_resources::backup::{Request, backup};
use rekindle_vault::Recipients;

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
        Some((keys.map_err(|error| Failure::usage(error.to_string()))?, args.recipients.clone()))
    };
    let (cluster, facts) = of_flags(&args.api).await?;
    let request = Request { folder: args.folder.clone(), selection, recipients, chunk_size: args.chunk_size };
    let index = backup(&cluster, facts, request).await.doing(|| format!("no backup into {}", args.folder))?;
    output.document(&index, |short| tables::index(&args.folder, &index, short))?;
    Ok(if index.problems.is_empty() { Exit::Ok } else { Exit::Partial })
}

pub(super) fn list(args: &List, output: &Output) -> Result<Exit, Failure> {
    let folder = folder(&args.folder, None, false)?;
    output.document(&folder.index, |short| tables::index(&args.folder, &folder.index, short))?;
    Ok(Exit::Ok)
}
