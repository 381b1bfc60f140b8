//! Drills against a real control plane: its backup is booted where it reaches nothing, every object is compared, and what is
//! wrong is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use camino::{Utf8Path, Utf8PathBuf};
use common::site::{Site, rekindle};
use common::{Member, wait_for};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use testbed::components::{etcd_line, kubernetes};
use testbed::plane::{Options, Plane};

/// Secrets are encrypted at rest.
const ENCRYPTION: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
    - {resources: [secrets], providers: [{aescbc: {keys: [{name: one, secret: \
    'MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE='}]}}, {identity: {}}]}\n";

/// Somebody outside, whom the cluster's objects name: how often it was called.
fn outsider() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, calls) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counted = calls.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    (port, calls)
}

/// Objects of many kinds: more of one kind than fit a page, a definition with its objects, a stored token and one that nobody
/// used for long (so that any API server refuses it, whatever its keys), a Secret; and an API and a webhook that somebody
/// outside serves.
fn fill(plane: &Plane, dir: &Utf8Path, outsider: u16) {
    let mut many = String::new();
    for number in 0..620 {
        let _ = writeln!(
            many,
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{number}, namespace: shop}}"
        );
    }
    let text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n---\n\
         apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: till, namespace: shop}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: till, namespace: shop, annotations: \
         {{kubernetes.io/service-account.name: till}}}}\ntype: kubernetes.io/service-account-token\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: a-unused, namespace: shop, annotations: \
         {{kubernetes.io/service-account.name: till}}, labels: {{kubernetes.io/legacy-token-invalid-since: '2025-01-01'}}}}\n\
         type: kubernetes.io/service-account-token\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec: {{ports: [{{port: 80}}]}}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: shop}}\nspec: {{selector: {{matchLabels: \
         {{a: b}}}}, template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}}}\n---\n\
         apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: orders.shop.example.org}}\n\
         spec: {{group: shop.example.org, scope: Namespaced, names: {{plural: orders, kind: Order}}, versions: [{{name: v1, \
         served: true, storage: true, schema: {{openAPIV3Schema: {{type: object, \
         x-kubernetes-preserve-unknown-fields: true}}}}}}]}}\n{many}"
    );
    let apply = |name: &str, text: &str| {
        std::fs::write(dir.join(name), text).unwrap();
        plane.kubectl(&["apply", "--server-side", "-f", dir.join(name).as_str()]).unwrap();
    };
    apply("all.yaml", &text);
    plane
        .kubectl(&["wait", "--for=condition=Established", "crd/orders.shop.example.org", "--timeout=120s"])
        .unwrap();
    apply(
        "order.yaml",
        "apiVersion: shop.example.org/v1\nkind: Order\nmetadata: {name: one, namespace: shop}\nspec: {of: tea}\n",
    );
    apply(
        "outside.yaml",
        &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: far, namespace: shop}}\nspec: {{type: ExternalName, \
             externalName: localhost, ports: [{{port: {outsider}}}]}}\n---\n\
             apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {{name: v1.far.example.org}}\n\
             spec: {{group: far.example.org, version: v1, groupPriorityMinimum: 1, versionPriority: 1, \
             insecureSkipTLSVerify: true, service: {{name: far, namespace: shop, port: {outsider}}}}}\n---\n\
             apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {{name: far}}\n\
             webhooks: [{{name: far.example.org, failurePolicy: Fail, sideEffects: None, admissionReviewVersions: [v1], \
             clientConfig: {{url: 'https://localhost:{outsider}/'}}, rules: [{{apiGroups: [''], apiVersions: [v1], \
             operations: [CREATE], resources: [secrets]}}]}}]\n"
        ),
    );
    wait_for("the token controller does not work", || {
        let token = plane.kubectl(&["-n", "shop", "get", "secret", "till", "-o", "jsonpath={.data.token}"]);
        token.is_ok_and(|token| !token.is_empty())
    });
    wait_for("the unused one gets no token", || {
        let path = ["-n", "shop", "get", "secret", "a-unused", "-o", "jsonpath={.data.token}"];
        plane.kubectl(&path).is_ok_and(|token| !token.is_empty())
    });
    wait_for("the CA is not published", || {
        plane.kubectl(&["-n", "shop", "get", "configmap", "kube-root-ca.crt", "-o", "name"]).is_ok()
    });
}

