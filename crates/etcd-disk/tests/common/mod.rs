//! Real etcd clusters on loopback for the stock tests: child processes in temporary folders, killed on drop.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    dead_code
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use etcd_disk::restore::{NewCluster, NewMember};
use serde_json::Value;
use testbed::components::Etcd;
use testbed::ports;

pub const LINES: [&str; 3] = ["3.5", "3.6", "3.7"];
const PATIENCE: Duration = Duration::from_secs(40);

pub fn etcd(line: &str) -> Etcd {
    testbed::components::etcd_line(line).expect("the stock tests need real etcd: `cargo xtask testbed build`")
}

pub struct Member {
    pub name: String,
    pub client: u16,
    pub peer: u16,
    pub data_dir: PathBuf,
    child: Option<Child>,
}

impl Member {
    pub fn new(name: &str, dir: &Path) -> Self {
        Self {
            name: name.into(),
            client: ports::free(),
            peer: ports::free(),
            data_dir: dir.join(name),
            child: None,
        }
    }

    pub fn client_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client)
    }

    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer)
    }

    /// SIGKILL: what a power cut leaves.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and wait.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = child.id().to_string();
            assert!(Command::new("kill").arg(&pid).status().unwrap().success());
            child.wait().unwrap();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

pub struct Cluster {
    pub etcd: Etcd,
    pub members: Vec<Member>,
    pub flags: Vec<String>,
    pub token: String,
    pub state: &'static str,
}

impl Cluster {
    /// `size` members below `dir`, not started.
    pub fn new(line: &str, size: usize, dir: &Path, token: &str) -> Self {
        let members = (1..=size).map(|n| Member::new(&format!("m{n}"), dir)).collect();
        Self { etcd: etcd(line), members, flags: Vec::new(), token: token.into(), state: "new" }
    }

    pub fn initial_cluster(&self) -> String {
        let all: Vec<String> = self.members.iter().map(|m| format!("{}={}", m.name, m.peer_url())).collect();
        all.join(",")
    }

    pub fn founded(&self) -> NewCluster {
        let members = self
            .members
            .iter()
            .map(|m| NewMember { name: m.name.clone(), peer_urls: vec![m.peer_url()] })
            .collect();
        NewCluster::new(&self.token, members).unwrap()
    }

    pub fn start(&mut self) {
        for index in 0..self.members.len() {
            self.spawn(index);
        }
        self.wait_healthy();
    }

    pub fn spawn(&mut self, index: usize) {
        let initial = self.initial_cluster();
        let member = &mut self.members[index];
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(member.data_dir.with_extension("log"))
            .unwrap();
        let child = Command::new(&self.etcd.etcd)
            .env("ETCD_VERIFY", "all")
            .args(["--name", &member.name, "--data-dir"])
            .arg(&member.data_dir)
            .args(["--listen-client-urls", &member.client_url()])
            .args(["--advertise-client-urls", &member.client_url()])
            .args(["--listen-peer-urls", &member.peer_url()])
            .args(["--initial-advertise-peer-urls", &member.peer_url()])
            .args(["--initial-cluster", &initial, "--initial-cluster-state", self.state])
            .args(["--initial-cluster-token", &self.token])
            .args(&self.flags)
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        member.child = Some(child);
    }

