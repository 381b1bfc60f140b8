//! What will not go away, and what lies in the way: read kind by kind. What can't be read is told, and the rest still is.

use super::deployments::{self, Deployments};
use super::{list, nodes, number, object, pods, text, texts, time_ms};
use crate::cluster::{Cluster, ClusterError};
use crate::discovery::{Discovered, Resource, discover};
use crate::local::now_ms;
use rekindle_model::Seen;
use rekindle_model::kube::ObjectRef;
use rekindle_model::kube::nodes::Pod;
use rekindle_model::kube::stuck::{
    Backend, DeadApiService, DeadConversion, DeadWebhook, Held, StuckFacts, StuckKind, Terminating,
};
use serde_json::Value;
use std::collections::BTreeSet;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1";
const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";

/// Reads what is asked for.
pub async fn read(cluster: &Cluster, kinds: &BTreeSet<StuckKind>) -> StuckFacts {
    let mut facts = StuckFacts { taken_ms: now_ms(), ..StuckFacts::default() };
    // pods and volumes are let go without them
    let started = kinds.iter().any(|kind| !matches!(kind, StuckKind::Pod | StuckKind::Pvc));
    let deployments =
        if started { Deployments::read(cluster, &mut facts.unread).await } else { Deployments::default() };
    let reader = Reader { cluster, deployments };
    for kind in kinds {
        let read = match kind {
            StuckKind::Pod => reader.pods(&mut facts).await,
            StuckKind::Namespace => reader.namespaces(&mut facts).await,
            StuckKind::Crd => reader.crds(&mut facts).await,
            StuckKind::Pvc => reader.volumes(&mut facts).await,
            StuckKind::Webhook => reader.webhooks(&mut facts).await,
            StuckKind::ApiService => reader.api_services(&mut facts).await,
        };
        if let Err(error) = read {
            facts.unread.push(rekindle_model::seen::chain(&error));
        }
    }
    facts
}

struct Reader<'a> {
    cluster: &'a Cluster,
    deployments: Deployments,
}

/// What is left in a namespace.
struct Contents {
    /// Objects with finalizers.
    held: Vec<Held>,
    /// How many others.
    others: usize,
    pods: Seen<Vec<Pod>>,
}

fn is_deleting(value: &Value) -> bool {
    !text(value, "/metadata/deletionTimestamp").is_empty()
}