fn drill(args: &[&str], reports: &Utf8Path) -> (Option<i32>, Value, Output) {
    let all = [&["drill", "run", "--report-dir", reports.as_str(), "-o", "json"], args].concat();
    let output = rekindle(&all);
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report, output)
}

fn check<'r>(report: &'r Value, name: &str) -> &'r str {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["name"].as_str().unwrap().contains(name));
    found.unwrap_or_else(|| panic!("no check {name:?} in {report:#}"))["result"].as_str().unwrap()
}

/// The plane's PKI under kubeadm's names.
fn pki(plane_dir: &Utf8Path, to: &Utf8Path, sa_key: &str) {
    std::fs::create_dir(to).unwrap();
    for (from, name) in
        [("ca.crt", "ca.crt"), (&format!("{sa_key}.crt"), "sa.pub"), (&format!("{sa_key}.key"), "sa.key")]
    {
        std::fs::copy(plane_dir.join("pki").join(from), to.join(name)).unwrap();
    }
}

// A cluster is backed up and lost. The drill boots its backup in a sandbox: every object is served as it was stored, stored
// tokens are good with the cluster's keys, the user's checks run, and nobody outside is called, though the objects ask for it.
// Then: without programs the native half runs and says what it did not prove; a damaged backup, foreign keys and a missed
// target each end with their own exit code and their reason; the history shows all.
#[test]
fn a_backup_is_booted_where_it_reaches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = Utf8Path::from_path(folder.path()).unwrap();
    let (port, calls) = outsider();
    let plane_dir = dir.join("plane");
    std::fs::create_dir(&plane_dir).unwrap();
    let encryption = dir.join("encryption.yaml");
    std::fs::write(&encryption, ENCRYPTION).unwrap();
    let apiserver = vec![format!("--encryption-provider-config={encryption}")];
    let plane =
        Plane::start(&plane_dir, &Options { controllers: true, apiserver, ..Options::default() }).unwrap();
    fill(&plane, dir, port);
    wait_for("the API server does not ask the other one", || calls.load(Ordering::SeqCst) > 0);

    let (snapshot, site) = (dir.join("snapshot.db"), Site::new(&plane.etcd_url));
    let saved = rekindle(&["snapshot", "save", snapshot.as_str(), "--endpoints", &plane.etcd_url]);
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    let key = site.path("sign.key");
    let stored = rekindle(&[
        "backup",
        "run",
        "--vault",
        &site.vault,
        "--cluster",
        "prod",
        "--signing-key",
        &key,
        "--recipient",
        &site.recipient,
        "--endpoints",
        &plane.etcd_url,
        "--scratch",
        &site.path("scratch"),
    ]);
    assert!(stored.status.success(), "{}", String::from_utf8_lossy(&stored.stderr));
    drop(plane);
    pki(&plane_dir, &dir.join("pki"), "sa");
    pki(&plane_dir, &dir.join("foreign"), "apiserver");
    let bin = programs(dir);
    let (reports, scratch) = (dir.join("reports"), dir.join("scratch"));
    calls.store(0, Ordering::SeqCst);

    // everything
    let kubectl = kubernetes().unwrap().path("kubectl");
    let order = format!("test \"$({kubectl} -n shop get order one -o jsonpath='{{.spec.of}}')\" = tea");
    let alone = format!("! curl -sk --max-time 5 https://localhost:{port}/");
    std::fs::write(dir.join("wish.yaml"), "apiVersion: v1\nkind: Secret\nmetadata: {name: wish}\n---\n")
        .unwrap();
    let (wish, pki_dir, foreign) = (dir.join("wish.yaml"), dir.join("pki"), dir.join("foreign"));
    let common = ["--snapshot", snapshot.as_str(), "--scratch", scratch.as_str()];
    let booting = ["--bin-dir", bin.as_str(), "--pki", pki_dir.as_str(), "--target-rto", "1h"];
    let encrypted = ["--encryption-config", encryption.as_str()];
    let wishes = ["--check-command", &order, "--check-command", &alone, "--check-manifest", wish.as_str()];
    let (code, report, output) = drill(&[&common[..], &booting, &encrypted, &wishes].concat(), &reports);
    assert_eq!(code, Some(0), "{report:#}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((&report["outcome"], &report["kind"]), (&json!("passed"), &json!("DrillReport")));
    assert!(report["booted"]["objects"].as_u64().unwrap() > 620, "{report:#}");
    for name in
        ["every stored object is served", "every kind", "service-account keys", "the CA", "curl", "taken"]
    {
        assert_eq!(check(&report, name), "passed", "{report:#}");
    }
    let phases: Vec<&str> =
        report["phases"].as_array().unwrap().iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    assert_eq!(phases, ["fetch", "verify", "restore", "etcd", "apiServer", "compare"]);
    assert!(report["rtoVerifiedMs"].as_u64() >= report["rtoReadyMs"].as_u64());
    assert!(report["rpo"]["lostMs"].as_i64().is_some(), "the newest lease tells: {report:#}");
    assert_eq!(calls.load(Ordering::SeqCst), 0, "somebody outside was called");
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0, "the sandbox's folder is gone");

    // without programs; and with a target that can't be met
    let empty = dir.join("empty");
    std::fs::create_dir(&empty).unwrap();
    let native = [&common[..], &["--bin-dir", empty.as_str()]].concat();
    let (code, report, _) = drill(&[&native[..], &["--target-rto", "1ms"]].concat(), &reports);
    assert_eq!((code, &report["outcome"]), (Some(3), &json!("missed")), "{report:#}");
    assert_eq!(check(&report, "an API server boots"), "notProved");
    assert_eq!((&report["rtoVerifiedMs"], &report["booted"]), (&Value::Null, &Value::Null));

    // without the keys of what is encrypted: no API server, and it says why
    let (code, report, _) = drill(&[&common[..], &booting].concat(), &reports);
    assert_eq!((code, check(&report, "an API server boots")), (Some(0), "notProved"), "{report:#}");
    assert_eq!(check(&report, "etcd boots"), "passed");
    // the same where a boot is demanded, by the flag or the configuration
    let demanded = dir.join("demanded");
    let (code, report, _) = drill(&[&native[..], &["--require-boot"]].concat(), &demanded);
    assert_eq!((code, &report["outcome"]), (Some(3), &json!("missed")), "{report:#}");
    site.configure(|text| {
        format!("{text}drill: {{identity: {}, requireBoot: true}}\n", site.path("identity.txt"))
    });
    let configured =
        ["--config", &site.path("agent.yaml"), "--scratch", scratch.as_str(), "--bin-dir", empty.as_str()];
    let (code, report, _) = drill(&configured, &demanded);
    assert_eq!((code, report["missed"].as_array().map(Vec::len)), (Some(3), Some(1)), "{report:#}");
    site.configure(|text| text.split("drill: ").next().unwrap().to_owned());

    // damaged
    let (bad, mut bytes) = (dir.join("bad.db"), std::fs::read(&snapshot).unwrap());
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&bad, bytes).unwrap();
    let (code, report, output) =
        drill(&["--snapshot", bad.as_str(), "--scratch", scratch.as_str()], &reports);
    assert_eq!((code, &report["outcome"]), (Some(1), &json!("failed")), "{report:#}");
    assert!(report["failure"].as_str().unwrap().contains("sha256"), "{report:#}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("hint:"));

    // out of the vault, by the agent's configuration; with the keys of another cluster
    let identity = site.path("identity.txt");
    site.configure(|text| {
        format!("{text}drill: {{identity: {identity}, binDir: {bin}}}\ntargets: {{rtoSeconds: 3600}}\n")
    });
    let config = site.path("agent.yaml");
    let (code, report, _) = drill(
        &[&["--config", &config, "--pki", foreign.as_str(), "--scratch", scratch.as_str()], &encrypted[..]]
            .concat(),
        &reports,
    );
    assert_eq!((code, &report["outcome"]), (Some(1), &json!("failed")), "{report:#}");
    assert_eq!(check(&report, "service-account keys"), "failed");
    assert_eq!(check(&report, "every stored object is served"), "passed");
    assert_eq!(report["targets"]["rtoMs"], 3_600_000);
    assert!(report["source"]["point"]["revision"].as_i64().unwrap() > 0, "{report:#}");

    history(&reports);
}

