//! The story: what is shipped to run the agent on Kubernetes is good before anybody's cluster has to say so. Helm lints and
//! renders the chart and refuses values with a typo; a real API server takes what comes out, and the static pod; the agent
//! takes the configuration in it; the DaemonSet for those without Helm is the chart's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "../../world/tests/etcd/apiserver.rs"]
#[allow(dead_code)]
mod apiserver;
#[path = "../../world/tests/etcd/cluster.rs"]
#[allow(dead_code)]
mod cluster;
mod common;

use cluster::{Folder, Pki, start_cluster};
use common::site::{Site, rekindle};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use testbed::components::{helm, kubernetes};

/// What the DaemonSet for those without Helm is made with.
const EXAMPLE: [&str; 4] = [
    "image=registry.example/rekindle:0.1.0",
    "vault=s3://backups/prod",
    "cluster=prod",
    "recipients={age1yourpublickey}",
];

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name)
}

fn run_helm(verb: &[&str], values: &[&str]) -> Output {
    let mut command = Command::new(helm().unwrap().path("helm"));
    command.args(verb).arg(shipped("helm/rekindle-agent"));
    let home = tempfile::tempdir().unwrap();
    let folders = ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"];
    command.envs(folders.map(|name| (name, home.path())));
    command.args(values.iter().flat_map(|value| ["--set", value])).output().unwrap()
}

fn rendered(values: &[&str]) -> String {
    let version = format!("--kube-version=v{}", kubernetes().unwrap().version);
    let output = run_helm(&["template", "rekindle-agent", "--namespace=kube-system", &version], values);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn documents(text: &str) -> Vec<Value> {
    let documents = text.split("\n---").map(|text| text.trim_start_matches("---"));
    let parsed = documents.map(|text| serde_saphyr::from_str::<Value>(text).unwrap());
    parsed.filter(Value::is_object).collect()
}

#[test]
fn the_chart_is_sound() {
    let version = format!("--kube-version=v{}", kubernetes().unwrap().version);
    let linted = run_helm(&["lint", "--strict", &version], &EXAMPLE);
    assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stdout));
    for wrong in [
        "image=",
        "vault=s3:/backups",
        "recipients={}",
        "recipient={age1x}",
        "etcd.endpoint=x",
        "spoolMaxMib=1",
    ] {
        let output = run_helm(&["template", "x"], &[&EXAMPLE[..], &[wrong]].concat());
        assert!(!output.status.success(), "{wrong} is taken");
    }
    // with all that is off unless asked for: the rules and the dashboard as they are shipped
    let all = documents(&rendered(&[&EXAMPLE[..], &["prometheusRule=true", "dashboard=true"]].concat()));
    let of_kind = |kind: &str| all.iter().filter(|document| document["kind"] == kind).collect::<Vec<_>>();
    let rules = std::fs::read_to_string(shipped("prometheus/rekindle-rules.yaml")).unwrap();
    let rules: Value = serde_saphyr::from_str(&rules).unwrap();
    assert_eq!(of_kind("PrometheusRule")[0]["spec"], rules);
    let dashboard = std::fs::read_to_string(shipped("grafana/rekindle.json")).unwrap();
    let found =
        of_kind("ConfigMap").into_iter().find_map(|map| map["data"]["rekindle.json"].as_str()).unwrap();
    assert_eq!(found.trim(), dashboard.trim());
}

// Written anew by: REKINDLE_WRITE_MANIFESTS=1 cargo test -p rekindle --features stock --test deploy
#[test]
fn the_daemonset_is_the_charts() {
    let path = shipped("kubernetes/rekindle-agent.daemonset.yaml");
    let head = "# The agent on every control-plane host, for those without Helm: the chart's own, with example values. Change what says\n\
                # example, the ConfigMap, and make the Secret first:\n\
                #   kubectl -n kube-system create secret generic rekindle-agent --from-file=sign.key --from-file=vault.env\n";
    let due = format!("{head}{}", rendered(&EXAMPLE));
    if std::env::var_os("REKINDLE_WRITE_MANIFESTS").is_some() {
        std::fs::write(&path, &due).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), due);
}

// A key that the chart renders and the agent does not know would be found by whoever installs it.
#[test]
fn the_agent_takes_the_charts_configuration() {
    let site = Site::new("http://127.0.0.1:1");
    let vault = format!("vault=file://{}", site.vault);
    let recipient = format!("recipients={{{}}}", site.recipient);
    let schedule = ["schedule.full=30 */4 * * *", "schedule.timeZone=UTC", "schedule.jitterSeconds=60"];
    let values = [&EXAMPLE[..1], &[&vault, "cluster=prod", &recipient], &schedule].concat();
    let text = rendered(&values);
    let maps = documents(&text);
    let config = maps.iter().find_map(|map| map["data"]["agent.yaml"].as_str()).unwrap();
    let secret = site.path("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::copy(site.path("sign.key"), format!("{secret}/sign.key")).unwrap();
    std::fs::write(format!("{secret}/vault.env"), "AWS_REGION=us-east-1\n").unwrap();
    let path = site.path("chart.yaml");
    std::fs::write(&path, config.replace("/etc/rekindle/secret", &secret)).unwrap();
    let output = rekindle(&["agent", "--check-config", "--config", &path]);
    assert!(output.status.success(), "{}\n{config}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_takes_it() {
    let folder = Folder::new();
    let etcd = testbed::components::etcd_line("3.6").unwrap();
    let members = start_cluster(&etcd, folder.path(), &["cp1"]);
    let pki = Pki::new(&folder.path().join("pki"));
    let (_server, url) = apiserver::start(&folder, &pki, &members[0].url()).await;
    let file = |name: &str| pki.dir.join(name).into_string();
    let kubectl = |args: &[&str], input: &str| -> String {
        let mut child = Command::new(kubernetes().unwrap().path("kubectl"))
            .args([
                "--server",
                &url,
                "--tls-server-name=kubernetes",
                "--certificate-authority",
                &file("ca.crt"),
            ])
            .args(["--client-certificate", &file("admin.crt"), "--client-key", &file("admin.key")])
            .args(args)
            .env("HOME", folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !told.contains("Warning"), "{args:?}: {told}");
        String::from_utf8(output.stdout).unwrap()
    };
    let apply = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    let daemonset = std::fs::read_to_string(shipped("kubernetes/rekindle-agent.daemonset.yaml")).unwrap();
    for text in [rendered(&[&EXAMPLE[..], &["dashboard=true"]].concat()), daemonset] {
        let told = kubectl(&apply, &text);
        for kind in ["serviceaccount", "configmap", "role.", "rolebinding.", "daemonset."] {
            assert!(told.lines().any(|line| line.starts_with(kind) && line.contains("created")), "{told}");
        }
    }
    // no controller makes it here
    kubectl(&["-n", "kube-system", "create", "serviceaccount", "default"], "");
    let pod = std::fs::read_to_string(shipped("kubernetes/rekindle-agent.static-pod.yaml")).unwrap();
    let told = kubectl(&apply, &pod);
    assert!(told.starts_with("pod/rekindle-agent created"), "{told}");
}
