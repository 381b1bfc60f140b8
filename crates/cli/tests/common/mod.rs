//! What the tests against real processes share: an etcd of one member on a data dir, free ports, patience.
#![allow(dead_code)] // each test file uses its part

pub(crate) mod site;

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use testbed::components::{Etcd, etcd_line, versitygw};
use testbed::ports::free_url;

/// A slow disk fails no test: what is waited for comes, or never.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it with nothing to read, and nothing said.
pub(crate) fn spawn(command: &mut Command) -> Running {
    Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// An S3 server over a folder, on a port that is known before, with this secret; its key's name is `test`.
pub(crate) fn gateway(port: u16, root: &Path, secret: &str) -> Running {
    let running = spawn(
        Command::new(versitygw().unwrap().path("versitygw"))
            .args(["--access", "test", "--secret", secret, "--quiet"])
            .args(["--port", &format!("127.0.0.1:{port}"), "posix", root.to_str().unwrap()]),
    );
    wait_for("the gateway does not answer", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    running
}

/// Waits until it is done, and says how long that took.
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    start.elapsed()
}

/// An etcd on a data dir, new or restored.
pub(crate) struct Member {
    pub(crate) etcd: Etcd,
    pub(crate) url: String,
    pub(crate) process: Running,
}

impl Member {
    pub(crate) fn boot(data: &Path, peer: &str) -> Self {
        let (etcd, url) = (etcd_line("3.6").unwrap(), free_url());
        let process = spawn(
            Command::new(&etcd.etcd)
                .args(["--data-dir", data.to_str().unwrap(), "--log-level", "error"])
                .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
                .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
                .args(["--initial-cluster", &format!("default={peer}")])
                .env("ETCD_VERIFY", "all"),
        );
        let member = Self { etcd, url, process };
        wait_for("etcd does not answer", || member.try_ctl(&["endpoint", "health"]).is_some());
        member
    }

    pub(crate) fn try_ctl(&self, args: &[&str]) -> Option<String> {
        let ctl =
            Command::new(&self.etcd.etcdctl).args(["--endpoints", &self.url]).args(args).output().unwrap();
        ctl.status.success().then(|| String::from_utf8(ctl.stdout).unwrap())
    }
}