// An agent that is told to drill does so when the line says so, and serves what came out; without programs the native half.
#[test]
fn an_agent_drills_on_its_schedule() {
    let etcd = tempfile::tempdir().unwrap();
    let member = Member::boot(&etcd.path().join("data"), &testbed::ports::free_url());
    member.try_ctl(&["put", "/registry/namespaces/kube-system", "a"]).unwrap();
    let site = Site::new(&member.url);
    let (identity, empty) = (site.path("identity.txt"), site.path("empty"));
    std::fs::create_dir(&empty).unwrap();
    site.configure(|text| {
        format!("{text}drill: {{identity: {identity}, binDir: {empty}}}\nschedule: {{drill: '* * * * *'}}\n")
    });
    let agent = site.agent();
    site.wait_healthy();
    assert!(site.metric("drill_due_timestamp_seconds").unwrap() > 0.0);
    wait_for("there is no drill", || site.metric("drill_last_passed") == Some(1.0));
    let passed = site.metric("drill_last_success_timestamp_seconds").unwrap();
    assert!(passed > 0.0 && site.metric("drill_last_timestamp_seconds").unwrap() >= passed);
    assert!(site.metric("drill_rto_seconds").unwrap().is_nan(), "it was not booted");
    assert!(site.metric("drill_rpo_seconds").unwrap() < 600.0);
    assert!(site.log().contains("the drill passed"), "{}", site.log());
    site.end(agent);
    let reports = site.path("state/drills");
    let history = rekindle(&["drill", "history", "--report-dir", &reports]);
    assert!(String::from_utf8_lossy(&history.stdout).contains("passed"));
}

