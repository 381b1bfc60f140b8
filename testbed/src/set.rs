//! Sets: whole clusters, made once, saved while powered off, and loaded as fresh copies.
//!
//! A test loads a set, breaks it, acts and checks; dropping the [`Set`] cuts the power, unmounts and removes all
//! of it. One set runs at a time: they share the bridge and its addresses, and loading waits for the other.

use crate::{Host, HostSpec, base, cache, cgroup, cmd, components, host, kubeadm, net, systemd_plane};
use anyhow::{Context, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;
use std::fmt;
use std::fs;
use std::process::Output;
use std::str::FromStr;
use std::time::Duration;

/// The clusters there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// kubeadm, one control-plane node `cp1`.
    Kubeadm1,
    /// kubeadm, control-plane nodes `cp1` to `cp3` with stacked etcd behind `lb` (haproxy), worker `w1`.
    Kubeadm3,
    /// etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubelet as systemd units on `cp1`.
    Systemd1,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kubeadm1, Self::Kubeadm3, Self::Systemd1];

    /// Its name on the command line and in the cache.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kubeadm1 => "kubeadm1",
            Self::Kubeadm3 => "kubeadm3",
            Self::Systemd1 => "systemd1",
        }
    }

    /// Its hosts.
    #[must_use]
    pub fn specs(self) -> Vec<HostSpec> {
        let hosts: &[(&str, u8)] = match self {
            Self::Kubeadm1 | Self::Systemd1 => &[("cp1", 11)],
            Self::Kubeadm3 => &[("lb", 10), ("cp1", 11), ("cp2", 12), ("cp3", 13), ("w1", 21)],
        };
        hosts.iter().map(|(name, last)| HostSpec::new(name, *last)).collect()
    }

    /// What a saved set was made from: another text means make it anew.
    fn stamp(self) -> String {
        let recipe = match self {
            Self::Kubeadm1 | Self::Kubeadm3 => "",
            Self::Systemd1 => systemd_plane::RECIPE,
        };
        format!("{}\n{}{}{recipe}", self.name(), base::stamp(), kubeadm::RECIPE)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let names: Vec<&str> = Self::ALL.iter().map(|kind| kind.name()).collect();
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .with_context(|| format!("no set {name}; there are {}", names.join(", ")))
    }
}

