//! What is in the cluster: nodes, what is stuck, what was deleted.

use super::{Chapter, verify_all};
use crate::site::{Site, quoted};

/// How `drill run` takes one object out of a backup.
fn take_out() -> String {
    format!("kubectl get deployment web -n shop -o yaml | {ANEW} > /root/web.yaml")
}

/// Takes off an object what only the one it was read from can have: an API server refuses to apply it otherwise.
const ANEW: &str = "sed -E \"/^metadata:/,/^[^ ]/{/^  (uid|resourceVersion|generation|creationTimestamp|deletion[A-Za-z]+):/d}\"";

/// What kubectl does with an object of which everything is to be as it says.
const APPLY: &str = "apply --server-side --force-conflicts -f";

/// The same by hand: a sandbox of stock tools. What is started in it ends with it.
fn look(kubectl: &str) -> String {
    format!(
        "mkdir -p -m 700 /root/look && cd /root/look\n\
         etcdutl snapshot restore /backup/snapshot.db --data-dir etcd\n\
         openssl genrsa -out sa.key 2048 && echo look,look,look,system:masters > tokens\n\
         unshare --net --pid --fork sh -eu <<'END'\n\
         ip link set lo up\n\
         etcd --data-dir etcd > etcd.log 2>&1 &\n\
         kube-apiserver --etcd-servers=http://127.0.0.1:2379 --cert-dir=certs --bind-address=127.0.0.1 \\\n  \
         --advertise-address=127.0.0.1 --endpoint-reconciler-type=none --authorization-mode=AlwaysAllow --token-auth-file=tokens \\\n  \
         --service-account-issuer=https://look --service-account-key-file=sa.key --service-account-signing-key-file=sa.key \\\n  \
         --service-cluster-ip-range=10.96.0.0/16 > apiserver.log 2>&1 &\n\
         look() {{ kubectl --kubeconfig=/dev/null --server=https://127.0.0.1:6443 --insecure-skip-tls-verify --token=look \"$@\"; }}\n\
         for try in $(seq 120); do look get --raw /readyz && break; sleep 1; done\n\
         look get deployment web -n shop -o yaml | {ANEW} > web.yaml\n\
         END\n\
         {kubectl} {APPLY} web.yaml\n"
    )
}

pub(super) fn node_lost(site: &Site<'_>) -> Chapter {
    // never the name of a node: the one that is lost is not known yet, and these commands take a node out of service
    let (node, kubectl) = ("NODE", site.kubectl());
    let (proof, off) = match &site.notes.fence_command {
        Some(words) => {
            let line =
                |words: Vec<String>| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
            let by_hand = line(words.iter().map(|word| word.replace("{node}", node)).collect());
            (format!("--fence-command {}", quoted(&line(words.clone()))), format!("{by_hand} &&\n"))
        }
        None => ("--attest-off".into(), String::new()),
    };
    let mut back = vec![(
        "A node that is well again takes pods again:".into(),
        format!("rekindle node fence --release {node}\nrekindle node uncordon {node}\n"),
    )];
    back.push(if site.is_units() {
        let text = "A node that was removed joins anew when its kubelet starts, with the certificate that it has. On it:";
        (text.into(), "systemctl restart kubelet\n".into())
    } else {
        let join = "kubeadm token create --print-join-command      # on a control-plane host\n";
        ("A node that was removed joins anew:".into(), join.into())
    });
    Chapter {
        title: "A node is lost",
        looks: vec![
            "`NotReady` or `Unknown`; its pods stay `Terminating`".into(),
            "more than half of the nodes at once are no lost nodes: look for what they share (API, network, clock)".into(),
        ],
        rekindle: format!(
            "rekindle node list\n\
             # its host is off for certain: it is fenced, so that its pods and volumes move\n\
             rekindle node fence {node} {proof} --dry-run\nrekindle node fence {node} {proof}\n\
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
                    "{off}{kubectl} cordon {node} &&\n\
                     {kubectl} taint node {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute\n\
                     {kubectl} get pods -A -o wide --field-selector spec.nodeName={node}\n"
                ),
            ),
            (
                "When it is back, and nothing of its old pods runs on it:".into(),
                format!("{kubectl} taint node {node} node.kubernetes.io/out-of-service-\n{kubectl} uncordon {node}\n"),
            ),
            ("When it does not come back:".into(), format!("{kubectl} delete node {node}\n")),
        ],
        verify: verify_all(site),
        back,
    }
}

