//! The seams to the outside: one trait, [`Host`], behind which lie this machine ([`local`]), a machine reached over
//! OpenSSH ([`ssh`]) and a simulated one (`sim`). Everything Rekindle reads or changes goes through it.
//!
//! Start with [`host`] (the requests), then [`observe`] (how an inventory is read with them).

pub mod api;
mod aside;
mod base64_bytes;
mod ca;
pub mod cluster;
pub mod discovery;
pub mod etcd_client;
pub mod fault;
pub mod host;
pub mod local;
pub mod objects;
pub mod observe;
pub mod provider;
#[cfg(feature = "sim")]
pub mod sim;
pub mod ssh;
mod tls;
mod words;

pub use cluster::{Cluster, ClusterError, ClusterOptions};
pub use host::{Host, HostError, Progress};

/// The machines a run works on: the one Rekindle runs on, and the hosts of the control plane.
#[derive(Clone)]
pub struct World {
    /// The machine Rekindle runs on.
    pub local: std::sync::Arc<dyn Host>,
    /// The hosts asked for, in the order given; may hold `local` itself.
    pub hosts: Vec<std::sync::Arc<dyn Host>>,
}

impl World {
    /// The host of an id; `local` is the machine Rekindle runs on.
    pub fn host(&self, id: &rekindle_model::HostId) -> Option<&std::sync::Arc<dyn Host>> {
        let found = self.hosts.iter().find(|host| host.id() == id);
        found.or_else(|| id.is_local().then_some(&self.local))
    }
}
