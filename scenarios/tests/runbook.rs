//! The runbook's commands by hand, pasted into a root shell of a real kubeadm host as they are printed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use scenarios::{Cluster, REKINDLE, STOP_ALL, THREE, identity};
use serde_json::Value;
use testbed::components::etcd_line;
use testbed::markdown::commands;
use testbed::set::Kind;

/// Into a root shell of the host, as it stands. A person would wait, and see what is waited for; a test says it.
fn paste(cluster: &Cluster, host: &str, script: &str) {
    let said = cluster.set.host(host).unwrap().exec(&["timeout", "400", "sh", "-euc", script]).unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    let last: Vec<&str> = stdout.lines().rev().take(20).collect();
    assert!(said.status.success(), "{}: {script}\n{stderr}\nlast lines first: {last:#?}", said.status);
}

/// What the runbook says is to be there before it happens.
fn give_tools(cluster: &Cluster, host: &str) {
    let etcd = etcd_line("3.6").unwrap();
    for (tool, name) in [(&etcd.etcdctl, "etcdctl"), (&etcd.etcdutl, "etcdutl")] {
        cluster.set.host(host).unwrap().push(tool, &format!("/usr/local/bin/{name}")).unwrap();
    }
}

// Nobody has Rekindle at hand but a printed runbook. The chapter on lost data brings the snapshot back, and its way back brings
// back what was there before. Then all certificates are renewed by hand, and the new ones are served.
#[test]
fn a_cluster_is_restored_and_renewed_by_hand() {
    let cluster = Cluster::load(Kind::Kubeadm1).unwrap();
    let host = cluster.set.host("cp1").unwrap();
    give_tools(&cluster, "cp1");
    cluster.mark("early").unwrap();
    cluster.snapshot("cp1", "/backup/snapshot.db").unwrap();
    cluster.mark("late").unwrap();
    let book = cluster.on("cp1", &["runbook"]).unwrap().expect(0).unwrap().stdout;

    paste(&cluster, "cp1", &commands(&book, "The data of etcd is lost", "By hand").unwrap().concat());
    cluster.assert_works("restored").unwrap();
    assert!(cluster.has_mark("early").unwrap());
    assert!(!cluster.has_mark("late").unwrap(), "the snapshot was not restored");

    paste(&cluster, "cp1", &commands(&book, "The data of etcd is lost", "Go back").unwrap()[1..].concat());
    cluster.assert_works("back").unwrap();
    assert!(cluster.has_mark("late").unwrap(), "what was there before did not come back");
    assert!(!cluster.has_mark("restored").unwrap());

    let ends = || {
        let served =
            "echo | openssl s_client -connect 127.0.0.1:6443 2>/dev/null | openssl x509 -noout -serial";
        host.script(served).unwrap()
    };
    let before = ends();
    let renew = commands(&book, "Certificates have expired", "By hand").unwrap();
    paste(&cluster, "cp1", &renew[0]);
    std::fs::write(cluster.set.admin_kubeconfig(), host.read("/etc/kubernetes/admin.conf").unwrap()).unwrap();
    cluster.assert_works("renewed").unwrap();
    assert_ne!(before, ends(), "the old certificate is served");
    paste(&cluster, "cp1", &renew[1].replace("NODE", "cp1"));
    cluster.assert_works("kubelet").unwrap();
    assert!(cluster.has_mark("late").unwrap());

    let back = commands(&book, "Certificates have expired", "Go back").unwrap();
    paste(&cluster, "cp1", &back[1]);
    cluster.assert_works("not-renewed").unwrap();
    assert_eq!(before, ends(), "the new certificate is served still");

    // last, somebody moves the API server's manifest away and stops the kubelet
    cluster.fault("cp1", "systemctl stop kubelet; rm /etc/kubernetes/manifests/kube-apiserver.yaml").unwrap();
    let start = commands(&book, "Something is stopped", "By hand").unwrap();
    paste(&cluster, "cp1", &start[1]);
    paste(&cluster, "cp1", &start[2].replace("KUBEADM_CONFIG", "/etc/kubeadm.yaml"));
    cluster.assert_works("started").unwrap();
}

