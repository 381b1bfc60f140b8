//! `rekindle snapshot export FILE`: live keys and values as JSON lines, each with its revisions; values in base64.

use super::open;
use crate::args::SnapshotExport;
use crate::commands::from;
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;
use std::io::{BufWriter, Write};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    key: std::borrow::Cow<'a, str>,
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    lease: i64,
    value: String,
}

pub(super) fn run(args: &SnapshotExport, output: &Output) -> Result<Exit, Failure> {
    if let Some(file) = &args.file {
        return export(file, &args.prefix, args.skip_hash_check, output);
    }
    let folder = from::private_folder(&args.scratch)?;
    let file = Utf8PathBuf::try_from(folder.path().join("point.db"))
        .doing(|| format!("{} is not UTF-8", args.scratch))?;
    connect::runtime()?.block_on(from::make(&args.from, file.clone(), output))?;
    export(&file, &args.prefix, false, output)
}

fn export(file: &Utf8Path, prefix: &str, skip_hash_check: bool, output: &Output) -> Result<Exit, Failure> {
    let snapshot = open(file, skip_hash_check)?;
    super::verify::verify(&snapshot, file, output)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut closed = false;
    let result = etcd_disk::live::for_each(snapshot.bolt(), file.as_std_path(), &mut |row| {
        if closed || !row.key.starts_with(prefix.as_bytes()) {
            return Ok(());
        }
        let line = Line {
            key: String::from_utf8_lossy(row.key),
            create_revision: row.create_revision,
            mod_revision: row.mod_revision,
            version: row.version,
            lease: row.lease,
            value: STANDARD.encode(row.value),
        };
        // A reader that closed its end has what it wants; the rest is not written.
        closed = serde_json::to_writer(&mut out, &line).is_err() || out.write_all(b"\n").is_err();
        Ok(())
    });
    result.doing(|| format!("cannot read {file}"))?;
    let _ = out.flush();
    Ok(Exit::Ok)
}
