//! An object as another cluster takes it, and what of an object counts when two are compared.

use crate::kinds::Kind;
use crate::policy::is_built_in;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What the cluster that is restored into has, as far as objects depend on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// PersistentVolumes that are there or will be, with the claim (`NAMESPACE/NAME`) that each is for.
    pub(crate) volumes: BTreeMap<String, Option<String>>,
    /// It is not known to be the cluster that the backup is of: that one may use the same disks.
    pub(crate) is_other: bool,
}

/// The claim that a volume is for: `NAMESPACE/NAME`.
pub(crate) fn claim_of(volume: &Value) -> Option<String> {
    let text = |field: &str| volume.pointer("/spec/claimRef")?.get(field)?.as_str();
    Some(format!("{}/{}", text("namespace")?, text("name")?))
}

/// Why an object is not restored though it is in the backup; none when it is.
pub(crate) fn not_restored(kind: &Kind, object: &Value) -> Option<&'static str> {
    let is_finished = || {
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().any(|c| {
            let text = |field: &str| c.get(field).and_then(Value::as_str);
            matches!(text("type"), Some("Complete" | "Failed")) && text("status") == Some("True")
        })
    };
    match kind.name().as_str() {
        "jobs.batch" if is_finished() => Some("the Job has finished: restored, it would run again"),
        _ => None,
    }
}

/// Takes off what ties an object to the cluster it came from, and says what a person should know.
pub(crate) fn detach(kind: &Kind, object: &mut Value, around: &Surroundings) -> Vec<String> {
    let mut notes = Vec::new();
    match kind.name().as_str() {
        "secrets" if is_service_account_token(object) => {
            remove(object, "", "data");
            remove(object, "/metadata/annotations", "kubernetes.io/service-account.uid");
            notes.push("a new token is issued: those who copied the old one need it".into());
        }
        "persistentvolumes" => {
            for field in ["uid", "resourceVersion"] {
                remove(object, "/spec/claimRef", field);
            }
            remove(object, "/metadata/annotations", "pv.kubernetes.io/bound-by-controller");
            notes.extend(around.is_other.then(|| retained(object)).flatten());
        }
        "persistentvolumeclaims" => {
            for name in ["bind-completed", "bound-by-controller"] {
                remove(object, "/metadata/annotations", &format!("pv.kubernetes.io/{name}"));
            }
            remove(object, "/metadata/annotations", "volume.kubernetes.io/selected-node");
            let volume = object.pointer("/spec/volumeName").and_then(Value::as_str).map(str::to_owned);
            let metadata = |field: &str| object.pointer("/metadata").and_then(|m| m.get(field)?.as_str());
            let own = format!(
                "{}/{}",
                metadata("namespace").unwrap_or_default(),
                metadata("name").unwrap_or_default()
            );
            let is_free = |claim: &Option<String>| claim.as_ref().is_none_or(|claim| *claim == own);
            if let Some(volume) = volume.filter(|volume| !around.volumes.get(volume).is_some_and(is_free)) {
                remove(object, "/spec", "volumeName");
                notes.push(format!(
                    "its volume {volume} is not there for it: an empty one will be provisioned"
                ));
            }
        }
        "pods" => {
            for field in ["nodeName", "ephemeralContainers", "priority", "preemptionPolicy"] {
                remove(object, "/spec", field);
            }
        }
        "jobs.batch" if object.pointer("/spec/manualSelector") != Some(&Value::Bool(true)) => {
            remove(object, "/spec", "selector");
            for place in ["/metadata/labels", "/spec/template/metadata/labels"] {
                for name in ["controller-uid", "job-name"] {
                    remove(object, place, name);
                    remove(object, place, &format!("batch.kubernetes.io/{name}"));
                }
            }
        }
        _ => {}
    }
    notes
}

/// Keeps a volume from taking its disk along when its claim goes: in the other cluster it may be in use.
fn retained(object: &mut Value) -> Option<String> {
    let spec = object.pointer_mut("/spec").and_then(Value::as_object_mut)?;
    let was = spec.insert("persistentVolumeReclaimPolicy".into(), "Retain".into());
    // a volume without a policy is retained
    let was = was.as_ref().and_then(Value::as_str).filter(|was| *was != "Retain")?;
    Some(format!("its reclaim policy is Retain, not {was}: the cluster of the backup may use the same disk"))
}

/// Takes off what an object has from the API server that it was read from, so that it can be made again.
pub(crate) fn without_identity(object: &mut Value) {
    for field in ["resourceVersion", "uid"] {
        remove(object, "/metadata", field);
    }
}

