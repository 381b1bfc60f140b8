//! `cargo xtask setup`: what building and testing need besides Rust and Go, said early and installed.

use anyhow::{Context, Result};
use std::process::Command;
use testbed::{cmd, needs};

/// A tool the build needs, and the Debian package that has it.
const BUILD_TOOLS: &[(&str, &str)] = &[
    ("protoc", "protobuf-compiler"),
    ("musl-gcc", "musl-tools"),
    ("cc", "gcc"),
    ("cmake", "cmake"),
    ("make", "make"),
];

/// The same for what tests talk to and compare with.
const TEST_TOOLS: &[(&str, &str)] = &[
    ("sshd", "openssh-server"),
    ("ssh", "openssh-client"),
    ("openssl", "openssl"),
    ("jq", "jq"),
    ("zstd", "zstd"),
    ("systemd-analyze", "systemd"),
    ("promtool", "prometheus"),
];

/// The service that Debian's package prometheus starts when it is installed; only its programs are wanted.
const UNWANTED_SERVICE: &str = "prometheus.service";

/// The target of the shipped binary.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-musl";

/// All of it, with what checks the project itself.
pub(crate) fn run() -> Result<()> {
    to_test()?;
    if !needs::has("cargo-deny") && !cargo_bin("cargo-deny") {
        cmd::note("installing cargo-deny");
        // unoptimised: it runs for seconds, and optimising it takes minutes
        cmd::run(Command::new("cargo").args(["install", "--quiet", "--locked", "--debug", "cargo-deny"]))?;
    }
    Ok(())
}

/// What the tests need.
pub(crate) fn to_test() -> Result<()> {
    to_build()?;
    if !needs::has("promtool") && needs::has("systemctl") {
        // whoever had it keeps it running
        cmd::sh("systemctl", ["mask", UNWANTED_SERVICE])?;
    }
    needs::packages(TEST_TOOLS)
}

/// What building Rekindle and the testbed's components, and running test hosts, need.
pub(crate) fn to_build() -> Result<()> {
    needs::go()?;
    needs::hosts()?;
    needs::packages(BUILD_TOOLS)?;
    // protoc's own include files come in a package of their own, without a tool to look for.
    if !std::path::Path::new("/usr/include/google/protobuf/empty.proto").exists() {
        cmd::sh("apt-get", ["install", "-q", "-y", "libprotobuf-dev"])?;
    }
    let have = cmd::sh("rustup", ["target", "list", "--installed"])
        .context("rustup is needed for the static target; install Rust with rustup")?;
    if !have.lines().any(|line| line.trim() == TARGET) {
        cmd::sh("rustup", ["target", "add", TARGET])?;
    }
    Ok(())
}

fn cargo_bin(name: &str) -> bool {
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))
        .unwrap_or_default();
    std::path::Path::new(&home).join("bin").join(name).is_file()
}
