//! Point in time: a namespace with all that is in it is deleted by mistake. The cluster is healthy, and yet it goes back to
//! the point before, out of the vault; what can't be had is refused, and nothing is done where nothing was asked for.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use scenarios::{Cluster, STOP_ALL, THREE, verified};
use serde_json::Value;
use std::process::Command;
use testbed::components::age;
use testbed::set::Kind;

const KEY: &str = "/var/lib/rekindle-test/sign.key";
const IDENTITY: &str = "/root/identity.txt";
const VAULT: &str = "/vault";

/// A cluster whose first host has a vault, keys, and a namespace that matters.
struct Backed {
    cluster: Cluster,
    signer: String,
    recipient: String,
}

impl Backed {
    fn new(kind: Kind) -> Self {
        let cluster = Cluster::load(kind).unwrap();
        let (dir, age) = (tempfile::tempdir().unwrap(), age().unwrap());
        let file = dir.path().join("identity.txt");
        let made = Command::new(age.path("age-keygen")).arg("-o").arg(&file).output().unwrap();
        assert!(made.status.success());
        let public = Command::new(age.path("age-keygen")).arg("-y").arg(&file).output().unwrap();
        let recipient = String::from_utf8(public.stdout).unwrap().trim().to_owned();
        let host = cluster.set.host("cp1").unwrap();
        host.write(IDENTITY, std::fs::read(&file).unwrap()).unwrap();
        host.exec_ok(&["mkdir", "-p", VAULT, "/var/lib/rekindle-test"]).unwrap();
        let keys = ["--vault", VAULT, "--signing-key", KEY, "--recipient", &recipient];
        let args = [&["backup", "init", "--identity", IDENTITY, "-o", "json"], &keys[..]].concat();
        let made = cluster.on("cp1", &args).unwrap().expect(0).unwrap().json().unwrap();
        let signer = made["signer"].as_str().unwrap().to_owned();
        let backed = Self { cluster, signer, recipient };
        backed.kubectl(&["create", "namespace", "shop"]);
        backed.kubectl(&["create", "configmap", "prices", "-n", "shop", "--from-literal", "apple=1"]);
        backed.kubectl(&["create", "secret", "generic", "till", "-n", "shop", "--from-literal", "pin=1234"]);
        backed.kubectl(&["create", "deployment", "web", "-n", "shop", "--image", "shop.example/web:1"]);
        backed
    }

    fn kubectl(&self, args: &[&str]) -> String {
        self.cluster.set.kubectl_ok(args).unwrap()
    }

    /// Takes a full backup; its revision.
    fn take(&self) -> i64 {
        let keys = ["--vault", VAULT, "--signing-key", KEY, "--recipient", &self.recipient];
        let args = [&["backup", "run", "-o", "json"], &keys[..]].concat();
        let taken = self.cluster.on("cp1", &args).unwrap().expect(0).unwrap().json().unwrap();
        taken["manifest"]["revision"].as_i64().unwrap()
    }

    fn from(&self, verb: &str, more: &[&str]) -> scenarios::Called {
        let from = ["--from", VAULT, "--identity", IDENTITY, "--trusted-signer", &self.signer];
        self.cluster.on("cp1", &[&[verb], &from[..], more].concat()).unwrap()
    }

    fn assert_shop_is_back(&self) {
        assert_eq!(
            self.kubectl(&["get", "configmap", "prices", "-n", "shop", "-o", "jsonpath={.data.apple}"]),
            "1"
        );
        assert_eq!(
            self.kubectl(&["get", "secret", "till", "-n", "shop", "-o", "jsonpath={.data.pin}"]),
            "MTIzNA=="
        );
        let image = "jsonpath={.spec.template.spec.containers[0].image}";
        assert_eq!(
            self.kubectl(&["get", "deployment", "web", "-n", "shop", "-o", image]),
            "shop.example/web:1"
        );
    }
}

