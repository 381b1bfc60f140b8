//! The benchmark's snapshot: objects of the sizes and kinds a cluster has, fixed seed, written through a real etcd.

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use testbed::{cache, cmd, components};

const LOADER: &str = include_str!("../../loader/main.go");
const GO_MOD: &str = include_str!("../../../testbed/components/etcd-3.6/go.mod");
const GO_SUM: &str = include_str!("../../../testbed/components/etcd-3.6/go.sum");
pub(super) const SEED: u32 = 20_261_122;
const VALUE_BYTES: u32 = 770;
pub(super) const CLIENT: &str = "http://127.0.0.1:23790";

/// A running etcd that ends with this value.
pub(super) struct Etcd(Child);

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts etcd on a data dir and waits until it answers; the time it took comes with it.
pub(super) fn boot(data_dir: &Utf8Path, more: &[&str]) -> Result<(Etcd, Duration)> {
    let etcd = components::etcd_line("3.6")?;
    let start = std::time::Instant::now();
    let child = Command::new(&etcd.etcd)
        .args(["--data-dir", data_dir.as_str(), "--name", "default"])
        .args(["--listen-client-urls", CLIENT, "--advertise-client-urls", CLIENT])
        .args(["--listen-peer-urls", "http://127.0.0.1:23800"])
        .args(["--initial-advertise-peer-urls", "http://127.0.0.1:23800"])
        .args(["--initial-cluster", "default=http://127.0.0.1:23800", "--quota-backend-bytes", "8589934592"])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start etcd")?;
    let running = Etcd(child);
    cmd::wait_for("etcd answers", Duration::from_secs(120), || {
        let health = ctl(&["endpoint", "health", "--command-timeout=500ms"]);
        Ok(health.is_ok().then_some(()))
    })?;
    Ok((running, start.elapsed()))
}

/// etcdctl against the etcd of [`boot`].
fn ctl(args: &[&str]) -> Result<String> {
    let etcd = components::etcd_line("3.6")?;
    cmd::run(Command::new(&etcd.etcdctl).args(["--endpoints", CLIENT]).args(args))
}

/// The snapshot file, made once.
pub(super) fn snapshot(revisions: u32) -> Result<Utf8PathBuf> {
    let dir = cache::root()?.join("bench");
    let file = dir.join(format!("fixture-{SEED}-{revisions}.db"));
    if file.is_file() {
        return Ok(file);
    }
    cmd::note(&format!("making the fixture of {revisions} revisions"));
    let loader = loader()?;
    let data = dir.join("data");
    if data.exists() {
        std::fs::remove_dir_all(&data)?;
    }
    std::fs::create_dir_all(&dir)?;
    let _etcd = boot(&data, &["--unsafe-no-fsync", "--snapshot-count", "100000"])?;
    cmd::run(Command::new(&loader).arg(CLIENT).args(numbers(revisions)))?;
    let part = dir.join("fixture.part");
    ctl(&["snapshot", "save", part.as_str()])?;
    std::fs::rename(&part, &file)?;
    std::fs::remove_dir_all(&data)?;
    Ok(file)
}

/// The loader's arguments after the endpoint: about a quarter of all revisions are live.
pub(super) fn numbers(revisions: u32) -> [String; 4] {
    [SEED, revisions / 37 * 9, revisions, VALUE_BYTES].map(|n| n.to_string())
}

/// The program that fills an etcd, built.
pub(super) fn loader() -> Result<Utf8PathBuf> {
    let work = cache::root()?.join("work/loader");
    cache::write(&work.join("go.mod"), GO_MOD)?;
    cache::write(&work.join("go.sum"), GO_SUM)?;
    cache::write(&work.join("main.go"), LOADER)?;
    let target = work.join("loader");
    let mut go = cmd::command("go", ["build", "-mod=mod", "-o", target.as_str(), "."]);
    go.current_dir(&work).env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local").env("GOFLAGS", "");
    cmd::run(&mut go).context("cannot build the loader")?;
    Ok(target)
}
