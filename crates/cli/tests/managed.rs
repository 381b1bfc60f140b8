//! A managed cluster: all there is of it is a kubeconfig with a credential program. The API server is a real one that is
//! told to call itself EKS's; nobody's hosts are there to be looked at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use testbed::plane::{Options, Plane};
use testbed::{cmd, components};

fn rekindle(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
    command.args(args).stdin(Stdio::null()).env_remove("KUBECONFIG").output().unwrap()
}

/// With a home of its own, as after `aws eks update-kubeconfig`: no flag and no variable names a kubeconfig.
fn at_home(home: &Utf8Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
    command.args(args).stdin(Stdio::null()).env_remove("KUBECONFIG").env("HOME", home).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A program that answers with this token, as the providers' do.
fn credential_program(path: &Utf8Path, token: &str) {
    let credential = format!(
        r#"{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{{"token":"{token}"}}}}"#
    );
    std::fs::write(path, format!("#!/bin/sh\necho '{credential}'\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A kubeconfig whose current context leads nowhere, and whose context `shop` asks a program for its credentials, as the
/// providers' kubeconfigs do.
fn kubeconfig(dir: &Utf8Path, plane: &Plane) -> Utf8PathBuf {
    let token = plane.kubectl(&["create", "token", "reader", "-n", "default"]).unwrap();
    let program = dir.join("get-token");
    credential_program(&program, token.trim());
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: nowhere\nclusters:\n\
         - {{name: nowhere, cluster: {{server: 'https://127.0.0.1:1'}}}}\n\
         - {{name: shop, cluster: {{server: '{}', certificate-authority: '{dir}/pki/ca.crt'}}}}\n\
         users: [{{name: reader, user: {{exec: {{apiVersion: client.authentication.k8s.io/v1, command: '{program}', \
         interactiveMode: Never}}}}}}]\n\
         contexts:\n- {{name: nowhere, context: {{cluster: nowhere, user: reader}}}}\n\
         - {{name: shop, context: {{cluster: shop, user: reader}}}}\n",
        plane.url
    );
    let file = dir.join("managed.conf");
    std::fs::write(&file, text).unwrap();
    file
}

fn codes(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["code"].as_str().unwrap()).collect()
}

// Somebody is called to a cluster of a provider's, with a kubeconfig and a reader's rights. `check` tells what the API
// tells, and of every other layer whose it is; whatever would need etcd or a control-plane host says that it is not to be
// had there, what to do instead, and changes nothing.
#[test]
fn a_providers_cluster_is_looked_at_through_its_api() {
    let folder = tempfile::tempdir().unwrap();
    let dir = Utf8Path::from_path(folder.path()).unwrap();
    let version = components::kubernetes().unwrap().version;
    let version = format!("--version=v{}-eks-1a2b3c4", version.trim_start_matches('v'));
    let plane = Plane::start(dir, &Options { apiserver: vec![version], ..Options::default() }).unwrap();
    let role = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/rbac/check.yaml");
    plane.kubectl(&["apply", "-f", role.as_str()]).unwrap();
    plane.kubectl(&["create", "serviceaccount", "reader", "-n", "default"]).unwrap();
    let bind = ["create", "clusterrolebinding", "reader", "--clusterrole=rekindle-check"];
    plane.kubectl(&[&bind[..], &["--serviceaccount=default:reader"]].concat()).unwrap();
    let config = kubeconfig(dir, &plane);
    let shop = ["--kubeconfig", config.as_str(), "--context", "shop"];
    let state = dir.join("state");

    let check = |code: i32| -> Value {
        let output = rekindle(&[&["check", "-o", "json", "--state-dir", state.as_str()], &shop[..]].concat());
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let quiet = check(0);
    assert_eq!(codes(&quiet), Vec::<&str>::new(), "{quiet:#}");
    let lines = quiet["checks"].as_array().unwrap();
    let result = |layer: &str| -> Vec<&str> {
        let own = lines.iter().filter(|line| line["layer"] == layer);
        own.map(|line| line["result"].as_str().unwrap()).collect()
    };
    for beneath in ["host", "certificates", "runtime", "kubelet", "controlPlane", "etcd", "leases"] {
        assert_eq!(result(beneath), ["unknown"], "{beneath}");
    }
    for looked in ["apiServer", "nodes", "objects"] {
        assert_eq!(result(looked), ["ok"], "{looked}: {quiet:#}");
    }
    let table = said(&rekindle(&[&["check"], &shop[..]].concat()));
    assert!(table.contains("not looked at: this is EKS's part; no access to it is given"), "{table}");

    found_at_home(dir, &config, &state);

    // a node that never reported, a webhook and an APIService whose services are not there
    let trouble = r#"{apiVersion: v1, kind: List, items: [
        {apiVersion: v1, kind: Node, metadata: {name: gone}},
        {apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: dead},
         webhooks: [{name: dead.example.com, clientConfig: {service: {namespace: default, name: none}},
                     rules: [{apiGroups: [x.example.com], apiVersions: [v1], operations: [CREATE], resources: [things]}],
                     sideEffects: None, admissionReviewVersions: [v1]}]},
        {apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {name: v1.dead.example.com},
         spec: {group: dead.example.com, version: v1, groupPriorityMinimum: 100, versionPriority: 100,
                insecureSkipTLSVerify: true, service: {namespace: default, name: none}}}]}"#;
    let file = dir.join("trouble.yaml");
    std::fs::write(&file, trouble).unwrap();
    plane.kubectl(&["apply", "-f", file.as_str()]).unwrap();
    let report = cmd::wait_for("the trouble is found", std::time::Duration::from_secs(120), || {
        let report = check(3);
        Ok((codes(&report).len() == 3).then_some(report))
    })
    .unwrap();
    assert_eq!(codes(&report), ["RK-N01", "RK-A08", "RK-A11"], "{report:#}");
    assert_eq!(report["success"], false);

    refuses(dir, &shop);
    assert!(!state.exists(), "a verb that refuses writes nothing");
}

