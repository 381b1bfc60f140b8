//! The seams to the outside: one trait, [`Host`], behind which lie this machine ([`local`]), a machine reached over
//! OpenSSH ([`ssh`]) and a simulated one ([`sim`]). Everything Rekindle reads or changes goes through it.
//!
//! Start with [`host`] (the requests), then [`observe`] (how an inventory is read with them).

pub mod api;
mod aside;
pub mod etcd_client;
pub mod fault;
pub mod host;
pub mod local;
mod tls;
mod words;

pub use host::{Host, HostError, Progress};
