//! The user's own checks: manifests that the restored API server must take, and commands that must succeed.

use super::boot::Api;
use super::served;
use crate::commands::drill::report::Check;
use crate::commands::drill::sandbox::Spec;
use crate::failure::{Doing, Failure};
use camino::Utf8Path;
use http::Method;
use rekindle_world::cluster::{Cluster, Sent};
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;

/// A command that takes longer fails.
const PATIENCE: Duration = Duration::from_secs(600);
/// A file with more is no manifest.
const MANIFEST_MAX_BYTES: u64 = 16 << 20;

pub(super) async fn checks(api: &Api, spec: &Spec) -> Vec<Check> {
    let mut checks = Vec::new();
    for file in &spec.check_manifests {
        let name = format!("the manifests of {file} are taken");
        checks.push(match apply(&api.cluster, file).await {
            Ok(count) => Check::passed(name, format!("{count} objects")),
            Err(failure) => Check::failed(name, failure.line()),
        });
    }
    for command in &spec.check_commands {
        let name = format!("`{command}` succeeds");
        checks.push(match run(command, &api.kubeconfig).await {
            Ok(()) => Check::passed(name, ""),
            Err(failure) => Check::failed(name, failure.line()),
        });
    }
    checks
}

/// What it says goes to the terminal and not into a report: it may be a secret.
async fn run(command: &str, kubeconfig: &Utf8Path) -> Result<(), Failure> {
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", command]).env("KUBECONFIG", kubeconfig).kill_on_drop(true);
    // its standard output would be taken for our answer
    shell.stdin(Stdio::null()).stdout(std::io::stderr());
    let ended = tokio::time::timeout(PATIENCE, shell.status()).await;
    let ended = ended.map_err(|_| Failure::new(format!("no end after {} s", PATIENCE.as_secs())))?;
    let status = ended.doing(|| "it can't be run".into())?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("it ended with {status}"))) }
}

async fn apply(cluster: &Cluster, file: &Utf8Path) -> Result<usize, Failure> {
    let unread = || format!("cannot read {file}");
    let size_bytes = std::fs::metadata(file).doing(unread)?.len();
    if size_bytes > MANIFEST_MAX_BYTES {
        return Err(Failure::usage(format!("{file} has {size_bytes} bytes: more than manifests take")));
    }
    let text = std::fs::read_to_string(file).doing(unread)?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).doing(unread)?;
    let mut count = 0;
    for object in objects.iter().filter(|object| !object.is_null()) {
        let path = path(cluster, object).await?;
        let applied = cluster.send(&Method::PATCH, &path, Sent::Apply(object)).await;
        applied.doing(|| "it is not taken".into())?;
        count += 1;
    }
    Ok(count)
}

/// Where an object is applied.
async fn path(cluster: &Cluster, object: &Value) -> Result<String, Failure> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
    if version.is_empty() || kind.is_empty() || name.is_empty() {
        return Err(Failure::new("a manifest has an apiVersion, a kind and a name"));
    }
    let known = served::of_version(cluster, version).await?.resources;
    let resource = known.iter().find(|resource| resource.kind == kind && !resource.name.contains('/'));
    let resource = resource.ok_or_else(|| Failure::new(format!("{version} has no kind {kind}")))?;
    let namespace = match (resource.namespaced, text("/metadata/namespace")) {
        (false, _) => String::new(),
        (true, "") => "/namespaces/default".into(),
        (true, namespace) => format!("/namespaces/{namespace}"),
    };
    let root = served::root(version);
    Ok(format!("{root}{namespace}/{}/{name}?fieldManager=rekindle-drill&force=true", resource.name))
}