// The namespace is gone and the cluster is well. Going back takes the point asked for, tells what that costs, and raises
// the revision above all that clients have seen.
#[test]
fn a_namespace_deleted_by_mistake() {
    let backed = Backed::new(Kind::Kubeadm1);
    let good = backed.take();
    backed.cluster.mark("after-the-backup").unwrap();
    backed.kubectl(&["delete", "namespace", "shop", "--wait=true"]);
    let later = backed.take();

    let nothing = backed.from("recover", &["--yes"]).expect(0).unwrap();
    assert!(nothing.stdout.contains("Nothing to do"), "{}", nothing.stdout);
    let gap = backed.from("recover", &["--to", &(good + 1).to_string(), "--yes"]).expect(5).unwrap();
    assert!(gap.stderr.contains(&format!("revision {good} ")), "{}", gap.stderr);
    assert!(gap.stderr.contains(&format!("revision {later} ")), "{}", gap.stderr);

    let to = good.to_string();
    let plan = backed.from("recover", &["--to", &to, "--dry-run"]).expect(0).unwrap();
    let named = format!("revision {good} of ");
    assert!(plan.stdout.contains(&named) && plan.stdout.contains("in /vault"), "{}", plan.stdout);
    assert!(plan.stdout.contains("You asked to go back in time"), "{}", plan.stdout);
    assert!(
        backed.kubectl(&["get", "namespaces", "-o", "name"]).lines().all(|line| line != "namespace/shop")
    );

    // a plan of it can be read, kept, and applied as long as the cluster is as it was
    let plan = backed.from("plan", &["--to", &to, "-o", "json"]).expect(0).unwrap();
    backed.cluster.set.host("cp1").unwrap().write("/root/plan.json", &plan.stdout).unwrap();
    backed.cluster.on("cp1", &["apply", "/root/plan.json", "--dry-run"]).unwrap().expect(0).unwrap();

    let called = backed.from("recover", &["--to", &to, "--yes", "-o", "json"]).expect(0).unwrap();
    let report = verified(&called).unwrap();
    assert_eq!(report["rpo"]["restoredRevision"], Value::from(good), "{report}");
    assert!(report["rpo"]["evidence"].as_str().unwrap().contains("by what the vault tells"), "{report}");
    backed.cluster.assert_works("after").unwrap();
    backed.assert_shop_is_back();
    assert!(!backed.cluster.has_mark("after-the-backup").unwrap(), "it came after the point");
}

// All data is gone: the vault is a source like any other, taken because it is the newest.
#[test]
fn everything_is_gone_but_the_vault() {
    let backed = Backed::new(Kind::Kubeadm1);
    backed.take();
    backed.cluster.fault("cp1", &format!("{STOP_ALL}; rm -rf /var/lib/etcd/member")).unwrap();
    let called = backed.from("recover", &["--yes", "-o", "json"]).expect(0).unwrap();
    verified(&called).unwrap();
    backed.cluster.assert_works("after").unwrap();
    backed.assert_shop_is_back();
}

// Three healthy members go back together, from outside: all that is newer is saved first, none of them leads the others on.
#[test]
fn three_members_go_back() {
    let backed = Backed::new(Kind::Kubeadm3);
    let good = backed.take();
    backed.kubectl(&["delete", "namespace", "shop", "--wait=true"]);
    let host = backed.cluster.set.host("cp1").unwrap();
    let (vault, identity) = (host.path(VAULT), host.path(IDENTITY));
    let to = good.to_string();
    let from =
        ["--from", vault.as_str(), "--identity", identity.as_str(), "--trusted-signer", &backed.signer];
    let args = [&from[..], &["--to", &to]].concat();
    let report = backed.cluster.recover_from_outside(&THREE, &args).unwrap();
    assert_eq!(report["rpo"]["restoredRevision"], Value::from(good), "{report}");
    backed.cluster.assert_works("after").unwrap();
    backed.assert_shop_is_back();
}
