//! The control plane: something stopped.

use super::{Chapter, UNDO, verify_all};
use crate::by_hand;
use crate::site::{ControlPlane, Site, quoted};

pub(super) fn stopped(site: &Site<'_>) -> Chapter {
    let mut by_hand: Vec<(String, String)> = Vec::new();
    let pods = site.hosts.iter().find(|host| !host.is_units);
    if pods.is_some() || site.hosts.is_empty() {
        by_hand = vec![
            (
                "On the host that does not work:".into(),
                "systemctl status --no-pager containerd kubelet\njournalctl -n 50 --no-pager -u kubelet\ncrictl ps -a\n".into(),
            ),
            ("What is just stopped is started:".into(), "systemctl start containerd kubelet\n".into()),
        ];
    }
    by_hand.extend(by_units(site));
    if let Some(host) = pods {
        by_hand.push(manifest_back(site, host));
    }
    let (looks, back) = if site.is_units() {
        (
            "a unit is `inactive` or `failed`, or is started again and again after a change",
            "Nothing was restored. What a run started or changed it takes back:",
        )
    } else {
        (
            "the kubelet is not running, a manifest is missing, a container is in `CrashLoopBackOff` after a change",
            "Nothing was restored. A manifest that was put back has its predecessor beside the run:",
        )
    };
    let hosts = site.host_flags();
    Chapter {
        title: "Something is stopped",
        looks: vec![
            "`connection refused` on one or all API servers, and the data of etcd is there".into(),
            looks.into(),
        ],
        rekindle: format!("rekindle check{hosts}\nrekindle recover{hosts}\n"),
        by_hand,
        verify: verify_all(site),
        back: vec![(back.into(), UNDO.into())],
    }
}

/// What to look at and to start where units run the control plane; once for all hosts whose units have the same names.
fn by_units(site: &Site<'_>) -> Vec<(String, String)> {
    let mut told: Vec<(Vec<String>, Vec<&ControlPlane<'_>>)> = Vec::new();
    for host in site.by_units() {
        let units = host.units();
        match told.iter_mut().find(|(known, _)| *known == units) {
            Some((_, hosts)) => hosts.push(host),
            None => told.push((units, vec![host])),
        }
    }
    let mut blocks = Vec::new();
    let one = told.len() == 1 && site.is_units();
    for (units, hosts) in told {
        let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
        let place = if one { String::new() } else { format!(" ({})", names.join(", ")) };
        let logs: String = units.iter().take(2).map(|unit| format!(" -u {unit}")).collect();
        blocks.push((
            format!("On the host that does not work{place}:"),
            format!("systemctl status --no-pager {}\njournalctl -n 50 --no-pager{logs}\n", units.join(" ")),
        ));
        let start = hosts.first().map(|host| by_hand::start(host)).unwrap_or_default();
        blocks.push((format!("What is just stopped is started{place}:"), start));
    }
    blocks
}

fn manifest_back(site: &Site<'_>, host: &ControlPlane<'_>) -> (String, String) {
    let dir = quoted(&host.facts.manifest_dir.to_string());
    (
        "A manifest that is missing or wrong comes back from its last good copy; kubeadm keeps some, and makes them anew:".into(),
        format!(
            "find {dir} {0} /etc/kubernetes/tmp -name '*.yaml' -ls 2>/dev/null || true\n\
             # KUBEADM_CONFIG: the file that this host was made with; its settings also lie in the cluster, while an API server answers:\n\
             # {1} get configmap kubeadm-config -n kube-system -o jsonpath='{{.data.ClusterConfiguration}}'\n\
             kubeadm init phase control-plane apiserver --config KUBEADM_CONFIG\n",
            by_hand::ASIDE,
            site.kubectl()
        ),
    )
}
