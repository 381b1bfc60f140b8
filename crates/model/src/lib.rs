//! The nouns of Rekindle: what is seen, what it means, what will be done, what was done.
//!
//! Data and serde only: no I/O, no async, no clock. Start with [`inventory`] (what was seen), then [`diagnosis`]
//! (what it means), [`plan`] and [`step`] (what will be done), [`event`] and [`report`] (what was done).

pub mod certificate;
pub mod diagnosis;
pub mod etcd;
pub mod event;
pub mod finding;
#[cfg(feature = "fixtures")]
pub mod fixtures;
pub mod host;
pub mod ids;
pub mod inventory;
pub mod kube;
pub mod plan;
pub mod redacted;
pub mod report;
pub mod seen;
pub mod source;
pub mod step;

pub use ids::{API_VERSION, HostId, HostPath, MemberId, RunId};
pub use redacted::Redacted;
pub use seen::Seen;