/// A cluster that runs. Dropping it takes it away, unless it was told to [`Set::stay`].
#[derive(Debug)]
pub struct Set {
    /// Which one it is.
    pub kind: Kind,
    dir: Utf8PathBuf,
    hosts: Vec<Host>,
    since: String,
    keep: bool,
    _lock: Option<cache::Lock>,
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
        let lock = cache::Lock::wait("live")?;
        clean()?;
        let dir = live()?;
        cmd::sh("cp", ["-a", saved(kind)?.as_str(), dir.as_str()])?;
        let mut hosts = Vec::new();
        for spec in kind.specs() {
            let host_dir = dir.join("hosts").join(&spec.name);
            host::link_shared(&base, &host_dir)?;
            hosts.push(Host::at(&spec, &host_dir, &base));
        }
        let set = Self { kind, dir, hosts, since: now()?, keep: false, _lock: Some(lock) };
        set.boot()?;
        Ok(set)
    }

    /// The set that runs now, if any: left by [`Set::stay`], or in another process's hands. It is not locked,
    /// and stays when the value is dropped.
    ///
    /// # Errors
    /// When the base is not built.
    pub fn running() -> Result<Option<Self>> {
        let dir = live()?;
        let Ok(name) = fs::read_to_string(dir.join("kind")) else { return Ok(None) };
        let kind: Kind = name.trim().parse()?;
        let base = base::built()?;
        let host = |spec: &HostSpec| Host::at(spec, &dir.join("hosts").join(&spec.name), &base);
        let hosts = kind.specs().iter().map(host).collect();
        Ok(Some(Self { kind, dir, hosts, since: String::new(), keep: true, _lock: None }))
    }

    /// Leaves the set running, unlocked: [`Set::running`] finds it again, [`clean`] ends it.
    pub fn stay(mut self) {
        self.keep = true;
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
        self.hosts.iter().find(|host| host.name == name).with_context(|| format!("{} has no host {name}", self.kind))
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
                let lease = named(&leases, &host.name).with_context(|| format!("no lease of {}", host.name))?;
                let renewed = lease.pointer("/spec/renewTime").and_then(Value::as_str).unwrap_or_default();
                if !is_ready(node) || renewed < since {
                    bail!("node {} is not Ready, or its lease of {renewed} is older than {since}", host.name);
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

    fn boot(&self) -> Result<()> {
        self.hosts.iter().try_for_each(Host::boot_start)?;
        self.hosts.iter().try_for_each(Host::wait_booted)
    }

    fn power_off(&self) -> Result<()> {
        self.hosts.iter().try_for_each(Host::power_off_start)?;
        self.hosts.iter().try_for_each(Host::power_off)
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        if self.keep {
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

fn is_ready(node: &Value) -> bool {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| {
        c.get("type").and_then(Value::as_str) == Some("Ready")
            && c.get("status").and_then(Value::as_str) == Some("True")
    })
}

fn live() -> Result<Utf8PathBuf> {
    Ok(cache::root()?.join("live"))
}

fn saved(kind: Kind) -> Result<Utf8PathBuf> {
    Ok(cache::root()?.join("sets").join(kind.name()))
}

/// Whether the set is saved and up to date.
///
/// # Errors
/// When there is no cache folder to speak of.
pub fn is_made(kind: Kind) -> Result<bool> {
    Ok(cache::is_stamped(&saved(kind)?, &kind.stamp()))
}

/// Ends whatever set runs, also one whose owner died: power cut, unmounted, control groups and bridge removed.
/// The caller holds the `live` lock, or nobody else uses the test bed.
///
/// # Errors
/// When something of it cannot be ended or removed.
pub fn clean() -> Result<()> {
    let dir = live()?;
    let base = cache::root()?.join("base");
    let mut hosts = Vec::new();
    for entry in dir.join("hosts").read_dir_utf8().into_iter().flatten() {
        let entry = entry.with_context(|| format!("cannot list {dir}/hosts"))?;
        hosts.push(Host::at(&HostSpec::new(entry.file_name(), 0), entry.path(), &base));
    }
    std::thread::scope(|scope| {
        let ends: Vec<_> = hosts.iter().map(|host| scope.spawn(|| host.tear_down())).collect();
        ends.into_iter().try_for_each(|end| end.join().unwrap_or_else(|_| bail!("a thread panicked")))
    })?;
    cache::remove_tree(&dir)?;
    cgroup::remove_parents()?;
    net::down()
}

/// Makes and saves a set unless it is there.
///
/// # Errors
/// When the base is missing or a step fails; nothing of it is left running then.
pub fn make(kind: Kind) -> Result<()> {
    if is_made(kind)? {
        return Ok(());
    }
    let base = base::built()?;
    let lock = cache::Lock::wait("live")?;
    if is_made(kind)? {
        return Ok(());
    }
    clean()?;
    cmd::note(&format!("making {kind} (a minute or two)"));
    let dir = live()?;
    let peers = kind.specs();
    let mut hosts = Vec::new();
    for spec in &peers {
        hosts.push(Host::create(spec, &dir.join("hosts").join(&spec.name), &base, &peers)?);
    }
    access(&dir, &base, &hosts)?;
    cache::write(&dir.join("kind"), kind.name())?;
    // dropped on the way out, whatever happens
    let set = Set { kind, dir, hosts, since: now()?, keep: false, _lock: Some(lock) };
    set.boot()?;
    match kind {
        Kind::Kubeadm1 | Kind::Kubeadm3 => kubeadm::make(&set)?,
        Kind::Systemd1 => systemd_plane::make(&set)?,
    }
    set.wait_ready(Duration::from_secs(300))?;
    set.power_off()?;
    save(&set, &base)
}

/// The ssh key, `known_hosts` and `ssh_config` of a set.
fn access(dir: &Utf8Path, base: &Utf8Path, hosts: &[Host]) -> Result<()> {
    cmd::sh("cp", ["-a", base.join("ssh").as_str(), dir.join("ssh").as_str()])?;
    let mut config = String::new();
    for host in hosts {
        config += &format!("Host {0} {1}\n    HostName {1}\n", host.name, host.ip);
    }
    config += &format!(
        "Host *\n    User root\n    IdentityFile {dir}/ssh/id_ed25519\n    IdentitiesOnly yes\n    \
         UserKnownHostsFile {dir}/ssh/known_hosts\n    StrictHostKeyChecking yes\n    BatchMode yes\n    \
         ConnectTimeout 10\n"
    );
    cache::write(&dir.join("ssh_config"), config)
}

/// Moves the stopped hosts of a set into the cache, without what every host shares.
fn save(set: &Set, base: &Utf8Path) -> Result<()> {
    for host in &set.hosts {
        host.tear_down()?;
        let dir = set.dir.join("hosts").join(&host.name);
        host::unlink_shared(base, &dir)?;
        for left in ["work", "root"] {
            cache::remove_tree(&dir.join(left))?;
        }
        for left in ["cgroups", "keeper.pid", "keeper.sh", "console.log"] {
            let _ = fs::remove_file(dir.join(left)); // not there when the host never ran
        }
    }
    cache::make_aside(&saved(set.kind)?, &set.kind.stamp(), |aside| {
        for name in ["hosts", "ssh", "ssh_config", "admin.conf", "kind"] {
            fs::rename(set.dir.join(name), aside.join(name)).with_context(|| format!("cannot save {name}"))?;
        }
        Ok(())
    })?;
    cmd::note(&format!("saved {}", set.kind));
    Ok(())
}
