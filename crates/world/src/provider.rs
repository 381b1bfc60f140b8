//! Managed clusters, whose control plane is the provider's: nobody reaches its hosts or its etcd, only its API.

use crate::cluster::{Cluster, ClusterError};
use serde_json::Value;

/// Whose managed service a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Amazon Elastic Kubernetes Service.
    Eks,
    /// Google Kubernetes Engine.
    Gke,
    /// Azure Kubernetes Service.
    Aks,
}

impl Provider {
    /// `EKS`, `GKE`, `AKS`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Eks => "EKS",
            Self::Gke => "GKE",
            Self::Aks => "AKS",
        }
    }
}

/// Why what needs etcd or control-plane hosts can't work with a provider's cluster. `what` begins the sentence:
/// `` `rekindle recover` ``; what to do instead is the caller's to say.
#[must_use]
pub fn not_available(what: &str, provider: &str) -> String {
    format!("{what} is not available on {provider}: etcd and the control-plane hosts are the provider's")
}

/// What tells: the version that the API server says (`v1.33.4-eks-99d6cc0`, `v1.33.4-gke.1134000`), the host of its URL,
/// and labels of nodes, in this order. None: not one of these, or not recognised.
#[must_use]
pub fn recognise<'a>(
    git_version: &str,
    server: &str,
    node_labels: impl IntoIterator<Item = &'a str>,
) -> Option<Provider> {
    let host = server.strip_prefix("https://").unwrap_or(server);
    let host = host.split(['/', ':']).next().unwrap_or_default();
    if git_version.contains("-eks-") || host.ends_with(".eks.amazonaws.com") {
        return Some(Provider::Eks);
    }
    if git_version.contains("-gke.") {
        return Some(Provider::Gke);
    }
    if host.ends_with(".azmk8s.io") {
        return Some(Provider::Aks);
    }
    node_labels.into_iter().find_map(|label| match label.split('/').next().unwrap_or_default() {
        "eks.amazonaws.com" => Some(Provider::Eks),
        "cloud.google.com" if label.starts_with("cloud.google.com/gke-") => Some(Provider::Gke),
        "kubernetes.azure.com" => Some(Provider::Aks),
        _ => None,
    })
}

/// Whose managed service a cluster is, as [`ask`] tells; by its address alone where it does not answer.
pub async fn of(cluster: &Cluster) -> Option<Provider> {
    let address = recognise("", cluster.server(), []);
    if address.is_some() {
        return address;
    }
    ask(cluster).await.ok().and_then(|(_, provider)| provider)
}

/// Asks a cluster for its version, and whose it is. Nodes are looked at only where nothing else tells, and need not be
/// readable.
///
/// # Errors
/// When `/version` is not answered.
pub async fn ask(cluster: &Cluster) -> Result<(String, Option<Provider>), ClusterError> {
    let version = cluster.get("/version").await?.unwrap_or_default();
    let version = version.get("gitVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    let known = recognise(&version, cluster.server(), []);
    if known.is_some() {
        return Ok((version, known));
    }
    let nodes = cluster.get("/api/v1/nodes?limit=1").await.ok().flatten().unwrap_or_default();
    let labels = nodes.pointer("/items/0/metadata/labels").and_then(Value::as_object);
    let labels = labels.into_iter().flatten().map(|(name, _)| name.as_str());
    let provider = recognise(&version, cluster.server(), labels);
    Ok((version, provider))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Version strings and host names as the three providers have them; a kubeadm cluster is nobody's.
    #[test]
    fn the_three_providers_are_told_by_what_they_say() {
        let label = |label: &'static str| recognise("v1.33.4", "https://10.0.0.1", [label]);
        assert_eq!(recognise("v1.33.4-eks-99d6cc0", "https://10.0.0.1", []), Some(Provider::Eks));
        let url = "https://ABCDEF0123.gr7.eu-west-1.eks.amazonaws.com";
        assert_eq!(recognise("v1.33.4", url, []), Some(Provider::Eks));
        assert_eq!(recognise("v1.33.4-gke.1134000", "https://34.1.2.3", []), Some(Provider::Gke));
        let url = "https://shop-dns-1a2b3c4d.hcp.westeurope.azmk8s.io:443";
        assert_eq!(recognise("v1.33.4", url, []), Some(Provider::Aks));
        assert_eq!(label("kubernetes.azure.com/cluster"), Some(Provider::Aks));
        assert_eq!(label("eks.amazonaws.com/nodegroup"), Some(Provider::Eks));
        assert_eq!(label("cloud.google.com/gke-nodepool"), Some(Provider::Gke));
        assert_eq!(label("node-role.kubernetes.io/control-plane"), None);
        assert_eq!(recognise("v1.37.2", "https://eks.amazonaws.com.example/", []), None);
        assert!(not_available("it", Provider::Eks.name()).starts_with("it is not available on EKS"));
    }
}