// One of three members loses its disk. The chapter's commands, each on the host that it names, take the old member out and
// bring a learner in that votes in the end, and gets what is written.
#[test]
fn a_member_is_replaced_by_hand() {
    let cluster = Cluster::load(Kind::Kubeadm3).unwrap();
    cluster.mark("early").unwrap();
    let book = cluster.from_outside("runbook", &THREE, &[]).unwrap().expect(0).unwrap().stdout;
    cluster
        .fault("cp2", &format!("{STOP_ALL}; rm -rf /var/lib/etcd/member; systemctl start kubelet"))
        .unwrap();
    // it may have been the leader: a write fails until there is another, or is done and not answered
    testbed::cmd::wait_for("a write without the member", std::time::Duration::from_secs(60), || {
        Ok((cluster.mark("meanwhile").is_ok() || cluster.has_mark("meanwhile")?).then_some(()))
    })
    .unwrap();
    // each block stands below a line that names its host
    let steps = book.split("The member of cp2 is lost, ").skip(1);
    let steps: Vec<&str> = steps.map(|step| step.split("\n```\n").next().unwrap()).collect();
    assert_eq!(steps.len(), 4, "{steps:?}");
    for step in steps {
        let on = THREE.iter().find(|host| step[3..].starts_with(&format!("on {host} "))).unwrap();
        give_tools(&cluster, on);
        paste(&cluster, on, step.split_once("```console\n").unwrap().1);
    }
    cluster.assert_works("replaced").unwrap();
    assert!(cluster.has_mark("early").unwrap() && cluster.has_mark("meanwhile").unwrap());
    let members = cluster.etcdctl("cp1", &["member", "list", "-w", "json"]).unwrap();
    let members = members["members"].as_array().unwrap();
    assert_eq!(members.len(), 3, "{members:?}");
    assert!(members.iter().all(|member| member.get("isLearner").is_none()), "{members:?}");
    cluster.mark_reaching("cp2", "after").unwrap();
}

// A host's disks are gone; the vault and the identity are elsewhere. On a new host of the same name the bundle is unpacked
// as the runbook says, once followed by Rekindle, once by the commands by hand: both bring back what the vault holds.
#[test]
fn everything_is_gone_and_comes_back_from_the_vault() {
    let cluster = Cluster::load(Kind::Kubeadm1).unwrap();
    let host = cluster.set.host("cp1").unwrap();
    give_tools(&cluster, "cp1");
    host.push(&testbed::components::age().unwrap().path("age"), "/usr/local/bin/age").unwrap();
    // the hosts are of the same Debian as this machine
    assert!(testbed::needs::has("zstd"), "zstd is missing: apt-get install zstd");
    host.push("/usr/bin/zstd".into(), "/usr/local/bin/zstd").unwrap();
    let (secret, recipient) = identity().unwrap();
    host.script("mkdir -p /srv/vault /backup").unwrap();
    host.write("/root/identity.txt", secret).unwrap();
    let keys =
        ["--vault", "/srv/vault", "--signing-key", "/srv/sign.key", "--recipient", &recipient, "-o", "json"];
    let backup = |words: &[&str]| {
        let called = cluster.on("cp1", &[&["backup"], words, &keys[..]].concat()).unwrap().expect(0).unwrap();
        called.json().unwrap()
    };
    let signer = backup(&["init", "--identity", "/root/identity.txt"])["signer"].as_str().unwrap().to_owned();
    cluster.mark("early").unwrap();
    let part =
        |report: Value| format!("/srv/vault/prod/{}", report["manifest"]["part"]["name"].as_str().unwrap());
    let full = part(backup(&["run", "--cluster", "prod"]));
    let bundle = part(backup(&["bundle", "--cluster", "prod"]));
    let config = format!(
        "vault: /srv/vault\ncluster: prod\nsigningKey: /srv/sign.key\nrecipients: [{recipient}]\ntrustedSigners: ['{signer}']\n"
    );
    host.write("/srv/agent.yaml", config).unwrap();
    let book =
        cluster.on("cp1", &["runbook", "--config", "/srv/agent.yaml"]).unwrap().expect(0).unwrap().stdout;
    let chapter = |title: &str, section: &str| commands(&book, title, section).unwrap();
    let gone = format!(
        "{STOP_ALL}; systemctl disable kubelet; rm -rf /etc/kubernetes /var/lib/etcd /var/lib/kubelet/pki \
         /var/lib/kubelet/config.yaml /var/lib/kubelet/kubeadm-flags.env /var/lib/rekindle"
    );
    let unpack = format!("cd /root; BUNDLE={bundle}\n{}", chapter("Everything is gone", "By hand")[0]);
    let enable = &chapter("Everything is gone", "By hand")[1];

    cluster.fault("cp1", &gone).unwrap();
    paste(&cluster, "cp1", &unpack);
    let recover = chapter("Everything is gone", "With Rekindle").concat();
    let recover = recover.lines().find(|line| line.starts_with("rekindle recover")).unwrap();
    paste(&cluster, "cp1", &format!("cd /root\n{} --yes", recover.replace("rekindle", REKINDLE)));
    cluster.assert_works("recovered").unwrap();
    assert!(cluster.has_mark("early").unwrap());

    cluster.fault("cp1", &gone).unwrap();
    paste(&cluster, "cp1", &unpack);
    let mut by_hand = chapter("The data of etcd is lost", "By hand");
    by_hand[0] = format!("cd /root; PART={full}\n{}", by_hand[0]);
    paste(&cluster, "cp1", &(by_hand.concat() + enable));
    cluster.assert_works("by-hand").unwrap();
    assert!(cluster.has_mark("early").unwrap());
    assert!(!cluster.has_mark("recovered").unwrap(), "the vault was not restored");
}
