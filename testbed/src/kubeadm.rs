//! Clusters by kubeadm: one control-plane node, or three with stacked etcd behind a load balancer and a worker.

use crate::{Host, Kind, Set, cmd, components, image};
use anyhow::{Context, Result};
use std::fs;
use std::time::Duration;

/// Counts up when what is made here changes in a way that the configuration below does not show.
pub(crate) const RECIPE: &str = concat!("kubeadm 1\n", include_str!("../files/kubeadm.yaml"));

/// A bootstrap token and a key for the certificates in the cluster: of test clusters that only this machine
/// can reach.
const TOKEN: &str = "abcdef.0123456789abcdef";
const CERTIFICATE_KEY: &str = "e6a2eb8581237ab72a4f494f30285ec12a9694d750b9785706a83bfcbbbd2204";

/// Makes the cluster on the booted hosts of `set` and fetches the kubeconfig.
pub(crate) fn make(set: &Set) -> Result<()> {
    let first = set.host("cp1")?;
    let endpoint = match set.kind {
        Kind::Kubeadm3 => set.host("lb")?.ip,
        Kind::Kubeadm1 | Kind::Systemd1 => first.ip,
    };
    let endpoint = format!("{endpoint}:6443");
    if set.kind == Kind::Kubeadm3 {
        load_balancer(set)?;
    }
    prepare(first, &configuration(first, &endpoint)?)?;
    first
        .exec_ok(&[
            "kubeadm",
            "init",
            "--config=/etc/kubeadm.yaml",
            "--skip-phases=preflight,addon",
            "--upload-certs",
        ])
        .context("kubeadm init")?;
    let admin = first.read("/etc/kubernetes/admin.conf")?;
    fs::write(set.admin_kubeconfig(), admin).context("cannot write the kubeconfig")?;
    for host in set.hosts().iter().filter(|host| host.name != "cp1" && host.name != "lb") {
        prepare(host, &configuration(host, &endpoint)?)?;
        host.exec_ok(&["kubeadm", "join", "--config=/etc/kubeadm.yaml", "--ignore-preflight-errors=all"])
            .context("kubeadm join")?;
    }
    Ok(())
}

/// Waits for the host's containerd, gives it its configuration and enables its kubelet.
pub(crate) fn prepare(host: &Host, configuration: &str) -> Result<()> {
    host.write("/etc/kubeadm.yaml", configuration)?;
    cmd::wait_for(&format!("containerd on {}", host.name), Duration::from_secs(60), || {
        host.exec_ok(&["ctr", "version"]).map(Some)
    })?;
    host.exec_ok(&["systemctl", "enable", "kubelet.service"])?;
    Ok(())
}

/// kubeadm's configuration file for one host: all kinds in one, each command takes those it needs.
pub(crate) fn configuration(host: &Host, endpoint: &str) -> Result<String> {
    let control_plane = if host.name.starts_with("cp") {
        format!(
            "controlPlane:\n  localAPIEndpoint: {{advertiseAddress: {}, bindPort: 6443}}\n  certificateKey: {CERTIFICATE_KEY}",
            host.ip
        )
    } else {
        String::new()
    };
    Ok(include_str!("../files/kubeadm.yaml")
        .replace("@NAME@", &host.name)
        .replace("@IP@", &host.ip.to_string())
        .replace("@ENDPOINT@", endpoint)
        .replace("@TOKEN@", TOKEN)
        .replace("@CERTIFICATE_KEY@", CERTIFICATE_KEY)
        .replace("@CONTROL_PLANE@", &control_plane)
        .replace("@VERSION@", &components::kubernetes()?.version)
        .replace("@ETCD_TAG@", &image::etcd_tag()?))
}

/// haproxy on `lb`, in TCP mode, with health checks against `/readyz` of each API server.
fn load_balancer(set: &Set) -> Result<()> {
    let mut config = include_str!("../files/haproxy.cfg").to_owned();
    for host in set.control_planes() {
        config += &format!("    server {} {}:6443 check\n", host.name, host.ip);
    }
    let lb = set.host("lb")?;
    lb.write("/etc/haproxy/haproxy.cfg", config)?;
    lb.script("systemctl disable --now containerd; systemctl enable haproxy; systemctl restart haproxy")?;
    Ok(())
}
