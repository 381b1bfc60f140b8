//! The story: a cluster is gone, and all there is of it is a folder that `rekindle resources backup` wrote through its API.
//! Everything that etcd held is in the folder or left out for a reason that the folder tells; from it an empty second
//! cluster becomes the first one again, object by object, in spite of a webhook without a backend, a quota, owners and
//! addresses. A restore that is killed goes on, twice is the same as once, and it can be taken back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use testbed::plane::{Options, Plane};
use testbed::{cmd, components};

const PATIENCE: Duration = Duration::from_secs(180);

struct Stage {
    _keep: tempfile::TempDir,
    dir: Utf8PathBuf,
}

impl Stage {
    fn new() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::from_path_buf(keep.path().to_owned()).unwrap();
        Self { _keep: keep, dir }
    }

    fn plane(&self, name: &str, apiserver: Vec<String>) -> Plane {
        let dir = self.dir.join(name);
        std::fs::create_dir(&dir).unwrap();
        Plane::start(&dir, &Options { controllers: true, apiserver, ..Options::default() }).unwrap()
    }

    /// The kubeconfig of a service account that may do what `deploy/rbac` says and nothing else. As on managed clusters,
    /// its token comes from a program that the kubeconfig names.
    fn account(&self, plane: &Plane, at: &str, name: &str) -> Utf8PathBuf {
        let role = format!("resources-{name}.yaml");
        let shipped = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/rbac").join(role);
        plane.kubectl(&["apply", "-f", shipped.as_str()]).unwrap();
        plane.kubectl(&["create", "serviceaccount", name, "-n", "kube-public"]).unwrap();
        let (role, account) = (
            format!("--clusterrole=rekindle-resources-{name}"),
            format!("--serviceaccount=kube-public:{name}"),
        );
        plane.kubectl(&["create", "clusterrolebinding", name, &role, &account]).unwrap();
        let token = plane.kubectl(&["create", "token", name, "-n", "kube-public", "--duration=2h"]).unwrap();
        let credential = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
            "status": {"token": token.trim()}});
        let plugin = self.dir.join(format!("{at}-{name}-plugin"));
        std::fs::write(&plugin, format!("#!/bin/sh\necho '{credential}'\n")).unwrap();
        cmd::sh("chmod", ["700", plugin.as_str()]).unwrap();
        let config = self.dir.join(format!("{at}-{name}.conf"));
        let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": {"server": plane.url, "certificate-authority": self.dir.join(at).join("pki/ca.crt")}}],
            "users": [{"name": "x", "user": {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": plugin, "interactiveMode": "Never"}}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]});
        std::fs::write(&config, text.to_string()).unwrap();
        config
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).into_string()
    }

    /// An age identity and its recipient.
    fn identity(&self) -> (String, String) {
        let (keygen, path) = (components::age().unwrap().path("age-keygen"), self.path("identity.txt"));
        assert!(Command::new(&keygen).args(["-o", &path]).output().unwrap().status.success());
        let public = Command::new(&keygen).args(["-y", &path]).output().unwrap();
        (path, String::from_utf8(public.stdout).unwrap().trim().to_owned())
    }
}

