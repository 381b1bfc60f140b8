//! The base of every test host: Debian with systemd and sshd, the components, their units, and a containerd
//! that has the images already.

use crate::{Host, HostSpec, cache, cmd, components, host, image, needs, set};
use anyhow::{Context, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use std::fs;
use std::time::Duration;

/// What the hosts have of Debian. haproxy is enabled only on a load balancer.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,openssh-server,iproute2,iptables,runc,containernetworking-plugins,\
    conntrack,socat,ethtool,procps,kmod,haproxy,ca-certificates,iputils-ping,libpam-systemd,e2fsprogs";

/// The Debian release of the hosts.
const RELEASE: &str = "bookworm";

/// Files put into the base: path, content, mode.
const FILES: &[(&str, &str, &str)] = &[
    ("usr/local/lib/testbed/host-up", include_str!("../files/host-up.sh"), "755"),
    ("etc/systemd/system/testbed-host.service", include_str!("../files/testbed-host.service"), "644"),
    ("etc/systemd/system/containerd.service", include_str!("../files/containerd.service"), "644"),
    ("etc/systemd/system/kubelet.service", include_str!("../files/kubelet.service"), "644"),
    ("etc/systemd/system/kubelet.service.d/10-kubeadm.conf", include_str!("../files/10-kubeadm.conf"), "644"),
    ("etc/containerd/config.toml", include_str!("../files/containerd.toml"), "644"),
    // systemd's own 90 s for a unit that will not stop are for machines that somebody waits for
    ("etc/systemd/system.conf.d/testbed.conf", "[Manager]\nDefaultTimeoutStopSec=70s\n", "644"),
    ("etc/systemd/journald.conf.d/testbed.conf", "[Journal]\nStorage=persistent\nSystemMaxUse=200M\n", "644"),
    (
        "etc/ssh/sshd_config.d/testbed.conf",
        "PermitRootLogin prohibit-password\nUseDNS no\nUsePAM no\n",
        "644",
    ),
];

/// Units that a container has no use for, or that only some hosts start.
const MASKED: [&str; 6] = [
    "console-getty.service",
    "systemd-networkd.service",
    "systemd-networkd-wait-online.service",
    "systemd-resolved.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
];

/// What the base is made of, as one text.
pub(crate) fn stamp() -> String {
    let mut stamp = format!("{RELEASE} {PACKAGES}\n{}", components::stamp_of_all());
    for (path, content, mode) in FILES {
        stamp += &format!("--- {path} {mode}\n{content}");
    }
    stamp + include_str!("../files/pause.c")
}

/// The folder of the base.
///
/// # Errors
/// When it is not built, or from other pins: says which command builds it.
pub fn built() -> Result<Utf8PathBuf> {
    let dir = cache::root()?.join("base");
    if !cache::is_stamped(&dir, &stamp()) {
        bail!("the base of the test hosts is not in {dir}: run `cargo xtask testbed build`");
    }
    Ok(dir)
}

/// Makes the base unless it is there. Needs root and all components.
///
/// # Errors
/// When something is missing or a step fails; an older base is then still in place.
pub fn build() -> Result<()> {
    let dir = cache::root()?.join("base");
    if cache::is_stamped(&dir, &stamp()) {
        return Ok(());
    }
    needs::hosts()?;
    let _live = cache::Lock::lane()?; // importing the images runs a host
    set::clean()?;
    // a seed host that a killed build left behind is still mounted below the folder that is removed next
    let aside = cache::aside(&dir);
    Host::at(&HostSpec::new("seed", 2), &aside.join("seed"), &aside).tear_down()?;
    let rootfs = debootstrap()?;
    cmd::note("making the base of the test hosts");
    cache::make_aside(&dir, &stamp(), |aside| {
        fill_root(&rootfs, aside)?;
        keys(aside)?;
        import_images(aside)
    })
}

/// Debian, untouched.
fn debootstrap() -> Result<Utf8PathBuf> {
    let dir = cache::root()?.join("rootfs");
    let stamp = format!("{RELEASE} {PACKAGES}");
    if !cache::is_stamped(&dir, &stamp) {
        cmd::note("making a Debian file system with debootstrap (a minute)");
        cache::make_aside(&dir, &stamp, |aside| {
            let mut run = cmd::command("debootstrap", ["--variant=minbase"]);
            run.args([&format!("--include={PACKAGES}"), RELEASE, aside.as_str()]);
            cmd::run(&mut run)?;
            cache::remove_tree(&aside.join("var/cache/apt"))?;
            cache::remove_tree(&aside.join("var/lib/apt/lists"))
        })?;
    }
    Ok(dir)
}

fn fill_root(rootfs: &Utf8Path, aside: &Utf8Path) -> Result<()> {
    let root = aside.join("root");
    cmd::sh("cp", ["-a", rootfs.as_str(), root.as_str()])?;
    for (path, content, mode) in FILES {
        let target = root.join(path);
        let content = match *path {
            "etc/containerd/config.toml" => content.replace("@PAUSE@", &image::pause_name()?),
            _ => (*content).to_owned(),
        };
        cache::write(&target, content)?;
        cmd::sh("chmod", [mode, target.as_str()])?;
    }
    let kubernetes = components::kubernetes()?;
    let containerd = components::containerd()?;
    let etcd = components::etcd_line("3.7")?;
    let mut binaries: Vec<Utf8PathBuf> = vec![etcd.etcd, etcd.etcdctl, etcd.etcdutl];
    for component in [&kubernetes, &containerd] {
        binaries.extend(component.names.iter().map(|name| component.path(name)));
    }
    let bin = root.join("usr/local/bin/");
    // hard links: the cache is one file system, and the base is only ever read
    cmd::run(cmd::command("cp", ["-l", "--target-directory", bin.as_str()]).args(&binaries))?;
    let (link, units) = ("/dev/null", root.join("etc/systemd/system"));
    for unit in MASKED {
        cmd::sh("ln", ["-sfn", link, units.join(unit).as_str()])?;
    }
    let enable = ["testbed-host.service", "containerd.service", "ssh.service"];
    cmd::run(cmd::command("systemctl", ["--root", root.as_str(), "enable"]).args(enable))?;
    let disable = ["haproxy.service", "kubelet.service", "getty@tty1.service"];
    cmd::run(cmd::command("systemctl", ["--root", root.as_str(), "disable"]).args(disable))?;
    fs::create_dir_all(root.join("var/log/journal")).context("cannot make the journal's folder")?;
    fs::rename(root.join("var"), aside.join("var")).context("cannot move /var out of the base")?;
    fs::create_dir(root.join("var")).context("cannot make /var")
}

/// One key pair to log in with, and the hosts' own key for `known_hosts`.
fn keys(aside: &Utf8Path) -> Result<()> {
    let ssh = aside.join("ssh");
    fs::create_dir_all(&ssh).with_context(|| format!("cannot make {ssh}"))?;
    let key = ssh.join("id_ed25519");
    cmd::sh("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "testbed", "-f", key.as_str()])?;
    let public = fs::read_to_string(ssh.join("id_ed25519.pub")).context("cannot read the public key")?;
    let authorized = aside.join("root/root/.ssh/authorized_keys");
    cache::write(&authorized, public)?;
    cmd::sh("chmod", ["-R", "go=", aside.join("root/root/.ssh").as_str()])?;
    let host_key = fs::read_to_string(aside.join("root/etc/ssh/ssh_host_ed25519_key.pub"))
        .context("the base has no ssh host key")?;
    cache::write(&ssh.join("known_hosts"), format!("* {host_key}"))
}

/// Boots a host on the new base, has its containerd import the images, and keeps what it then has:
/// `var` to be copied for each host, `shared` to be hard-linked.
fn import_images(aside: &Utf8Path) -> Result<()> {
    let spec = HostSpec::new("seed", 2);
    let dir = aside.join("seed");
    let host = Host::create(&spec, &dir, aside, std::slice::from_ref(&spec))?;
    let seeded = host.boot().and_then(|()| {
        let images = host.path("/var/tmp/images");
        fs::create_dir_all(&images).with_context(|| format!("cannot make {images}"))?;
        cmd::wait_for("containerd on the seed host", Duration::from_secs(60), || {
            host.exec_ok(&["ctr", "version"]).map(Some)
        })?;
        for archive in image::archives(&images)? {
            let file = format!("/var/tmp/images/{}", archive.file_name().unwrap_or_default());
            host.exec_ok(&["ctr", "-n", "k8s.io", "images", "import", "--local", &file])?;
        }
        cache::remove_tree(&images)?;
        host.exec_ok(&["systemctl", "stop", "containerd"])?;
        host.power_off()
    });
    host.tear_down()?;
    seeded?;
    let containerd = dir.join("var/lib/containerd");
    let kept = aside.join("var/lib/containerd");
    cache::remove_tree(&kept)?;
    fs::rename(&containerd, &kept).with_context(|| format!("cannot move {containerd}"))?;
    for shared in host::SHARED {
        let (from, to) = (aside.join("var").join(shared), aside.join("shared").join(shared));
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {parent}"))?;
        }
        fs::rename(&from, &to).with_context(|| format!("cannot move {from}"))?;
    }
    cache::remove_tree(&dir)
}
