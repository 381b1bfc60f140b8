//! `cargo xtask test`: every test, tier by tier: pure, against real processes, on real hosts.

mod programs;

use crate::{dist_task, setup_task};
use anyhow::{Context, Result, bail};
use std::process::Command;
use std::time::Instant;
use testbed::{cmd, components};

/// Packages with tests against real processes (cargo feature `stock`).
const STOCK: &[&str] =
    &["boltfile", "etcd-disk", "rekindle-agent", "rekindle-vault", "rekindle-world", "rekindle"];

/// Every package but those whose tests need root and hosts.
const WORKSPACE: [&str; 5] = ["--workspace", "--exclude", "scenarios", "--exclude", "testbed"];

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
    setup_task::to_test()?;
    let mut timings = Timings::default();
    let (pure, stock) = (wanted("pure"), wanted("stock"));
    if stock {
        components::build(&[])?;
    }
    match (pure, stock) {
        // one build and one run for both: what a feature adds is built on what is there
        (true, true) => {
            timings.run("pure and stock", || test(&[&WORKSPACE[..], &["--features", &features()]].concat()))
        }
        (true, false) => timings.run("pure", || test(&WORKSPACE)),
        (false, true) => timings.run("stock", only_stock),
        (false, false) => {}
    }
    let wanted_scenarios: Vec<&String> = scenarios.iter().filter(|name| wanted(name)).collect();
    if wanted("testbed") || !wanted_scenarios.is_empty() {
        components::build(&[])?;
        testbed::base::build()?;
    }
    if wanted("testbed") {
        timings.run("testbed", || test(&["--package", "testbed"]));
    }
    if !wanted_scenarios.is_empty() {
        let binary = dist_task::build()?;
        for name in wanted_scenarios {
            timings.run(name, || scenario(name, binary.as_str(), args.full));
        }
    }
    timings.told()
}

/// What ran, how it ended and how long it took. A failure does not keep the rest from being tried: one run tells all.
#[derive(Default)]
struct Timings(Vec<(String, Result<()>, u64)>);

impl Timings {
    fn run(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        cmd::note(&format!("tests: {name}"));
        let start = Instant::now();
        self.0.push((name.to_owned(), work(), start.elapsed().as_secs()));
    }

    fn told(self) -> Result<()> {
        let mut failed = Vec::new();
        for (name, outcome, seconds) in self.0 {
            match outcome {
                Ok(()) => cmd::note(&format!("{name}: passed in {seconds} s")),
                Err(error) => {
                    cmd::note(&format!("{name}: FAILED after {seconds} s: {error:#}"));
                    failed.push(name);
                }
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        bail!("tests failed: {}", failed.join(", "));
    }
}

/// The features that bring the tests against real processes.
fn features() -> String {
    let features: Vec<String> = STOCK.iter().map(|package| format!("{package}/stock")).collect();
    features.join(",")
}

fn only_stock() -> Result<()> {
    let packages = STOCK.iter().flat_map(|package| ["--package", package]);
    let features = features();
    test(&packages.chain(["--features", &features]).collect::<Vec<_>>())
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

fn test(args: &[&str]) -> Result<()> {
    let programs = programs::build(args)?;
    let failed = programs::run(&programs);
    let mut command = Command::new("cargo");
    let status = command.args(["test", "--quiet", "--no-fail-fast", "--doc"]).args(args).status();
    let status = status.context("cannot start cargo")?;
    if !failed.is_empty() {
        bail!("test programs failed: {}", failed.join(", "));
    }
    if !status.success() {
        bail!("cargo test --doc {}: {status}", args.join(" "));
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