impl Reader<'_> {
    async fn pods(&self, facts: &mut StuckFacts) -> Result<(), ClusterError> {
        let found = self.cluster.list_where("/api/v1/pods", is_deleting).await?;
        facts.pods = found.iter().map(pods::pod).collect();
        if facts.pods.is_empty() { Ok(()) } else { self.nodes(facts).await }
    }

    /// The nodes, and how long they may be silent.
    async fn nodes(&self, facts: &mut StuckFacts) -> Result<(), ClusterError> {
        if facts.thresholds.is_none() {
            facts.nodes = nodes::read(self.cluster, None).await?;
            facts.thresholds = Some(nodes::thresholds(self.cluster).await?);
        }
        Ok(())
    }

    async fn namespaces(&self, facts: &mut StuckFacts) -> Result<(), ClusterError> {
        let found = self.cluster.list_where("/api/v1/namespaces", is_deleting).await?;
        if found.is_empty() {
            return Ok(());
        }
        // the pods in them are judged by their nodes
        self.nodes(facts).await?;
        let served = discover(self.cluster).await?;
        for value in found {
            let name = text(&value, "/metadata/name");
            let Contents { held, others, pods } = self.contents(&served, &name, &mut facts.unread).await;
            let mut one = terminating(
                StuckKind::Namespace,
                object("/api/v1", "namespaces", "Namespace", &value),
                &value,
            );
            one.finalizers.extend(texts(&value, "/spec/finalizers"));
            one.said.extend(served.failed.iter().map(|(group, why)| format!("{group} is not served: {why}")));
            (one.contents, one.others, one.pods) = (held, others, pods);
            facts.terminating.push(one);
        }
        Ok(())
    }

    async fn contents(&self, served: &Discovered, namespace: &str, unread: &mut Vec<String>) -> Contents {
        let pods = Seen::Unknown("pods are not among the types that are served".to_owned());
        let mut contents = Contents { held: Vec::new(), others: 0, pods };
        let namespaced =
            served.resources.iter().filter(|one| one.namespaced && one.can("list") && one.can("delete"));
        for resource in namespaced {
            let is_pods = resource.group.is_empty() && resource.plural == "pods";
            let found = match self.cluster.list(&resource.collection(Some(namespace))).await {
                Ok(found) => found,
                Err(error) => {
                    let why = rekindle_model::seen::chain(&error);
                    if is_pods {
                        contents.pods = Seen::Unknown(why.clone());
                    }
                    unread.push(why);
                    continue;
                }
            };
            if is_pods {
                contents.pods = Seen::Known(found.iter().map(pods::pod).collect());
            }
            for value in found {
                match self.held(resource, &value) {
                    Some(one) => contents.held.push(one),
                    None => contents.others += 1,
                }
            }
        }
        contents
    }

    fn held(&self, resource: &Resource, value: &Value) -> Option<Held> {
        let finalizers = texts(value, "/metadata/finalizers");
        if finalizers.is_empty() {
            return None;
        }
        let root = resource.collection(None);
        let root = root.trim_end_matches(&resource.plural).trim_end_matches('/');
        let managers = managers(value);
        let controller = self.deployments.controller(&managers);
        let object = object(root, &resource.plural, &resource.kind, value);
        Some(Held { object, finalizers, managers, deleting: is_deleting(value), controller })
    }

    async fn crds(&self, facts: &mut StuckFacts) -> Result<(), ClusterError> {
        let by_webhook = |one: &Value| text(one, "/spec/conversion/strategy") == "Webhook";
        let wanted = |one: &Value| is_deleting(one) || by_webhook(one);
        let found = self.cluster.list_where(&format!("{CRDS}/customresourcedefinitions"), wanted).await?;
        for value in found {
            let object = object(CRDS, "customresourcedefinitions", "CustomResourceDefinition", &value);
            if is_deleting(&value) {
                let mut one = terminating(StuckKind::Crd, object.clone(), &value);
                self.instances(&value, &mut one).await;
                facts.terminating.push(one);
            }
            if by_webhook(&value) {
                let dead = self.backend(&value, "/spec/conversion/webhook/clientConfig/service").await?;
                facts.conversions.extend(dead.map(|backend| conversion(object, backend, &value)));
            }
        }
        Ok(())
    }

    /// What is left of a CRD's objects.
    async fn instances(&self, crd: &Value, one: &mut Terminating) {
        let served = |version: &&Value| version.get("served").and_then(Value::as_bool) == Some(true);
        let Some(version) = list(crd, "/spec/versions").iter().find(served) else { return };
        let resource = Resource {
            group: text(crd, "/spec/group"),
            version: text(version, "/name"),
            plural: text(crd, "/spec/names/plural"),
            kind: text(crd, "/spec/names/kind"),
            namespaced: text(crd, "/spec/scope") == "Namespaced",
            verbs: Vec::new(),
        };
        match self.cluster.list(&resource.collection(None)).await {
            Ok(found) => {
                one.contents = found.iter().filter_map(|value| self.held(&resource, value)).collect();
                one.others = found.len() - one.contents.len();
            }
            Err(error) => one.said.push(format!("its objects can't be listed: {error}")),
        }
    }

    async fn volumes(&self, facts: &mut StuckFacts) -> Result<(), ClusterError> {
        for (plural, kind) in
            [("persistentvolumeclaims", "PersistentVolumeClaim"), ("persistentvolumes", "PersistentVolume")]
        {
            for value in self.cluster.list_where(&format!("/api/v1/{plural}"), is_deleting).await? {
                let mut one = terminating(StuckKind::Pvc, object("/api/v1", plural, kind, &value), &value);
                match &one.object.namespace {
                    Some(namespace) => one.users = self.users(namespace, &one.object.name).await?,
                    None => one.users.extend(bound_claim(&value)),
                }
                facts.terminating.push(one);
            }
        }
        Ok(())
    }

    /// Pods that have a claim, and have not finished.
    async fn users(&self, namespace: &str, claim: &str) -> Result<Vec<String>, ClusterError> {
        let found = self.cluster.list(&format!("/api/v1/namespaces/{namespace}/pods")).await?;
        let using = found.iter().map(pods::pod).filter(|pod| !pod.is_finished());
        let using = using.filter(|pod| pod.claims.iter().any(|one| one == claim));
        Ok(using.map(|pod| format!("pod {}", pod.object.full_name())).collect())
    }

    async fn api_services(&self, facts: &mut StuckFacts) -> Result<(), ClusterError> {
        let dead = |one: &Value| {
            one.pointer("/spec/service").is_some_and(Value::is_object) && !said(one, "Available", "True").0
        };
        let root = "/apis/apiregistration.k8s.io/v1";
        for value in self.cluster.list_where(&format!("{root}/apiservices"), dead).await? {
            let backend = self.stand(&value, "/spec/service").await?;
            facts.api_services.extend(backend.map(|backend| DeadApiService {
                object: object(root, "apiservices", "APIService", &value),
                said: said(&value, "Available", "True").1,
                backend,
            }));
        }
        Ok(())
    }

    async fn webhooks(&self, facts: &mut StuckFacts) -> Result<(), ClusterError> {
        for (plural, kind) in [
            ("validatingwebhookconfigurations", "ValidatingWebhookConfiguration"),
            ("mutatingwebhookconfigurations", "MutatingWebhookConfiguration"),
        ] {
            for value in self.cluster.list(&format!("{ADMISSION}/{plural}")).await? {
                for (index, hook) in list(&value, "/webhooks").iter().enumerate() {
                    let Some(backend) = self.backend(hook, "/clientConfig/service").await? else { continue };
                    facts.webhooks.push(DeadWebhook {
                        object: object(ADMISSION, plural, kind, &value),
                        index,
                        name: text(hook, "/name"),
                        failure_policy: text(hook, "/failurePolicy"),
                        resources: resources(hook),
                        timeout_seconds: number(hook, "/timeoutSeconds"),
                        backend,
                    });
                }
            }
        }
        Ok(())
    }

    /// The backend that a service reference names, when it can't answer.
    async fn backend(&self, value: &Value, pointer: &str) -> Result<Option<Backend>, ClusterError> {
        let backend = self.stand(value, pointer).await?;
        Ok(backend.filter(|backend| !backend.exists || backend.ready_addresses == 0))
    }

    /// Where the backend that a service reference names stands.
    async fn stand(&self, value: &Value, pointer: &str) -> Result<Option<Backend>, ClusterError> {
        let Some(reference) = value.pointer(pointer).filter(|one| one.is_object()) else { return Ok(None) };
        let (namespace, name) = (text(reference, "/namespace"), text(reference, "/name"));
        let service = self.cluster.get(&format!("/api/v1/namespaces/{namespace}/services/{name}")).await?;
        let mut backend = Backend {
            namespace: namespace.clone(),
            service: name.clone(),
            exists: service.is_some(),
            ready_addresses: 0,
            scaled_down: None,
        };
        let Some(service) = service else { return Ok(Some(backend)) };
        let slices = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{name}"
        );
        for slice in self.cluster.list(&slices).await? {
            let ready =
                |one: &&Value| one.pointer("/conditions/ready").and_then(Value::as_bool) != Some(false);
            backend.ready_addresses += list(&slice, "/endpoints").iter().filter(ready).count();
        }
        backend.scaled_down = self.deployments.behind(&namespace, &service).map(deployments::reference);
        Ok(Some(backend))
    }
}

