//! `Fence` and `WaitNodeEmpty`: the proof that a host is off, and what follows from it.

use super::super::context::{Ctx, Polled, outputs};
use super::{EVERY, list, text};
use crate::error::StepError;
use rekindle_model::event::Outputs;
use rekindle_model::kube::ObjectRef;
use rekindle_model::kube::nodes::OUT_OF_SERVICE;
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;

/// A fence command that takes longer has failed: nothing is known then.
const FENCE_TIMEOUT: Duration = Duration::from_secs(300);

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
