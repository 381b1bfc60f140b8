//! What can go wrong. No text quotes the content of an object: it may be a Secret's.

use camino::{Utf8Path, Utf8PathBuf};
use rekindle_world::cluster::ClusterError;
use std::io;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a backup or a restore did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder of this machine.
    #[error("cannot {doing} {path}")]
    Local {
        /// What was being done.
        doing: &'static str,
        /// To which path.
        path: Utf8PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The cluster.
    #[error("cannot {doing}")]
    Cluster {
        /// What was being done, with the name of the object or kind.
        doing: String,
        /// Why not.
        #[source]
        source: ClusterError,
    },
    /// An answer of the API server that is not what it should be.
    #[error("the answer to {doing} is not as it should be: {why}")]
    Answer {
        /// What was asked.
        doing: String,
        /// What is wrong with it; quotes no content.
        why: String,
    },
    /// The list of a kind was compacted away again and again while it was read.
    #[error("the list of {kind} was too old before it was read to its end, {attempts} times")]
    Gone {
        /// The kind.
        kind: String,
        /// How often it was begun.
        attempts: u32,
    },
    /// A folder that is no backup, or a damaged one.
    #[error("{path}: {why}")]
    Folder {
        /// Which file or folder.
        path: Utf8PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Something that was encrypted, or should be.
    #[error("cannot {doing} {path}")]
    Crypt {
        /// `encrypt` or `decrypt`.
        doing: &'static str,
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: Box<rekindle_vault::Error>,
    },
    /// A selector, mapping or patch that can't be used.
    #[error("{what} {text:?}: {why}")]
    Given {
        /// What was given.
        what: &'static str,
        /// Its text.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Another process works on the same run.
    #[error("another process is working on {path}")]
    Busy {
        /// The run's folder.
        path: Utf8PathBuf,
    },
    /// Another process writes a backup into the same folder.
    #[error("process {pid} is writing a backup into {path}")]
    BeingWritten {
        /// The folder.
        path: Utf8PathBuf,
        /// Its id.
        pid: String,
    },
    /// A task of this process ended early.
    #[error("a part of the work was cut short")]
    CutShort(#[source] tokio::task::JoinError),
}

/// Why the API server refused an object, for a report. What is wrong with a field it tells with its value: a Secret's stays
/// out of it.
pub(crate) fn refusal(error: &ClusterError, secret: bool) -> String {
    match error {
        ClusterError::Refused { status, reason, .. } if secret => {
            format!("{status} {reason} (the message is withheld: it may quote the Secret)")
        }
        ClusterError::Refused { message, .. } => message.chars().take(1000).collect(),
        other => other.to_string(),
    }
}

impl Error {
    pub(crate) fn local(doing: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Local { doing, path, source }
    }

    pub(crate) fn cluster(doing: impl Into<String>) -> impl FnOnce(ClusterError) -> Self {
        let doing = doing.into();
        move |source| Self::Cluster { doing, source }
    }

    pub(crate) fn folder(path: &Utf8Path, why: impl Into<String>) -> Self {
        Self::Folder { path: path.to_owned(), why: why.into() }
    }

    /// It and its causes in one line, for a report.
    #[must_use]
    pub fn line(&self) -> String {
        rekindle_model::seen::chain(self)
    }
}
