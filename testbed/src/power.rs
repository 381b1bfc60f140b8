//! The power switch of a test host: start, shut down, cut, reboot, take down.
//!
//! A host is started by a keeper (`files/keeper.sh`) that is nobody's child. Whatever runs in the host's control
//! groups belongs to it; nothing else is ever signalled.

use crate::{Host, cache, cgroup, cmd, limits, net};
use anyhow::{Context, Result, bail};
use camino::Utf8Path;
use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Duration;

const KEEPER: &str = include_str!("../files/keeper.sh");

impl Host {
    /// Mounts the tree at [`Host::root`] unless it is mounted.
    pub(crate) fn mount(&self) -> Result<()> {
        let (root, work) = (self.root(), self.dir.join("work"));
        if is_mounted(&root)? {
            return Ok(());
        }
        for dir in [&root, &work] {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {dir}"))?;
        }
        let layers = format!("lowerdir={}/root,upperdir={}/upper,workdir={work}", self.base, self.dir);
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
        limits::raise()?;
        let groups = cgroup::groups_of(&self.name)?;
        // A machine that lost its power has no groups when it comes back. Those of containers that are no more would each
        // hold up kubelet's start by 3 s.
        if cgroup::pids(&groups).is_empty() {
            cgroup::remove(&groups)?;
        }
        cgroup::make(&groups)?;
        let list: String = groups.iter().map(|group| format!("{group}\n")).collect();
        cache::write(&self.dir.join("cgroups"), list)?;
        let keeper = self.dir.join("keeper.sh");
        cache::write(&keeper, KEEPER)?;
        let log = fs::File::create(self.console_log()).context("cannot make the console log")?;
        // setsid --fork: the keeper is nobody's child, and holds nothing of ours open
        let mut start = cmd::command("setsid", ["--fork", "/bin/sh", keeper.as_str()]);
        let machine = format!("rk{}-{}", cache::lane_suffix()?, self.name);
        start.args([self.dir.as_str(), &self.name, &machine, net::BRIDGE]);
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
            cmd::kill(&[pid]);
        }
        if let Ok(leader) = self.leader() {
            cmd::kill(&[leader]);
        }
        if self.wait_off(Duration::from_secs(5)).is_ok() {
            return Ok(());
        }
        cmd::kill(&cgroup::pids(&self.groups()).into_iter().collect::<Vec<_>>());
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

fn is_mounted(dir: &Utf8Path) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    Ok(mounts.lines().any(|line| line.split(' ').nth(1) == Some(dir.as_str())))
}
