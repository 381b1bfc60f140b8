//! `cargo xtask dist`: the one static binary, with its size and its cold start time.

use crate::setup_task::TARGET;
use anyhow::{Context, Result, bail};
use camino::Utf8PathBuf;
use std::process::Command;
use std::time::Instant;
use testbed::cmd;

/// Builds the static binary and returns where it lies.
pub(crate) fn build() -> Result<Utf8PathBuf> {
    cmd::note("building the static binary");
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--package", "rekindle", "--target", TARGET])
        .env("CC_x86_64_unknown_linux_musl", "musl-gcc")
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the static binary does not build: run `cargo xtask setup` if a tool is missing");
    }
    let target_dir = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    let path = Utf8PathBuf::from(target_dir).join(TARGET).join("release/rekindle");
    path.canonicalize_utf8().with_context(|| format!("no binary at {path}"))
}

#[allow(clippy::print_stdout)] // what this task is for
pub(crate) fn run() -> Result<()> {
    let binary = build()?;
    let bytes = std::fs::metadata(&binary)?.len();
    let kind = cmd::sh("ldd", [binary.as_str()]).unwrap_or_else(|_| "not a dynamic executable".into());
    let start = Instant::now();
    cmd::sh(binary.as_str(), ["--version"])?;
    let ms = start.elapsed().as_secs_f64() * 1000.0;
    println!("{binary}\n{bytes} bytes, {}, `--version` in {ms:.1} ms", kind.trim());
    Ok(())
}
