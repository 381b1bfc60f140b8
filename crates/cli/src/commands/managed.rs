//! Managed clusters (EKS, GKE, AKS): a kubeconfig alone names them, by a flag or at its usual place. `check` works through their API; what needs etcd or
//! control-plane hosts refuses, and says what to do instead.

use crate::args::{Hosts, Kubeconfig};
use crate::connect;
use crate::failure::Failure;
use crate::output::Output;
use rekindle_diagnose::managed::ManagedFacts;
use rekindle_model::Seen;
use rekindle_model::kube::nodes::{Node, Thresholds};
use rekindle_model::kube::stuck::{StuckFacts, StuckKind};
use rekindle_model::seen::chain;
use rekindle_world::cluster::{Method, Sent};
use rekindle_world::objects::{nodes, stuck};
use rekindle_world::provider::{self, Provider, not_available};
use rekindle_world::{Cluster, ClusterError, Host, observe};
use std::time::Duration;

/// Longest wait for an answer when it is asked whose a cluster is: one that is down is nobody's business here.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// What there is to do for a managed cluster that lost something.
pub(super) const LOST_OBJECTS: &str = "restore lost objects with `rekindle resources restore`, mend nodes with `rekindle node` \
                                       and what hangs with `rekindle unstick`";

/// Who cares for a managed cluster's certificates.
pub(super) const CERTIFICATES: &str =
    "the provider renews certificates by itself; its tool writes a kubeconfig anew";

/// A provider's cluster.
pub(super) struct Managed {
    cluster: Cluster,
    provider: Provider,
}

/// The managed cluster that the flags name, or the kubeconfig that kubectl takes without any; none when they name hosts,
/// when this machine is a control-plane host itself, and when the cluster is nobody's (or does not say).
pub(super) async fn of(hosts: &Hosts, output: &Output) -> Option<Managed> {
    let has_hosts = !hosts.hosts.is_empty() || !hosts.lost.is_empty() || hosts.root != "/";
    if has_hosts || is_meant(&hosts.api, &*connect::local("/".into())).await {
        return None;
    }
    ask(&hosts.api, output).await
}

/// Whether this machine is what the verb is about: a control-plane host, whose administrator has a copy of its admin.conf
/// among the usual kubeconfigs. Its API may be what is down, so it is not asked. A kubeconfig that is named counts for more.
async fn is_meant(api: &Kubeconfig, here: &dyn Host) -> bool {
    match api.kubeconfig {
        Some(_) => observe::etcd_config(here).await.known().is_some(),
        None => observe::is_control_plane(here).await,
    }
}

/// Refuses a verb that needs control-plane hosts when its flags name a managed cluster. `verb` is the verb's name,
/// `instead` what to do there.
pub(super) async fn refuse(hosts: &Hosts, verb: &str, instead: &str, output: &Output) -> Result<(), Failure> {
    match of(hosts, output).await {
        Some(managed) => {
            let hint = format!("{instead}; a control plane of your own is named with --host");
            Err(managed.refusal(verb).hint(hint))
        }
        None => Ok(()),
    }
}

/// The same for a verb that has no runtime of its own yet.
pub(super) fn refuse_alone(hosts: &Hosts, verb: &str, instead: &str, output: &Output) -> Result<(), Failure> {
    connect::runtime()?.block_on(refuse(hosts, verb, instead, output))
}

/// Refuses a verb that needs an etcd, on a host that has none, when the kubeconfig's cluster is managed.
pub(super) async fn refuse_etcd(api: &Kubeconfig, verb: &str, output: &Output) -> Result<(), Failure> {
    let instead = "back up objects with `rekindle resources backup`";
    match ask(api, output).await {
        Some(managed) => Err(managed.refusal(verb).hint(instead)),
        None => Ok(()),
    }
}

async fn ask(api: &Kubeconfig, output: &Output) -> Option<Managed> {
    let cluster = match Cluster::connect(&api.options()).await {
        Ok(cluster) => cluster,
        Err(error @ ClusterError::BadConfig { .. }) => {
            output.say(&format!("it is not known whose cluster this is: {}", chain(&error)));
            return None;
        }
        Err(_) => return None,
    };
    let provider = provider::of(&cluster.with_timeout(ASK_TIMEOUT)).await?;
    Some(Managed { cluster, provider })
}

impl Managed {
    fn refusal(&self, verb: &str) -> Failure {
        Failure::refused(not_available(&format!("`rekindle {verb}`"), self.provider.name()))
    }

    /// All that the API tells.
    pub(super) async fn look(&self) -> ManagedFacts {
        let cluster = &self.cluster;
        let readyz = readyz(cluster).await;
        let (nodes, stuck) = match &readyz {
            Seen::Known(_) => {
                let kinds = StuckKind::ALL.into();
                tokio::join!(nodes(cluster), stuck::read(cluster, &kinds))
            }
            Seen::Unknown(why) => (Seen::Unknown(why.clone()), StuckFacts::default()),
        };
        ManagedFacts {
            provider: self.provider.name().to_owned(),
            server: cluster.server().to_owned(),
            readyz,
            nodes,
            stuck,
            now_ms: rekindle_run::now_ms(),
        }
    }
}

async fn readyz(cluster: &Cluster) -> Seen<u16> {
    match cluster.bytes(&Method::GET, "/readyz", Sent::Nothing).await {
        Ok(_) => Seen::Known(200),
        Err(error) => error.status().map_or_else(|| Seen::Unknown(chain(&error)), Seen::Known),
    }
}

async fn nodes(cluster: &Cluster) -> Seen<(Vec<Node>, Thresholds)> {
    Seen::from_result(tokio::try_join!(nodes::read(cluster, None), nodes::thresholds(cluster)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use camino::Utf8Path;

    // A control-plane host is looked at itself, whatever is left of it, and its API is not waited for; the machine of somebody
    // who works with a provider's clusters is not mistaken for one.
    #[tokio::test]
    async fn a_control_plane_host_is_meant_itself() {
        let named = Kubeconfig { kubeconfig: Some("/root/eks.conf".into()), context: None };
        let (unnamed, context) =
            (Kubeconfig::default(), Kubeconfig { context: Some("eks".into()), ..Kubeconfig::default() });
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: kube-apiserver, namespace: kube-system}\nspec:\n  containers:\n  \
                   - {name: kube-apiserver, command: [kube-apiserver]}\n";
        for (file, text, meant) in [
            ("etc/kubernetes/manifests/kube-apiserver.yaml", pod, true),
            ("etc/systemd/system/kube-apiserver.service", "[Service]\nExecStart=/bin/kube-apiserver\n", true),
            ("etc/kubernetes/admin.conf", "", true),
            ("root/.kube/config", "", false),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let root = Utf8Path::from_path(folder.path()).unwrap();
            std::fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            std::fs::write(root.join(file), text).unwrap();
            let here = connect::local(root.to_owned());
            assert_eq!(is_meant(&unnamed, &*here).await, meant, "{file}");
            assert_eq!(is_meant(&context, &*here).await, meant, "{file}");
            assert!(!is_meant(&named, &*here).await, "{file}");
        }
    }
}
