//! Asking a host with a limit on the wait: a part that does not answer becomes unknown and holds up nothing else.

use crate::host::{Host, HostError, HostErrorKind};
use rekindle_model::{HostPath, Seen};
use std::time::Duration;

/// Longest wait for what a healthy host answers at once.
pub(super) const QUICK: Duration = Duration::from_secs(10);
/// Longest wait for what reads whole files.
pub(super) const LONG: Duration = Duration::from_secs(600);
/// Most bytes of a configuration file or manifest.
pub(super) const MAX_TEXT_BYTES: u64 = 256 << 10;

/// The answer, or the error when it does not come in time.
pub(super) async fn within<T>(
    host: &dyn Host,
    limit: Duration,
    what: &str,
    ask: impl Future<Output = Result<T, HostError>>,
) -> Result<T, HostError> {
    tokio::time::timeout(limit, ask).await.unwrap_or_else(|_| {
        let what = format!("{what}: no answer in {} s", limit.as_secs());
        Err(HostError { host: host.id().clone(), what, kind: HostErrorKind::Unavailable })
    })
}

/// The answer as a fact; the host stands beside it already.
pub(super) fn seen<T>(result: Result<T, HostError>) -> Seen<T> {
    match result {
        Ok(value) => Seen::Known(value),
        Err(error) => Seen::Unknown(error.what),
    }
}

/// A small text file.
pub(super) async fn text(host: &dyn Host, path: &HostPath) -> Result<String, HostError> {
    let bytes = within(host, QUICK, &format!("read {path}"), host.read(path, MAX_TEXT_BYTES)).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether a path exists.
pub(super) async fn exists(host: &dyn Host, path: &HostPath) -> bool {
    matches!(within(host, QUICK, "stat", host.stat(path)).await, Ok(Some(_)))
}
