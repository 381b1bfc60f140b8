//! One test host: a systemd-nspawn container on an overlay of the base, with a private `/var` on the plain disk.
//!
//! ```text
//! HOST_DIR/upper, work   the overlay above BASE/root      HOST_DIR/var    the host's /var
//! HOST_DIR/root          the whole tree, on or off        HOST_DIR/cgroups, keeper.pid, console.log
//! ```
//! `/var` is apart because an overlay cannot be the upper layer of containerd's own overlays.

use crate::{cache, cgroup, cmd, net};
use anyhow::{Context, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Output, Stdio};
use std::time::Duration;

/// What containerd keeps of the base's images: never written again, so hosts share it by hard links.
pub(crate) const SHARED: [&str; 2] = [
    "lib/containerd/io.containerd.content.v1.content/blobs",
    "lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots",
];

const KEEPER: &str = include_str!("../files/keeper.sh");

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
    dir: Utf8PathBuf,
    base: Utf8PathBuf,
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
        cache::write(&etc.join("testbed/net"), format!("ADDRESS={}/24\nGATEWAY={}\n", spec.ip, net::GATEWAY))?;
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

    fn groups(&self) -> Vec<Utf8PathBuf> {
        let text = fs::read_to_string(self.dir.join("cgroups")).unwrap_or_default();
        text.lines().map(Utf8PathBuf::from).collect()
    }

    /// Mounts the tree at [`Host::root`] unless it is mounted.
    pub(crate) fn mount(&self) -> Result<()> {
        let (root, work) = (self.root(), self.dir.join("work"));
        if is_mounted(&root)? {
            return Ok(());
        }
        for dir in [&root, &work] {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {dir}"))?;
        }
        let layers =
            format!("lowerdir={}/root,upperdir={}/upper,workdir={work}", self.base, self.dir);
        cmd::sh("mount", ["-t", "overlay", "overlay", "-o", &layers, root.as_str()])?;
        cmd::sh("mount", ["--bind", self.dir.join("var").as_str(), root.join("var").as_str()])?;
        Ok(())
    }

    /// Starts the host and waits until its sshd answers. Does nothing to a running one.
    ///
    /// # Errors
    /// When it does not come up; the error quotes its console.
    pub fn boot(&self) -> Result<()> {
        self.boot_start()?;
        self.wait_booted()
    }

    /// The first half of [`Host::boot`], so that several hosts boot side by side.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn boot_start(&self) -> Result<()> {
        if self.leader().is_ok() {
            return Ok(());
        }
        self.mount()?;
        net::up()?;
        let groups = cgroup::groups_of(&self.name)?;
        cgroup::make(&groups)?;
        let list: String = groups.iter().map(|group| format!("{group}\n")).collect();
        cache::write(&self.dir.join("cgroups"), list)?;
        let keeper = self.dir.join("keeper.sh");
        cache::write(&keeper, KEEPER)?;
        let log = fs::File::create(self.console_log()).context("cannot make the console log")?;
        // setsid --fork: the keeper is nobody's child, and holds nothing of ours open
        let mut start = cmd::command("setsid", ["--fork", "/bin/sh", keeper.as_str()]);
        start.args([self.dir.as_str(), &self.name, net::BRIDGE]);
        start.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        start.env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "1");
        start.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let status = start.status().context("cannot start the keeper")?;
        anyhow::ensure!(status.success(), "the keeper of {}: {status}", self.name);
        Ok(())
    }

    /// Waits until systemd runs and sshd answers.
    ///
    /// # Errors
    /// When that does not happen within a minute; the error quotes the console.
    pub fn wait_booted(&self) -> Result<()> {
        let booted = cmd::wait_for(&format!("boot of {}", self.name), Duration::from_secs(90), || {
            self.leader()?;
            let address = SocketAddr::from((self.ip, 22));
            let mut ssh = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
            ssh.set_read_timeout(Some(Duration::from_secs(2)))?;
            let mut banner = [0_u8; 4];
            ssh.read_exact(&mut banner)?;
            Ok((&banner == b"SSH-").then_some(()))
        });
        booted.with_context(|| {
            let console = fs::read_to_string(self.console_log()).unwrap_or_default();
            let lines: Vec<&str> = console.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n    ");
            format!("console of {}:\n    {tail}", self.name)
        })
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
        let mut command = cmd::command("nsenter", ["-t", &leader, "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]);
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

    /// Shuts the host down as `poweroff` would, and waits until nothing of it runs.
    ///
    /// # Errors
    /// When it cannot be ended at all; one that hangs for a minute is cut.
    pub fn power_off(&self) -> Result<()> {
        self.power_off_start()?;
        self.wait_off(Duration::from_secs(60)).or_else(|_| self.power_cut())
    }

    /// The first half of [`Host::power_off`].
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn power_off_start(&self) -> Result<()> {
        let Ok(leader) = self.leader() else { return Ok(()) };
        cmd::sh("kill", ["-s", "RTMIN+4", &leader.to_string()])?;
        Ok(())
    }

    /// Takes the power away: every process of the host ends at once, nothing is flushed or closed.
    ///
    /// # Errors
    /// When something of it still runs after some seconds.
    pub fn power_cut(&self) -> Result<()> {
        // the keeper first, else it might start the host again
        let keeper = fs::read_to_string(self.dir.join("keeper.pid")).unwrap_or_default();
        let running = cgroup::pids(&self.groups());
        if let Some(pid) = keeper.trim().parse::<u32>().ok().filter(|pid| running.contains(pid)) {
            kill(&[pid]);
        }
        if let Ok(leader) = self.leader() {
            kill(&[leader]);
        }
        if self.wait_off(Duration::from_secs(5)).is_ok() {
            return Ok(());
        }
        kill(&cgroup::pids(&self.groups()).into_iter().collect::<Vec<_>>());
        self.wait_off(Duration::from_secs(20))
    }

    /// Waits until no process of the host is left.
    ///
    /// # Errors
    /// When some are left after `timeout`.
    pub fn wait_off(&self, timeout: Duration) -> Result<()> {
        cmd::wait_for(&format!("end of {}", self.name), timeout, || {
            let left = cgroup::pids(&self.groups());
            if !left.is_empty() {
                bail!("processes {left:?} run");
            }
            Ok(Some(()))
        })
    }

    /// Restarts the host as `reboot` would and waits until it is up again.
    ///
    /// # Errors
    /// When it does not come up again.
    pub fn reboot(&self) -> Result<()> {
        let before = self.leader()?;
        self.exec_ok(&["systemctl", "reboot"])?;
        cmd::wait_for(&format!("reboot of {}", self.name), Duration::from_secs(90), || {
            Ok((self.leader()? != before).then_some(()))
        })?;
        self.wait_booted()
    }

    /// Cuts the power, unmounts the tree and removes the control groups; the folder stays.
    ///
    /// # Errors
    /// When something is still in use.
    pub fn tear_down(&self) -> Result<()> {
        self.power_cut()?;
        let root = self.root();
        while is_mounted(&root)? {
            // a test's own process may have its working directory in there for a moment longer
            if cmd::sh("umount", ["--recursive", root.as_str()]).is_err() {
                cmd::sh("umount", ["--recursive", "--lazy", root.as_str()])?;
            }
        }
        cgroup::remove(&self.groups())
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

fn kill(pids: &[u32]) {
    let ids: Vec<String> = pids.iter().map(u32::to_string).collect();
    if !ids.is_empty() {
        // one that has just ended is no error
        let _ = cmd::output(cmd::command("kill", ["-s", "KILL"]).args(&ids));
    }
}

fn is_mounted(dir: &Utf8Path) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    Ok(mounts.lines().any(|line| line.split(' ').nth(1) == Some(dir.as_str())))
}
