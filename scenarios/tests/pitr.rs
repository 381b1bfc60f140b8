//! Point in time: a namespace with all that is in it is deleted by mistake. The cluster is healthy, and yet it goes back to
//! the point before, out of the vault; what can't be had is refused, and nothing is done where nothing was asked for.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use scenarios::{Cluster, STOP_ALL, THREE, identity, verified};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
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
        let (secret, recipient) = identity().unwrap();
        let host = cluster.set.host("cp1").unwrap();
        host.write(IDENTITY, secret).unwrap();
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

/// `kubectl proxy`: the API in plain HTTP on loopback.
struct Proxy {
    process: Child,
    port: u16,
}

impl Proxy {
    fn start(cluster: &Cluster) -> Self {
        let port = testbed::ports::free();
        let mut command = cluster.set.kubectl_command(&["proxy", "--port", &port.to_string()]).unwrap();
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let proxy = Self { process, port };
        testbed::cmd::wait_for("the proxy answers", Duration::from_secs(30), || {
            Ok(TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(()))
        })
        .unwrap();
        proxy
    }

    /// Creates a ConfigMap; true once it is acknowledged.
    fn create(&self, name: &str) -> bool {
        let body = format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"text":"{}"}}}}"#, "x".repeat(500));
        let ask = || {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(
                stream,
                "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
            let mut status = [0; 12];
            stream.read_exact(&mut status)?;
            std::io::Result::Ok(status)
        };
        ask().is_ok_and(|status| status == *b"HTTP/1.1 201")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

const STATE: &str = "/var/lib/rekindle/agent";

impl Backed {
    /// The agent as it is deployed: the unit of the repository on the first host, for all members.
    fn protect(&self) {
        let host = self.cluster.set.host("cp1").unwrap();
        let urls: Vec<String> =
            self.cluster.set.control_planes().map(|host| format!("'https://{}:2379'", host.ip)).collect();
        let pki = "/etc/kubernetes/pki/etcd";
        let config = format!(
            "vault: {VAULT}\ncluster: default\nsigningKey: {KEY}\nrecipients: [{}]\netcd:\n  endpoints: [{}]\n  \
             cacert: {pki}/ca.crt\n  cert: {pki}/healthcheck-client.crt\n  key: {pki}/healthcheck-client.key\n",
            self.recipient,
            urls.join(", ")
        );
        host.exec_ok(&["mkdir", "-p", "/etc/rekindle", "/etc/systemd/system/rekindle-agent.service.d"])
            .unwrap();
        host.write("/etc/rekindle/agent.yaml", config).unwrap();
        let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/rekindle-agent.service");
        host.write("/etc/systemd/system/rekindle-agent.service", std::fs::read(unit).unwrap()).unwrap();
        let more = format!("[Service]\nReadWritePaths={VAULT}\n");
        host.write("/etc/systemd/system/rekindle-agent.service.d/vault.conf", more).unwrap();
        host.exec_ok(&["systemctl", "daemon-reload"]).unwrap();
        host.exec_ok(&["systemctl", "start", "rekindle-agent"]).unwrap();
        testbed::cmd::wait_for("the agent is healthy", Duration::from_secs(60), || {
            host.script("exec 3<>/dev/tcp/127.0.0.1/9475; printf 'GET /healthz HTTP/1.0\r\n\r\n' >&3; head -1 <&3 | grep ' 200 '")
                .map(Some)
        })
        .unwrap();
    }

    /// Clients write while every member is killed and its disk destroyed. Gives each acknowledged write with its age then.
    fn lose_everything_under_load(&self) -> Vec<(i64, String)> {
        const CLIENTS: usize = 4;
        let (proxy, stop) = (Proxy::start(&self.cluster), AtomicBool::new(false));
        let client = |client: usize| {
            let mut acknowledged = Vec::new();
            for i in 0.. {
                let name = format!("load-{client}-{i}");
                if proxy.create(&name) {
                    acknowledged.push((now_ms(), name));
                } else if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            acknowledged
        };
        let (killed_ms, acknowledged) = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|n| scope.spawn(move || client(n))).collect();
            std::thread::sleep(Duration::from_secs(8));
            let killed_ms = now_ms();
            let hosts: Vec<_> = self.cluster.set.control_planes().map(|host| host.name.clone()).collect();
            std::thread::scope(|scope| {
                for host in &hosts {
                    let wipe = "rm -rf /var/lib/etcd/member";
                    let script = format!("pkill -9 -x etcd; {wipe}; {STOP_ALL}; {wipe}");
                    scope.spawn(move || self.cluster.fault(host, &script).unwrap());
                }
            });
            stop.store(true, Ordering::Relaxed);
            (killed_ms, clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>())
        });
        assert!(acknowledged.len() > 50, "{} writes are no load", acknowledged.len());
        acknowledged.into_iter().map(|(at_ms, name)| (killed_ms - at_ms, name)).collect()
    }

    /// Ages, in ms at the kill, of the acknowledged writes that did not come back.
    #[allow(clippy::print_stdout)] // the figures
    fn lost(&self, acknowledged: &[(i64, String)]) -> Vec<i64> {
        let there = self.kubectl(&["get", "configmaps", "-n", "default", "-o", "name"]);
        let there: BTreeSet<&str> =
            there.lines().filter_map(|line| line.strip_prefix("configmap/")).collect();
        let lost = acknowledged.iter().filter(|(_, name)| !there.contains(name.as_str()));
        let lost: Vec<i64> = lost.map(|(age_ms, _)| *age_ms).collect();
        println!(
            "{} writes acknowledged, {} lost: {lost:?} ms before the kill",
            acknowledged.len(),
            lost.len()
        );
        lost
    }
}

