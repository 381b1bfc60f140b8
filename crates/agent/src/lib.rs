//! Continuous protection: the change stream of an etcd cluster, followed and spooled to the local disk.
//!
//! - [`follow()`] watches all keys of whichever member serves, and goes on at another one when it stops.
//! - [`spool`] is the folder of segments (`docs/formats/segment.md`): what is durable there outlives the agent.
//! - [`hold`] keeps what is stored until an hour of it is merged.
//! - `divergence.rs` compares what the members hold, after each compaction.
//! - [`health`] says what could be lost now: the durable revision, beside the highest one of the cluster.
//!
//! ```text
//!            ┌─ follow.rs ───────────┐        ┌─ sink.rs ─────────────┐
//! member ──▶ │ one watch, in order?  │ ─────▶ │ append, fsync, rotate │ ──▶ spool/*.seg
//!            └───────▲───────────────┘        └──────────┬────────────┘
//!             switch │                   durable revision│
//!            ┌───────┴── probe.rs ───────────────────────▼─┐
//! members ◀──│ every 300 ms: is all that is acknowledged   │ ──▶ Health
//!            │ durable here?                               │
//!            └─────────────────────────────────────────────┘
//! ```

mod divergence;
pub mod follow;
mod found;
pub mod health;
pub mod hold;
mod leases;
mod order;
mod probe;
mod prove;
mod sink;
pub mod spool;

pub use follow::{FollowConfig, follow};
pub use health::{Compared, Health, Proof, Rpo};

/// Why following ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spool cannot be used.
    #[error("the spool {path} cannot be used: {why}")]
    Spool {
        /// The folder.
        path: camino::Utf8PathBuf,
        /// Why.
        why: &'static str,
        /// The operating system's answer.
        #[source]
        source: Option<std::io::Error>,
    },
    /// A segment cannot be read or written.
    #[error("the spool has a segment that cannot be used")]
    Segment(#[from] etcd_disk::Error),
    /// The writing thread died; a bug, reported instead of a crash.
    #[error("the thread that writes the spool died")]
    Sink,
    /// No endpoint was given.
    #[error("no endpoint to follow")]
    NoEndpoint,
}

/// Milliseconds since the Unix epoch, by this machine's clock.
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
