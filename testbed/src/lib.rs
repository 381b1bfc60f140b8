//! Real clusters on one machine, for tests, demos and benchmarks.
//!
//! Nothing here is a double: etcd, Kubernetes and containerd are built from their pinned Go modules
//! ([`components`]), put into a Debian file system ([`base`]), booted as systemd-nspawn hosts with their own
//! systemd, journald and sshd ([`host`]), and made into clusters by kubeadm or as systemd units ([`set`]).
//! A finished cluster is saved; a test loads a fresh copy, breaks it, acts and checks. `docs/testbed.md` tells
//! how it works and which traps it walks around. Start reading at [`set::Set`].
//!
//! Linux, root and Debian 12 are needed for hosts; [`components`] needs only Go.

pub mod base;
pub mod budget_watch;
pub mod cache;
pub mod cgroup;
pub mod cmd;
pub mod components;
pub mod disk;
pub mod fill;
pub mod fleet;
pub mod host;
pub mod image;
mod kind;
mod kubeadm;
mod limits;
pub mod markdown;
pub mod needs;
pub mod net;
pub mod plane;
pub mod ports;
mod power;
mod saved;
pub mod set;
mod systemd_plane;

pub use host::{Host, HostSpec};
pub use set::{Kind, Set};
