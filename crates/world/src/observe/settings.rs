//! etcd's settings out of its command line, environment or configuration file, with etcd's own precedence: a
//! configuration file alone, else flags over `ETCD_*` variables over defaults (etcd `server/etcdmain/config.go`).

use crate::words;
use rekindle_model::HostPath;
use rekindle_model::etcd::{EtcdConfig, EtcdDefinition, EtcdEndpoint};
use std::collections::BTreeMap;

/// Where etcd's settings are.
pub(super) struct Settings {
    pub(super) command: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    /// The content of `--config-file`.
    pub(super) file: Option<serde_json::Value>,
}

/// TLS files as etcd itself names them (its paths, before mounts are resolved).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TlsFiles {
    pub(super) ca: Option<String>,
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
}

impl Settings {
    /// Path of `--config-file`.
    pub(super) fn config_file(&self) -> Option<&str> {
        words::flag(&self.command, "config-file")
            .or_else(|| self.environment.get("ETCD_CONFIG_FILE").map(String::as_str))
    }

    /// A setting by its flag's name.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        if let Some(file) = &self.file {
            return text(file.get(name)?);
        }
        let variable = format!("ETCD_{}", name.to_uppercase().replace('-', "_"));
        let flag = words::flag(&self.command, name).map(str::to_owned);
        flag.or_else(|| self.environment.get(&variable).cloned()).filter(|value| !value.is_empty())
    }

    /// Certificate files of the client port.
    pub(super) fn client_tls(&self) -> TlsFiles {
        self.tls("", "client-transport-security")
    }

    /// Files by flags with a prefix, or in a section of the configuration file.
    fn tls(&self, prefix: &str, section: &str) -> TlsFiles {
        let get = |name: &str| match &self.file {
            Some(file) => text(file.get(section)?.get(name)?),
            None => self.get(&format!("{prefix}{name}")),
        };
        TlsFiles { ca: get("trusted-ca-file"), cert: get("cert-file"), key: get("key-file") }
    }

    /// The whole configuration. `on_host` resolves etcd's paths to the host's; the endpoint has no client identity yet.
    ///
    /// # Errors
    /// The setting without which the data can't be found.
    pub(super) fn config(
        &self,
        defined_in: EtcdDefinition,
        on_host: &dyn Fn(&str) -> HostPath,
    ) -> Result<EtcdConfig, String> {
        let name = self.get("name").unwrap_or_else(|| "default".into());
        let data_dir =
            self.get("data-dir").ok_or("it is given no --data-dir, and etcd's default is relative")?;
        if !data_dir.starts_with('/') {
            return Err(format!("its --data-dir is relative: {data_dir}"));
        }
        let urls = |flag: &str, default: &str| list(&self.get(flag).unwrap_or_else(|| default.into()));
        let peer_urls = urls("initial-advertise-peer-urls", "http://localhost:2380");
        let own = || peer_urls.iter().map(|url| (name.clone(), url.clone())).collect();
        let initial_cluster = self.get("initial-cluster").map_or_else(own, |text| pairs(&text));
        let peer_tls = self.tls("peer-", "peer-transport-security");
        let wal_dir = self.get("wal-dir").filter(|dir| *dir != format!("{data_dir}/member/wal"));
        Ok(EtcdConfig {
            data_dir: on_host(&data_dir),
            wal_dir: wal_dir.map(|dir| on_host(&dir)),
            client_urls: urls("advertise-client-urls", "http://localhost:2379"),
            initial_cluster,
            initial_cluster_state: self.get("initial-cluster-state").unwrap_or_default(),
            initial_cluster_token: self.get("initial-cluster-token").unwrap_or_default(),
            quota_bytes: self.get("quota-backend-bytes").and_then(|v| v.parse().ok()).filter(|q| *q > 0),
            endpoint: EtcdEndpoint {
                url: endpoint(&urls("listen-client-urls", "http://localhost:2379")),
                cacert: None,
                cert: None,
                key: None,
            },
            peer_endpoint: EtcdEndpoint {
                url: endpoint(&urls("listen-peer-urls", "http://localhost:2380")),
                cacert: peer_tls.ca.as_deref().map(on_host),
                cert: peer_tls.cert.as_deref().map(on_host),
                key: peer_tls.key.as_deref().map(on_host),
            },
            name,
            peer_urls,
            defined_in,
        })
    }
}

