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

/// What a kubeconfig says of a cluster, whether it answers or not.
#[derive(Clone, Copy, Debug)]
pub struct Address<'a> {
    /// URL of the API server.
    pub server: &'a str,
    /// The program that credentials come from, as it is named there.
    pub credential_program: Option<&'a str>,
}

/// What tells, in this order: the version that the API server says (`v1.33.4-eks-99d6cc0`, `v1.33.4-gke.1134000`), the
/// host of its URL (the providers' pages on their endpoints name them), the program for its credentials, labels of nodes.
/// None: not one of these, or not recognised.
///
/// Of the programs only GKE's belongs to one service: `aws` and `kubelogin` log in to anybody's clusters. And where it
/// goes through the Connect gateway the cluster may be anybody's, too.
#[must_use]
pub fn recognise<'a>(
    git_version: &str,
    address: Address<'_>,
    node_labels: impl IntoIterator<Item = &'a str>,
) -> Option<Provider> {
    let host = address.server.strip_prefix("https://").unwrap_or(address.server);
    let host = host.split(['/', ':']).next().unwrap_or_default();
    let is_below = |domains: &[&str]| domains.iter().any(|domain| host.ends_with(domain));
    let dual_stack =
        host.contains(".eks-cluster.") && is_below(&[".api.aws", ".api.amazonwebservices.com.cn"]);
    if git_version.contains("-eks-")
        || dual_stack
        || is_below(&[".eks.amazonaws.com", ".eks.amazonaws.com.cn"])
    {
        return Some(Provider::Eks);
    }
    let program = address.credential_program.and_then(|program| program.rsplit(['/', '\\']).next());
    let by_program = program.is_some_and(|name| name.trim_end_matches(".exe") == "gke-gcloud-auth-plugin")
        && !is_below(&["connectgateway.googleapis.com"]);
    if git_version.contains("-gke.") || is_below(&[".gke.goog"]) || by_program {
        return Some(Provider::Gke);
    }
    if is_below(&[".azmk8s.io", ".cx.aks.containerservice.azure.us", ".cx.prod.service.azk8s.cn"]) {
        return Some(Provider::Aks);
    }
    node_labels.into_iter().find_map(|label| match label.split('/').next().unwrap_or_default() {
        "eks.amazonaws.com" => Some(Provider::Eks),
        "cloud.google.com" if label.starts_with("cloud.google.com/gke-") => Some(Provider::Gke),
        "kubernetes.azure.com" => Some(Provider::Aks),
        _ => None,
    })
}

fn address(cluster: &Cluster) -> Address<'_> {
    Address { server: cluster.server(), credential_program: cluster.credential_program() }
}

/// Whose managed service a cluster is, as [`ask`] tells; by its kubeconfig alone where it does not answer.
pub async fn of(cluster: &Cluster) -> Option<Provider> {
    let named = recognise("", address(cluster), []);
    if named.is_some() {
        return named;
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
    let known = recognise(&version, address(cluster), []);
    if known.is_some() {
        return Ok((version, known));
    }
    let nodes = cluster.get("/api/v1/nodes?limit=1").await.ok().flatten().unwrap_or_default();
    let labels = nodes.pointer("/items/0/metadata/labels").and_then(Value::as_object);
    let labels = labels.into_iter().flatten().map(|(name, _)| name.as_str());
    let provider = recognise(&version, address(cluster), labels);
    Ok((version, provider))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Version strings, host names and the one telling program, as the three providers have them; a kubeadm cluster is
    // nobody's, and neither is one of one's own that is reached through a provider's gateway or login.
    #[test]
    fn the_three_providers_are_told_by_what_they_say() {
        fn at<'a>(server: &'a str, credential_program: Option<&'a str>) -> Address<'a> {
            Address { server, credential_program }
        }
        let version = |version: &str| recognise(version, at("https://10.0.0.1", None), []);
        let server = |server: &str| recognise("v1.33.4", at(server, None), []);
        let program = |server: &str, name: &str| recognise("", at(server, Some(name)), []);
        let label = |label: &'static str| recognise("v1.33.4", at("https://10.0.0.1", None), [label]);
        let (eks, gke, aks) = (Some(Provider::Eks), Some(Provider::Gke), Some(Provider::Aks));
        assert_eq!(version("v1.33.4-eks-99d6cc0"), eks);
        assert_eq!(server("https://ABCDEF0123.gr7.eu-west-1.eks.amazonaws.com"), eks);
        assert_eq!(server("https://ABCDEF0123.sk1.cn-north-1.eks.amazonaws.com.cn"), eks);
        assert_eq!(server("https://abcdef0123.eks-cluster.eu-west-1.api.aws"), eks);
        assert_eq!(server("https://eks-cluster.example/"), None);
        assert_eq!(version("v1.33.4-gke.1134000"), gke);
        assert_eq!(server("https://gke-0123abcd.europe-west1.gke.goog"), gke);
        assert_eq!(program("https://34.1.2.3", "gke-gcloud-auth-plugin"), gke);
        assert_eq!(program("https://34.1.2.3", "/usr/lib/google-cloud-sdk/bin/gke-gcloud-auth-plugin"), gke);
        assert_eq!(program("https://connectgateway.googleapis.com/v1/x", "gke-gcloud-auth-plugin"), None);
        assert_eq!(program("https://10.0.0.1", "aws"), None);
        assert_eq!(server("https://shop-dns-1a2b3c4d.hcp.westeurope.azmk8s.io:443"), aks);
        assert_eq!(label("kubernetes.azure.com/cluster"), aks);
        assert_eq!(label("eks.amazonaws.com/nodegroup"), eks);
        assert_eq!(label("cloud.google.com/gke-nodepool"), gke);
        assert_eq!(label("node-role.kubernetes.io/control-plane"), None);
        assert_eq!(server("https://eks.amazonaws.com.example/"), None);
        assert!(not_available("it", Provider::Eks.name()).starts_with("it is not available on EKS"));
    }
}
