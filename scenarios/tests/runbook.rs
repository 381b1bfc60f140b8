//! The runbook's commands by hand, pasted into a root shell of a real kubeadm host as they are printed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use scenarios::Cluster;
use testbed::components::etcd_line;
use testbed::set::Kind;

/// The blocks of commands of a chapter's section that follow `from`.
fn commands(book: &str, chapter: &str, section: &str, from: &str) -> Vec<String> {
    let part = |text: &str, heading: &str, level: &str| {
        let start = text.find(&format!("\n{level} {heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
        let rest = text[start + 1..].split_once('\n').unwrap().1;
        rest.split(&format!("\n{level} ")).next().unwrap().to_owned()
    };
    let section = part(&part(book, chapter, "##"), section, "###");
    let after = section.split_once(from).unwrap_or_else(|| panic!("no {from:?} in {section}")).1;
    let blocks = after.split("```console\n").skip(1).map(|block| block.split("```").next().unwrap());
    let blocks: Vec<String> = blocks.map(str::to_owned).collect();
    assert!(!blocks.is_empty(), "no commands: {section}");
    blocks
}

/// Into a root shell of the host, as it stands.
fn paste(cluster: &Cluster, script: &str) {
    let said = cluster.set.host("cp1").unwrap().exec(&["sh", "-euc", script]).unwrap();
    assert!(said.status.success(), "{script}\n{}", String::from_utf8_lossy(&said.stderr));
}

// Nobody has Rekindle at hand but a printed runbook. The chapter on lost data brings the snapshot back, and its way back brings
// back what was there before. Then all certificates are renewed by hand, and the new ones are served.
#[test]
fn a_cluster_is_restored_and_renewed_by_hand() {
    let cluster = Cluster::load(Kind::Kubeadm1).unwrap();
    let host = cluster.set.host("cp1").unwrap();
    let etcd = etcd_line("3.6").unwrap();
    for (tool, name) in [(&etcd.etcdctl, "etcdctl"), (&etcd.etcdutl, "etcdutl")] {
        host.push(tool, &format!("/usr/local/bin/{name}")).unwrap();
    }
    cluster.mark("early").unwrap();
    cluster.snapshot("cp1", "/backup/snapshot.db").unwrap();
    cluster.mark("late").unwrap();
    let book = cluster.on("cp1", &["runbook"]).unwrap().expect(0).unwrap().stdout;

    paste(&cluster, &commands(&book, "The data of etcd is lost", "By hand", "").concat());
    cluster.assert_works("restored").unwrap();
    assert!(cluster.has_mark("early").unwrap());
    assert!(!cluster.has_mark("late").unwrap(), "the snapshot was not restored");

    paste(&cluster, &commands(&book, "The data of etcd is lost", "Go back", "By hand").concat());
    cluster.assert_works("back").unwrap();
    assert!(cluster.has_mark("late").unwrap(), "what was there before did not come back");
    assert!(!cluster.has_mark("restored").unwrap());

    let ends = || {
        let served =
            "echo | openssl s_client -connect 127.0.0.1:6443 2>/dev/null | openssl x509 -noout -serial";
        host.script(served).unwrap()
    };
    let before = ends();
    let renew = commands(&book, "Certificates have expired", "By hand", "one host after the other");
    paste(&cluster, &renew[0]);
    std::fs::write(cluster.set.admin_kubeconfig(), host.read("/etc/kubernetes/admin.conf").unwrap()).unwrap();
    cluster.assert_works("renewed").unwrap();
    assert_ne!(before, ends(), "the old certificate is served");
    paste(&cluster, &renew[1].replace("NODE", "cp1"));
    cluster.assert_works("kubelet").unwrap();
    assert!(cluster.has_mark("late").unwrap());
}
