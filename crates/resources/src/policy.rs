//! What a backup leaves out on purpose, each with its reason: what a cluster makes by itself, what belongs to the machines
//! that run now, and what is not stored. Everything else is kept, kinds nobody has heard of included.

use crate::kinds::Kind;
use serde_json::Value;

/// Whole kinds: `resource.group` and why.
const KINDS: &[(&str, &str)] = &[
    ("events", "what happened, not what is wanted; they expire by themselves"),
    ("events.events.k8s.io", "the same objects as events"),
    ("componentstatuses", "computed when asked for, not stored"),
    ("nodes", "each kubelet registers its own"),
    ("leases.coordination.k8s.io", "held by processes that run now"),
    ("leasecandidates.coordination.k8s.io", "written by processes that run now"),
    ("csinodes.storage.k8s.io", "each kubelet writes its own"),
    ("volumeattachments.storage.k8s.io", "attachments to nodes that run now"),
    ("csistoragecapacities.storage.k8s.io", "measured anew by each CSI driver"),
    ("certificatesigningrequests.certificates.k8s.io", "requests of a moment, approved or gone"),
    ("podcertificaterequests.certificates.k8s.io", "requests of a moment, of pods that run now"),
    ("ipaddresses.networking.k8s.io", "made by the API server from the Services"),
    ("resourceslices.resource.k8s.io", "published by drivers on nodes that run now"),
    ("storageversions.internal.apiserver.k8s.io", "written by API servers that run now"),
];

/// Why kinds are not kept that have `list`, but no `get`.
pub(crate) const LIST_ONLY: &str =
    "its server lists it, but gives no single object: none could be compared or put back";

/// Groups that are computed by their API server, not stored.
const COMPUTED_GROUPS: &[&str] = &["metrics.k8s.io", "custom.metrics.k8s.io", "external.metrics.k8s.io"];

/// Groups that kube-apiserver serves itself. What else there is comes from a CRD or an aggregated API server.
const BUILT_IN_GROUPS: &[&str] = &[
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// Whether the kind is one of Kubernetes itself: its controllers write `status` anew from `spec`.
#[must_use]
pub fn is_built_in(kind: &Kind) -> bool {
    BUILT_IN_GROUPS.contains(&kind.group.as_str())
}

/// Why no object of this kind is kept; none when they are.
#[must_use]
pub fn kind_left_out(kind: &Kind) -> Option<&'static str> {
    if COMPUTED_GROUPS.contains(&kind.group.as_str()) {
        return Some("computed when asked for, not stored");
    }
    let name = kind.name();
    KINDS.iter().find(|(of, _)| *of == name).map(|(_, why)| *why)
}

/// Why this object is not kept; none when it is.
#[must_use]
pub fn object_left_out(kind: &Kind, object: &Value) -> Option<&'static str> {
    let metadata = |field: &str| object.pointer("/metadata").and_then(|m| m.get(field));
    let text = |field: &str| metadata(field).and_then(Value::as_str).unwrap_or_default();
    let has = |map: &str, key: &str| metadata(map).and_then(|m| m.get(key)).is_some();
    if metadata("deletionTimestamp").is_some() {
        return Some("being deleted");
    }
    let is_kubernetes = || text("namespace") == "default" && text("name") == "kubernetes";
    match kind.name().as_str() {
        "pods" if has("annotations", "kubernetes.io/config.mirror") => Some("the mirror of a static pod"),
        "pods" if has_controller(object) => Some("made by its controller"),
        "endpoints" | "endpointslices.discovery.k8s.io" | "services" if is_kubernetes() => {
            Some("written by the API server for itself")
        }
        "endpoints" if has("labels", "endpoints.kubernetes.io/managed-by") => Some("made from its Service"),
        "endpointslices.discovery.k8s.io" if made_slice(object) => Some("made from its Service"),
        "configmaps" if text("name") == "kube-root-ca.crt" => {
            Some("the cluster's own CA, published by a controller")
        }
        "configmaps" if is_of_apiserver(text("namespace"), text("name")) => {
            Some("written by the API server for itself")
        }
        "clustertrustbundles.certificates.k8s.io"
            if text("name").starts_with("kubernetes.io:kube-apiserver-serving:") =>
        {
            Some("the cluster's own CA, published by a controller")
        }
        "apiservices.apiregistration.k8s.io"
            if has("labels", "kube-aggregator.kubernetes.io/automanaged") =>
        {
            Some("made by the API server for its own groups and for CRDs")
        }
        "flowschemas.flowcontrol.apiserver.k8s.io"
        | "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"
            if object.pointer("/metadata/annotations/apf.kubernetes.io~1autoupdate-spec")
                == Some(&Value::from("true")) =>
        {
            Some("kept by the API server itself")
        }
        _ => None,
    }
}

/// Whether one of its owners is its controller.
pub(crate) fn has_controller(object: &Value) -> bool {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners.is_some_and(|owners| owners.iter().any(|o| o.get("controller") == Some(&Value::Bool(true))))
}

fn is_of_apiserver(namespace: &str, name: &str) -> bool {
    let names =
        ["extension-apiserver-authentication", "kube-apiserver-legacy-service-account-token-tracking"];
    namespace == "kube-system" && names.contains(&name)
}

fn made_slice(object: &Value) -> bool {
    let by =
        object.pointer("/metadata/labels/endpointslice.kubernetes.io~1managed-by").and_then(Value::as_str);
    by.is_some_and(|by| by == "endpointslice-controller.k8s.io" || by.starts_with("endpointslicemirroring"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::for_tests;
    use serde_json::json;

    // What a person made by hand stays, what its controller makes again goes.
    #[test]
    fn only_what_comes_back_by_itself_is_left_out() {
        let pods = for_tests("", "v1", "Pod", "pods", true);
        let owned = json!({"metadata": {"ownerReferences": [{"controller": true}]}});
        assert!(object_left_out(&pods, &owned).is_some());
        assert!(object_left_out(&pods, &json!({"metadata": {"name": "by-hand"}})).is_none());
        let slices = for_tests("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true);
        let by = |by: &str| json!({"metadata": {"labels": {"endpointslice.kubernetes.io/managed-by": by}}});
        assert!(object_left_out(&slices, &by("endpointslice-controller.k8s.io")).is_some());
        assert!(object_left_out(&slices, &by("staff")).is_none());
        assert!(kind_left_out(&for_tests("coordination.k8s.io", "v1", "Lease", "leases", true)).is_some());
        assert!(kind_left_out(&for_tests("x.io", "v1", "Lease", "leases", true)).is_none());
        assert!(kind_left_out(&pods).is_none());
    }
}
