//! In which order objects are restored: what others need first, what could stand in the way last.

use crate::kinds::Kind;

/// Waves are restored one after the other; the objects of one wave side by side.
pub(crate) type Wave = u8;

/// CustomResourceDefinitions: after them the kinds they make must be served before anything else.
pub(crate) const CRDS: Wave = 0;
/// What is not named below: custom resources, Ingresses, ... Before the workloads, for those that own such.
const REST: Wave = 9;

const WAVES: &[(&str, Wave)] = &[
    ("customresourcedefinitions.apiextensions.k8s.io", CRDS),
    ("namespaces", 1),
    ("priorityclasses.scheduling.k8s.io", 2),
    ("storageclasses.storage.k8s.io", 2),
    ("volumeattributesclasses.storage.k8s.io", 2),
    ("csidrivers.storage.k8s.io", 2),
    ("runtimeclasses.node.k8s.io", 2),
    ("ingressclasses.networking.k8s.io", 2),
    ("deviceclasses.resource.k8s.io", 2),
    ("servicecidrs.networking.k8s.io", 2),
    ("serviceaccounts", 3),
    ("secrets", 4),
    ("configmaps", 4),
    // before the workloads that they guard
    ("networkpolicies.networking.k8s.io", 4),
    ("clusterroles.rbac.authorization.k8s.io", 5),
    ("roles.rbac.authorization.k8s.io", 5),
    ("clusterrolebindings.rbac.authorization.k8s.io", 6),
    ("rolebindings.rbac.authorization.k8s.io", 6),
    ("persistentvolumes", 6),
    ("persistentvolumeclaims", 7),
    ("services", 8),
    ("endpoints", 8),
    ("endpointslices.discovery.k8s.io", 8),
    ("deployments.apps", 10),
    ("statefulsets.apps", 10),
    ("daemonsets.apps", 10),
    ("cronjobs.batch", 10),
    ("replicationcontrollers", 10),
    // their owners are above: a controller that was quicker has made the same already
    ("replicasets.apps", 11),
    ("controllerrevisions.apps", 11),
    ("jobs.batch", 11),
    ("pods", 12),
    ("horizontalpodautoscalers.autoscaling", 12),
    ("poddisruptionbudgets.policy", 12),
    // what was let in once must not be judged, or changed, again
    ("limitranges", 13),
    ("resourcequotas", 13),
    ("mutatingadmissionpolicies.admissionregistration.k8s.io", 14),
    ("mutatingadmissionpolicybindings.admissionregistration.k8s.io", 14),
    ("validatingadmissionpolicies.admissionregistration.k8s.io", 14),
    ("validatingadmissionpolicybindings.admissionregistration.k8s.io", 14),
    // their backends are being started above
    ("mutatingwebhookconfigurations.admissionregistration.k8s.io", 15),
    ("validatingwebhookconfigurations.admissionregistration.k8s.io", 15),
    ("apiservices.apiregistration.k8s.io", 15),
];

/// The wave of a kind.
pub(crate) fn wave(kind: &Kind) -> Wave {
    let name = kind.name();
    WAVES.iter().find(|(of, _)| *of == name).map_or(REST, |(_, wave)| *wave)
}
