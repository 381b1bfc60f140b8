//! The agent as it is deployed on Kubernetes: as its static pod and by its Helm chart, each as it is shipped, under a real
//! kubelet, with the vault in an S3 server that goes away for a minute while the cluster is written to.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use camino::Utf8Path;
use scenarios::{Cluster, REKINDLE, identity};
use std::time::{Duration, Instant};
use testbed::components::{helm, versitygw};
use testbed::set::Kind;
use testbed::{Host, cmd, image};

const VAULT: &str = "s3://backups/prod";
const IMAGE: &str = "registry.example/rekindle:0.1.0";
const ENV: &str = "/etc/rekindle/vault.env";
const IDENTITY: &str = "/root/identity.txt";
const MANIFEST: &str = "/etc/kubernetes/manifests/rekindle-agent.yaml";
/// How long the bucket is away.
const OUTAGE: Duration = Duration::from_secs(60);
/// A loaded machine starts a pod in tens of seconds.
const PATIENCE: Duration = Duration::from_secs(240);

fn shipped(name: &str) -> String {
    format!("{}/../deploy/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A cluster of one host with an S3 server, keys, and the agent's image.
struct Site {
    cluster: Cluster,
    recipient: String,
    signer: String,
}

impl Site {
    fn new() -> Self {
        let cluster = Cluster::load(Kind::Kubeadm1).unwrap();
        let host = cluster.set.host("cp1").unwrap();
        let (secret, recipient) = identity().unwrap();
        host.script("mkdir -p /etc/rekindle /s3/backups").unwrap();
        host.write(IDENTITY, secret).unwrap();
        let env = "AWS_ACCESS_KEY_ID=test\nAWS_SECRET_ACCESS_KEY=secret\nAWS_REGION=us-east-1\n\
                   AWS_ENDPOINT=http://127.0.0.1:7070\nAWS_ALLOW_HTTP=true\n";
        host.write(ENV, env).unwrap();
        host.exec_ok(&["chmod", "600", ENV]).unwrap();
        host.push(&versitygw().unwrap().path("versitygw"), "/usr/local/bin/versitygw").unwrap();
        gateway(host);
        load_image(host);
        let keys = "--signing-key /etc/rekindle/sign.key --identity /root/identity.txt";
        let init = format!("backup init --vault {VAULT} {keys} --recipient {recipient} -o json");
        let made: serde_json::Value = serde_json::from_str(&with_env(host, &init).unwrap()).unwrap();
        let signer = made["signer"].as_str().unwrap().to_owned();
        Self { cluster, recipient, signer }
    }

    fn host(&self) -> &Host {
        self.cluster.set.host("cp1").unwrap()
    }

    fn healthy(&self) {
        let ask = "exec 3<>/dev/tcp/127.0.0.1/9475; printf 'GET /healthz HTTP/1.0\r\n\r\n' >&3; head -1 <&3 | grep ' 200 '";
        cmd::wait_for("the agent is healthy", PATIENCE, || self.host().script(ask).map(Some)).unwrap();
    }

    /// Every ConfigMap of these names can be read back out of the vault, with nothing but the vault and the identity.
    fn stored(&self, names: &[String]) {
        let prefix = "/registry/configmaps/default/";
        let read = format!(
            "snapshot export --from {VAULT} --identity {IDENTITY} --trusted-signer {} --prefix {prefix}",
            self.signer
        );
        cmd::wait_for("all that was written is in the vault", PATIENCE, || {
            let there = with_env(self.host(), &read)?;
            let missing: Vec<_> =
                names.iter().filter(|name| !there.contains(&format!("{prefix}{name}\""))).collect();
            anyhow::ensure!(missing.is_empty(), "{missing:?} are missing");
            Ok(Some(()))
        })
        .unwrap();
    }
}

/// Calls the binary on the host with the store's credentials.
fn with_env(host: &Host, line: &str) -> anyhow::Result<String> {
    host.script(&format!("set -a; . {ENV}; {REKINDLE} {line}"))
}

fn gateway(host: &Host) {
    let run = "systemd-run --collect --unit=gateway /usr/local/bin/versitygw --access test --secret secret --quiet \
               --port 127.0.0.1:7070 posix /s3";
    host.script(run).unwrap();
    let ask = "exec 3<>/dev/tcp/127.0.0.1/7070";
    cmd::wait_for("the S3 server answers", PATIENCE, || host.script(ask).map(Some)).unwrap();
}

/// Gives the host's containerd an image of the binary under test, as `deploy/Containerfile` makes it.
fn load_image(host: &Host) {
    let dir = tempfile::tempdir().unwrap();
    let dir = Utf8Path::from_path(dir.path()).unwrap();
    let archive = image::archive(dir, IMAGE, "rekindle", &[scenarios::binary().unwrap()]).unwrap();
    host.push(&archive, "/root/rekindle.tar").unwrap();
    host.exec_ok(&["ctr", "-n", "k8s.io", "images", "import", "--local", "/root/rekindle.tar"]).unwrap();
}

// kubelet runs the static pod. The bucket is away for a minute while objects are made: each of them is in the vault in the
// end. Then the chart takes the pod's place, with its Secret and its Lease, and goes on in the same vault, which verifies.
#[test]
fn as_a_static_pod_and_by_the_chart() {
    let site = Site::new();
    let host = site.host();
    let pki = "/etc/kubernetes/pki/etcd";
    let config = format!(
        "vault: {VAULT}\nvaultCredentials: {ENV}\ncluster: prod\nsigningKey: /etc/rekindle/sign.key\nrecipients: [{}]\n\
         etcd:\n  endpoints: ['https://127.0.0.1:2379']\n  cacert: {pki}/ca.crt\n  cert: {pki}/healthcheck-client.crt\n  \
         key: {pki}/healthcheck-client.key\n",
        site.recipient
    );
    host.write("/etc/rekindle/agent.yaml", config).unwrap();
    host.write(MANIFEST, std::fs::read(shipped("kubernetes/rekindle-agent.static-pod.yaml")).unwrap())
        .unwrap();
    site.healthy();

    host.exec_ok(&["systemctl", "stop", "gateway"]).unwrap();
    let (start, mut names) = (Instant::now(), Vec::new());
    while start.elapsed() < OUTAGE {
        let name = format!("away-{}", names.len());
        site.cluster.mark(&name).unwrap();
        names.push(name);
    }
    gateway(host);
    site.stored(&names);
    site.healthy();
    let pod = ["get", "pod", "rekindle-agent-cp1", "-n", "kube-system", "-o"];
    let restarts = "jsonpath={.status.phase} {.status.containerStatuses[0].restartCount}";
    assert_eq!(site.cluster.set.kubectl_ok(&[&pod[..], &[restarts]].concat()).unwrap(), "Running 0");

    host.exec_ok(&["rm", MANIFEST]).unwrap();
    cmd::wait_for("the static pod has ended", PATIENCE, || {
        Ok((!site.cluster.set.kubectl(&[&pod[..], &["name"]].concat())?.status.success()).then_some(()))
    })
    .unwrap();
    install(&site);
    site.healthy();
    site.cluster.mark("by-the-chart").unwrap();
    site.stored(&["by-the-chart".into()]);
    let lease =
        ["get", "lease", "rekindle-agent", "-n", "kube-system", "-o", "jsonpath={.spec.holderIdentity}"];
    assert!(!site.cluster.set.kubectl_ok(&lease).unwrap().is_empty(), "nobody holds the Lease");
    let verify = format!("backup verify --vault {VAULT} --identity {IDENTITY} --signer {}", site.signer);
    with_env(host, &verify).unwrap();
}

/// `helm install` with the values that its comments ask for.
fn install(site: &Site) {
    let host = site.host();
    let dir = tempfile::tempdir().unwrap();
    for (name, path) in [("sign.key", "/etc/rekindle/sign.key"), ("vault.env", ENV)] {
        std::fs::write(dir.path().join(name), host.read(path).unwrap()).unwrap();
    }
    let file = |name: &str| format!("--from-file={}", dir.path().join(name).display());
    let secret = ["create", "secret", "generic", "rekindle-agent", "-n", "kube-system"];
    let files = [file("sign.key"), file("vault.env")];
    let files = files.each_ref().map(String::as_str);
    site.cluster.set.kubectl_ok(&[&secret[..], &files].concat()).unwrap();
    let mut helm = cmd::command(helm().unwrap().path("helm").as_str(), ["install", "rekindle-agent"]);
    helm.arg(shipped("helm/rekindle-agent")).args([
        "--namespace",
        "kube-system",
        "--wait",
        "--timeout",
        "4m",
    ]);
    helm.args(["--kubeconfig", site.cluster.set.admin_kubeconfig().as_str()]);
    for value in [
        format!("image={IMAGE}"),
        format!("vault={VAULT}"),
        "cluster=prod".into(),
        format!("recipients={{{}}}", site.recipient),
    ] {
        helm.args(["--set", &value]);
    }
    let folders = ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"];
    cmd::run(helm.envs(folders.map(|name| (name, dir.path())))).unwrap();
}
