//! Sets: whole clusters, made once, saved while powered off, and loaded as fresh copies.
//!
//! A test loads a set, breaks it, acts and checks; dropping the [`Set`] cuts the power, unmounts and removes all
//! of it. In a lane ([`cache`]) one set runs at a time: bridge and addresses are the same, and loading waits for the other.

pub use crate::kind::Kind;
pub use crate::saved::{clean, is_made, make};

use crate::saved::{saved, ssh_config};
use crate::{Host, HostSpec, base, cache, cmd, components, host};
use anyhow::{Context, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;
use std::fs;
use std::process::Output;
use std::time::Duration;

/// Set to anything, this leaves the cluster of a test that panics running, for a person to look at.
const KEEP_ENV: &str = "REKINDLE_TESTBED_KEEP";

/// A cluster that runs. Dropping it takes it away, unless it was told to [`Set::stay`].
#[derive(Debug)]
pub struct Set {
    /// Which one it is.
    pub kind: Kind,
    pub(crate) dir: Utf8PathBuf,
    pub(crate) hosts: Vec<Host>,
    /// When it was booted: leases must be newer.
    pub(crate) since: String,
    /// Whether it stays when this value is dropped.
    pub(crate) keep: bool,
    pub(crate) lock: Option<cache::Lock>,
}

impl Set {
    /// A fresh copy of the saved set, booted and ready; the set is made first if it was not saved yet.
    /// Whatever ran before in its place is taken away.
    ///
    /// # Errors
    /// When the components or the base are missing (says which command builds them), or it does not get ready.
    pub fn load(kind: Kind) -> Result<Self> {
        let set = Self::load_unready(kind)?;
        set.wait_ready(Duration::from_secs(300))?;
        Ok(set)
    }

    /// [`Set::load`] without the wait for readiness: the hosts are up, the cluster is on its way.
    ///
    /// # Errors
    /// As [`Set::load`].
    pub fn load_unready(kind: Kind) -> Result<Self> {
        let base = base::built()?;
        make(kind)?;
        let lock = cache::Lock::lane()?;
        clean()?;
        let dir = cache::live()?;
        cmd::sh("cp", ["-a", saved(kind)?.as_str(), dir.as_str()])?;
        let mut hosts = Vec::new();
        for spec in kind.specs() {
            let host_dir = dir.join("hosts").join(&spec.name);
            host::link_shared(&base, &host_dir)?;
            hosts.push(Host::at(&spec, &host_dir, &base));
        }
        ssh_config(&dir, &hosts)?;
        let set = Self { kind, dir, hosts, since: now()?, keep: false, lock: Some(lock) };
        set.boot()?;
        Ok(set)
    }

    /// The set that runs now, if any: left by [`Set::stay`], or in another process's hands. It is not locked,
    /// and stays when the value is dropped.
    ///
    /// # Errors
    /// When the base is not built.
    pub fn running() -> Result<Option<Self>> {
        let dir = cache::live()?;
        let Ok(name) = fs::read_to_string(dir.join("kind")) else { return Ok(None) };
        let kind: Kind = name.trim().parse()?;
        let base = base::built()?;
        let host = |spec: &HostSpec| Host::at(spec, &dir.join("hosts").join(&spec.name), &base);
        let hosts = kind.specs().iter().map(host).collect();
        Ok(Some(Self { kind, dir, hosts, since: String::new(), keep: true, lock: None }))
    }

    /// Leaves the set running, unlocked: [`Set::running`] finds it again, [`clean`] ends it.
    pub fn stay(mut self) {
        self.keep = true;
        self.lock = None;
    }

    /// The folder of this running set.
    #[must_use]
    pub fn dir(&self) -> &Utf8Path {
        &self.dir
    }

    /// All hosts.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The hosts with a control plane.
    pub fn control_planes(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|host| host.name.starts_with("cp"))
    }

    /// The host of this name.
    ///
    /// # Errors
    /// When the set has none of this name.
    pub fn host(&self, name: &str) -> Result<&Host> {
        self.hosts
            .iter()
            .find(|host| host.name == name)
            .with_context(|| format!("{} has no host {name}", self.kind))
    }

    /// A file for `ssh -F FILE HOST`: every host by name and by address, as root.
    #[must_use]
    pub fn ssh_config(&self) -> Utf8PathBuf {
        self.dir.join("ssh_config")
    }

    /// A kubeconfig for `cluster-admin` that works from this machine.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> Utf8PathBuf {
        self.dir.join("admin.conf")
    }

    /// kubectl as `cluster-admin`, from this machine.
    ///
    /// # Errors
    /// When kubectl cannot be started; its status is the caller's to judge.
    pub fn kubectl(&self, args: &[&str]) -> Result<Output> {
        cmd::output(&mut self.kubectl_command(args)?)
    }

    /// [`Set::kubectl`] that must succeed; its standard output.
    ///
    /// # Errors
    /// Also when its status is not 0.
    pub fn kubectl_ok(&self, args: &[&str]) -> Result<String> {
        cmd::run(&mut self.kubectl_command(args)?)
    }

    /// The command of [`Set::kubectl`], to be started by the caller.
    ///
    /// # Errors
    /// When Kubernetes is not built.
    pub fn kubectl_command(&self, args: &[&str]) -> Result<std::process::Command> {
        let kubectl = components::kubernetes()?.path("kubectl");
        let mut command = cmd::command(kubectl.as_str(), ["--kubeconfig", self.admin_kubeconfig().as_str()]);
        command.args(["--request-timeout", "15s"]).args(args);
        Ok(command)
    }

    /// Waits until `/readyz` of every API server says ok, asked one by one, and every node is Ready with a
    /// lease renewed since this set was loaded (a Ready condition alone may be an old one).
    ///
    /// # Errors
    /// When that is not so within `timeout`; the error says what was missing last.
    pub fn wait_ready(&self, timeout: Duration) -> Result<()> {
        self.wait_ready_since(&self.since, timeout)
    }

    /// [`Set::wait_ready`] with leases renewed since `since`, an RFC 3339 time in UTC with microseconds.
    ///
    /// # Errors
    /// As [`Set::wait_ready`].
    pub fn wait_ready_since(&self, since: &str, timeout: Duration) -> Result<()> {
        cmd::wait_for(&format!("{} ready", self.kind), timeout, || {
            for host in self.control_planes() {
                let server = format!("https://{}:6443", host.ip);
                self.kubectl_ok(&["--server", &server, "get", "--raw", "/readyz"])?;
            }
            let nodes = self.get_list(&["get", "nodes"])?;
            let leases = self.get_list(&["get", "leases", "-n", "kube-node-lease"])?;
            for host in self.hosts.iter().filter(|host| host.name != "lb") {
                let node = named(&nodes, &host.name).with_context(|| format!("no node {}", host.name))?;
                let lease =
                    named(&leases, &host.name).with_context(|| format!("no lease of {}", host.name))?;
                let renewed = lease.pointer("/spec/renewTime").and_then(Value::as_str).unwrap_or_default();
                if !is_ready(node, &self.since) || renewed < since {
                    bail!(
                        "node {} is not Ready since {}, or its lease of {renewed} is older than {since}",
                        host.name,
                        self.since
                    );
                }
            }
            Ok(Some(()))
        })
    }

    fn get_list(&self, args: &[&str]) -> Result<Vec<Value>> {
        let text = self.kubectl_ok(&[args, &["-o", "json"]].concat())?;
        let mut list: Value = serde_json::from_str(&text).context("kubectl printed no JSON")?;
        match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Ok(items),
            _ => bail!("kubectl printed no list"),
        }
    }

    pub(crate) fn boot(&self) -> Result<()> {
        self.hosts.iter().try_for_each(Host::boot_start)?;
        self.hosts.iter().try_for_each(Host::wait_booted)
    }

    pub(crate) fn power_off(&self) -> Result<()> {
        self.hosts.iter().try_for_each(Host::power_off_start)?;
        self.hosts.iter().try_for_each(Host::power_off)
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if std::thread::panicking() && std::env::var_os(KEEP_ENV).is_some() {
            cmd::note(&format!("{KEEP_ENV} is set: {} is left running in {}", self.kind, self.dir));
            return;
        }
        if let Err(error) = clean() {
            cmd::note(&format!("cannot take {} away: {error:#}", self.kind));
        }
    }
}

/// The time as leases write it.
///
/// # Errors
/// When `date` fails.
pub fn now() -> Result<String> {
    Ok(cmd::sh("date", ["-u", "+%Y-%m-%dT%H:%M:%S.%6NZ"])?.trim().to_owned())
}

fn named<'a>(items: &'a [Value], name: &str) -> Option<&'a Value> {
    items.iter().find(|item| item.pointer("/metadata/name").and_then(Value::as_str) == Some(name))
}

/// Whether a node's kubelet has said since then that it is ready. One that has just started renews its lease before it
/// says anything of itself, and then it may say first that it is not.
fn is_ready(node: &Value, since: &str) -> bool {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    // conditions have whole seconds
    let (seconds, _) = since.split_once('.').unwrap_or((since, ""));
    conditions.into_iter().flatten().any(|c| {
        let text = |name: &str| c.get(name).and_then(Value::as_str).unwrap_or_default();
        text("type") == "Ready"
            && text("status") == "True"
            && text("lastHeartbeatTime").trim_end_matches('Z') >= seconds
    })
}
