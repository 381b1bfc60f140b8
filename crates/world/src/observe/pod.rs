//! Static pod manifests: what of a pod recovery needs to know. Other fields are passed over.
//!
//! Source: `k8s.io/api/core/v1` (Pod), kubelet `pkg/kubelet/config/file.go` (which files count).

use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::HostPath;
use rekindle_model::host::Component;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A pod, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Pod {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
struct Spec {
    #[serde(default)]
    containers: Vec<Container>,
    #[serde(default)]
    volumes: Option<Vec<Volume>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    name: String,
    #[serde(default)]
    command: Option<Vec<String>>,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    volume_mounts: Option<Vec<Mount>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    name: String,
    mount_path: Utf8PathBuf,
    #[serde(default)]
    sub_path: Option<Utf8PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    name: String,
    #[serde(default)]
    host_path: Option<HostPathVolume>,
}

#[derive(Debug, Deserialize)]
struct HostPathVolume {
    path: Utf8PathBuf,
}

impl Pod {
    /// Reads a manifest (YAML or JSON).
    ///
    /// # Errors
    /// Why it is no pod, in one line.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let pod: Self = serde_saphyr::from_str(text).map_err(|e| one_line(&e.to_string()))?;
        match pod.kind.as_str() {
            "Pod" if !pod.spec.containers.is_empty() => Ok(pod),
            "Pod" => Err("the pod has no containers".into()),
            other => Err(format!("it is a `{other}`, not a Pod")),
        }
    }

    /// The control-plane component it runs, if any, by its label, its name or its program.
    pub(super) fn component(&self) -> Option<Component> {
        let label = self.metadata.labels.as_ref().and_then(|l| l.get("component")).map(String::as_str);
        let program = self.main().and_then(|c| c.command.as_ref()?.first());
        let program = program.and_then(|p| Utf8Path::new(p).file_name());
        let names = [label, Some(self.metadata.name.as_str()), program];
        names.into_iter().flatten().find_map(|name| Component::ALL.into_iter().find(|c| c.name() == name))
    }

    /// The container that is the component, else the first one.
    fn main(&self) -> Option<&Container> {
        let is_component = |c: &&Container| Component::ALL.iter().any(|k| k.name() == c.name);
        self.spec.containers.iter().find(is_component).or_else(|| self.spec.containers.first())
    }

    /// The component's command line, first the program.
    pub(super) fn command(&self) -> Vec<String> {
        let Some(main) = self.main() else { return Vec::new() };
        let parts = [main.command.as_ref(), main.args.as_ref()];
        parts.into_iter().flatten().flatten().cloned().collect()
    }

    /// Where a path inside the component's container lies on the host: the longest mount that holds it decides.
    pub(super) fn on_host(&self, inside: &Utf8Path) -> Option<HostPath> {
        let mounts = self.main()?.volume_mounts.as_ref()?;
        let mount = mounts
            .iter()
            .filter(|m| inside.starts_with(&m.mount_path))
            .max_by_key(|m| m.mount_path.components().count())?;
        let volume = self.spec.volumes.as_ref()?.iter().find(|v| v.name == mount.name)?;
        let mut path = volume.host_path.as_ref()?.path.clone();
        path.extend(mount.sub_path.as_deref());
        let rest = inside.strip_prefix(&mount.mount_path).ok()?;
        if !rest.as_str().is_empty() {
            path.push(rest);
        }
        Some(HostPath(path))
    }
}

/// An error of the YAML reader shows the place over several lines; the first says what and where.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or("does not parse").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETCD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    component: etcd\n  name: etcd\nspec:\n  \
        containers:\n  - command:\n    - etcd\n    - --data-dir=/data/etcd\n    name: etcd\n    volumeMounts:\n    - \
        mountPath: /data\n      name: d\n    - mountPath: /data/etcd\n      name: e\n      subPath: member1\n  volumes:\n  \
        - hostPath:\n      path: /srv\n    name: d\n  - hostPath:\n      path: /mnt/ssd/etcd\n    name: e\n";

    // The data dir of the flag is the container's; a restore must go where the host has it, innermost mount first.
    #[test]
    fn paths_are_resolved_through_the_innermost_mount() {
        let pod = Pod::parse(ETCD).unwrap();
        assert_eq!(pod.component(), Some(Component::Etcd));
        assert_eq!(pod.command(), ["etcd", "--data-dir=/data/etcd"]);
        assert_eq!(pod.on_host("/data/etcd".into()).unwrap().as_str(), "/mnt/ssd/etcd/member1");
        assert_eq!(pod.on_host("/data/wal".into()).unwrap().as_str(), "/srv/wal");
        assert_eq!(pod.on_host("/etc/x".into()), None);
    }

    // Broken manifests are a fault to be found, and hostile ones must not harm.
    #[test]
    fn what_is_no_pod_says_why() {
        assert!(Pod::parse("kind: Service\n").unwrap_err().contains("Service"));
        assert!(!Pod::parse("kind: Pod\n\t- x\n").unwrap_err().contains('\n'));
        assert!(Pod::parse(&"[".repeat(100_000)).is_err());
        assert!(Pod::parse("").is_err());
    }
}