// All three members are killed under load and their disks destroyed, the agent's is not: what clients were told to be
// written is back, but for the last second at most.
#[test]
fn all_disks_of_etcd_are_lost_under_load() {
    let backed = Backed::new(Kind::Kubeadm3);
    backed.protect();
    let probe = testbed::disk::Probe::start(backed.cluster.set.dir().as_std_path()).unwrap();
    let acknowledged = backed.lose_everything_under_load();
    let stall_ms = i64::try_from(probe.stop().unwrap()).unwrap();
    let host = backed.cluster.set.host("cp1").unwrap();
    let (vault, identity, spool) =
        (host.path(VAULT), host.path(IDENTITY), host.path(&format!("{STATE}/spool")));
    let from = ["--from", vault.as_str(), "--identity", identity.as_str(), "--spool", spool.as_str()];
    let args = [&from[..], &["--trusted-signer", &backed.signer]].concat();
    backed.cluster.recover_from_outside(&THREE, &args).unwrap();
    backed.cluster.assert_works("after").unwrap();
    backed.assert_shop_is_back();
    let lost = backed.lost(&acknowledged);
    assert!(lost.iter().all(|age_ms| *age_ms <= 1000 + 4 * stall_ms), "{lost:?}, disk: {stall_ms} ms");
}

// The host's disk is lost with all that the agent had there: the vault is what survives, and at most five seconds are lost.
#[test]
fn only_the_vault_survives() {
    let backed = Backed::new(Kind::Kubeadm1);
    backed.protect();
    let probe = testbed::disk::Probe::start(backed.cluster.set.dir().as_std_path()).unwrap();
    let acknowledged = backed.lose_everything_under_load();
    let stall_ms = i64::try_from(probe.stop().unwrap()).unwrap();
    let end = format!("systemctl kill -s KILL rekindle-agent; systemctl stop rekindle-agent; rm -rf {STATE}");
    backed.cluster.fault("cp1", &end).unwrap();
    let called = backed.from("recover", &["--yes", "-o", "json"]).expect(0).unwrap();
    verified(&called).unwrap();
    backed.cluster.assert_works("after").unwrap();
    let lost = backed.lost(&acknowledged);
    assert!(lost.iter().all(|age_ms| *age_ms <= 5000 + 10 * stall_ms), "{lost:?}, disk: {stall_ms} ms");
}
