//! Which clusters there are, and which hosts each has.

use crate::{HostSpec, base, kubeadm, systemd_plane};
use anyhow::{Context, Result};
use std::fmt;
use std::str::FromStr;

/// The clusters there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// kubeadm, one control-plane node `cp1`.
    Kubeadm1,
    /// kubeadm, control-plane nodes `cp1` to `cp3` with stacked etcd behind `lb` (haproxy), worker `w1`.
    Kubeadm3,
    /// etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubelet as systemd units on `cp1`.
    Systemd1,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kubeadm1, Self::Kubeadm3, Self::Systemd1];

    /// Its name on the command line and in the cache.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kubeadm1 => "kubeadm1",
            Self::Kubeadm3 => "kubeadm3",
            Self::Systemd1 => "systemd1",
        }
    }

    /// Its hosts.
    #[must_use]
    pub fn specs(self) -> Vec<HostSpec> {
        let hosts: &[(&str, u8)] = match self {
            Self::Kubeadm1 | Self::Systemd1 => &[("cp1", 11)],
            Self::Kubeadm3 => &[("lb", 10), ("cp1", 11), ("cp2", 12), ("cp3", 13), ("w1", 21)],
        };
        hosts.iter().map(|(name, last)| HostSpec::new(name, *last)).collect()
    }

    /// What a saved set was made from: another text means make it anew.
    pub(crate) fn stamp(self) -> String {
        let recipe = match self {
            Self::Kubeadm1 | Self::Kubeadm3 => "",
            Self::Systemd1 => systemd_plane::RECIPE,
        };
        format!("{}\n{}{}{recipe}", self.name(), base::stamp(), kubeadm::RECIPE)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let names: Vec<&str> = Self::ALL.iter().map(|kind| kind.name()).collect();
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .with_context(|| format!("no set {name}; there are {}", names.join(", ")))
    }
}
