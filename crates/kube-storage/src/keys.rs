//! Keys: `<prefix>/<resource>[/<namespace>]/<name>`, custom and aggregated kinds with their API group in front.
//!
//! The prefix is kube-apiserver's `--etcd-prefix`, `/registry` unless set. The resource is named as it is stored:
//! nodes are `minions`, Services `services/specs`, Endpoints `services/endpoints`.

/// kube-apiserver's `--etcd-prefix` unless it is set.
pub const DEFAULT_PREFIX: &str = "/registry";

/// The resource a key belongs to: `secrets`, `apiextensions.k8s.io/customresourcedefinitions`, `services/specs`.
/// Empty for a key outside `prefix`.
pub fn resource_of<'k>(key: &'k [u8], prefix: &str) -> &'k str {
    let prefix = prefix.trim_end_matches('/').as_bytes();
    let Some(path) = key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix(b"/")) else { return "" };
    let Ok(path) = std::str::from_utf8(path) else { return "" };
    let Some((first, rest)) = path.split_once('/') else { return path };
    // API groups outside the core have dots in their names; resources never have
    if !first.contains('.') && first != "services" && first != "ranges" {
        return first;
    }
    let second = rest.split('/').next().unwrap_or_default();
    path.get(..first.len() + 1 + second.len()).unwrap_or(path)
}

/// Under which name the API's `resource` of `group` (empty: the core) is stored; `is_custom`: a CustomResourceDefinition
/// defines it.
///
/// Source: `SpecialDefaultResourcePrefixes` in `k8s.io/kubernetes/pkg/kubeapiserver/default_storage_factory_builder.go`.
pub fn stored_as(group: &str, resource: &str, is_custom: bool) -> String {
    match (group, resource) {
        ("", "nodes") => "minions".into(),
        ("", "services") => "services/specs".into(),
        ("", "endpoints") => "services/endpoints".into(),
        ("", "replicationcontrollers") => "controllers".into(),
        ("networking.k8s.io" | "extensions", "ingresses") => "ingress".into(),
        ("apiextensions.k8s.io" | "apiregistration.k8s.io", _) => format!("{group}/{resource}"),
        _ if is_custom => format!("{group}/{resource}"),
        _ => resource.into(),
    }
}

/// The key of the Namespace `kube-system`, whose UID names the cluster.
pub fn kube_system_key(prefix: &str) -> String {
    format!("{}/namespaces/kube-system", prefix.trim_end_matches('/'))
}

/// Where API servers announce their addresses for the `kubernetes` Service; stale entries make connections to it hang.
pub fn masterlease_prefix(prefix: &str) -> String {
    format!("{}/masterleases/", prefix.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_named_as_stored() {
        for (key, resource) in [
            ("/registry/secrets/kube-system/x", "secrets"),
            ("/registry/minions/node-1", "minions"),
            ("/registry/services/specs/default/kubernetes", "services/specs"),
            ("/registry/services/endpoints/default/kubernetes", "services/endpoints"),
            ("/registry/ranges/serviceips", "ranges/serviceips"),
            (
                "/registry/apiextensions.k8s.io/customresourcedefinitions/a.b.c",
                "apiextensions.k8s.io/customresourcedefinitions",
            ),
            ("/registry/cilium.io/ciliumnodes/n1", "cilium.io/ciliumnodes"),
            ("/registry/health", "health"),
            ("/registryx/secrets/a", ""),
            ("compact_rev_key", ""),
        ] {
            assert_eq!(resource_of(key.as_bytes(), "/registry"), resource, "{key}");
            assert_eq!(resource_of(key.as_bytes(), "/registry/"), resource, "{key}");
        }
        assert_eq!(resource_of(b"/k/pods/ns/p", "/k"), "pods");
        assert_eq!(resource_of(b"/registry/\xff/x", "/registry"), "");
    }

    #[test]
    fn resources_of_the_api_are_found_where_they_are_stored() {
        assert_eq!(stored_as("", "nodes", false), "minions");
        assert_eq!(stored_as("apps", "deployments", false), "deployments");
        assert_eq!(stored_as("networking.k8s.io", "ingresses", false), "ingress");
        assert_eq!(stored_as("shop.example.org", "orders", true), "shop.example.org/orders");
        assert_eq!(
            stored_as("apiregistration.k8s.io", "apiservices", false),
            "apiregistration.k8s.io/apiservices"
        );
    }

    #[test]
    fn well_known_keys_follow_the_prefix() {
        assert_eq!(kube_system_key("/registry"), "/registry/namespaces/kube-system");
        assert_eq!(masterlease_prefix("/x/"), "/x/masterleases/");
    }
}