fn rekindle(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rekindle"))
        .arg("resources")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The answer as JSON, with this exit code.
fn answer(code: i32, args: &[&str]) -> Value {
    let output = rekindle(&[args, &["-o", "json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{args:?}: {said}\n{}",
        String::from_utf8_lossy(&output.stdout)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The shop, with what its controllers and its operator make of it.
fn open_shop(plane: &Plane) {
    let here = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/resources");
    plane.kubectl(&["apply", "-f", here.join("shop.yaml").as_str()]).unwrap();
    plane.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=120s"]).unwrap();
    let customs = here.join("customs.yaml");
    cmd::wait_for("the custom kinds are served", PATIENCE, || {
        plane.kubectl(&["apply", "-f", customs.as_str()]).map(Some)
    })
    .unwrap();
    // what the operator made for its shelf, what it noted there, and what was given to a service account
    let uid =
        plane.kubectl(&["get", "shelf", "front", "-n", "shop", "-o", "jsonpath={.metadata.uid}"]).unwrap();
    let owner = json!([{"apiVersion": "shop.example.com/v1", "kind": "Shelf", "name": "front", "uid": uid}]);
    plane.kubectl(&["create", "configmap", "front-items", "-n", "shop", "--from-literal=items=7"]).unwrap();
    let patch = json!({"metadata": {"ownerReferences": owner}}).to_string();
    plane
        .kubectl(&["patch", "configmap", "front-items", "-n", "shop", "--type=merge", "-p", &patch])
        .unwrap();
    let patch = r#"{"status":{"seen":true}}"#;
    let status = ["patch", "district", "north", "--type=merge", "-p", patch];
    plane.kubectl(&status).unwrap();
    let secrets = r#"{"imagePullSecrets":[{"name":"registry"}]}"#;
    plane.kubectl(&["patch", "serviceaccount", "default", "-n", "shop", "-p", secrets]).unwrap();
    let made = |args: &[&str], what: &str| {
        cmd::wait_for(what, PATIENCE, || Ok(plane.kubectl(args)?.contains(what).then_some(()))).unwrap();
    };
    made(&["get", "pods", "-n", "shop"], "web-");
    made(&["get", "pods", "-n", "shop"], "db-0");
    made(&["get", "controllerrevisions", "-n", "back"], "logs-");
    made(&["get", "secret", "operator-token", "-n", "shop", "-o", "yaml"], "token:");
    made(&["get", "pvc", "data", "-n", "shop"], "Bound");
    made(&["get", "endpointslices", "-n", "shop"], "web-");
}

/// Files of a backup by path, Secrets decrypted by the stock tool.
fn files(root: &Utf8Path, identity: &str) -> BTreeMap<String, Value> {
    let (mut found, mut left) = (BTreeMap::new(), vec![root.join("resources")]);
    while let Some(dir) = left.pop() {
        for entry in dir.read_dir_utf8().unwrap() {
            let path = entry.unwrap().into_path();
            if path.is_dir() {
                left.push(path);
            } else if path.as_str().contains(".yaml") {
                let text = if path.extension() == Some("age") {
                    let age = components::age().unwrap().path("age");
                    cmd::run(Command::new(age).args(["-d", "-i", identity, path.as_str()])).unwrap()
                } else {
                    std::fs::read_to_string(&path).unwrap()
                };
                let name =
                    path.strip_prefix(root.join("resources")).unwrap().as_str().trim_end_matches(".age");
                found.insert(
                    name.to_owned(),
                    serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}")),
                );
            }
        }
    }
    found
}

fn etcd_keys(plane: &Plane) -> Vec<String> {
    let ctl = components::etcd_line("3.6").unwrap().etcdctl;
    let mut command = Command::new(ctl);
    command.args(["--endpoints", &plane.etcd_url, "get", "/registry", "--prefix", "--keys-only"]);
    cmd::run(&mut command).unwrap().lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// What a key of etcd is called in a backup: `resource.group`, namespace, name; none for what is no object.
fn object_of(key: &str, kinds: &Value) -> Option<(String, String, String)> {
    let path: Vec<&str> = key.strip_prefix("/registry/").unwrap().split('/').collect();
    // the API server's own notes
    if ["ranges", "masterleases", "peerserverleases", "health"].contains(&path[0]) {
        return None;
    }
    let (stored, rest) = match path.as_slice() {
        ["services", "specs", rest @ ..] => ("services".to_owned(), rest),
        ["services", "endpoints", rest @ ..] => ("endpoints".to_owned(), rest),
        [group, resource, rest @ ..] if group.contains('.') => (format!("{resource}.{group}"), rest),
        [resource, rest @ ..] => {
            // kinds of old groups are stored under their plural alone
            let aliases =
                [("minions", "nodes"), ("controllers", "replicationcontrollers"), ("ingress", "ingresses")];
            let alias = aliases.iter().find(|(old, _)| old == resource).map(|(_, new)| *new);
            let resource = alias.unwrap_or(resource);
            let known = kinds.as_array().unwrap().iter().map(|kind| kind.as_str().unwrap());
            let full = known.into_iter().find(|name| name.split('.').next() == Some(resource));
            (full.unwrap_or(resource).to_owned(), rest)
        }
        [] => return None,
    };
    match rest {
        [name] => Some((stored, String::new(), (*name).to_owned())),
        [namespace, name] => Some((stored, (*namespace).to_owned(), (*name).to_owned())),
        _ => panic!("{key}"),
    }
}

/// Every key is an object of the backup, or counted among what is left out for a reason.
fn assert_complete(plane: &Plane, before: &[String], index: &Value, files: &BTreeMap<String, Value>) {
    let names = plane.kubectl(&["api-resources", "-o", "name", "--verbs=list"]).unwrap();
    let kinds: Value = names.lines().collect::<Vec<_>>().into();
    let in_files: BTreeSet<(String, String, String)> = files
        .iter()
        .map(|(path, object)| {
            let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
            let kind = path.rsplit('/').nth(1).unwrap().to_owned();
            (kind, text("namespace"), text("name"))
        })
        .collect();
    assert_eq!(in_files.len(), files.len());
    let mut missing: BTreeMap<String, u64> = BTreeMap::new();
    for object in before.iter().filter_map(|key| object_of(key, &kinds)) {
        if !in_files.contains(&object) {
            *missing.entry(object.0).or_default() += 1;
        }
    }
    let mut whole = BTreeSet::new();
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for left in index["leftOut"].as_array().unwrap() {
        assert!(!left["reason"].as_str().unwrap().is_empty());
        let what = left["what"].as_str().unwrap().to_owned();
        match left["objects"].as_u64() {
            Some(count) => *counted.entry(what).or_default() += count,
            None => drop(whole.insert(what)),
        }
    }
    missing.retain(|kind, _| !whole.contains(kind));
    assert_eq!(missing, counted, "what etcd holds and the backup does not, against what it says it left out");
    assert!(before.len() > 150, "{}", before.len());
}

/// Where two objects differ, as JSON pointers.
fn differences(at: &str, a: &Value, b: &Value, found: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let names: BTreeSet<&String> = x.keys().chain(y.keys()).collect();
            for name in names {
                let at = format!("{at}/{}", name.replace('/', "~1"));
                differences(
                    &at,
                    x.get(name).unwrap_or(&Value::Null),
                    y.get(name).unwrap_or(&Value::Null),
                    found,
                );
            }
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            x.iter()
                .zip(y)
                .enumerate()
                .for_each(|(n, (x, y))| differences(&format!("{at}/{n}"), x, y, found));
        }
        _ if a == b => {}
        _ => found.push(at.to_owned()),
    }
}

/// All that may differ after a round trip: docs/resources.md names them.
const DOCUMENTED: &[(&str, &str)] = &[
    ("", "/metadata/ownerReferences/0/uid"),
    ("secrets", "/data/token"),
    ("secrets", "/data/ca.crt"),
    ("secrets", "/metadata/annotations/kubernetes.io~1service-account.uid"),
    ("jobs.batch", "/metadata/labels"),
    ("jobs.batch", "/spec/selector"),
    ("jobs.batch", "/spec/template/metadata/labels"),
    ("jobs.batch", "/status"),
    ("persistentvolumes", "/spec/claimRef/uid"),
    ("persistentvolumes", "/spec/claimRef/resourceVersion"),
];

fn assert_same(a: &BTreeMap<String, Value>, b: &BTreeMap<String, Value>) {
    let (names_a, names_b): (BTreeSet<_>, BTreeSet<_>) = (a.keys().collect(), b.keys().collect());
    assert_eq!(names_a, names_b);
    let mut undocumented = Vec::new();
    for (path, object) in a {
        let (kind, mut found) = (path.rsplit('/').nth(1).unwrap(), Vec::new());
        differences("", object, &b[path], &mut found);
        let is_documented = |at: &String| {
            DOCUMENTED.iter().any(|(of, place)| (of.is_empty() || *of == kind) && at.starts_with(place))
        };
        undocumented
            .extend(found.into_iter().filter(|at| !is_documented(at)).map(|at| format!("{path} {at}")));
    }
    assert!(undocumented.is_empty(), "{undocumented:#?}");
}

fn count(report: &Value, name: &str) -> u64 {
    report["counts"][name].as_u64().unwrap_or(0)
}

/// A backup at a moment at which nothing moved, with the keys that etcd held then.
fn quiet_backup(plane: &Plane, config: &Utf8Path, folder: &str, recipient: &str) -> (Value, Vec<String>) {
    let settled = || {
        let noise = ["events", "leases", "masterleases"];
        let mut keys = etcd_keys(plane);
        keys.retain(|key| !noise.iter().any(|noise| key.starts_with(&format!("/registry/{noise}/"))));
        keys
    };
    cmd::wait_for("the cluster is quiet", PATIENCE, || {
        let before = settled();
        let args = ["backup", folder, "--kubeconfig", config.as_str(), "--recipient", recipient];
        let index = answer(0, &args);
        Ok((before == settled()).then_some((index, before)))
    })
    .unwrap()
}

/// Four hundred objects: enough for a restore to be killed among them.
fn fill(stage: &Stage, plane: &Plane) {
    plane.kubectl(&["create", "namespace", "many"]).unwrap();
    let map = |n: u32| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("map-{n}"), "namespace": "many"}});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": (0..400).map(map).collect::<Vec<_>>()});
    let file = stage.path("many.json");
    std::fs::write(&file, list.to_string()).unwrap();
    plane.kubectl(&["create", "-f", &file]).unwrap();
}

