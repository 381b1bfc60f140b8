//! The runbook's commands by hand are run as they are printed, against a real etcd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use camino::{Utf8Path, Utf8PathBuf};
use common::site::rekindle;
use common::{Member, wait_for};
use rekindle_model::HostPath;
use rekindle_model::certificate::CertificatePlace;
use rekindle_model::fixtures::Fixture;
use rekindle_model::inventory::Inventory;
use rekindle_runbook::by_hand;
use rekindle_runbook::site::{Notes, Site};
use rekindle_world::Host;
use std::process::Command;
use testbed::components::{self, etcd_line};
use testbed::plane::{Options, Plane};
use testbed::ports::free_url;

/// A control plane of one host whose etcd has this data dir.
fn inventory(data: &Utf8Path, peer: &str) -> Inventory {
    let mut inventory = Fixture::systemd().build();
    let host = &mut inventory.hosts[0];
    let mut etcd = host.etcd_config.known().unwrap().clone();
    etcd.name = "default".into();
    etcd.data_dir = HostPath::from(data.to_owned());
    etcd.peer_urls = vec![peer.to_owned()];
    etcd.initial_cluster = vec![("default".into(), peer.to_owned())];
    host.etcd_live = rekindle_model::Seen::Unknown("it does not run".into());
    host.etcd_config = rekindle_model::Seen::Known(etcd);
    inventory
}

/// Into a root shell, as it stands; what it printed.
fn paste(script: &str, snapshot: &Utf8Path) -> String {
    let etcd: Utf8PathBuf = etcd_line("3.6").unwrap().etcdutl.parent().unwrap().to_owned();
    let kubernetes = components::kubernetes().unwrap().path("kubectl").parent().unwrap().to_owned();
    let path = format!("{etcd}:{kubernetes}:{}", std::env::var("PATH").unwrap());
    let shell = Command::new("sh")
        .args(["-euc", script])
        .env("PATH", path)
        .env("SNAPSHOT", snapshot)
        .output()
        .unwrap();
    assert!(shell.status.success(), "{script}\n{}", String::from_utf8_lossy(&shell.stderr));
    String::from_utf8(shell.stdout).unwrap()
}

/// The blocks of commands of a chapter's section.
fn printed(chapter: &str, section: &str) -> Vec<String> {
    let book = rekindle_runbook::runbook(&Fixture::kubeadm(1).build(), &Notes::default()).markdown();
    testbed::markdown::commands(&book, chapter, section).unwrap()
}

// An etcd loses its data. The commands that the runbook prints for it bring the snapshot back, above every revision that was
// seen; those to go back bring back what was lost. The data dir's name has a blank and a quote: nobody promised otherwise.
#[test]
fn the_commands_by_hand_restore_and_go_back() {
    let folder = tempfile::tempdir().unwrap();
    let dir = Utf8Path::from_path(folder.path()).unwrap();
    let (data, snapshot, peer) = (dir.join("it's etcd"), dir.join("snapshot.db"), free_url());
    let member = Member::boot(data.as_std_path(), &peer);
    member.try_ctl(&["put", "a", "saved"]).unwrap();
    member.try_ctl(&["snapshot", "save", snapshot.as_str()]).unwrap();
    member.try_ctl(&["put", "a", "later"]).unwrap();
    drop(member);

    let (inventory, notes) = (inventory(&data, &peer), Notes::default());
    let site = Site::new(&inventory, &notes);
    let script = by_hand::restore(&site, &site.hosts[0]).unwrap();
    let printed = rekindle_runbook::runbook(&inventory, &notes).markdown();
    assert!(printed.contains(script.trim_end()), "what is run here is what is printed");
    paste(&script, &snapshot);
    let member = Member::boot(data.as_std_path(), &peer);
    let got = member.try_ctl(&["get", "a", "-w", "json"]).unwrap();
    let got: serde_json::Value = serde_json::from_str(&got).unwrap();
    assert_eq!(got["kvs"][0]["value"], "c2F2ZWQ=", "the value `saved`");
    assert!(got["header"]["revision"].as_u64().unwrap() > 1_000_000_000);
    drop(member);

    paste(&by_hand::put_back(&site.hosts[0]).unwrap(), &snapshot);
    let member = Member::boot(data.as_std_path(), &peer);
    assert_eq!(member.try_ctl(&["get", "a", "--print-value-only"]).unwrap(), "later\n");
}

