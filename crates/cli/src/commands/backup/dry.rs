//! What a backup verb would do: `--dry-run`.

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use rekindle_model::API_VERSION;
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt::Write;

/// What would be read and written; nothing was.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackupPlan {
    /// `rekindle/v1alpha1`.
    api_version: &'static str,
    /// `BackupPlan`.
    kind: &'static str,
    /// The vault.
    vault: String,
    /// What would be read, in this order.
    reads: Vec<Planned>,
    /// What would be written, in this order.
    writes: Vec<Planned>,
}

/// One thing that would be read or written.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Planned {
    /// What.
    what: String,
    /// File, object or address. `UUID` stands for one that is made then.
    place: String,
}

impl BackupPlan {
    pub(in crate::commands) fn new(vault: &str) -> Self {
        Self {
            api_version: API_VERSION,
            kind: "BackupPlan",
            vault: vault.to_owned(),
            reads: Vec::new(),
            writes: Vec::new(),
        }
    }

    pub(in crate::commands) fn reads(mut self, what: impl Into<String>, place: impl Into<String>) -> Self {
        self.reads.push(Planned { what: what.into(), place: place.into() });
        self
    }

    pub(in crate::commands) fn writes(mut self, what: impl Into<String>, place: impl Into<String>) -> Self {
        self.writes.push(Planned { what: what.into(), place: place.into() });
        self
    }

    pub(in crate::commands) fn show(self, output: &Output) -> Result<Exit, Failure> {
        output.document(&self, |_| {
            let mut text = String::new();
            for (verb, all) in [("read", &self.reads), ("write", &self.writes)] {
                for Planned { what, place } in all {
                    let _ = writeln!(text, "would {verb:5}  {what}: {place}");
                }
            }
            text + "Nothing was written.\n"
        })?;
        Ok(Exit::Ok)
    }
}
