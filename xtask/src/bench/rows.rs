//! The rows of the speed table that work on one snapshot file.

use super::fixture::boot;
use super::measure::{Cost, median, once};
use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use testbed::{cmd, components};

struct Bench<'a> {
    rekindle: &'a Utf8Path,
    etcdutl: Utf8PathBuf,
    fixture: &'a Utf8Path,
    scratch: Utf8PathBuf,
    runs: usize,
}

/// Runs the rows and prints them as a table.
#[allow(clippy::print_stdout)] // the table is this task's answer
pub(super) fn run(rekindle: &Utf8Path, fixture: &Utf8Path, runs: usize, only: &[String]) -> Result<()> {
    let scratch = fixture.parent().context("the fixture lies in a folder")?.join("scratch");
    let etcdutl = components::etcd_line("3.6")?.etcdutl;
    let bench = Bench { rekindle, etcdutl, fixture, scratch, runs };
    println!("| work | stock | rekindle | ratio | must reach |");
    println!("|---|---|---|---|---|");
    type Row = fn(&Bench) -> Result<()>;
    let rows: [(&str, Row); 5] =
        [("restore", restore), ("bump", bump), ("three", three), ("verify", verify), ("replay", replay)];
    for (name, row) in rows {
        if only.is_empty() || only.iter().any(|wanted| wanted == name) {
            row(&bench)?;
        }
    }
    Ok(())
}

#[allow(clippy::print_stdout)]
fn line(work: &str, stock: &str, ours: &str, ratio: f64, must: &str) {
    println!("| {work} | {stock} | {ours} | {ratio:.2} | {must} |");
}

fn shown(cost: Cost) -> String {
    format!("{:.2} s, {} MiB", cost.time.as_secs_f64(), cost.peak_mib)
}

fn ratio(ours: Duration, stock: Duration) -> f64 {
    ours.as_secs_f64() / stock.as_secs_f64()
}

impl Bench<'_> {
    fn clean(&self) -> Result<()> {
        if self.scratch.exists() {
            std::fs::remove_dir_all(&self.scratch)?;
        }
        std::fs::create_dir_all(&self.scratch)?;
        // What an earlier run wrote must not be written back during this one.
        cmd::sh("sync", [] as [&str; 0])?;
        Ok(())
    }

    fn restore(&self, program: &Utf8Path, more: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(["snapshot", "restore", self.fixture.as_str()]);
        command.args(["--data-dir", self.scratch.join("data").as_str(), "--name", "default"]);
        command.args(["--initial-cluster", "default=http://127.0.0.1:23800"]);
        command.args(["--initial-advertise-peer-urls", "http://127.0.0.1:23800"]);
        command.args(more);
        command
    }
}

fn restore(bench: &Bench) -> Result<()> {
    let copied = median(
        bench.runs,
        || bench.clean(),
        || {
            let mut command = Command::new("cp");
            command.arg(bench.fixture).arg(bench.scratch.join("copy"));
            command
        },
    )?;
    let stock = median(bench.runs, || bench.clean(), || bench.restore(&bench.etcdutl, &[]))?;
    let ours = median(bench.runs, || bench.clean(), || bench.restore(bench.rekindle, &[]))?;
    let stock_text = format!("{} (cp {:.2} s)", shown(stock), copied.time.as_secs_f64());
    line("restore, all rows kept", &stock_text, &shown(ours), ratio(ours.time, stock.time), "0.5, 128 MiB");
    Ok(())
}

const BUMP: [&str; 3] = ["--bump-revision", "1000000000", "--mark-compacted"];

fn bump(bench: &Bench) -> Result<()> {
    let stock = median(bench.runs, || bench.clean(), || bench.restore(&bench.etcdutl, &BUMP))?;
    let (stock_boot, stock_compacted, stock_bytes) = boot_and_compact(bench)?;
    let ours = median(bench.runs, || bench.clean(), || bench.restore(bench.rekindle, &BUMP))?;
    let (our_boot, our_compacted, our_bytes) = boot_and_compact(bench)?;
    line("restore with bump + compaction", &shown(stock), &shown(ours), ratio(ours.time, stock.time), "0.35");
    let text = |boot: Duration, compacted: Duration, bytes: u64| {
        let (boot, compacted) = (boot.as_secs_f64(), compacted.as_secs_f64());
        format!("boots in {boot:.2} s, compacted after {compacted:.2} s more, {} MB", bytes / 1_000_000)
    };
    let stock_text = text(stock_boot, stock_compacted, stock_bytes);
    let our_text = text(our_boot, our_compacted, our_bytes);
    line("  then etcd boots", &stock_text, &our_text, ratio(our_boot, stock_boot), "0.6");
    Ok(())
}