/// Makes an authority, and a certificate of it that ends tomorrow, alone and in a kubeconfig.
const ENDING: &str = "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 9 -subj /CN=kubernetes
openssl req -newkey rsa:2048 -nodes -keyout apiserver.key -out csr -subj /O=a/CN=kube-apiserver
printf 'subjectAltName=DNS:kubernetes,IP:10.0.0.1\nextendedKeyUsage=serverAuth\n' > extensions
openssl x509 -req -in csr -CA ca.crt -CAkey ca.key -set_serial 1 -days 1 -extfile extensions -out apiserver.crt
k() { kubectl config --kubeconfig admin.conf \"$@\"; }
k set-credentials other --token=x; k set-cluster c --server=https://127.0.0.1:1
k set-credentials admin --client-certificate=apiserver.crt --client-key=apiserver.key --embed-certs
k set-context c --cluster c --user admin; k use-context c
";

// Units run the control plane, its certificates end, and there is no kubeadm. The commands by hand make each anew by openssl,
// of the same authority, key and names, also when they are pasted twice; those to go back bring the old ones.
#[tokio::test]
async fn certificates_of_units_are_made_anew_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let dir = Utf8Path::from_path(folder.path()).unwrap();
    let own = |script: &str| paste(&format!("cd {dir}\n{script}"), dir);
    own(ENDING);
    let here = rekindle_world::local::LocalHost::new(rekindle_model::HostId::local(), "/");
    let here: &dyn Host = &here;
    let mut facts = here.certificates(&HostPath::from(dir.to_owned()), Vec::new()).await.unwrap();
    facts.files.retain(|file| file.path().starts_with(dir));
    let mut admin = facts.file("apiserver").unwrap().clone();
    admin.name = "admin.conf".into();
    admin.place = CertificatePlace::Kubeconfig { path: HostPath::from(dir.join("admin.conf")) };
    facts.files.push(admin);
    let mut inventory = Fixture::systemd().build();
    inventory.hosts[0].certificates = rekindle_model::Seen::Known(facts);

    let book = rekindle_runbook::runbook(&inventory, &Notes::default()).markdown();
    let blocks =
        |section: &str| testbed::markdown::commands(&book, "Certificates have expired", section).unwrap();
    let anew = &blocks("By hand")[1];
    let names = "openssl x509 -noout -subject -pubkey -ext subjectAltName,extendedKeyUsage -in";
    let before = own(&format!("{names} apiserver.crt"));
    own(anew);
    own(anew);
    let inside = "kubectl --kubeconfig admin.conf config view --raw --minify -o \
                  jsonpath={.users[0].user.client-certificate-data} | base64 -d > inside.crt";
    own(inside);
    for file in ["apiserver.crt", "inside.crt"] {
        own(&format!(
            "openssl verify -CAfile ca.crt {file}; openssl x509 -noout -checkend 30000000 -in {file}"
        ));
        assert_eq!(own(&format!("{names} {file}")), before, "{file}");
    }
    let back = &blocks("Go back")[1];
    own(back.split("systemctl").next().unwrap());
    own(&format!(
        "{inside}\nfor file in apiserver.crt inside.crt; do ! openssl x509 -noout -checkend 90000 -in $file; done"
    ));
}