pub(super) fn stuck(site: &Site<'_>) -> Chapter {
    let kubectl = site.kubectl();
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
                    "{kubectl} get apiservices | grep -v True\n\
                     {kubectl} get validatingwebhookconfigurations,mutatingwebhookconfigurations\n\
                     {kubectl} get namespace NAMESPACE -o jsonpath='{{.status.conditions}}'\n\
                     {kubectl} api-resources --verbs=list --namespaced -o name | \
                     xargs -n 1 {kubectl} get -n NAMESPACE --ignore-not-found -o name\n"
                ),
            ),
            (
                "Bring the controller or the backend back. Only if that is impossible: save the object, then take the one finalizer \
                 that nobody serves any more."
                    .into(),
                format!(
                    "{kubectl} get KIND NAME -n NAMESPACE -o yaml > saved.yaml\n\
                     {kubectl} patch KIND NAME -n NAMESPACE --type=json \
                     -p='[{{\"op\":\"test\",\"path\":\"/metadata/finalizers/0\",\"value\":\"FINALIZER\"}},\
                     {{\"op\":\"remove\",\"path\":\"/metadata/finalizers/0\"}}]'\n"
                ),
            ),
        ],
        verify: format!("{kubectl} get namespaces,crd | grep Terminating\n{}", verify_all(site)),
        back: vec![(
            "What was taken away comes back from what was saved, into its namespace, which must be there again:".into(),
            format!("{ANEW} saved.yaml | {kubectl} {APPLY} -\n"),
        )],
    }
}

pub(super) fn object_lost(site: &Site<'_>) -> Chapter {
    let (backup, key, take_out) = (site.backup_flags(), "/registry/deployments/shop/web", take_out());
    let kubectl = site.kubectl();
    let rekindle = if site.notes.vault.is_some() {
        format!(
            "# one object (here Deployment web of namespace shop): the state just before its deletion is booted in a sandbox, and the\n\
             # object read there; etcd and kube-apiserver are those that run on this host\n\
             rekindle drill run{backup} --before-delete-of {key} --check-command '{take_out}'\n\
             {kubectl} {APPLY} /root/web.yaml\n\
             # everything, back to just before it: also all other changes since are undone\n\
             rekindle recover{}{backup} --before-delete-of {key} --dry-run\n",
            site.host_flags()
        )
    } else {
        format!(
            "# one object (here Deployment web of namespace shop): the snapshot is booted in a sandbox, and the object read there\n\
             rekindle drill run{backup} --check-command '{take_out}'\n\
             {kubectl} {APPLY} /root/web.yaml\n"
        )
    };
    Chapter {
        title: "An object is lost",
        looks: vec!["somebody or something deleted or changed objects; the cluster itself is well".into()],
        rekindle,
        by_hand: vec![(
            "With the binaries of etcd and kube-apiserver in the cluster's versions, as root, best on another machine. The snapshot is \
             restored into a folder and booted where there is no network but its own, so that it can't reach the cluster's webhooks or \
             nodes. Where data is encrypted at rest the API server needs its `--encryption-provider-config`, too:"
                .into(),
            look(&kubectl),
        )],
        verify: format!("{kubectl} get deployment web -n shop\n"),
        back: vec![(
            "Save what is there before you overwrite it:".into(),
            format!("{kubectl} get deployment web -n shop -o yaml > before.yaml\n"),
        )],
    }
}
