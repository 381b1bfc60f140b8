//! The control plane: something stopped, certificates expired.

use super::{Chapter, KUBECTL, UNDO, verify_all};
use crate::by_hand;
use crate::site::{ControlPlane, Site, quoted};
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
                "find {dir} {0} /etc/kubernetes/tmp -name '*.yaml' -ls 2>/dev/null || true\n\
                 # KUBEADM_CONFIG: the file that this host was made with; its settings also lie in the cluster, while an API server answers:\n\
                 # {KUBECTL} get configmap kubeadm-config -n kube-system -o jsonpath='{{.data.ClusterConfiguration}}'\n\
                 kubeadm init phase control-plane apiserver --config KUBEADM_CONFIG\n",
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
            UNDO.into(),
        )],
    }
}

/// What `/etc/kubernetes` was before its certificates were renewed by hand.
const BEFORE: &str = "/etc/kubernetes.before-renewal";

pub(super) fn certificates(site: &Site<'_>) -> Chapter {
    let mut by_hand: Vec<(String, String)> = Vec::new();
    for host in &site.hosts {
        let restart = format!("{}{}", by_hand::stop(host), by_hand::start(host));
        let (what, renew) = if host.is_units() {
            let files = certificates_of(host).join(" ");
            let look = format!(
                "for file in {files}; do openssl x509 -noout -subject -enddate -in \"$file\"; done\n"
            );
            ("make those that have expired anew with the CA that made them, under the same names:", look)
        } else {
            // the copy of a renewal of long ago is none of what is there now
            let renew = format!(
                "[ -z \"$(find {BEFORE} -maxdepth 0 -ctime +0 2>/dev/null)\" ] || mv -T {BEFORE} {BEFORE}.$(date +%s)\n\
                 [ -e {BEFORE} ] || cp -a /etc/kubernetes {BEFORE}\n\
                 kubeadm certs check-expiration\nkubeadm certs renew all\n"
            );
            ("one host after the other:", renew)
        };
        by_hand.push((format!("On {}, {what}", host.place()), format!("{renew}{restart}")));
    }
    if !site.has_units() {
        by_hand.push((
            "Where the kubelet's own client certificate has expired, too, on that node, with the files of a control-plane host:".into(),
            "kubeadm kubeconfig user --org system:nodes --client-name system:node:NODE > kubelet.conf &&\n\
             mv -n /etc/kubernetes/kubelet.conf /etc/kubernetes/kubelet.conf.old && mv -n kubelet.conf /etc/kubernetes/ &&\n\
             systemctl restart kubelet\n"
                .into(),
        ));
    }
    let hosts = site.host_flags();
    let rekindle = if site.has_units() {
        format!("rekindle certs check{hosts}\n")
    } else {
        format!(
            "rekindle certs check{hosts}\nrekindle certs renew --all{hosts} --dry-run\nrekindle certs renew --all{hosts}\n"
        )
    };
    let check = if site.has_units() { "" } else { "kubeadm certs check-expiration\n" };
    let back = site.hosts.iter().map(|host| {
        if host.is_units() {
            return ("The old files come back under their names, and the units are restarted.".into(), String::new());
        }
        // containers hold the folder that they were started with: they see the old one when they are started anew
        let restart = format!("{}{}", by_hand::stop(host), by_hand::start(host));
        (
            format!("By hand, on {}; only what was renewed by hand has this copy:", host.place()),
            format!(
                "if [ -d {BEFORE} ] && mv -T /etc/kubernetes /etc/kubernetes.renewed && mv -T {BEFORE} /etc/kubernetes; then\n\
                 systemctl restart kubelet\n{restart}else echo nothing to go back to; fi\n"
            ),
        )
    });
    let undo = ("With Rekindle:".to_owned(), UNDO.to_owned());
    Chapter {
        title: "Certificates have expired",
        looks: vec![
            "`x509: certificate has expired or is not yet valid`".into(),
            "the cluster was off for long, or nobody upgraded it for a year".into(),
        ],
        rekindle,
        by_hand,
        verify: format!("{check}{}", verify_all(site)),
        back: [undo].into_iter().chain(back).collect(),
    }
}

/// The certificates that the units' command lines name.
fn certificates_of(host: &ControlPlane<'_>) -> Vec<String> {
    let commands = Component::ALL.iter().filter_map(|component| host.facts.unit(component.name()));
    let words = commands.flat_map(|unit| unit.exec_start.iter());
    let named = words.filter_map(|word| word.split_once('=')).filter(|(_, value)| value.ends_with(".crt"));
    let mut files: Vec<String> = named.map(|(_, value)| quoted(value)).collect();
    files.sort();
    files.dedup();
    files
}
