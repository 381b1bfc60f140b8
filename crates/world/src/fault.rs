//! How the parts of this crate fail before a host puts its name on it: a kind and a text. [`HostError`] is made from
//! it at the edge of a host, so that every error names the host it is about.

use crate::host::{HostError, HostErrorKind};
use rekindle_model::HostId;

/// A failure that does not know its host yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Kind, for callers that decide by it.
    pub kind: HostErrorKind,
    /// What failed, on what, with its causes.
    pub what: String,
}

/// Result of work on a host.
pub type Outcome<T> = Result<T, Fault>;

impl Fault {
    /// The path, unit, process or tool does not exist.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self { kind: HostErrorKind::NotFound, what: what.into() }
    }
    /// Refused by a guard.
    pub fn refused(what: impl Into<String>) -> Self {
        Self { kind: HostErrorKind::Refused, what: what.into() }
    }
    /// The asked service did not answer in time or refused the connection.
    pub fn unavailable(what: impl Into<String>) -> Self {
        Self { kind: HostErrorKind::Unavailable, what: what.into() }
    }
    /// Any other failure.
    pub fn failed(what: impl Into<String>) -> Self {
        Self { kind: HostErrorKind::Failed, what: what.into() }
    }
    /// A failed system call: `what` says what was tried on which path.
    pub fn io(what: impl std::fmt::Display, error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => HostErrorKind::NotFound,
            std::io::ErrorKind::AlreadyExists
            | std::io::ErrorKind::StorageFull
            | std::io::ErrorKind::QuotaExceeded
            | std::io::ErrorKind::CrossesDevices
            | std::io::ErrorKind::ReadOnlyFilesystem => HostErrorKind::Refused,
            _ => HostErrorKind::Failed,
        };
        Self { kind, what: format!("{what}: {error}") }
    }
    /// An error with its causes.
    pub fn from_error(
        kind: HostErrorKind,
        what: impl std::fmt::Display,
        error: &dyn std::error::Error,
    ) -> Self {
        Self { kind, what: format!("{what}: {}", rekindle_model::seen::chain(error)) }
    }
    /// Puts the host's name on it.
    pub fn on(self, host: &HostId) -> HostError {
        HostError { host: host.clone(), what: self.what, kind: self.kind }
    }
}
