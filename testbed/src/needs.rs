//! What the machine must have before anything is built, said early and plainly, and installed where that is
//! ours to do: Debian packages, as root on Debian.

use crate::cmd;
use anyhow::{Result, bail};
use std::path::Path;

/// A tool that hosts need, and the Debian package that has it.
const TOOLS: &[(&str, &str)] = &[
    ("debootstrap", "debootstrap"),
    ("systemd-nspawn", "systemd-container"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("tar", "tar"),
    ("sha256sum", "coreutils"),
    ("cc", "build-essential"),
];

/// Whether a program of this name is in `$PATH`.
#[must_use]
pub fn has(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| Path::new(dir).join(program).is_file())
}

/// Go is there and new enough for the pinned modules.
///
/// # Errors
/// When it is missing or too old, with how to get it.
pub fn go() -> Result<()> {
    let hint = "install Go 1.26 or newer from https://go.dev/dl/ and put its bin folder into PATH";
    if !has("go") {
        bail!("Go is missing: {hint}");
    }
    let version = cmd::sh("go", ["env", "GOVERSION"])?;
    let minor = version
        .trim()
        .strip_prefix("go1.")
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next())
        .and_then(|digits| digits.parse::<u32>().ok());
    match minor {
        Some(minor) if minor < 26 => bail!("{} is too old: {hint}", version.trim()),
        _ => Ok(()),
    }
}

/// Root and the tools that hosts need; missing Debian packages are installed.
///
/// # Errors
/// When not root, or when a tool is missing and this is not Debian, or its package cannot be installed.
pub fn hosts() -> Result<()> {
    let uid = cmd::sh("id", ["-u"])?;
    if uid.trim() != "0" {
        bail!("test hosts are systemd-nspawn containers: run this as root");
    }
    packages(TOOLS)
}

/// Installs the Debian packages whose tools are missing.
///
/// # Errors
/// As [`hosts`].
pub fn packages(tools: &[(&str, &str)]) -> Result<()> {
    let mut missing: Vec<&str> =
        tools.iter().filter(|(tool, _)| !has(tool)).map(|(_, package)| *package).collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !has("apt-get") {
        bail!("missing tools, and this is not Debian: install the equivalents of {list}");
    }
    cmd::note(&format!("installing Debian packages: {list}"));
    cmd::sh("apt-get", ["update", "-q"])?;
    let mut install = cmd::command("apt-get", ["install", "-q", "-y", "--no-install-recommends"]);
    install.args(&missing).env("DEBIAN_FRONTEND", "noninteractive");
    cmd::run(&mut install)?;
    match tools.iter().find(|(tool, _)| !has(tool)) {
        Some((tool, package)) => bail!("{tool} is still missing after installing {package}"),
        None => Ok(()),
    }
}
