//! The control plane: something stopped, certificates expired.

use super::{Chapter, verify_all};
use crate::by_hand;
use crate::site::{Site, quoted};
use rekindle_model::host::Component;

pub(super) fn stopped(site: &Site<'_>) -> Chapter {
    let (hosts, units) = (site.host_flags(), site.has_units());
    let look = if units {
        let units: Vec<&str> = Component::ALL.iter().map(|component| component.name()).collect();
        format!(
            "systemctl status --no-pager {}\njournalctl -n 50 --no-pager -u etcd -u kube-apiserver\n",
            units.join(" ")
        )
    } else {
        "systemctl status --no-pager containerd kubelet\njournalctl -n 50 --no-pager -u kubelet\ncrictl ps -a\n".into()
    };
    let start = if units {
        site.hosts.first().map(by_hand::start).unwrap_or_default()
    } else {
        "systemctl start containerd kubelet\n".into()
    };
    let mut by_hand = vec![
        ("On the host that does not work:".into(), look),
        ("What is just stopped is started:".into(), start),
    ];
    if let Some(host) = site.hosts.iter().find(|host| !host.is_units()) {
        let dir = quoted(&host.facts.manifest_dir.to_string());
        by_hand.push((
            "A manifest that is missing or wrong comes back from its last good copy; kubeadm keeps some, and makes them anew:".into(),
            format!(
                "ls -l {dir} {0} /etc/kubernetes/tmp\nkubeadm init phase control-plane apiserver --config KUBEADM_CONFIG\n",
                by_hand::ASIDE
            ),
        ));
    }
    Chapter {
        title: "Something is stopped",
        looks: vec![
            "`connection refused` on one or all API servers, and the data of etcd is there".into(),
            "the kubelet is not running, a manifest is missing, a container is in `CrashLoopBackOff` after a change".into(),
        ],
        rekindle: format!("rekindle check{hosts}\nrekindle recover{hosts}\n"),
        by_hand,
        verify: verify_all(site),
        back: vec![(
            "Nothing was restored. A manifest that was put back has its predecessor beside the run:".into(),
            "rekindle runs\nrekindle runs undo RUN\n".into(),
        )],
    }
}

pub(super) fn certificates(site: &Site<'_>) -> Chapter {
    let mut by_hand: Vec<(String, String)> = Vec::new();
    for host in &site.hosts {
        let renew = "cp -a /etc/kubernetes /etc/kubernetes.before-renewal\nkubeadm certs check-expiration\nkubeadm certs renew all\n";
        let restart = format!("{}{}", by_hand::stop(host), by_hand::start(host));
        by_hand
            .push((format!("On {}, one host after the other:", host.place()), format!("{renew}{restart}")));
    }
    by_hand.push((
        "Where the kubelet's own client certificate has expired, too, on that node, with the files of a control-plane host:".into(),
        "kubeadm kubeconfig user --org system:nodes --client-name system:node:NODE > kubelet.conf\n\
         mv /etc/kubernetes/kubelet.conf /etc/kubernetes/kubelet.conf.old && mv kubelet.conf /etc/kubernetes/\n\
         systemctl restart kubelet\n"
            .into(),
    ));
    Chapter {
        title: "Certificates have expired",
        looks: vec![
            "`x509: certificate has expired or is not yet valid`".into(),
            "the cluster was off for long, or nobody upgraded it for a year".into(),
        ],
        rekindle: format!("rekindle check{}\n", site.host_flags()),
        by_hand,
        verify: format!("kubeadm certs check-expiration\n{}", verify_all(site)),
        back: vec![(
            String::new(),
            "mv /etc/kubernetes /etc/kubernetes.renewed && mv /etc/kubernetes.before-renewal /etc/kubernetes\n".into(),
        )],
    }
}