/// What is said of the folder is true of it: complete against etcd, Secrets closed, digests and YAML as stock tools read them.
fn assert_sound(a: &Plane, folder: &str, first: &BTreeMap<String, Value>, index: &Value, keys: &[String]) {
    assert_complete(a, keys, index, first);
    assert_eq!(index["problems"], json!([]));
    for clear in ["aHVudGVyMi1pbi10aGUtY2xlYXI", "hunter2-in-the-clear"] {
        assert!(cmd::sh("grep", ["-rl", clear, folder]).is_err(), "a Secret lies in the clear");
    }
    let mut sums = Command::new("sha256sum");
    cmd::run(sums.args(["--quiet", "-c", "SHA256SUMS"]).current_dir(format!("{folder}/resources"))).unwrap();
    let awkward = format!("{folder}/resources/namespaces/shop/configmaps/awkward.yaml");
    let json = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let read = json(a.kubectl(&["create", "--dry-run=client", "-o", "json", "-f", &awkward]).unwrap());
    let live = json(a.kubectl(&["get", "configmap", "awkward", "-n", "shop", "-o", "json"]).unwrap());
    assert_eq!((&read["data"], &read["binaryData"]), (&live["data"], &live["binaryData"]));
}

/// etcd compacts the revision away while the list is being read: it is read anew, and the backup is whole.
fn compacted(stage: &Stage, a: &Plane, config: &Utf8Path) {
    let folder = stage.path("compacted");
    let backup = Command::new(env!("CARGO_BIN_EXE_rekindle"))
        .args([
            "resources",
            "backup",
            &folder,
            "--kubeconfig",
            config.as_str(),
            "-n",
            "many",
            "--include",
            "configmaps",
        ])
        .args(["--chunk-size", "1", "-o", "json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let read = Utf8Path::new(&folder).join(".new/namespaces/many/configmaps");
    cmd::wait_for("some of the list is read", PATIENCE, || {
        Ok((read.read_dir_utf8()?.count() > 20).then_some(()))
    })
    .unwrap();
    let ctl = |args: &[&str]| {
        let ctl = components::etcd_line("3.6").unwrap().etcdctl;
        cmd::run(Command::new(ctl).args(["--endpoints", &a.etcd_url]).args(args)).unwrap()
    };
    let put: Value = serde_json::from_str(&ctl(&["put", "elsewhere", "x", "-w", "json"])).unwrap();
    ctl(&["compact", &put["header"]["revision"].to_string()]);
    let output = backup.wait_with_output().unwrap();
    assert!(output.status.success());
    let index: Value = serde_json::from_slice(&output.stdout).unwrap();
    let maps =
        index["kinds"].as_array().unwrap().iter().find(|kind| kind["resource"] == "configmaps").unwrap();
    assert_eq!((&maps["objects"], &maps["begunAnew"]), (&json!(400), &json!(1)), "{maps}");
    assert_eq!(index["objects"], 401, "and the namespace");
}

/// The same cluster into a vault: said first, then done, listed, verified, and of its content nothing in the clear. The
/// flags that read it there.
fn stored(stage: &Stage, config: &Utf8Path, identity: &str, recipient: &str, folder: &Value) -> Vec<String> {
    let (vault, key, scratch) = (stage.path("vault"), stage.path("sign.key"), stage.path("scratch"));
    std::fs::create_dir(&vault).unwrap();
    let vaults = |code: i32, args: &[&str]| -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_rekindle"))
            .arg("backup")
            .args(args)
            .args(["--vault", &vault, "-o", "json"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    vaults(0, &["init", "--signing-key", &key, "--identity", identity, "--recipient", recipient]);
    let put = ["backup", "--vault", &vault, "--signing-key", &key, "--recipient", recipient];
    let put = [&put[..], &["--kubeconfig", config.as_str(), "--scratch", &scratch]].concat();
    let entries = || Utf8Path::new(&vault).read_dir_utf8().unwrap().count();
    let before = entries();
    let plan = answer(0, &[&put[..], &["--dry-run"]].concat());
    assert_eq!((plan["kind"].as_str(), entries()), (Some("BackupPlan"), before), "nothing is there yet");
    assert!(!Utf8Path::new(&scratch).exists());
    let manifest = &answer(0, &put)["manifest"];
    assert_eq!((&manifest["kind"], &manifest["problems"]), (&json!("Resources"), &json!(0)));
    assert_eq!(manifest["objects"], folder["objects"], "as many as in the folder");
    assert_eq!(manifest["cluster"], folder["cluster"]["uid"], "its name is its UID");
    let some = answer(0, &[&put[..], &["-n", "shop", "--exclude", "secrets"]].concat());
    assert_eq!(some["manifest"]["scope"], "namespaces shop; not kinds secrets");
    assert_eq!(Utf8Path::new(&scratch).read_dir_utf8().unwrap().count(), 0);
    for clear in ["hunter2-in-the-clear", "shop.example.com"] {
        assert!(cmd::sh("grep", ["-rl", clear, &vault]).is_err(), "{clear} lies in the clear");
    }

    let list = vaults(0, &["list", "--signing-key", &key]);
    assert_eq!(list["resources"].as_array().unwrap().len(), 2);
    let verified =
        vaults(0, &["verify", "--signing-key", &key, "--identity", identity, "--scratch", &scratch]);
    assert_eq!((&verified["parts"], &verified["faults"]), (&json!(2), &json!([])));
    let pruned = vaults(0, &["prune", "--signing-key", &key, "--dry-run"]);
    assert_eq!(pruned["kept"].as_array().unwrap().len(), 2, "one of each series");
    let stranger = answer_of(
        1,
        &["list", "--from", &vault, "--trusted-signer", &other_signer(), "--identity", identity],
    );
    assert!(stranger.contains("holds no objects"), "{stranger}");
    let flags = ["--from", &vault, "--trusted-signer", &key, "--identity", identity];
    let listed = answer(0, &[&["list"], &flags[..], &["--scratch", &scratch]].concat());
    // the revisions of its lists are later ones
    let what = |index: &Value| (index["objects"].clone(), index["selection"].clone());
    assert_eq!(what(&listed), what(folder), "the whole one, though the other is newer");
    flags.map(str::to_owned).into()
}

/// Somebody who signed nothing here.
fn other_signer() -> String {
    format!("ed25519:{}=", "A".repeat(43))
}

/// What it says, with this exit code.
fn answer_of(code: i32, args: &[&str]) -> String {
    let output = rekindle(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_lost_cluster_comes_back_from_its_folder() {
    let stage = Stage::new();
    // without its cache, the API server reads each page at the list's revision from etcd
    let a = stage.plane("a", vec!["--watch-cache=false".into()]);
    open_shop(&a);
    fill(&stage, &a);
    stage.account(&a, "a", "restore");
    let config = stage.account(&a, "a", "backup");
    let (identity, recipient) = stage.identity();
    let folder = stage.path("backup");

    let refused = rekindle(&["backup", &folder, "--kubeconfig", config.as_str()]);
    assert_eq!(refused.status.code(), Some(5), "Secrets are not written in the clear by accident");
    assert!(!Utf8Path::new(&folder).exists());
    let (index, keys) = quiet_backup(&a, &config, &folder, &recipient);
    let first = files(Utf8Path::new(&folder), &identity);
    assert_sound(&a, &folder, &first, &index, &keys);
    let vault = stored(&stage, &config, &identity, &recipient, &index);
    compacted(&stage, &a, &config);
    assert_eq!(answer(0, &["list", &folder]), index);
    drop(a);

    // the second cluster is one of a provider's
    let version = format!(
        "--version=v{}-eks-1a2b3c4",
        components::kubernetes().unwrap().version.trim_start_matches('v')
    );
    let b = stage.plane("b", vec![version]);
    stage.account(&b, "b", "backup");
    let config = stage.account(&b, "b", "restore");
    let state = stage.path("state");
    let restore =
        ["restore", &folder, "--kubeconfig", config.as_str(), "--identity", &identity, "--state-dir", &state];
    // all of it out of the vault, what follows out of the folder
    let access = ["--kubeconfig", config.as_str(), "--state-dir", &state, "--with-status"];
    let vault: Vec<&str> = vault.iter().map(String::as_str).collect();
    come_back(&b, &[&["restore"], &vault[..], &access[..]].concat());
    let fetched = Utf8Path::new(&state).join("fetched").read_dir_utf8().unwrap().count();
    assert_eq!(fetched, 0, "what was fetched is gone once all is restored");
    let second = stage.path("second");
    let (index, _) = quiet_backup(&b, &config, &second, &recipient);
    assert_eq!(index["cluster"]["provider"], "EKS");
    assert_same(&first, &files(Utf8Path::new(&second), &identity));

    conflicts(&b, &restore);
    volume_outlives(&b, &restore);
    moves(&stage, &b, &restore);
    killed(&b, &restore, &state);
}

/// The restore into the empty cluster: first only shown, then done, then done again.
fn come_back(b: &Plane, restore: &[&str]) {
    let dry = answer(0, &[restore, &["--dry-run"]].concat());
    assert_eq!(dry["kind"], "ResourceDiff");
    assert!(count(&dry, "create") > 440, "{}", dry["counts"]);
    assert!(b.kubectl(&["get", "namespace", "shop"]).is_err(), "a dry run changes nothing");
    assert_eq!(rekindle(restore).status.code(), Some(5), "nothing without consent");

    let yes = [restore, &["--yes"]].concat();
    let report = answer(0, &yes);
    let failed: Vec<&Value> =
        report["objects"].as_array().unwrap().iter().filter(|o| o["result"] == "failed").collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let of = |args: &[&str]| b.kubectl(args).unwrap();
    let child = "jsonpath={.metadata.ownerReferences[0].uid}";
    let child = of(&["get", "configmap", "front-items", "-n", "shop", "-o", child]);
    assert_eq!(child, of(&["get", "shelf", "front", "-n", "shop", "-o", "jsonpath={.metadata.uid}"]));
    let managers = of(&["get", "configmap", "awkward", "-n", "shop", "--show-managed-fields", "-o", "yaml"]);
    assert!(managers.contains("manager: rekindle"));
    let comes = |args: &[&str], what: &str| {
        cmd::wait_for(what, PATIENCE, || Ok(b.kubectl(args)?.contains(what).then_some(()))).unwrap();
    };
    comes(&["get", "pvc", "data", "-n", "shop"], "Bound");
    comes(&["get", "secret", "operator-token", "-n", "shop", "-o", "yaml"], "token:");
    comes(&["get", "pods", "-n", "shop"], "db-0");

    let again = answer(0, &yes);
    for outcome in ["created", "updated", "recreated", "failed"] {
        assert_eq!(count(&again, outcome), 0, "twice is not the same as once: {:#}", again["counts"]);
    }
}

/// Somebody changed objects since: they stay, are updated, or are made anew, as asked; and are as they were after `undo`.
fn conflicts(b: &Plane, restore: &[&str]) {
    let change = r#"{"data":{"boolean":"no","added":"x"}}"#;
    b.kubectl(&["patch", "configmap", "awkward", "-n", "shop", "-p", change]).unwrap();
    let uid = || {
        b.kubectl(&["get", "configmap", "awkward", "-n", "shop", "-o", "jsonpath={.metadata.uid}"]).unwrap()
    };
    let data = || {
        let data = b.kubectl(&[
            "get",
            "configmap",
            "awkward",
            "-n",
            "shop",
            "-o",
            "jsonpath={.data.boolean} {.data.added}",
        ]);
        data.unwrap()
    };
    let some = [restore, &["-n", "shop", "--include", "configmaps", "-l", "app=web", "--yes"]].concat();
    let from = ["diff", restore[1], restore[2], restore[3], restore[4], restore[5]];
    let diff = answer(0, &[&from[..], &["-n", "shop", "--include", "configmaps", "-l", "app=web"]].concat());
    let differing = &diff["objects"][0];
    assert_eq!((&differing["name"], &differing["action"]), (&json!("awkward"), &json!("skip")));
    assert_eq!(differing["places"], json!(["-/data/added", "~/data/boolean"]));
    let skipped = answer(0, &some);
    assert_eq!((count(&skipped, "skipped"), data().as_str()), (1, "no x"));
    let was = uid();
    let updated = answer(0, &[&some[..], &["--existing", "update"]].concat());
    assert_eq!((count(&updated, "updated"), data().as_str()), (1, "yes x"), "what others added stays");
    assert_eq!(uid(), was);
    let recreated = answer(0, &[&some[..], &["--existing", "recreate"]].concat());
    assert_eq!((count(&recreated, "recreated"), data().as_str()), (1, "yes "));
    assert_ne!(uid(), was);
    for (run, then) in [(&recreated, "yes x"), (&updated, "no x")] {
        let state = restore.iter().position(|arg| *arg == "--state-dir").map(|at| restore[at + 1]).unwrap();
        let undone = answer(0, &["undo", run["run"].as_str().unwrap(), "--state-dir", state, "--yes"]);
        assert_eq!(undone["putBack"], 1, "{undone:#}");
        assert_eq!(data(), then);
    }
}

/// A claim is deleted, its volume stays: the restored claim gets its data back.
fn volume_outlives(b: &Plane, restore: &[&str]) {
    b.kubectl(&["delete", "pvc", "data", "-n", "shop", "--timeout=120s"]).unwrap();
    let phase = |of: &[&str], what: &str| {
        let get = [&["get"], of, &["-o", "jsonpath={.status.phase}"]].concat();
        cmd::wait_for(what, PATIENCE, || Ok((b.kubectl(&get)? == what).then_some(()))).unwrap();
    };
    phase(&["pv", "disk-1"], "Released");
    let report = answer(0, &[restore, &["-n", "shop", "--include", "pvc", "--yes"]].concat());
    assert_eq!(count(&report, "created"), 1, "{report:#}");
    phase(&["pvc", "data", "-n", "shop"], "Bound");
    phase(&["pv", "disk-1"], "Bound");
}

/// A namespace moves: another name, another registry, one replica.
fn moves(stage: &Stage, b: &Plane, restore: &[&str]) {
    let patches = stage.path("patches.yaml");
    let text = "- {kind: deploy, name: web, patch: [{op: replace, path: /spec/replicas, value: 1}]}\n";
    std::fs::write(&patches, text).unwrap();
    let changes =
        ["-n", "shop", "--map-namespace", "shop=moved", "--map-image", "docker.io/=mirror.example/"];
    let more = ["--map-storage-class", "shop-disk=other", "--patches", &patches, "--yes"];
    // now the webhook without a backend is there: what it refuses is told, with what depends on it, and the rest is done
    let report = answer(6, &[restore, &changes[..], &more[..]].concat());
    assert!(count(&report, "created") > 15, "{:#}", report["counts"]);
    let failed: BTreeMap<&str, &str> = report["objects"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|object| object["result"] == "failed")
        .map(|object| (object["name"].as_str().unwrap(), object["notes"][0].as_str().unwrap()))
        .collect();
    assert_eq!(failed.keys().copied().collect::<Vec<_>>(), ["front", "front-items"]);
    assert!(failed["front"].contains("shelves.shop.example.com"), "{failed:?}");
    assert_eq!(failed["front-items"], "its owner Shelf front is not there");
    let of = |args: &[&str]| b.kubectl(args).unwrap();
    let web = "jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image}";
    assert_eq!(of(&["get", "deploy", "web", "-n", "moved", "-o", web]), "1 mirror.example/library/web:1");
    let class = "jsonpath={.spec.storageClassName} {.spec.volumeName}";
    assert_eq!(
        of(&["get", "pvc", "data", "-n", "moved", "-o", class]),
        "other ",
        "its volume is another claim's"
    );
    // the address and the port are taken by the first one, and the report says so
    let web = report["objects"]
        .as_array()
        .unwrap()
        .iter()
        .find(|o| o["kind"] == "services" && o["name"] == "web")
        .unwrap();
    assert_eq!(web["notes"].as_array().unwrap().len(), 2, "{web}");
}

/// A restore is killed among four hundred objects: it goes on, nothing is missing, and all of it can be taken back.
fn killed(b: &Plane, restore: &[&str], state: &str) {
    let runs = || -> BTreeSet<String> {
        let entries = Utf8Path::new(state).join("resources").read_dir_utf8().unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_owned()).collect()
    };
    let earlier = runs();
    let args = [restore, &["-n", "many", "--map-namespace", "many=again", "--yes"]].concat();
    let mut killed = Command::new(env!("CARGO_BIN_EXE_rekindle"))
        .arg("resources")
        .args(&args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let concluded = |run: &str| {
        let journal =
            std::fs::read_to_string(Utf8Path::new(state).join("resources").join(run).join("journal.jsonl"));
        journal.unwrap_or_default().matches("{\"done\"").count()
    };
    let run = cmd::wait_for("some objects are restored", PATIENCE, || {
        let new = runs().difference(&earlier).next().cloned();
        Ok(new.filter(|run| concluded(run) > 20))
    })
    .unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(concluded(&run) < 400, "it was over before it was killed");

    let report = answer(0, &["resume", "--state-dir", state, "--yes"]);
    assert_eq!(report["run"], run);
    // the namespace's own service account is made by whoever is quicker
    let created = count(&report, "created");
    assert!(count(&report, "failed") == 0 && (401..=402).contains(&created), "{:#}", report["counts"]);
    let names = || b.kubectl(&["get", "configmaps", "-n", "again", "-o", "name"]).unwrap();
    assert_eq!(names().matches("map-").count(), 400);
    let undone = answer(0, &["undo", &run, "--state-dir", state, "--yes"]);
    let counts = (undone["deleted"].as_u64(), undone["stays"].as_array().map(Vec::len));
    assert_eq!(counts, (Some(created - 1), Some(1)), "{undone:#}");
    assert_eq!(names().matches("map-").count(), 0);
}
