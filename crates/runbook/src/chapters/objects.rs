//! What is in the cluster: nodes, what is stuck, what was deleted.

use super::{Chapter, KUBECTL, verify_all};
use crate::site::{Site, quoted};

/// How `drill run` takes one object out of a backup.
const TAKE_OUT: &str = "kubectl get deployment web -n shop -o yaml > /root/web.yaml";

pub(super) fn node_lost(site: &Site<'_>) -> Chapter {
    let workers = site.workers();
    let node = workers.first().map_or("NODE".to_owned(), |node| quoted(&node.name));
    let mut back = vec![(
        "A node that is well again takes pods again:".into(),
        format!("rekindle node fence --release {node}\nrekindle node uncordon {node}\n"),
    )];
    back.push((
        "A node that was removed joins anew:".into(),
        "kubeadm token create --print-join-command      # on a control-plane host\n".into(),
    ));
    Chapter {
        title: "A node is lost",
        looks: vec![
            "`NotReady` or `Unknown`; its pods stay `Terminating`".into(),
            "more than half of the nodes at once are no lost nodes: look for what they share (API, network, clock)".into(),
        ],
        rekindle: format!(
            "rekindle node list\n\
             # its host is off for certain: it is fenced, so that its pods and volumes move\n\
             rekindle node fence {node} --attest-off --dry-run\nrekindle node fence {node} --attest-off\n\
             # it never comes back\nrekindle node remove {node} --dry-run\nrekindle node remove {node}\n"
        ),
        by_hand: vec![
            (
                "Is it the host, the kubelet or the network? On the node, if it can be reached:".into(),
                "systemctl status --no-pager kubelet containerd\njournalctl -n 50 --no-pager -u kubelet\ndf -h /var\n".into(),
            ),
            (
                "Only when the host is off for certain: its pods and volumes move.".into(),
                format!(
                    "{KUBECTL} cordon {node}\n\
                     {KUBECTL} taint node {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute\n\
                     {KUBECTL} get pods -A -o wide --field-selector spec.nodeName={node}\n\
                     {KUBECTL} taint node {node} node.kubernetes.io/out-of-service-    # when it is back\n"
                ),
            ),
            ("When it does not come back:".into(), format!("{KUBECTL} delete node {node}\n")),
        ],
        verify: verify_all(site),
        back,
    }
}

pub(super) fn stuck(site: &Site<'_>) -> Chapter {
    Chapter {
        title: "Something is stuck",
        looks: vec![
            "a namespace, a CustomResourceDefinition or a pod stays `Terminating`".into(),
            "`failed calling webhook`, `the server is currently unable to handle the request`".into(),
        ],
        rekindle: "# all that is stuck, who holds it, and the ways out\nrekindle unstick\n\
                   rekindle unstick namespace NAMESPACE --dry-run\nrekindle unstick namespace NAMESPACE\n"
            .into(),
        by_hand: vec![
            (
                "What holds it: dead APIs and webhooks first, since they keep controllers from their work.".into(),
                format!(
                    "{KUBECTL} get apiservices | grep -v True\n\
                     {KUBECTL} get validatingwebhookconfigurations,mutatingwebhookconfigurations\n\
                     {KUBECTL} get namespace NAMESPACE -o jsonpath='{{.status.conditions}}'\n\
                     {KUBECTL} api-resources --verbs=list --namespaced -o name | \
                     xargs -n 1 {KUBECTL} get -n NAMESPACE --ignore-not-found -o name\n"
                ),
            ),
            (
                "Bring the controller or the backend back. Only if that is impossible: save the object, then take the one finalizer \
                 that nobody serves any more."
                    .into(),
                format!(
                    "{KUBECTL} get KIND NAME -n NAMESPACE -o yaml > saved.yaml\n\
                     {KUBECTL} patch KIND NAME -n NAMESPACE --type=json \
                     -p='[{{\"op\":\"test\",\"path\":\"/metadata/finalizers/0\",\"value\":\"FINALIZER\"}},\
                     {{\"op\":\"remove\",\"path\":\"/metadata/finalizers/0\"}}]'\n"
                ),
            ),
        ],
        verify: format!("{KUBECTL} get namespaces,crd | grep Terminating\n{}", verify_all(site)),
        back: vec![(
            "What was taken away comes back from what was saved:".into(),
            format!("{KUBECTL} apply --server-side -f saved.yaml\n"),
        )],
    }
}

pub(super) fn object_lost(site: &Site<'_>) -> Chapter {
    let (backup, key) = (site.backup_flags(), "/registry/deployments/shop/web");
    let rekindle = if site.notes.vault.is_some() {
        format!(
            "# one object (here Deployment web of namespace shop): the state just before its deletion is booted in a sandbox, and the\n\
             # object read there; etcd and kube-apiserver are those that run on this host\n\
             rekindle drill run{backup} --before-delete-of {key} --check-command '{TAKE_OUT}'\n\
             {KUBECTL} apply --server-side --force-conflicts -f /root/web.yaml\n\
             # everything, back to just before it: also all other changes since are undone\n\
             rekindle recover{}{backup} --before-delete-of {key} --dry-run\n",
            site.host_flags()
        )
    } else {
        format!(
            "# one object (here Deployment web of namespace shop): the snapshot is booted in a sandbox, and the object read there\n\
             rekindle drill run{backup} --check-command '{TAKE_OUT}'\n\
             {KUBECTL} apply --server-side --force-conflicts -f /root/web.yaml\n"
        )
    };
    Chapter {
        title: "An object is lost",
        looks: vec!["somebody or something deleted or changed objects; the cluster itself is well".into()],
        rekindle,
        by_hand: vec![(
            "On another machine, never on a control-plane host: the snapshot restored into a folder, an etcd and an API server booted on \
             it, then the object read from that API server:"
                .into(),
            "etcdutl snapshot restore /backup/snapshot.db --data-dir /tmp/look\netcd --data-dir /tmp/look &\n\
             etcdctl get --prefix --keys-only /registry/deployments/shop/\n"
                .into(),
        )],
        verify: format!("{KUBECTL} get deployment web -n shop\n"),
        back: vec![(
            "Save what is there before you overwrite it:".into(),
            format!("{KUBECTL} get deployment web -n shop -o yaml > before.yaml\n"),
        )],
    }
}
