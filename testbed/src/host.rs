//! One test host: a systemd-nspawn container on an overlay of the base, with a private `/var` on the plain disk.
//!
//! ```text
//! HOST_DIR/upper, work   the overlay above BASE/root      HOST_DIR/var    the host's /var
//! HOST_DIR/root          the whole tree, on or off        HOST_DIR/cgroups, keeper.pid, console.log
//! ```
//! `/var` is apart because an overlay cannot be the upper layer of containerd's own overlays.

use crate::{cache, cgroup, cmd, net};
use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use std::fs;
use std::net::Ipv4Addr;
use std::process::Output;

/// What containerd keeps of the base's images: never written again, so hosts share it by hard links.
pub(crate) const SHARED: [&str; 2] = [
    "lib/containerd/io.containerd.content.v1.content/blobs",
    "lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots",
];

/// Name and address of a host to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSpec {
    /// Host name and node name: `cp1`.
    pub name: String,
    /// Its address on the bridge.
    pub ip: Ipv4Addr,
}

impl HostSpec {
    /// A host `10.77.0.LAST`.
    #[must_use]
    pub fn new(name: &str, last: u8) -> Self {
        Self { name: name.to_owned(), ip: Ipv4Addr::new(10, 77, 0, last) }
    }

    /// The pods' subnet on this host.
    #[must_use]
    pub fn pod_subnet(&self) -> String {
        format!("10.244.{}.0/24", self.ip.octets()[3])
    }
}

/// A test host, running or not. See the module for its folder.
#[derive(Debug, Clone)]
pub struct Host {
    /// Host name and node name: `cp1`.
    pub name: String,
    /// Its address on the bridge.
    pub ip: Ipv4Addr,
    pub(crate) dir: Utf8PathBuf,
    pub(crate) base: Utf8PathBuf,
}

impl Host {
    /// The host of `spec` in `dir`, on the base in `base`; makes nothing.
    #[must_use]
    pub fn at(spec: &HostSpec, dir: &Utf8Path, base: &Utf8Path) -> Self {
        Self { name: spec.name.clone(), ip: spec.ip, dir: dir.to_owned(), base: base.to_owned() }
    }

    /// Makes the folder of a new host: name, link, `/etc/hosts` and pod network for its `peers` (itself
    /// among them), and a fresh `/var`.
    ///
    /// # Errors
    /// When something cannot be written.
    pub fn create(spec: &HostSpec, dir: &Utf8Path, base: &Utf8Path, peers: &[HostSpec]) -> Result<Self> {
        let host = Self::at(spec, dir, base);
        let upper = dir.join("upper");
        let mut hosts = "127.0.0.1 localhost\n".to_owned();
        let mut routes = String::new();
        for peer in peers {
            hosts += &format!("{} {}\n", peer.ip, peer.name);
            if peer.name != spec.name {
                routes += &format!("{} {}\n", peer.pod_subnet(), peer.ip);
            }
        }
        let cni = include_str!("../files/cni.conflist").replace("@POD_SUBNET@", &spec.pod_subnet());
        // fixed, so that a host keeps its identity however often it is made
        let id = format!("7e5bed00000000000000{:012x}\n", u32::from(spec.ip));
        let etc = upper.join("etc");
        cache::write(&etc.join("hostname"), format!("{}\n", spec.name))?;
        cache::write(&etc.join("machine-id"), id)?;
        cache::write(&etc.join("hosts"), hosts)?;
        cache::write(
            &etc.join("testbed/net"),
            format!("ADDRESS={}/24\nGATEWAY={}\n", spec.ip, net::GATEWAY),
        )?;
        cache::write(&etc.join("testbed/routes"), routes)?;
        cache::write(&etc.join("cni/net.d/10-testbed.conflist"), cni)?;
        cmd::sh("cp", ["-a", base.join("var").as_str(), dir.join("var").as_str()])?;
        link_shared(base, dir)?;
        Ok(host)
    }

    /// The host's whole tree, seen from outside, also while it is off (not its tmpfs mounts `/run`, `/tmp`).
    #[must_use]
    pub fn root(&self) -> Utf8PathBuf {
        self.dir.join("root")
    }