/// A scalar as text: configuration files write numbers and booleans without quotes.
fn text(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text.clone()).filter(|t| !t.is_empty()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|u| !u.is_empty()).map(str::to_owned).collect()
}

fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |part: String| part.split_once('=').map(|(n, u)| (n.trim().to_owned(), u.trim().to_owned()));
    list(text).into_iter().filter_map(pair).collect()
}

/// The URL to reach it from its own host: one on loopback if it listens there, else the first.
fn endpoint(listen: &[String]) -> String {
    let url = |u: &String| u.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:");
    let mut urls: Vec<String> = listen.iter().filter(|u| u.starts_with("http")).map(url).collect();
    urls.sort_by_key(|u| !(u.contains("//127.") || u.contains("//localhost:") || u.contains("//[::1]:")));
    urls.into_iter().next().unwrap_or_else(|| "http://127.0.0.1:2379".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &Settings) -> EtcdConfig {
        let manifest = EtcdDefinition::Manifest(HostPath::from("/m.yaml"));
        settings.config(manifest, &|path| HostPath::from(path)).unwrap()
    }

    // What kubeadm writes: the loopback address is asked, not the first one of the list.
    #[test]
    fn flags() {
        let command = "etcd --name=cp-1 --data-dir=/var/lib/etcd --initial-advertise-peer-urls=https://10.0.0.1:2380 \
                       --listen-client-urls=https://10.0.0.1:2379,https://127.0.0.1:2379 --trusted-ca-file=/pki/ca.crt \
                       --listen-peer-urls=https://10.0.0.1:2380 --peer-cert-file=/pki/peer.crt \
                       --initial-cluster=cp-1=https://10.0.0.1:2380,cp-2=https://10.0.0.2:2380 --quota-backend-bytes=8589934592";
        let settings = Settings { command: words::split(command), environment: BTreeMap::new(), file: None };
        let found = config(&settings);
        assert_eq!(found.endpoint.url, "https://127.0.0.1:2379");
        assert_eq!(found.initial_cluster.len(), 2);
        assert_eq!(found.quota_bytes, Some(8_589_934_592));
        assert_eq!(settings.client_tls().ca.as_deref(), Some("/pki/ca.crt"));
        let peer = &found.peer_endpoint;
        assert_eq!((peer.url.as_str(), peer.cacert.as_ref()), ("https://10.0.0.1:2380", None));
        assert_eq!(peer.cert, Some(HostPath::from("/pki/peer.crt")));
    }

    // Variables count where no flag is given; a configuration file silences both.
    #[test]
    fn environment_and_file() {
        let environment: BTreeMap<String, String> = [("ETCD_NAME", "a"), ("ETCD_DATA_DIR", "/d")]
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        let command = words::split("etcd --name=b");
        let settings = Settings { command: command.clone(), environment: environment.clone(), file: None };
        assert_eq!((config(&settings).name.as_str(), config(&settings).data_dir.as_str()), ("b", "/d"));
        let file = serde_json::json!({"name": "c", "data-dir": "/f", "quota-backend-bytes": 5,
            "client-transport-security": {"cert-file": "/c.crt"},
            "peer-transport-security": {"key-file": "/p.key"}});
        let settings = Settings { command, environment, file: Some(file) };
        let found = config(&settings);
        assert_eq!((found.name.as_str(), found.data_dir.as_str(), found.quota_bytes), ("c", "/f", Some(5)));
        assert_eq!(settings.client_tls().cert.as_deref(), Some("/c.crt"));
        assert_eq!(found.peer_endpoint.key, Some(HostPath::from("/p.key")));
        assert_eq!(found.initial_cluster, [("c".to_owned(), "http://localhost:2380".to_owned())]);
    }
}