fn terminating(under: StuckKind, object: ObjectRef, value: &Value) -> Terminating {
    let conditions = super::conditions(value);
    let told = conditions.iter().filter(|one| one.status == "True" && !one.message.is_empty());
    Terminating {
        under,
        object,
        since_ms: time_ms(value, "/metadata/deletionTimestamp").unwrap_or_default(),
        finalizers: texts(value, "/metadata/finalizers"),
        said: told.map(|one| format!("{}: {}", one.reason, one.message)).collect(),
        contents: Vec::new(),
        others: 0,
        users: Vec::new(),
        pods: Seen::Unknown("not looked at".into()),
    }
}

/// Who wrote the finalizers, as the managed fields tell.
fn managers(value: &Value) -> Vec<String> {
    let owns = |entry: &&Value| entry.pointer("/fieldsV1/f:metadata/f:finalizers").is_some();
    let entries = list(value, "/metadata/managedFields").iter().filter(owns);
    let names: BTreeSet<String> = entries.map(|entry| text(entry, "/manager")).collect();
    names.into_iter().collect()
}

/// The claim a volume is bound to.
fn bound_claim(value: &Value) -> Option<String> {
    let reference = value.pointer("/spec/claimRef").filter(|_| text(value, "/status/phase") == "Bound")?;
    Some(format!("claim {}/{}", text(reference, "/namespace"), text(reference, "/name")))
}

/// Whether a condition has a status, and what it says.
fn said(value: &Value, kind: &str, status: &str) -> (bool, String) {
    let conditions = super::conditions(value);
    match conditions.iter().find(|one| one.kind == kind) {
        Some(one) => (one.status == status, format!("{}: {}", one.reason, one.message)),
        None => (false, format!("no condition {kind}")),
    }
}

fn conversion(object: ObjectRef, backend: Backend, value: &Value) -> DeadConversion {
    let versions = list(value, "/spec/versions");
    let with =
        |field: &'static str| move |one: &&Value| one.get(field).and_then(Value::as_bool) == Some(true);
    DeadConversion {
        object,
        backend,
        conversion: value.pointer("/spec/conversion").cloned().unwrap_or_default(),
        stored_versions: texts(value, "/status/storedVersions"),
        storage_version: versions
            .iter()
            .find(with("storage"))
            .map(|one| text(one, "/name"))
            .unwrap_or_default(),
        served_versions: versions.iter().filter(with("served")).map(|one| text(one, "/name")).collect(),
    }
}

/// What a webhook is asked about.
fn resources(hook: &Value) -> Vec<String> {
    let rules = list(hook, "/rules").iter();
    let named = rules.flat_map(|rule| {
        let groups = texts(rule, "/apiGroups");
        let resources = texts(rule, "/resources");
        resources.into_iter().map(move |one| match groups.first().map(String::as_str) {
            None | Some("") => one,
            Some(group) => format!("{one}.{group}"),
        })
    });
    named.collect::<BTreeSet<_>>().into_iter().collect()
}