/// Boots etcd on what was restored: time to answer, time until the compaction it owes is done, size of the db then.
fn boot_and_compact(bench: &Bench) -> Result<(Duration, Duration, u64)> {
    let (data, log) = (bench.scratch.join("data"), bench.scratch.join("etcd.log"));
    let (_etcd, booted) = boot(&data, &["--log-level", "info", "--log-outputs", log.as_str()])?;
    let start = Instant::now();
    cmd::wait_for("the compaction ends", Duration::from_secs(300), || {
        let text = std::fs::read_to_string(&log)?;
        let owed = text.contains("resume scheduled compaction");
        Ok((!owed || text.contains("finished scheduled compaction")).then_some(()))
    })?;
    let bytes = std::fs::metadata(data.join("member/snap/db"))?.len();
    Ok((booted, start.elapsed(), bytes))
}

const THREE: &str = "a=http://127.0.0.1:23801,b=http://127.0.0.1:23802,c=http://127.0.0.1:23803";

fn three(bench: &Bench) -> Result<()> {
    bench.clean()?;
    let start = Instant::now();
    for (name, port) in [("a", 23801), ("b", 23802), ("c", 23803)] {
        let mut command = Command::new(&bench.etcdutl);
        command.args(["snapshot", "restore", bench.fixture.as_str(), "--name", name]);
        command.args(["--data-dir", bench.scratch.join(name).as_str(), "--initial-cluster", THREE]);
        command.args(["--initial-advertise-peer-urls", &format!("http://127.0.0.1:{port}")]);
        command.args(BUMP);
        once(&mut command)?;
    }
    let stock = start.elapsed();
    example("restore_all")?;
    let ours = median(
        bench.runs,
        || bench.clean(),
        || {
            let mut command = Command::new("target/release/examples/restore_all");
            command.arg(bench.fixture).arg(&bench.scratch).arg(THREE);
            command
        },
    )?;
    let stock_text = format!("{:.2} s", stock.as_secs_f64());
    line("three members from one snapshot", &stock_text, &shown(ours), ratio(ours.time, stock), "0.25");
    Ok(())
}

/// Builds an example of the disk formats' crate: what measures a part that has no verb of its own.
fn example(name: &str) -> Result<()> {
    let build = ["build", "--quiet", "--release", "-p", "etcd-disk", "--example", name];
    cmd::run(Command::new("cargo").args(build)).map(|_| ())
}

/// No stock tool replays: beside it stands a stock restore of the base alone.
fn replay(bench: &Bench) -> Result<()> {
    example("replay_changes")?;
    bench.clean()?;
    let program = "target/release/examples/replay_changes";
    let (made, out) = (bench.scratch.join("replay"), bench.scratch.join("out.db"));
    cmd::run(Command::new(program).args(["make", made.as_str()]))?;
    let base = made.join("base.db");
    let stock = once(
        Command::new(&bench.etcdutl)
            .args(["snapshot", "restore", base.as_str(), "--skip-hash-check"])
            .args(["--data-dir", bench.scratch.join("data").as_str()]),
    )?;
    let restored = |form: &str| {
        let prepare = || {
            let _ = std::fs::remove_file(&out);
            cmd::sh("sync", [] as [&str; 0]).map(|_| ())
        };
        median(bench.runs, prepare, || {
            let mut command = Command::new(program);
            command.args([form, made.as_str(), out.as_str()]);
            command
        })
    };
    let (alone, all) = (restored("base-exact")?, restored("exact")?);
    let stock_text = format!("base alone, no replay: {}", shown(stock));
    let our_text = format!("base {:.2} s, with 132,000 revisions {}", alone.time.as_secs_f64(), shown(all));
    line("restore to a point in time", &stock_text, &our_text, ratio(all.time, stock.time), "2.5 s");
    Ok(())
}

fn verify(bench: &Bench) -> Result<()> {
    let stock = median(
        bench.runs,
        || Ok(()),
        || {
            let mut command = Command::new(&bench.etcdutl);
            command.args(["snapshot", "status", bench.fixture.as_str()]);
            command
        },
    )?;
    let ours = median(
        bench.runs,
        || Ok(()),
        || {
            let mut command = Command::new(bench.rekindle);
            command.args(["snapshot", "verify", bench.fixture.as_str()]);
            command
        },
    )?;
    line("verify", &shown(stock), &shown(ours), ratio(ours.time, stock.time), "0.6 of status alone");
    Ok(())
}
