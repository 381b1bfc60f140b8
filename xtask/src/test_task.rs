//! `cargo xtask test`: every test, tier by tier: pure, against real processes, on real hosts.

use crate::{dist_task, setup_task};
use anyhow::{Context, Result, bail};
use std::process::Command;
use std::time::Instant;
use testbed::{cmd, components};

/// Packages with tests against real processes (cargo feature `stock`).
const STOCK: &[&str] = &["boltfile", "etcd-disk", "rekindle-world", "rekindle"];

/// The tiers below the scenarios.
const TIERS: [&str; 3] = ["pure", "stock", "testbed"];

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this tier (`pure`, `stock`, `testbed`) or scenario (`s1` to `s9`, ...); repeat for several
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Also the long forms: a kill at every step
    #[arg(long)]
    full: bool,
    /// Only name what there is
    #[arg(long)]
    list: bool,
}

#[allow(clippy::print_stdout)] // what `--list` is for
pub(crate) fn run(args: &Args) -> Result<()> {
    let scenarios = scenarios()?;
    if args.list {
        println!("pure\nstock\ntestbed\n{}", scenarios.join("\n"));
        return Ok(());
    }
    let known = |name: &String| TIERS.contains(&name.as_str()) || scenarios.contains(name);
    if let Some(unknown) = args.only.iter().find(|name| !known(name)) {
        bail!("no tests named {unknown}: `cargo xtask test --list` names them");
    }
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    setup_task::run()?;
    let mut timings = Vec::new();
    if wanted("pure") {
        timed("pure", &mut timings, || {
            cargo(&["test", "--quiet", "--workspace", "--exclude", "scenarios", "--exclude", "testbed"])
        })?;
    }
    if wanted("stock") {
        components::build(&[])?;
        timed("stock", &mut timings, stock)?;
    }
    let wanted_scenarios: Vec<&String> = scenarios.iter().filter(|name| wanted(name)).collect();
    if wanted("testbed") || !wanted_scenarios.is_empty() {
        components::build(&[])?;
        testbed::base::build()?;
    }
    if wanted("testbed") {
        timed("testbed", &mut timings, || cargo(&["test", "--quiet", "--package", "testbed"]))?;
    }
    if !wanted_scenarios.is_empty() {
        let binary = dist_task::build()?;
        for name in wanted_scenarios {
            timed(name, &mut timings, || scenario(name, binary.as_str(), args.full))?;
        }
    }
    for (name, seconds) in timings {
        cmd::note(&format!("{name}: passed in {seconds} s"));
    }
    Ok(())
}

fn timed(name: &str, timings: &mut Vec<(String, u64)>, work: impl FnOnce() -> Result<()>) -> Result<()> {
    cmd::note(&format!("tests: {name}"));
    let start = Instant::now();
    work().with_context(|| format!("tests {name} failed"))?;
    timings.push((name.to_owned(), start.elapsed().as_secs()));
    Ok(())
}

fn stock() -> Result<()> {
    let mut args = vec!["test", "--quiet"];
    let features: Vec<String> = STOCK.iter().map(|package| format!("{package}/stock")).collect();
    for package in STOCK {
        args.extend(["--package", package]);
    }
    let features = features.join(",");
    args.extend(["--features", &features]);
    cargo(&args)
}

/// One scenario: a test file of the `scenarios` package, on test hosts; hosts are shared, so one test at a time.
fn scenario(name: &str, binary: &str, full: bool) -> Result<()> {
    let status = Command::new("cargo")
        .args(["test", "--quiet", "--package", "scenarios", "--test", name, "--", "--test-threads=1"])
        .args(full.then_some("--include-ignored"))
        .env("REKINDLE_BIN", binary)
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("scenario {name}: {status}");
    }
    Ok(())
}

fn cargo(args: &[&str]) -> Result<()> {
    let status = Command::new("cargo").args(args).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("cargo {}: {status}", args.join(" "));
    }
    Ok(())
}

/// The scenarios: names of the test files of the `scenarios` package.
fn scenarios() -> Result<Vec<String>> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios/tests");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {dir}"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_suffix(".rs") {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}
