//! How etcd is configured on a host, whether it runs or not: from its manifest (also one moved away) or its unit, with
//! the TLS identity to talk to it.

use super::ask::exists;
use super::pod::Pod;
use super::settings::{Settings, TlsFiles};
use super::units::{self, Units};
use crate::host::Host;
use crate::words;
use camino::Utf8Path;
use rekindle_model::etcd::{EtcdConfig, EtcdDefinition, EtcdEndpoint};
use rekindle_model::host::{Component, ManifestFacts, ProcessFacts, TextFile};
use rekindle_model::{HostPath, Seen};
use std::collections::BTreeMap;

/// What was found of etcd's configuration.
pub(super) struct Found {
    pub(super) config: Seen<EtcdConfig>,
    /// Texts of a unit's files, by path.
    pub(super) unit_files: BTreeMap<HostPath, Seen<TextFile>>,
}

/// Finds etcd's configuration.
pub(super) async fn find(
    host: &dyn Host,
    manifests: &[ManifestFacts],
    units: &Units,
    hostname: &str,
) -> Found {
    let none = BTreeMap::new();
    let usable = |m: &&ManifestFacts| m.component == Some(Component::Etcd) && m.parse_error.is_none();
    let in_place = manifests.iter().find(|m| m.in_place && usable(m));
    if let Some(manifest) = in_place {
        return Found { config: from_manifest(host, manifest).await, unit_files: none };
    }
    if let Some(name) = units::of(units, Component::Etcd) {
        let unit = units::etcd(host, name, units.get(name).and_then(|u| u.known()), hostname).await;
        let api = manifests.iter().find(|m| m.component == Some(Component::KubeApiserver));
        let config = from_unit(host, name, &unit, api).await;
        return Found { config, unit_files: unit.texts };
    }
    let newest = manifests.iter().filter(usable).max_by_key(|m| m.modified_ms);
    let config = match newest {
        Some(manifest) => from_manifest(host, manifest).await,
        None => Seen::Unknown("no etcd manifest and no etcd unit was found".into()),
    };
    Found { config, unit_files: none }
}

async fn from_manifest(host: &dyn Host, manifest: &ManifestFacts) -> Seen<EtcdConfig> {
    let pod = match Pod::parse(&manifest.text) {
        Ok(pod) => pod,
        Err(why) => return Seen::Unknown(format!("{}: {why}", manifest.path)),
    };
    let settings = Settings { command: pod.command(), environment: BTreeMap::new(), file: None };
    // What no mount covers is written into the container and lost with it; its path is all there is to tell.
    let on_host = |path: &str| pod.on_host(Utf8Path::new(path)).unwrap_or_else(|| HostPath::from(path));
    let defined_in = EtcdDefinition::Manifest(manifest.path.clone());
    match settings.config(defined_in, &on_host) {
        Ok(mut config) => {
            identify(host, &mut config.endpoint, settings.client_tls(), &on_host).await;
            Seen::Known(config)
        }
        Err(why) => Seen::Unknown(format!("{}: {why}", manifest.path)),
    }
}

async fn from_unit(
    host: &dyn Host,
    name: &str,
    unit: &units::EtcdUnit,
    api: Option<&ManifestFacts>,
) -> Seen<EtcdConfig> {
    let on_host = |path: &str| HostPath::from(path);
    let defined_in = EtcdDefinition::Unit { name: name.into(), files: unit.files.clone() };
    match unit.settings.config(defined_in, &on_host) {
        Ok(mut config) => {
            let mut tls = unit.settings.client_tls();
            if tls.cert.is_none()
                && let Some(api) = api
            {
                tls = api_identity(&api.command);
            }
            identify(host, &mut config.endpoint, tls, &on_host).await;
            Seen::Known(config)
        }
        Err(why) => Seen::Unknown(format!("{name}: {why}")),
    }
}

/// The API server's own identity towards etcd.
fn api_identity(command: &[String]) -> TlsFiles {
    let flag = |name| words::flag(command, name).map(str::to_owned);
    TlsFiles { ca: flag("etcd-cafile"), cert: flag("etcd-certfile"), key: flag("etcd-keyfile") }
}

/// Puts the client identity into an endpoint: the one kubeadm makes for health checks when it lies beside the server's
/// certificate, else the server's own.
async fn identify(
    host: &dyn Host,
    endpoint: &mut EtcdEndpoint,
    tls: TlsFiles,
    on_host: &(dyn Fn(&str) -> HostPath + Sync),
) {
    if !endpoint.url.starts_with("https:") {
        return;
    }
    endpoint.cacert = tls.ca.as_deref().map(on_host);
    endpoint.cert = tls.cert.as_deref().map(on_host);
    endpoint.key = tls.key.as_deref().map(on_host);
    let folder = endpoint.cert.as_ref().and_then(|c| c.parent()).map(HostPath::from);
    if let Some(folder) = folder {
        let (cert, key) = (folder.join("healthcheck-client.crt"), folder.join("healthcheck-client.key"));
        if exists(host, &cert).await && exists(host, &key).await {
            (endpoint.cert, endpoint.key) = (Some(cert), Some(key));
        }
    }
}

/// Whether a process called `etcd` is the control plane's: users run etcds of their own, in pods with other data dirs.
pub(super) fn is_ours(process: &ProcessFacts, expected: &[String]) -> bool {
    ["data-dir", "name"].iter().all(|flag| {
        match (words::flag(&process.command, flag), words::flag(expected, flag)) {
            // A unit's variables are not put in here: then it can't be told.
            (Some(has), Some(expects)) if !expects.contains(['$', '%']) => has == expects,
            _ => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // A user's own etcd in a pod must neither pass for the control plane's nor be stopped; ours must always be found.
    #[test]
    fn another_etcd_is_told_apart() {
        let process = |command: &str| ProcessFacts {
            name: "etcd".into(),
            pid: 1,
            start_ticks: 1,
            started_ms: 1,
            command: words::split(command),
            frozen: false,
            deleted_files: Vec::new(),
        };
        let expected = words::split("etcd --data-dir=/var/lib/etcd --name=cp-1");
        assert!(is_ours(&process("etcd --name=cp-1 --data-dir /var/lib/etcd"), &expected));
        assert!(!is_ours(&process("etcd --name=cp-1 --data-dir=/etcd-data"), &expected));
        assert!(!is_ours(&process("/bin/etcd --name=apisix-0 --data-dir=/var/lib/etcd"), &expected));
        assert!(is_ours(&process("etcd"), &expected), "its settings may be in its environment");
        let variables = words::split("/usr/bin/etcd --data-dir=${ETCD_DIR} --name %H");
        assert!(is_ours(&process("/usr/bin/etcd --data-dir=/d --name cp-1"), &variables));
    }
}
