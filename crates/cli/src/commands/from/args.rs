//! The flags that name a point in time in a vault.

use crate::failure::{Doing, Failure};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args as ClapArgs;
use rekindle_model::Redacted;
use rekindle_vault::{Identities, Signer, SigningKey, Store};

/// A point in time of a vault, to restore from.
#[derive(Debug, Clone, Default, ClapArgs)]
#[command(next_help_heading = "From a vault")]
pub(crate) struct FromVault {
    /// Restore from the backups in this vault: a folder, `file:///FOLDER`, or `s3://BUCKET/PREFIX`.
    #[arg(long, value_name = "URL", requires = "trusted_signers")]
    pub(crate) from: Option<String>,
    /// The cluster's name in the vault. Default: the only one there.
    #[arg(long, value_name = "NAME", requires = "from")]
    pub(crate) cluster: Option<String>,
    /// The identity file that decrypts (`age-keygen`).
    #[arg(long, value_name = "FILE", requires = "from", conflicts_with = "passphrase_file")]
    pub(crate) identity: Option<Utf8PathBuf>,
    /// Decrypt with the passphrase in this file.
    #[arg(long, value_name = "FILE", requires = "from")]
    pub(crate) passphrase_file: Option<Utf8PathBuf>,
    /// Whose backups count: `ed25519:...` as `backup init` prints it, a file of such lines, or a signing key file; repeat
    /// for several.
    #[arg(long = "trusted-signer", value_name = "KEY|FILE")]
    pub(crate) trusted_signers: Vec<String>,
    /// The point: `latest`, a revision, or a time as `2026-11-23T01:02:03Z`: then the last revision that was certainly
    /// received before it. A point given as revision or time is restored even where newer data survives.
    #[arg(long, value_name = "latest|REVISION|TIME", requires = "from")]
    pub(crate) to: Option<String>,
    /// The point just before this revision.
    #[arg(long, value_name = "REVISION", requires = "from", conflicts_with = "to")]
    pub(crate) before: Option<i64>,
    /// The point just before this key was last deleted, for example `/registry/configmaps/NAMESPACE/NAME`.
    #[arg(long, value_name = "KEY", requires = "from", conflicts_with_all = ["to", "before"])]
    pub(crate) before_delete_of: Option<String>,
    /// The history to take, where two hold the revision: its id, as `backup list` shows it.
    #[arg(long, value_name = "ID", requires = "from")]
    pub(crate) timeline: Option<String>,
    /// The spool folder of an agent on this machine: the newest seconds may be only there.
    #[arg(long, value_name = "DIR", requires = "from")]
    pub(crate) spool: Option<Utf8PathBuf>,
    /// Restore although a member once answered another HashKV than the restored rows have.
    #[arg(long, requires = "from")]
    pub(crate) accept_unproved: bool,
    /// Settings and credentials of the vault's provider, from a configuration file; they go before the environment's.
    #[arg(skip)]
    pub(crate) credentials: Vec<(String, Redacted<String>)>,
}

/// The point asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// The newest that can be restored.
    Latest,
    /// A revision.
    Revision(i64),
    /// The last revision certainly there at this time, milliseconds since the Unix epoch.
    TimeMs(i64),
    /// Just before a key was last deleted.
    BeforeDeleteOf(String),
}

impl FromVault {
    /// Whether a point in the past was asked for, and not just the newest backup.
    pub(crate) fn goes_back(&self) -> bool {
        !matches!(self.asked(), Ok(Asked::Latest))
    }

    pub(super) fn asked(&self) -> Result<Asked, Failure> {
        if let Some(key) = &self.before_delete_of {
            return Ok(Asked::BeforeDeleteOf(key.clone()));
        }
        if let Some(revision) = self.before {
            return Ok(Asked::Revision(revision.saturating_sub(1)));
        }
        parse(self.to.as_deref().unwrap_or("latest"))
    }

    /// Opens the vault's store.
    pub(crate) fn store(&self, url: &str) -> Result<Store, Failure> {
        let settings = self.credentials.iter().map(|(name, value)| (name.as_str(), value.expose().as_str()));
        Store::open_with(url, settings).doing(|| "the vault can't be opened".into())
    }

    pub(crate) fn signers(&self) -> Result<Vec<Signer>, Failure> {
        let read: Vec<Vec<Signer>> =
            self.trusted_signers.iter().map(|text| signers(text)).collect::<Result<_, _>>()?;
        Ok(read.into_iter().flatten().collect())
    }

    pub(crate) fn identities(&self) -> Result<Identities, Failure> {
        match (&self.identity, &self.passphrase_file) {
            (Some(path), _) => {
                Identities::read(path.as_std_path()).doing(|| "no identity to read with".into())
            }
            (None, Some(path)) => Ok(Identities::passphrase(crate::commands::backup::passphrase(path)?)),
            (None, None) => Err(Failure::usage("a vault is encrypted: give --identity FILE")
                .hint("or --passphrase-file FILE, when it was encrypted with a passphrase")),
        }
    }
}

fn parse(text: &str) -> Result<Asked, Failure> {
    if text == "latest" {
        return Ok(Asked::Latest);
    }
    if let Ok(revision) = text.parse::<i64>() {
        return Ok(Asked::Revision(revision));
    }
    let time: jiff::Timestamp = text.parse().map_err(|error: jiff::Error| {
        Failure::usage(format!("--to {text}: neither `latest`, nor a revision, nor a time with its zone"))
            .because(error)
            .hint("a time is written as 2026-11-23T01:02:03Z or 2026-11-23T02:02:03+01:00")
    })?;
    Ok(Asked::TimeMs(time.as_millisecond()))
}

/// A signer as text, or those of a file.
pub(in crate::commands) fn signers(text: &str) -> Result<Vec<Signer>, Failure> {
    if text.starts_with("ed25519:") {
        return Ok(vec![text.parse().doing(|| format!("{text} is no signer"))?]);
    }
    let path = Utf8Path::new(text);
    if let Ok(key) = SigningKey::read(path.as_std_path()) {
        return Ok(vec![key.signer()]);
    }
    let content = std::fs::read_to_string(path).doing(|| format!("no signer in {path}"))?;
    let lines = content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let found: Vec<Signer> = lines
        .map(|line| line.parse().doing(|| format!("{path}: {line:?} is no signer")))
        .collect::<Result<_, _>>()?;
    if found.is_empty() { Err(Failure::usage(format!("no signer in {path}"))) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A point is said in one way only: what is no point must not be taken for another one.
    #[test]
    fn points_as_text() {
        assert_eq!(parse("latest").unwrap(), Asked::Latest);
        assert_eq!(parse("1234").unwrap(), Asked::Revision(1234));
        assert_eq!(parse("1970-01-01T00:00:01.5Z").unwrap(), Asked::TimeMs(1500));
        assert_eq!(parse("1970-01-01T01:00:00+01:00").unwrap(), Asked::TimeMs(0));
        assert!(parse("yesterday").is_err());
        assert!(parse("2026-11-23T01:02:03").is_err(), "without its zone it may be any of 24 times");
    }
}
