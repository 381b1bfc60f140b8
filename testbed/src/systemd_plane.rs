//! A control plane of systemd units on one host: certificates, kubeconfigs and command lines by kubeadm's own
//! phases, each static pod's command then made the `ExecStart` of a unit.

use crate::{Set, cmd, kubeadm};
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

/// Counts up when what is made here changes in a way that kubeadm's configuration does not show.
pub(crate) const RECIPE: &str = "systemd 2\n";

/// Units in starting order: name, what each starts after, and its type.
const UNITS: [(&str, &str, &str); 4] = [
    ("etcd", "network.target", "notify"),
    ("kube-apiserver", "network.target etcd.service", "notify"),
    ("kube-controller-manager", "kube-apiserver.service", "exec"),
    ("kube-scheduler", "kube-apiserver.service", "exec"),
];

/// Makes the cluster on the one booted host of `set` and fetches the kubeconfig.
pub(crate) fn make(set: &Set) -> Result<()> {
    let host = set.host("cp1")?;
    kubeadm::prepare(host, &kubeadm::configuration(host, &format!("{}:6443", host.ip))?)?;
    for phase in ["certs all", "kubeconfig all", "etcd local", "control-plane all"] {
        let script = format!("kubeadm init phase {phase} --config=/etc/kubeadm.yaml");
        host.script(&script).context("a phase of kubeadm init")?;
    }
    for (name, after, kind) in UNITS {
        let manifest = format!("/etc/kubernetes/manifests/{name}.yaml");
        let text = host.read(&manifest)?;
        let unit = unit(name, after, kind, &command(&String::from_utf8_lossy(&text))?);
        host.write(&format!("/etc/systemd/system/{name}.service"), unit)?;
        fs::remove_file(host.path(&manifest)).with_context(|| format!("cannot remove {manifest}"))?;
    }
    let names: Vec<&str> = UNITS.iter().map(|(name, ..)| *name).collect();
    host.script(&format!("systemctl daemon-reload; systemctl enable --now {}", names.join(" ")))?;
    let admin = host.read("/etc/kubernetes/admin.conf")?;
    fs::write(set.admin_kubeconfig(), admin).context("cannot write the kubeconfig")?;
    cmd::wait_for("the API server", Duration::from_secs(120), || {
        host.script("kubectl --kubeconfig /etc/kubernetes/super-admin.conf get --raw /readyz").map(Some)
    })?;
    // kubeadm does this in a step of its own; without it admin.conf may do nothing
    host.script(
        "kubectl --kubeconfig /etc/kubernetes/super-admin.conf create clusterrolebinding kubeadm:cluster-admins \
         --clusterrole=cluster-admin --group=kubeadm:cluster-admins
         kubeadm init phase kubelet-start --config=/etc/kubeadm.yaml",
    )?;
    Ok(())
}

/// The command of a static pod's only container: the list under `command:` as kubeadm writes it.
fn command(manifest: &str) -> Result<Vec<&str>> {
    let lines = manifest.lines().map(str::trim).skip_while(|line| *line != "- command:").skip(1);
    let command: Vec<&str> = lines.map_while(|line| line.strip_prefix("- ")).collect();
    ensure!(command.len() > 1, "a static pod without a command");
    Ok(command)
}

fn unit(name: &str, after: &str, kind: &str, command: &[&str]) -> String {
    let mut exec = String::new();
    for (index, word) in command.iter().enumerate() {
        let _ = match index {
            0 => write!(exec, "/usr/local/bin/{word}"),
            _ => write!(exec, " \\\n  {word}"),
        };
    }
    format!(
        "[Unit]\nDescription={name} of the Kubernetes control plane\nAfter={after}\n\n\
         [Service]\nType={kind}\nExecStart={exec}\nRestart=on-failure\nRestartSec=5\nLimitNOFILE=65536\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    // The units must run exactly what kubeadm's static pods would have run.
    #[test]
    fn a_static_pod_becomes_a_unit() {
        let manifest =
            "spec:\n  containers:\n  - command:\n    - etcd\n    - --name=cp1\n    - --a=b\n    image: x\n";
        let command = command(manifest).unwrap();
        assert_eq!(command, ["etcd", "--name=cp1", "--a=b"]);
        let unit = unit("etcd", "network.target", "notify", &command);
        assert!(unit.contains("ExecStart=/usr/local/bin/etcd \\\n  --name=cp1 \\\n  --a=b\n"), "{unit}");
    }
}
