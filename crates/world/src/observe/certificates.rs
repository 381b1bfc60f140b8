//! Certificates of a host: where they lie and which ports show them, by the flags of its components.

use super::ask::{LONG, seen, within};
use super::host::Commands;
use crate::host::Host;
use crate::words;
use camino::Utf8Path;
use rekindle_model::certificate::{CertificateFacts, ServedCertificate};
use rekindle_model::host::{Component, HostFacts, Layout};
use rekindle_model::{HostPath, Seen};

/// kubeadm's `certificatesDir` unless it is told otherwise.
const PKI_DIR: &str = "/etc/kubernetes/pki";

/// Reads them.
pub(super) async fn read(host: &dyn Host, facts: &HostFacts, commands: &Commands) -> Seen<CertificateFacts> {
    let served = served(facts, commands);
    seen(within(host, LONG, "certificates", host.certificates(&pki_dir(commands), served)).await)
}

/// The folder that the API server's own certificate lies in.
fn pki_dir(commands: &Commands) -> HostPath {
    let command = commands.get(&Component::KubeApiserver).map(Vec::as_slice).unwrap_or_default();
    let file = words::flag(command, "tls-cert-file").map(Utf8Path::new).filter(|file| file.is_absolute());
    file.and_then(Utf8Path::parent).map_or_else(|| HostPath::from(PKI_DIR), HostPath::from)
}

/// What is asked: each port, and which files it may show.
fn served(facts: &HostFacts, commands: &Commands) -> Vec<ServedCertificate> {
    let mut asked = Vec::new();
    let mut add = |service: &str, address: Option<String>, names: &[&str]| {
        if let Some(address) = address {
            asked.push(ServedCertificate {
                service: service.into(),
                address,
                names: names.iter().map(|name| (*name).to_owned()).collect(),
                certificate: Seen::default(),
            });
        }
    };
    let flag = |component, name: &str| words::flag(commands.get(&component)?, name);
    let secure = |component, port: &str| {
        commands.get(&component)?;
        let port = flag(component, "secure-port").unwrap_or(port);
        Some(address(flag(component, "bind-address").unwrap_or("0.0.0.0"), port))
    };
    add("kube-apiserver", secure(Component::KubeApiserver, "6443"), &["apiserver"]);
    let urls = |name| flag(Component::Etcd, name).unwrap_or_default().split(',').find_map(of_url);
    add("etcd", urls("listen-client-urls"), &["etcd-server"]);
    add("etcd peers", urls("listen-peer-urls"), &["etcd-peer"]);
    add("kube-controller-manager", secure(Component::KubeControllerManager, "10257"), &[]);
    add("kube-scheduler", secure(Component::KubeScheduler, "10259"), &[]);
    let kubelet = facts.unit("kubelet").is_some_and(|unit| unit.exists());
    if kubelet || facts.layout == Layout::StaticPods {
        add("kubelet", Some("127.0.0.1:10250".into()), &["kubelet-server", "kubelet-serving"]);
    }
    asked
}

/// Address and port; a wildcard is reached on loopback.
fn address(host: &str, port: &str) -> String {
    match host {
        "" | "0.0.0.0" => format!("127.0.0.1:{port}"),
        "::" => format!("[::1]:{port}"),
        v6 if v6.contains(':') => format!("[{v6}]:{port}"),
        host => format!("{host}:{port}"),
    }
}

/// Address and port of an `https` URL.
fn of_url(url: &str) -> Option<String> {
    let (host, port) = url.trim().strip_prefix("https://")?.trim_end_matches('/').rsplit_once(':')?;
    Some(address(host.trim_start_matches('[').trim_end_matches(']'), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Ports are asked where they listen: etcd's peers are reached on the node's address only, wildcards on loopback.
    #[test]
    fn ports_by_flags() {
        let mut commands = Commands::new();
        commands.insert(
            Component::Etcd,
            words::split(
                "etcd --listen-client-urls=https://127.0.0.1:2379,https://10.0.0.1:2379 \
                 --listen-peer-urls=https://10.0.0.1:2380",
            ),
        );
        commands.insert(
            Component::KubeApiserver,
            words::split("kube-apiserver --secure-port=6444 --tls-cert-file=/srv/pki/apiserver.crt"),
        );
        let facts = HostFacts::unreachable(rekindle_model::HostId::local(), String::new());
        let asked: Vec<(String, String)> =
            served(&facts, &commands).into_iter().map(|s| (s.service, s.address)).collect();
        let expected = [
            ("kube-apiserver", "127.0.0.1:6444"),
            ("etcd", "127.0.0.1:2379"),
            ("etcd peers", "10.0.0.1:2380"),
        ];
        assert_eq!(asked, expected.map(|(service, address)| (service.to_owned(), address.to_owned())));
        assert_eq!(pki_dir(&commands), HostPath::from("/srv/pki"));
        assert_eq!(address("::", "1"), "[::1]:1");
    }
}
