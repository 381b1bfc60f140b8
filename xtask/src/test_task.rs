//! `cargo xtask test`: every test, tier by tier: pure, against real processes, on real hosts.

mod programs;

use crate::{dist_task, setup_task};
use anyhow::{Context, Result, bail};
use programs::{Ended, Program};
use std::process::Command;
use std::time::{Duration, Instant};
use testbed::{cache, cmd, components};

/// Packages with tests against real processes (cargo feature `stock`).
const STOCK: &[&str] =
    &["boltfile", "etcd-disk", "rekindle-agent", "rekindle-vault", "rekindle-world", "rekindle"];

/// Every package but those whose tests need root and hosts.
const WORKSPACE: [&str; 5] = ["--workspace", "--exclude", "scenarios", "--exclude", "testbed"];

/// The tiers below the scenarios.
const TIERS: [&str; 3] = ["pure", "stock", "testbed"];

/// How many programs of the lower tiers run at once. Each runs as many tests at a time as there are processors.
const AT_ONCE: usize = 3;

/// How many scenarios run at once, each in a lane of its own ([`cache`]). Most of their time they wait: for a lease to run
/// out, for a kubelet to notice.
const LANES: usize = 2;

/// No test program may take longer: the longest takes 6 minutes, and one that hangs must not take the time of all the others.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// The same for the long forms.
const LIMIT_FULL: Duration = Duration::from_secs(60 * 60);

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
            timings.run("pure and stock", || test(&[&WORKSPACE[..], &["--features", &features()]].concat()));
        }
        (true, false) => timings.run("pure", || test(&WORKSPACE)),
        (false, true) => timings.run("stock", only_stock),
        (false, false) => {}
    }
    let wanted_scenarios: Vec<&str> =
        scenarios.iter().map(String::as_str).filter(|name| wanted(name)).collect();
    if wanted("testbed") || !wanted_scenarios.is_empty() {
        components::build(&[])?;
        testbed::base::build()?;
    }
    if wanted("testbed") {
        timings.run("testbed", || test(&["--package", "testbed"]));
    }
    if !wanted_scenarios.is_empty() {
        timings.0.extend(run_scenarios(&wanted_scenarios, args.full)?);
    }
    timings.told()
}

/// What ran, how it ended and how long it took. A failure does not keep the rest from being tried: one run tells all.
#[derive(Default)]
struct Timings(Vec<Ended>);

impl Timings {
    fn run(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        cmd::note(&format!("tests: {name}"));
        let start = Instant::now();
        self.0.push(Ended { name: name.to_owned(), outcome: work(), took: start.elapsed() });
    }

    fn told(self) -> Result<()> {
        let mut failed = Vec::new();
        for Ended { name, outcome, took } in self.0 {
            let seconds = took.as_secs();
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

/// Scenarios: test files of the `scenarios` package, on test hosts. A lane has one cluster, so one test at a time.
fn run_scenarios(names: &[&str], full: bool) -> Result<Vec<Ended>> {
    let binary = dist_task::build()?;
    let tests = names.iter().flat_map(|name| ["--test", name]);
    let programs = programs::build(&["--package", "scenarios"].into_iter().chain(tests).collect::<Vec<_>>())?;
    let limit = if full { LIMIT_FULL } else { LIMIT };
    Ok(programs::run(&programs, LANES.min(programs.len()), limit, |lane, program| {
        cmd::note(&format!("tests: {} begins in lane {lane}", program.name));
        let mut command = in_lane(lane, program);
        command.arg("--test-threads=1").args(full.then_some("--include-ignored"));
        command.env("REKINDLE_BIN", &binary);
        command
    }))
}

/// The command of a program in a lane: every one but the first has a network of its own.
fn in_lane(lane: usize, program: &Program) -> Command {
    if lane == 0 {
        return Command::new(&program.path);
    }
    let mut command = Command::new("unshare");
    command.args(["--net", "--", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]).arg(&program.path);
    command.env(cache::LANE_ENV, lane.to_string());
    command
}

fn test(args: &[&str]) -> Result<()> {
    let programs = programs::build(args)?;
    let ended = programs::run(&programs, AT_ONCE, LIMIT, |_, program| {
        let mut command = Command::new(&program.path);
        command.arg("--quiet");
        command
    });
    let failed: Vec<String> =
        ended.into_iter().filter(|one| one.outcome.is_err()).map(|one| one.name).collect();
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
