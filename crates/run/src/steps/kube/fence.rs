//! `Fence` and `WaitNodeEmpty`: the proof that a host is off, and what follows from it. Before the taint that says so the
//! node is looked at once more: between the plan and its run it may have come back.

use super::super::context::{Ctx, Polled, outputs};
use super::{EVERY, list, text};
use crate::error::StepError;
use rekindle_model::event::Outputs;
use rekindle_model::kube::nodes::{Node, OUT_OF_SERVICE, Thresholds};
use rekindle_model::kube::{Change, ObjectRef};
use rekindle_world::objects::nodes;
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;

/// A fence command that takes longer has failed: nothing is known then.
const FENCE_TIMEOUT: Duration = Duration::from_secs(300);
/// How often a node is asked whether it reports, and how long kube-controller-manager may take to say that it does not, once
/// its lease is old.
const SILENCE_EVERY: Duration = Duration::from_secs(1);
const MARKED: Duration = Duration::from_secs(30);

/// Runs the operator's command. Only its success is a proof; what it prints is quoted when it fails.
pub(in super::super) async fn fence(node: &ObjectRef, command: &[String]) -> Result<Outputs, StepError> {
    let mut words = command.iter().map(|word| word.replace("{node}", &node.name));
    let program = words.next().ok_or_else(|| StepError::Plan("an empty fence command".into()))?;
    let mut command = tokio::process::Command::new(&program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let ended = tokio::time::timeout(FENCE_TIMEOUT, command.output()).await;
    let not_proved = |why: String| StepError::NotProved(format!("{node} is off: {program} {why}"));
    let ended = ended
        .map_err(|_| not_proved(format!("did not end within {} s", FENCE_TIMEOUT.as_secs())))?
        .map_err(|error| not_proved(format!("can't be run: {error}")))?;
    if ended.status.success() {
        return Ok(outputs! { "fenced" => node.name });
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let said: String = said.trim().chars().take(300).collect();
    Err(not_proved(format!("ended with {}: {said}", ended.status)))
}

/// What must be so before changes to a node are made: one that is marked as out of service does not report. A host that was
/// switched off a moment ago looks as if it did, so it is given the time that nodes may be silent; one that renews its lease
/// in that time runs. Marked already is done already.
pub(super) async fn before_taint(
    ctx: &Ctx<'_>,
    object: &ObjectRef,
    changes: &[Change],
) -> Result<(), StepError> {
    if object.kind != "Node" || !changes.iter().any(marks_as_off) {
        return Ok(());
    }
    let cluster = ctx.cluster()?;
    let thresholds = nodes::thresholds(cluster).await?;
    let first = nodes::one(cluster, object).await?.and_then(|node| node.lease_renewed_ms);
    let look = || async {
        let found = nodes::one(cluster, object).await?;
        let Some(node) = found.filter(|node| !node.is_out_of_service()) else { return Ok(Polled::Ready(())) };
        if node.lease_renewed_ms != first {
            return Err(StepError::NotProved(format!(
                "{object} is off: it has just renewed its lease, so its kubelet runs, and nothing was tainted; to empty a \
                 node that runs: `rekindle node drain {}`",
                object.name
            )));
        }
        Ok(reports(&node, &thresholds, crate::now_ms()).map_or(Polled::Ready(()), Polled::Pending))
    };
    let timeout = Duration::from_secs(thresholds.grace_period_seconds).saturating_add(MARKED);
    ctx.poll(&format!("{object} to report no more"), SILENCE_EVERY, timeout, look).await
}

fn marks_as_off(change: &Change) -> bool {
    let key = |item: &Value| text(item, "/key") == OUT_OF_SERVICE;
    matches!(change, Change::AddItem { pointer, item } if pointer == "/spec/taints" && key(item))
}

/// How a node reports, if it does.
fn reports(node: &Node, thresholds: &Thresholds, now_ms: i64) -> Option<String> {
    if !node.has_kubelet(Some(thresholds), now_ms) {
        return None;
    }
    if node.is_ready() {
        return Some("it says Ready=True".into());
    }
    let age = now_ms.saturating_sub(node.lease_renewed_ms?) / 1000;
    Some(format!("its lease was renewed {age} s ago ({})", thresholds.source))
}

/// Waits until no pod is left on it that the out-of-service taint drives away, and no volume is attached to it.
pub(in super::super) async fn wait_empty(
    ctx: &Ctx<'_>,
    node: &ObjectRef,
    timeout_seconds: u64,
) -> Result<Outputs, StepError> {
    let cluster = ctx.cluster()?;
    let pods = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", node.name);
    let look = || async {
        let found = cluster.get(&pods).await?.unwrap_or_default();
        let left: Vec<&str> = list(&found, "/items")
            .iter()
            .filter(|pod| !tolerates(pod))
            .map(|pod| text(pod, "/metadata/name"))
            .collect();
        let attached = cluster.get("/apis/storage.k8s.io/v1/volumeattachments").await?.unwrap_or_default();
        let attached =
            list(&attached, "/items").iter().filter(|one| text(one, "/spec/nodeName") == node.name);
        let attached: Vec<&str> =
            attached.map(|one| text(one, "/spec/source/persistentVolumeName")).collect();
        Ok(if left.is_empty() && attached.is_empty() {
            Polled::Ready(outputs! { "empty" => node.name })
        } else {
            Polled::Pending(format!("pods: {}; volumes: {}", left.join(", "), attached.join(", ")))
        })
    };
    let timeout = Duration::from_secs(timeout_seconds);
    ctx.poll(&format!("{node} to be empty"), EVERY, timeout, look).await
}

/// Whether a pod stays on a node that is out of service: it tolerates the taint (as DaemonSet pods that tolerate all
/// do), or is the image of a static pod.
fn tolerates(pod: &Value) -> bool {
    let all = |toleration: &Value| {
        let key = text(toleration, "/key");
        let effect = text(toleration, "/effect");
        let exists = text(toleration, "/operator") == "Exists";
        (key == OUT_OF_SERVICE || (key.is_empty() && exists)) && (effect.is_empty() || effect == "NoExecute")
    };
    list(pod, "/spec/tolerations").iter().any(all)
        || pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_model::kube::nodes::{Condition, Reach};

    const NOW_MS: i64 = 1_700_000_000_000;

    // A person attested that the host is off, and thought about it for a while. When the plan is carried out the node is
    // back, or its kubelet was there all the time: it is not tainted. One that is silent is.
    #[test]
    fn a_node_that_reports_again_is_not_tainted() {
        let of = |ready: &str, lease_age_s: Option<i64>| {
            let node = Node {
                object: ObjectRef {
                    collection: "/api/v1/nodes".into(),
                    kind: "Node".into(),
                    namespace: None,
                    name: "w1".into(),
                    uid: "uid-w1".into(),
                },
                zone: String::new(),
                roles: vec![],
                addresses: vec![],
                kubelet_version: String::new(),
                conditions: vec![Condition {
                    kind: "Ready".into(),
                    status: ready.into(),
                    reason: String::new(),
                    message: String::new(),
                    since_ms: None,
                }],
                taints: vec![],
                unschedulable: false,
                cordoned_ms: None,
                cordoned_by: String::new(),
                lease_renewed_ms: lease_age_s.map(|age| NOW_MS - age * 1000),
                kubelet: Reach::NotAsked,
            };
            let thresholds = Thresholds { grace_period_seconds: 50, source: "the default".into() };
            reports(&node, &thresholds, NOW_MS)
        };
        assert!(
            of("True", Some(3)).is_some() && of("True", Some(600)).is_some() && of("True", None).is_some()
        );
        let lease = of("False", Some(20)).unwrap();
        assert!(lease.contains("renewed 20 s ago"), "{lease}");
        assert!(of("Unknown", Some(600)).is_none() && of("Unknown", None).is_none());
    }
}
