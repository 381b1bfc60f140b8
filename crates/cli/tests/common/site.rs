//! An agent's surroundings: a vault, its keys, a configuration that names them, and the agent itself as a process.

use super::{Running, wait_for};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use testbed::components::age;

/// The answer of a server on loopback, head and body.
pub(crate) fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

pub(crate) fn rekindle(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rekindle")).args(args).stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn json(args: &[&str]) -> Value {
    let output = rekindle(&[args, &["-o", "json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A vault, its keys, and a configuration that names them.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) vault: String,
    pub(crate) env: Vec<(&'static str, String)>,
    pub(crate) signer: String,
    pub(crate) recipient: String,
    pub(crate) port: u16,
}

impl Site {
    /// Its vault is a folder.
    pub(crate) fn new(etcd: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let vault = dir.path().join("vault").to_str().unwrap().to_owned();
        std::fs::create_dir(&vault).unwrap();
        Self::over(dir, vault, Vec::new(), etcd)
    }

    pub(crate) fn over(
        dir: tempfile::TempDir,
        vault: String,
        env: Vec<(&'static str, String)>,
        etcd: &str,
    ) -> Self {
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let (keygen, identity) = (age().unwrap().path("age-keygen"), path("identity.txt"));
        assert!(Command::new(&keygen).args(["-o", &identity]).output().unwrap().status.success());
        let public = Command::new(&keygen).args(["-y", &identity]).output().unwrap();
        let recipient = String::from_utf8(public.stdout).unwrap().trim().to_owned();
        let key = path("sign.key");
        let keys = ["--vault", &vault, "--signing-key", &key, "--recipient", &recipient];
        let init = [&["backup", "init", "--identity", &identity, "-o", "json"], &keys[..]].concat();
        let made =
            Command::new(env!("CARGO_BIN_EXE_rekindle")).args(init).envs(env.clone()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let made: Value = serde_json::from_slice(&made.stdout).unwrap();
        let port = testbed::ports::free();
        let config = format!(
            "vault: {vault}\ncluster: prod\nsigningKey: {key}\nrecipients: [{recipient}]\n\
             etcd: {{endpoints: ['{etcd}']}}\nstateDir: {}\nsegmentAgeMs: 1000\nlisten: 127.0.0.1:{port}\n",
            path("state")
        );
        std::fs::write(path("agent.yaml"), config).unwrap();
        Self { signer: made["signer"].as_str().unwrap().to_owned(), recipient, dir, vault, env, port }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn agent(&self) -> Running {
        self.agent_with(&[])
    }

    pub(crate) fn agent_with(&self, flags: &[&str]) -> Running {
        let log = std::fs::File::options().append(true).create(true).open(self.path("agent.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_rekindle"))
            .args(["agent", "--config", &self.path("agent.yaml")])
            .args(flags)
            .envs(self.env.clone())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn();
        Running(child.unwrap())
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    pub(crate) fn get(&self, path: &str) -> Option<String> {
        get(self.port, path)
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.get("/healthz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    }

    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let answer = self.get("/metrics")?;
        let line = answer.lines().find_map(|line| line.strip_prefix(&format!("rekindle_agent_{name} ")))?;
        line.parse().ok()
    }
}

impl Site {
    /// Changes the configuration's text.
    pub(crate) fn configure(&self, change: impl FnOnce(String) -> String) {
        let path = self.path("agent.yaml");
        std::fs::write(&path, change(std::fs::read_to_string(&path).unwrap())).unwrap();
    }

    /// A second agent for the same vault, with a folder and a port of its own.
    pub(crate) fn beside(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = testbed::ports::free();
        let state = dir.path().join("state").to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(self.path("agent.yaml")).unwrap();
        let text =
            text.replace(&self.path("state"), &state).replace(&self.port.to_string(), &port.to_string());
        std::fs::write(dir.path().join("agent.yaml"), text).unwrap();
        Self {
            dir,
            port,
            vault: self.vault.clone(),
            env: self.env.clone(),
            signer: self.signer.clone(),
            recipient: self.recipient.clone(),
        }
    }

    /// Ends it as systemd does, and waits.
    pub(crate) fn end(&self, mut agent: Running) {
        signal("TERM", &agent);
        assert!(agent.0.wait().unwrap().success(), "{}", self.log());
    }

    /// The vault's folder goes away: what comes back undoes it.
    pub(crate) fn take_vault_away(&self) -> impl FnOnce() + use<> {
        let (vault, aside) = (self.vault.clone(), self.path("vault-aside"));
        std::fs::rename(&vault, &aside).unwrap();
        std::fs::write(&vault, "no folder").unwrap();
        move || {
            std::fs::remove_file(&vault).unwrap();
            std::fs::rename(&aside, &vault).unwrap();
        }
    }

    /// All timelines of the vault.
    pub(crate) fn timelines(&self) -> Vec<Value> {
        let list = json(&["backup", "list", "--vault", &self.vault, "--signer", &self.signer]);
        list["timelines"].as_array().unwrap().clone()
    }

    pub(crate) fn wait_healthy(&self) {
        wait_for(&format!("the agent is not healthy: {}", self.path("agent.log")), || self.is_healthy());
    }
}

pub(crate) fn signal(name: &str, process: &Running) {
    let pid = process.0.id().to_string();
    assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
}
