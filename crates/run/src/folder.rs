//! A run's folder: `<state>/runs/<RunId>/` with plan, journal and report. Written once or beside and renamed.

use crate::error::RunError;
use crate::journal::sync_dir;
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write;

pub(crate) const PLAN: &str = "plan.json";
pub(crate) const REPORT: &str = "report.json";
pub(crate) const REPORT_TEXT: &str = "report.md";

/// Plans and reports above this size are not such.
const MAX_BYTES: u64 = 64 << 20;

/// Folder of all runs.
pub(crate) fn runs_dir(state_dir: &Utf8Path) -> Utf8PathBuf {
    state_dir.join("runs")
}

/// Writes a file so that it is there whole or not at all.
pub(crate) fn write(path: &Utf8Path, content: &[u8]) -> Result<(), RunError> {
    let next = Utf8PathBuf::from(format!("{path}.next"));
    let write = || -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&next)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&next, path)?;
        path.parent().map_or(Ok(()), sync_dir)
    };
    write().map_err(|source| RunError::File { doing: "write", path: path.to_owned(), source })
}

/// Writes a document as JSON.
pub(crate) fn write_json<T: Serialize>(
    path: &Utf8Path,
    kind: &'static str,
    value: &T,
) -> Result<(), RunError> {
    let text = serde_json::to_vec_pretty(value);
    let text = text.map_err(|source| RunError::Document { path: path.to_owned(), kind, source })?;
    write(path, &text)
}

/// Reads a document.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Utf8Path, kind: &'static str) -> Result<T, RunError> {
    use std::io::Read;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|source| RunError::File { doing: "read", path: path.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| RunError::Document {
        path: path.to_owned(),
        kind,
        source,
    })
}