fn history(reports: &Utf8Path) {
    let output = rekindle(&["drill", "history", "--report-dir", reports.as_str(), "-o", "json"]);
    let history: Value = serde_json::from_slice(&output.stdout).unwrap();
    let drills = history["drills"].as_array().unwrap();
    let outcomes: Vec<&str> = drills.iter().map(|drill| drill["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["passed", "missed", "passed", "failed", "failed"]);
    assert!(drills[3]["reason"].as_str().unwrap().contains("sha256"), "{history:#}");
    assert_eq!((&history["trend"]["passed"], &history["trend"]["failingSince"]), (&json!(2), &json!(2)));
    let table = rekindle(&["drill", "history", "--report-dir", reports.as_str()]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("RTO now "));
    let kept = |kind: &str| {
        let files = std::fs::read_dir(reports).unwrap().map(|file| file.unwrap().path());
        files.filter(|file| file.extension().is_some_and(|found| found == kind)).count()
    };
    assert_eq!((kept("json"), kept("md"), kept("html")), (5, 5, 5));
}

/// etcd and kube-apiserver in one folder.
fn programs(dir: &Utf8Path) -> Utf8PathBuf {
    let bin = dir.join("bin");
    std::fs::create_dir(&bin).unwrap();
    symlink(etcd_line("3.6").unwrap().etcd, bin.join("etcd")).unwrap();
    symlink(kubernetes().unwrap().path("kube-apiserver"), bin.join("kube-apiserver")).unwrap();
    bin
}