    /// A path of the host as this machine sees it.
    #[must_use]
    pub fn path(&self, path: &str) -> Utf8PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    /// What its console said: systemd's messages and those of the keeper.
    #[must_use]
    pub fn console_log(&self) -> Utf8PathBuf {
        self.dir.join("console.log")
    }

    pub(crate) fn groups(&self) -> Vec<Utf8PathBuf> {
        let text = fs::read_to_string(self.dir.join("cgroups")).unwrap_or_default();
        text.lines().map(Utf8PathBuf::from).collect()
    }

    /// The process id, on this machine, of the host's systemd.
    ///
    /// # Errors
    /// When the host is not running.
    pub fn leader(&self) -> Result<u32> {
        // the host's own pid 1: exactly one pid namespace below ours (its pods are further down)
        let is_leader = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            let ids: Vec<&str> = ids.split_whitespace().collect();
            ids.len() == 2 && ids.last() == Some(&"1")
        };
        cgroup::pids(&self.groups())
            .into_iter()
            .find(is_leader)
            .with_context(|| format!("host {} is not running", self.name))
    }

    /// Whether the host runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.leader().is_ok()
    }

    /// Runs a program in the host's namespaces, as root, with a login's environment and no standard input.
    ///
    /// # Errors
    /// When the host is off or the program cannot be started; its status is the caller's to judge.
    pub fn exec(&self, args: &[&str]) -> Result<Output> {
        cmd::output(&mut self.exec_command(args)?)
    }

    /// The command of [`Host::exec`], to be started by the caller.
    ///
    /// # Errors
    /// When the host is off.
    pub fn exec_command(&self, args: &[&str]) -> Result<std::process::Command> {
        let leader = self.leader()?.to_string();
        let mut command =
            cmd::command("nsenter", ["-t", &leader, "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]);
        command.args(args).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", "/root").env("LANG", "C.UTF-8").env("TERM", "dumb");
        Ok(command)
    }

    /// [`Host::exec`] for a program that must succeed; its standard output.
    ///
    /// # Errors
    /// Also when its status is not 0.
    pub fn exec_ok(&self, args: &[&str]) -> Result<String> {
        let output = self.exec(args)?;
        cmd::check(&format!("{}: {}", self.name, args.join(" ")), &output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A shell script on the host, with `set -eu`.
    ///
    /// # Errors
    /// As [`Host::exec_ok`].
    pub fn script(&self, script: &str) -> Result<String> {
        self.exec_ok(&["/bin/bash", "-c", &format!("set -euo pipefail\n{script}")])
    }

    /// Reads a file of the host, which may be off.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        fs::read(self.path(path)).with_context(|| format!("cannot read {path} on {}", self.name))
    }

    /// Writes a file of the host, which may be off, making the folders above it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        cache::write(&self.path(path), content)
    }

    /// Copies a file of this machine to the host, with its mode.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn push(&self, from: &Utf8Path, to: &str) -> Result<()> {
        let target = self.path(to);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {parent}"))?;
        }
        fs::copy(from, &target).with_context(|| format!("cannot copy {from} to {target}"))?;
        Ok(())
    }
}

/// Gives the host in `dir` the base's image layers and blobs, by hard links.
pub(crate) fn link_shared(base: &Utf8Path, dir: &Utf8Path) -> Result<()> {
    for shared in SHARED {
        let (from, to) = (base.join("shared").join(shared), dir.join("var").join(shared));
        if from.is_dir() {
            fs::create_dir_all(&to).with_context(|| format!("cannot make {to}"))?;
            cmd::sh("cp", ["-al", "--no-target-directory", from.as_str(), to.as_str()])?;
        }
    }
    Ok(())
}

/// Takes away from the stopped host in `dir` what [`link_shared`] gave it, before it is saved.
pub(crate) fn unlink_shared(base: &Utf8Path, dir: &Utf8Path) -> Result<()> {
    for shared in SHARED {
        let from = base.join("shared").join(shared);
        let Ok(entries) = from.read_dir_utf8() else { continue };
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {from}"))?;
            cache::remove_tree(&dir.join("var").join(shared).join(entry.file_name()))?;
        }
    }
    Ok(())
}