/// Leaves out what may differ between an object and what was restored from it: names and numbers that a cluster gives out,
/// and what controllers write beside what people do.
pub(crate) fn neutral(kind: &Kind, object: &mut Value) {
    if kind.has_status || is_built_in(kind) {
        remove(object, "", "status");
    }
    let owners = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut);
    for owner in owners.into_iter().flatten() {
        remove(owner, "", "uid");
    }
    remove(object, "/metadata/annotations", "deployment.kubernetes.io/revision");
    match kind.name().as_str() {
        "services" => without_given(object, true, true),
        "persistentvolumeclaims" => {
            remove(object, "/spec", "volumeName");
            remove(object, "/metadata/annotations", "volume.kubernetes.io/selected-node");
        }
        "namespaces" => remove(object, "/metadata/labels", "kubernetes.io/metadata.name"),
        _ => {}
    }
    // what is there twice needs no distance: the first object detached, the second as the cluster keeps it
    detach(kind, object, &Surroundings::default());
    for place in ["/metadata/annotations", "/metadata/labels"] {
        if object.pointer(place).and_then(Value::as_object).is_some_and(Map::is_empty) {
            let name = place.rsplit('/').next().unwrap_or_default();
            remove(object, "/metadata", name);
        }
    }
}

/// Takes off the addresses or the ports that a cluster gave a Service.
pub(crate) fn without_given(object: &mut Value, addresses: bool, ports: bool) {
    let headless = object.pointer("/spec/clusterIP").and_then(Value::as_str) == Some("None");
    if addresses && !headless {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            remove(object, "/spec", field);
        }
    }
    if ports {
        remove(object, "/spec", "healthCheckNodePort");
        let ports = object.pointer_mut("/spec/ports").and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten() {
            remove(port, "", "nodePort");
        }
    }
}

/// Whether the token controller fills it.
pub(crate) fn is_service_account_token(object: &Value) -> bool {
    object.pointer("/type").and_then(Value::as_str) == Some("kubernetes.io/service-account-token")
}

fn remove(object: &mut Value, place: &str, field: &str) {
    if let Some(fields) = object.pointer_mut(place).and_then(Value::as_object_mut) {
        fields.shift_remove(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::for_tests;
    use serde_json::json;

    // A claim finds its volume again where that is there, and gets a new one where it is not: said, not hidden.
    #[test]
    fn a_claim_keeps_its_volume_only_where_there_is_one() {
        let kind = for_tests("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", true);
        let object = json!({
            "metadata": {"namespace": "shop", "name": "data", "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
            "spec": {"volumeName": "pv-1"},
        });
        let around = |claim: Option<&str>| Surroundings {
            volumes: [("pv-1".into(), claim.map(Into::into))].into(),
            is_other: false,
        };
        for around in [around(None), around(Some("shop/data"))] {
            let mut kept = object.clone();
            assert!(detach(&kind, &mut kept, &around).is_empty());
            assert_eq!(
                (&kept["spec"]["volumeName"], &kept["metadata"]["annotations"]),
                (&json!("pv-1"), &json!({}))
            );
        }
        for around in [around(Some("shop/other")), Surroundings::default()] {
            let mut lost = object.clone();
            let notes = detach(&kind, &mut lost, &around);
            assert!(notes[0].contains("pv-1"), "{notes:?}");
            assert_eq!(lost["spec"], json!({}));
        }
    }

    // A second cluster is made from the backup of one that lives, for a test; the test is over and its claims are deleted.
    // The disks are the first one's: they stay.
    #[test]
    fn another_cluster_does_not_delete_disks() {
        let kind = for_tests("", "v1", "PersistentVolume", "persistentvolumes", false);
        let volume = |policy: &str| json!({"spec": {"persistentVolumeReclaimPolicy": policy}});
        let other = Surroundings { is_other: true, ..Surroundings::default() };
        let mut kept = volume("Delete");
        let notes = detach(&kind, &mut kept, &other);
        assert!(notes[0].contains("not Delete"), "{notes:?}");
        assert_eq!(kept, volume("Retain"));
        assert!(detach(&kind, &mut kept, &other).is_empty());
        let mut same = volume("Delete");
        assert!(detach(&kind, &mut same, &Surroundings::default()).is_empty());
        assert_eq!(same, volume("Delete"));
    }

    #[test]
    fn a_finished_job_is_not_run_again() {
        let kind = for_tests("batch", "v1", "Job", "jobs", true);
        let job = |of: &str| json!({"status": {"conditions": [{"type": of, "status": "True"}]}});
        assert!(not_restored(&kind, &job("Complete")).is_some());
        assert!(not_restored(&kind, &job("Suspended")).is_none());
    }

    #[test]
    fn a_headless_service_stays_headless() {
        let mut headless = json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
        without_given(&mut headless, true, true);
        assert_eq!(headless["spec"]["clusterIP"], "None");
        let mut service =
            json!({"spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80, "nodePort": 30000}]}});
        without_given(&mut service, true, true);
        assert_eq!(service, json!({"spec": {"ports": [{"port": 80}]}}));
    }
}
