//! `rekindle certs` over what stock kubeadm makes, in a folder that stands for a host's root: no cluster is needed to
//! read certificates, to make them anew with the local authority, or to put the old ones back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::{Command, Output};
use testbed::components;

/// A host's root with a PKI of kubeadm's, of this kind of keys.
struct Site {
    _dir: tempfile::TempDir,
    root: Utf8PathBuf,
}

impl Site {
    fn new(algorithm: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap().join("root");
        std::fs::create_dir_all(root.join("etc/kubernetes")).unwrap();
        let version = &components::kubernetes().unwrap().version;
        let config = format!(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n\
             localAPIEndpoint: {{advertiseAddress: 10.77.0.11, bindPort: 6443}}\n\
             nodeRegistration: {{name: cp1, criSocket: unix:///run/containerd/containerd.sock}}\n---\n\
             apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v{version}\n\
             certificatesDir: {root}/etc/kubernetes/pki\nencryptionAlgorithm: {algorithm}\n\
             controlPlaneEndpoint: 10.77.0.10:6443\n"
        );
        let site = Self { _dir: dir, root };
        std::fs::write(site.config(), config).unwrap();
        site.kubeadm(&["init", "phase", "certs", "all"]);
        let folder = site.root.join("etc/kubernetes");
        site.kubeadm(&["init", "phase", "kubeconfig", "all", "--kubeconfig-dir", folder.as_str()]);
        site
    }

    fn config(&self) -> Utf8PathBuf {
        self.root.with_file_name("kubeadm.yaml")
    }

    fn state(&self) -> Utf8PathBuf {
        self.root.with_file_name("state")
    }

    fn kubeadm(&self, args: &[&str]) -> String {
        let kubeadm = components::kubernetes().unwrap().path("kubeadm");
        let output =
            Command::new(kubeadm).args(args).args(["--config", self.config().as_str()]).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Ends by kubeadm's own names, as it tells them (it looks for kubeconfigs in `/etc/kubernetes` only).
    fn ends_by_kubeadm(&self) -> BTreeMap<String, String> {
        let told: Value =
            serde_json::from_str(&self.kubeadm(&["certs", "check-expiration", "-o", "json"])).unwrap();
        let list = told["certificates"].as_array().unwrap();
        let present = list.iter().filter(|c| c["missing"] != true);
        present
            .map(|c| {
                (c["name"].as_str().unwrap().to_owned(), c["expirationDate"].as_str().unwrap().to_owned())
            })
            .collect()
    }

    fn rekindle(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_rekindle"))
            .args(args)
            .args(["--root", self.root.as_str(), "--state-dir", self.state().as_str(), "-o", "json"])
            .env_remove("KUBECONFIG")
            .output()
            .unwrap()
    }

    fn check(&self, code: i32) -> Value {
        let output = self.rekindle(&["certs", "check"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}{}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Every file below the root but those in folders of a run, by path.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all = BTreeMap::new();
        let mut left = vec![self.root.clone()];
        while let Some(folder) = left.pop() {
            for entry in folder.read_dir_utf8().unwrap() {
                let path = entry.unwrap().into_path();
                if path.is_dir() {
                    left.push(path);
                } else {
                    all.insert(
                        path.strip_prefix(&self.root).unwrap().to_string(),
                        std::fs::read(&path).unwrap(),
                    );
                }
            }
        }
        all.into_iter().filter(|(path, _)| !path.contains("rekindle-") && !path.starts_with("run/")).collect()
    }
}

/// The certificates a report tells of, by name, without the authorities.
fn by_name(report: &Value) -> BTreeMap<String, Value> {
    let files = report["hosts"][0]["facts"]["known"]["files"].as_array().unwrap();
    let leaves = files.iter().filter(|f| !f["authority"].is_null());
    leaves.map(|f| (f["name"].as_str().unwrap().to_owned(), f["certificate"]["known"].clone())).collect()
}

fn codes(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap()).collect()
}

/// Names of the files that differ.
fn changed(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

/// The last words of a run; its events before hold whole certificates.
fn end_of(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().rev().take(1000).collect::<Vec<_>>().into_iter().rev().collect()
}

fn find(folder: &Utf8Path, name: &str) -> Vec<Utf8PathBuf> {
    let entries = folder.read_dir_utf8().unwrap().map(|e| e.unwrap().into_path());
    entries.filter(|p| p.file_name().unwrap().starts_with(name)).collect()
}

// kubeadm makes a PKI; both tools tell the same ends. All leaves are renewed: every one has a new key and the profile it
// had, kubeadm takes each for its own, no key is in plan or journal, and undo puts back every byte.
fn there_and_back(algorithm: &str) {
    let site = Site::new(algorithm);
    let before = site.check(0);
    let lines = before["certificates"].as_array().unwrap();
    for (name, end) in site.ends_by_kubeadm() {
        let line = lines.iter().find(|l| l["name"] == name.as_str()).unwrap_or_else(|| panic!("no {name}"));
        let end: jiff::Timestamp = end.parse().unwrap();
        assert_eq!(line["notAfterMs"], end.as_millisecond(), "{name}");
    }
    let (old, files) = (by_name(&before), site.files());
    assert_eq!(old.len(), 12, "{:?}", old.keys());

    let preview = site.rekindle(&["certs", "renew", "--all", "--dry-run"]);
    assert_eq!(preview.status.code(), Some(0), "{}", String::from_utf8_lossy(&preview.stderr));
    assert_eq!(changed(&files, &site.files()), [""; 0], "a dry run changed something");

    let renewed = site.rekindle(&["certs", "renew", "--all", "--yes"]);
    assert_eq!(renewed.status.code(), Some(0), "{}", end_of(&renewed.stderr));
    let report: Value = serde_json::from_slice(&renewed.stdout).unwrap();
    assert_eq!(report["outcome"], "verified");
    let new = by_name(&site.check(0));
    assert_eq!(new.len(), old.len());
    for (name, old) in &old {
        let new = &new[name];
        for kept in ["subject", "dnsNames", "ipAddresses", "usages", "keyKind", "issuer"] {
            assert_eq!(new[kept], old[kept], "{kept} of {name}");
        }
        assert_ne!(new["publicKeySha256"], old["publicKeySha256"], "{name} has its old key");
        assert!(new["notAfterS"].as_i64() >= old["notAfterS"].as_i64(), "{name}");
    }
    // kubeadm checks what it finds (chain, names, keys), and makes only what is missing.
    let now = site.files();
    site.kubeadm(&["init", "phase", "certs", "all"]);
    assert_eq!(changed(&now, &site.files()), [""; 0], "kubeadm did not take what was renewed");
    assert_eq!(site.ends_by_kubeadm().len(), 7);

    let run = find(&site.state().join("runs"), "").pop().unwrap();
    for file in find(&run, "") {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains("PRIVATE KEY") && !text.contains("client-key-data"), "a key in {file}");
    }
    let aside = find(&site.root.join("etc/kubernetes/pki"), "rekindle-").pop().unwrap();
    let kept: Vec<String> = find(&aside, "").iter().map(|p| p.file_name().unwrap().to_owned()).collect();
    assert_eq!(kept, ["old"], "copies of new keys were left");
    assert_eq!(
        std::fs::read(aside.join("old/apiserver.key")).unwrap(),
        files["etc/kubernetes/pki/apiserver.key"]
    );

    undo(&site, &run);
    assert_eq!(changed(&files, &site.files()), [""; 0], "undo did not put everything back");
    assert!(find(&site.root.join("etc/kubernetes/pki"), "rekindle-").is_empty(), "undo left its folder");
}

/// `rekindle runs undo` with the same root.
fn undo(site: &Site, run: &Utf8Path) {
    let undone = site.rekindle(&["runs", "undo", run.file_name().unwrap(), "--yes"]);
    assert_eq!(undone.status.code(), Some(0), "{}", end_of(&undone.stderr));
}

#[test]
fn rsa() {
    there_and_back("RSA-2048");
}

#[test]
fn ecdsa() {
    there_and_back("ECDSA-P256");
}

// What is wrong with a host's certificates is told one by one: an authority kept elsewhere, a key of another
// certificate, a certificate of another authority, service-account keys that are no pair.
#[test]
fn what_is_wrong_is_told() {
    let (site, other) = (Site::new("ECDSA-P256"), Site::new("ECDSA-P256"));
    let pki = site.root.join("etc/kubernetes/pki");
    let theirs = other.root.join("etc/kubernetes/pki");
    std::fs::copy(theirs.join("apiserver.key"), pki.join("apiserver.key")).unwrap();
    let found = site.check(3);
    assert_eq!(codes(&found), ["RK-P04"]);
    std::fs::copy(theirs.join("apiserver.crt"), pki.join("apiserver.crt")).unwrap();
    std::fs::copy(theirs.join("sa.pub"), pki.join("sa.pub")).unwrap();
    let found = site.check(3);
    assert_eq!(codes(&found), ["RK-P03", "RK-P06"]);

    std::fs::remove_file(pki.join("etcd/ca.key")).unwrap();
    let refused = site.rekindle(&["certs", "renew", "etcd-server", "--yes"]);
    assert_eq!(refused.status.code(), Some(5));
    let told = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(told.contains("etcd-ca") && told.contains("external"), "{told}");
    let refused = site.rekindle(&["certs", "renew", "no-such", "--yes"]);
    assert_eq!(refused.status.code(), Some(5));

    let mended = site.rekindle(&["certs", "renew", "apiserver", "--san", "192.0.2.7", "--yes"]);
    assert_eq!(mended.status.code(), Some(0), "{}", end_of(&mended.stderr));
    let found = site.check(3);
    assert_eq!(codes(&found), ["RK-P06"]);
    let addresses = by_name(&found)["apiserver"]["ipAddresses"].as_array().unwrap().clone();
    assert!(addresses.contains(&"192.0.2.7".into()), "{addresses:?}");
}