    /// Every member answers a linearizable read.
    pub fn wait_healthy(&mut self) {
        let begin = Instant::now();
        for index in 0..self.members.len() {
            let url = self.members[index].client_url();
            while !self.raw(&[&url], &["get", "health", "--command-timeout=2s"], "").status.success() {
                let member = &mut self.members[index];
                let exited = member.child.as_mut().and_then(|child| child.try_wait().unwrap());
                let log = member.data_dir.with_extension("log");
                assert!(
                    exited.is_none() && begin.elapsed() < PATIENCE,
                    "member {} is not healthy ({exited:?}):\n{}",
                    member.name,
                    tail(&log)
                );
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::client_url).collect()
    }

    pub fn raw(&self, endpoints: &[&str], args: &[&str], input: &str) -> Output {
        let mut child = Command::new(&self.etcd.etcdctl)
            .arg(format!("--endpoints={}", endpoints.join(",")))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// etcdctl against the first member; must succeed.
    pub fn ctl(&self, args: &[&str]) -> String {
        self.ctl_input(args, "")
    }

    pub fn ctl_input(&self, args: &[&str], input: &str) -> String {
        let output = self.raw(&[&self.members[0].client_url()], args, input);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "etcdctl {args:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// etcdctl's answer as JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["-w", "json"]).collect();
        parse(&self.ctl(&args))
    }

    /// HashKV of every member as (hash, compact revision, current revision).
    pub fn hash_kvs(&self, rev: i64) -> Vec<(u32, i64, i64)> {
        let endpoints = self.endpoints();
        let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
        let output = self.raw(&endpoints, &["endpoint", "hashkv", &format!("--rev={rev}"), "-w", "json"], "");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let Value::Array(answers) = parse(&text) else { panic!("{text}") };
        let number = |value: &Value| value.as_i64().unwrap_or(0);
        answers
            .iter()
            .map(|a| {
                let kv = &a["HashKV"];
                let hash = u32::try_from(number(&kv["hash"])).unwrap();
                (hash, number(&kv["compact_revision"]), number(&kv["header"]["revision"]))
            })
            .collect()
    }

    /// All keys with revisions, version, value and lease, as etcdctl prints them.
    pub fn content(&self) -> Vec<Value> {
        let answer = self.json(&["get", "", "--from-key"]);
        answer["kvs"].as_array().cloned().unwrap_or_default()
    }

    pub fn stop(&mut self) {
        for member in &mut self.members {
            member.stop();
        }
    }
}

pub fn parse(text: &str) -> Value {
    serde_json::from_str(text.trim()).unwrap_or_else(|e| panic!("{e}: {text}"))
}

pub fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// Runs a tool that must succeed; its stdout.
pub fn tool(program: &camino::Utf8PathBuf, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Fills a store with all that a restore must carry: many keys and versions, deletions, keys made again,
/// transactions with several changes, leases, a compaction with live and dead rows on both sides of it.
pub fn fill(cluster: &Cluster) {
    let lease = cluster.json(&["lease", "grant", "3600"]);
    let lease = format!("{:x}", lease["ID"].as_i64().unwrap());
    cluster.ctl(&["put", "/registry/masterleases/10.0.0.1", "a", &format!("--lease={lease}")]);
    cluster.ctl(&["lease", "grant", "7200"]);
    fill_without_leases(cluster);
    cluster.ctl(&["put", "/registry/masterleases/10.0.0.2", "b", &format!("--lease={lease}")]);
}

/// The same but for the leases.
pub fn fill_without_leases(cluster: &Cluster) {
    let puts = |prefix: &str, from: usize, to: usize, round: usize| {
        let mut txn = String::from("\n");
        for n in from..to {
            txn.push_str(&format!(
                "put /registry/{prefix}/ns{}/n{n} value-{round}-{}\n",
                n % 7,
                "x".repeat(n)
            ));
        }
        txn.push_str("\n\n");
        cluster.ctl_input(&["txn"], &txn);
    };
    for round in 0..3 {
        for part in 0..4 {
            puts("pods", part * 100, part * 100 + 100, round);
        }
        puts("secrets", 0, 100, round);
    }
    cluster.ctl(&["del", "--prefix", "/registry/pods/ns3/"]);
    cluster.ctl(&["put", "/registry/pods/ns3/n3", "born again"]);
    let revision = cluster.json(&["get", "/registry/pods/ns3/n3"])["header"]["revision"].as_i64().unwrap();
    cluster.ctl(&["compact", &(revision - 1).to_string()]);
    puts("pods", 50, 120, 9);
    cluster.ctl(&["del", "/registry/secrets/ns1/n1"]);
    cluster.ctl(&["del", "--prefix", "/registry/secrets/ns2/"]);
    cluster.ctl(&["put", "/registry/secrets/ns2/n2", "back"]);
    cluster
        .ctl_input(&["txn"], "version(\"/registry/nope\") = \"0\"\n\nput /registry/nope yes\n\nput x y\n\n");
}

/// One running member, filled, and a snapshot of it.
pub fn source(line: &str, dir: &Path) -> (Cluster, PathBuf) {
    let mut cluster = Cluster::new(line, 1, dir, "source");
    cluster.start();
    fill(&cluster);
    let path = dir.join("snapshot.db");
    cluster.ctl(&["snapshot", "save", path.to_str().unwrap()]);
    (cluster, path)
}