// The API of a cluster of GKE's does not answer, and its address is a bare number: the program for its credentials tells
// whose it is. `check` says that the API is silent, and nothing of the hosts is looked for on this machine.
#[test]
fn a_silent_cluster_of_gkes_is_known_by_its_login() {
    let folder = tempfile::tempdir().unwrap();
    let dir = Utf8Path::from_path(folder.path()).unwrap();
    let program = dir.join("gke-gcloud-auth-plugin");
    credential_program(&program, "t");
    let config = dir.join("config");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{}'}}}}]\n\
         users: [{{name: u, user: {{exec: {{apiVersion: client.authentication.k8s.io/v1, command: '{program}', \
         interactiveMode: Never, provideClusterInfo: true}}}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n",
        testbed::ports::free()
    );
    std::fs::write(&config, text).unwrap();
    let api = ["--kubeconfig", config.as_str()];
    let state = dir.join("state");
    let output = rekindle(&[&["check", "--state-dir", state.as_str()], &api[..]].concat());
    let table = said(&output);
    assert_eq!(output.status.code(), Some(3), "{table}");
    assert!(table.contains("this is GKE's part; no access to it is given"), "{table}");
    assert!(table.contains("RK-A"), "the silent API is no finding: {table}");
    let output = rekindle(&[&["recover", "--yes", "--state-dir", state.as_str()], &api[..]].concat());
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    assert!(said(&output).contains("is not available on GKE"), "{}", said(&output));
}

/// The kubeconfig lies where the provider's tool writes it. It counts by itself and with a context of it; one that leads
/// nowhere is nobody's cluster, and this machine is looked at.
fn found_at_home(dir: &Utf8Path, config: &Utf8Path, state: &Utf8Path) {
    let home = dir.join("home");
    std::fs::create_dir_all(home.join(".kube")).unwrap();
    let text = std::fs::read_to_string(config).unwrap();
    let state = ["--state-dir", state.as_str()];
    let check = |context: &[&str]| said(&at_home(&home, &[&["check"], &state[..], context].concat()));
    let theirs = "this is EKS's part; no access to it is given";
    std::fs::write(home.join(".kube/config"), &text).unwrap();
    assert!(check(&["--context", "shop"]).contains(theirs), "{}", check(&["--context", "shop"]));
    assert!(!check(&[]).contains(theirs), "{}", check(&[]));
    let current = text.replace("current-context: nowhere", "current-context: shop");
    std::fs::write(home.join(".kube/config"), current).unwrap();
    assert!(check(&[]).contains(theirs), "{}", check(&[]));
    let refused = at_home(&home, &[&["recover", "--yes"], &state[..]].concat());
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    assert!(said(&refused).contains("is not available on EKS"), "{}", said(&refused));
}

/// Every verb that needs etcd or a control-plane host.
fn refuses(dir: &Utf8Path, shop: &[&str]) {
    let key = dir.join("sign.key");
    let vault = dir.join("vault");
    std::fs::create_dir(&vault).unwrap();
    let (id, scratch) = (dir.join("id"), dir.join("scratch"));
    let keygen = components::age().unwrap().path("age-keygen");
    cmd::run(Command::new(&keygen).arg("-o").arg(&id)).unwrap();
    let recipient = cmd::run(Command::new(&keygen).arg("-y").arg(&id)).unwrap();
    let into = ["--vault", vault.as_str(), "--signing-key", key.as_str(), "--recipient", recipient.trim()];
    let init = rekindle(&[&["backup", "init", "--identity", id.as_str()], &into[..]].concat());
    assert!(init.status.success(), "{}", said(&init));
    let into = [&into[..], &["--cluster", "shop", "--scratch", scratch.as_str()]].concat();
    let state = dir.join("state");
    let state = ["--state-dir", state.as_str()];
    let (snapshot, book) = (dir.join("x.db"), dir.join("book"));
    let verbs: [(&str, Vec<&str>); 9] = [
        ("recover", [&["--yes"], &state[..]].concat()),
        ("plan", state.into()),
        ("certs check", state.into()),
        ("certs renew", [&["--all", "--yes"], &state[..]].concat()),
        ("reset", [&["--yes"], &state[..]].concat()),
        ("runbook", vec!["--out", book.as_str()]),
        ("snapshot save", vec![snapshot.as_str()]),
        ("backup run", into.clone()),
        ("backup bundle", into),
    ];
    for (verb, args) in verbs {
        let words: Vec<&str> = verb.split(' ').collect();
        let output = rekindle(&[&words[..], &args[..], shop].concat());
        let said = said(&output);
        assert_eq!(output.status.code(), Some(5), "{verb}: {said}");
        let sentence =
            format!("`rekindle {verb}` is not available on EKS: etcd and the control-plane hosts are");
        assert!(said.contains(&sentence) && said.contains("hint: "), "{verb}: {said}");
    }
    assert!(!snapshot.exists() && !book.exists());
}