// The runbook is made of what was saved, again and again the same; with the vault and the people of the configuration.
#[test]
fn a_runbook_is_made_of_what_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let dir = Utf8Path::from_path(folder.path()).unwrap();
    let (saved, out, config) = (dir.join("saved.json"), dir.join("out"), dir.join("agent.yaml"));
    std::fs::write(&saved, serde_json::to_vec(&Fixture::kubeadm(3).build()).unwrap()).unwrap();
    let text = "vault: s3://backups/prod\ncluster: prod\nsigningKey: /none\nrecipients: [age1x]\n\
                contacts: [{name: Ada, role: holds the identity, reach: '+49 30 0'}]\n";
    std::fs::write(&config, text).unwrap();
    let first =
        ["runbook", "--inventory", saved.as_str(), "--config", config.as_str(), "--out", out.as_str()];
    let made = rekindle(&first);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let again = out.join("inventory.json");
    let printed = rekindle(&["runbook", "--inventory", again.as_str(), "--config", config.as_str()]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert_eq!(printed, std::fs::read_to_string(out.join("runbook.md")).unwrap());
    assert!(
        printed.contains("| Ada | holds the identity | +49 30 0 |") && printed.contains("s3://backups/prod")
    );
    let page = std::fs::read_to_string(out.join("runbook.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("root@10.0.0.12"));
    let none = rekindle(&["runbook", "--inventory", config.as_str()]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("is no inventory"));
}

// A namespace is held by an object whose controller is gone. The commands by hand say who holds it, save it and let it go;
// those to go back bring the object back from what was saved.
#[test]
fn what_is_stuck_is_let_go_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let dir = Utf8Path::from_path(folder.path()).unwrap();
    let plane = Plane::start(dir, &Options { controllers: true, ..Options::default() }).unwrap();
    plane.kubectl(&["create", "namespace", "shop"]).unwrap();
    plane.kubectl(&["create", "configmap", "held", "-n", "shop", "--from-literal=a=b"]).unwrap();
    let hold = r#"{"metadata":{"finalizers":["example.com/cleanup"]}}"#;
    plane.kubectl(&["patch", "configmap", "held", "-n", "shop", "--type=merge", "-p", hold]).unwrap();
    plane.kubectl(&["delete", "namespace", "shop", "--wait=false"]).unwrap();
    let own = |script: &str| {
        let script = script.replace("/etc/kubernetes/admin.conf", plane.kubeconfig().as_str());
        let names = [
            ("NAMESPACE", "shop"),
            ("KIND", "configmap"),
            ("NAME", "held"),
            ("FINALIZER", "example.com/cleanup"),
        ];
        let script = names.iter().fold(script, |text, (word, name)| text.replace(word, name));
        format!("cd {dir}\n{script}")
    };
    let blocks = printed("Something is stuck", "By hand");
    wait_for("the namespace does not say what it waits for", || {
        paste(&own(&blocks[0]), dir).contains("example.com/cleanup in 1 resource instances")
    });
    assert!(paste(&own(&blocks[0]), dir).contains("configmap/held"));
    paste(&own(&blocks[1]), dir);
    wait_for("the namespace does not go", || plane.kubectl(&["get", "namespace", "shop"]).is_err());

    plane.kubectl(&["create", "namespace", "shop"]).unwrap();
    paste(&own(&printed("Something is stuck", "Go back")[0]), dir);
    let back = plane.kubectl(&["get", "configmap", "held", "-n", "shop", "-o", "json"]).unwrap();
    let back: serde_json::Value = serde_json::from_str(&back).unwrap();
    assert_eq!(
        (&back["data"]["a"], &back["metadata"]["finalizers"][0]),
        (&"b".into(), &"example.com/cleanup".into())
    );
    assert!(back["metadata"].get("deletionTimestamp").is_none());
}

// A node of no host is fenced and taken out with kubectl alone.
#[test]
fn a_lost_node_is_taken_out_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let dir = Utf8Path::from_path(folder.path()).unwrap();
    let plane = Plane::start(dir, &Options::default()).unwrap();
    let node = r#"{apiVersion: v1, kind: Node, metadata: {name: NODE}}"#.replace("NODE", "node-1");
    std::fs::write(dir.join("node.yaml"), node).unwrap();
    plane.kubectl(&["create", "-f", dir.join("node.yaml").as_str()]).unwrap();
    let own = |script: &str| {
        let script = script.replace("/etc/kubernetes/admin.conf", plane.kubeconfig().as_str());
        script.replace("NODE", "node-1")
    };
    let blocks = printed("A node is lost", "By hand");
    paste(&own(&blocks[1]), dir);
    let spec = || plane.kubectl(&["get", "node", "node-1", "-o", "jsonpath={.spec}"]).unwrap();
    let fenced = spec();
    assert!(fenced.contains("out-of-service") && fenced.contains(r#""unschedulable":true"#), "{fenced}");
    paste(&own(&blocks[2]), dir);
    let back = spec();
    assert!(!back.contains("out-of-service") && !back.contains("unschedulable"), "{back}");
    paste(&own(&blocks[3]), dir);
    assert!(plane.kubectl(&["get", "node", "node-1"]).is_err());
}

// A Deployment was changed and another was deleted. The snapshot is booted by hand where nothing but itself can be reached;
// the objects are taken out and put back with the commands of the chapter, which don't mind whether there is one.
#[test]
fn a_lost_object_is_taken_out_of_a_snapshot_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let dir = Utf8Path::from_path(folder.path()).unwrap();
    let plane = Plane::start(dir, &Options::default()).unwrap();
    plane.kubectl(&["create", "namespace", "shop"]).unwrap();
    for name in ["web", "api"] {
        plane.kubectl(&["create", "deployment", name, "-n", "shop", "--image=good:1"]).unwrap();
    }
    let snapshot = dir.join("snapshot.db");
    let mut save = Command::new(etcd_line("3.6").unwrap().etcdctl);
    save.args(["--endpoints", &plane.etcd_url, "snapshot", "save", snapshot.as_str()]);
    testbed::cmd::run(&mut save).unwrap();
    plane.kubectl(&["delete", "deployment", "web", "-n", "shop"]).unwrap();
    plane.kubectl(&["set", "image", "deployment/api", "-n", "shop", "good=bad:2"]).unwrap();

    for name in ["web", "api"] {
        let script = printed("An object is lost", "By hand")[0]
            .replace("/root/look", dir.join(name).as_str())
            .replace("/etc/kubernetes/admin.conf", plane.kubeconfig().as_str())
            .replace("/backup/snapshot.db", snapshot.as_str());
        paste(&script.replace("deployment web", &format!("deployment {name}")), dir);
        let image = "jsonpath={.spec.template.spec.containers[*].image}";
        assert_eq!(plane.kubectl(&["get", "deployment", name, "-n", "shop", "-o", image]).unwrap(), "good:1");
    }

    // and with a drill
    plane.kubectl(&["delete", "deployment", "web", "-n", "shop"]).unwrap();
    let drill =
        format!("{} drill run --report-dir {dir}/reports --scratch {dir}", env!("CARGO_BIN_EXE_rekindle"));
    let script = printed("An object is lost", "With Rekindle")[0]
        .replace("rekindle drill run", &drill)
        .replace("--snapshot /backup", &format!("--snapshot {snapshot}"))
        .replace("/root/web.yaml", dir.join("web.yaml").as_str())
        .replace("/etc/kubernetes/admin.conf", plane.kubeconfig().as_str());
    paste(&script, dir);
    plane.kubectl(&["get", "deployment", "web", "-n", "shop"]).unwrap();
}
