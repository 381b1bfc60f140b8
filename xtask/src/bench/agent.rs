//! The agent beside a busy etcd: 500 writes a second of 1 KB, without it and with it. No stock tool does this; the etcd
//! without an agent is what stands beside.

use super::fixture::{self, CLIENT, SEED};
use super::measure::high_water_of;
use anyhow::{Context, Result, ensure};
use camino::Utf8Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use testbed::{cache, cmd, components, ports};

const WRITES_PER_S: u32 = 500;
const SECONDS: u32 = 60;
/// `USER_HZ`, in which Linux tells processor time.
const TICKS_PER_S: f64 = 100.0;

/// Ends with the row.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs both and prints them as a table.
#[allow(clippy::print_stdout)] // the table is this task's answer
pub(super) fn run(rekindle: &Utf8Path) -> Result<()> {
    components::build(&["age".into()])?;
    let dir = cache::root()?.join("bench/agent");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(dir.join("vault"))?;
    let (_etcd, _) = fixture::boot(&dir.join("etcd"), &[])?;
    let alone = write()?;
    let agent = start(rekindle, &dir)?;
    let before = ticks(agent.0.id())?;
    let beside = write()?;
    let percent = (ticks(agent.0.id())? - before) / TICKS_PER_S / f64::from(SECONDS) * 100.0;
    let peak_mib = high_water_of(agent.0.id()).context("the agent has ended")? / 1024;
    println!(
        "| {WRITES_PER_S} writes/s of 1 KB for {SECONDS} s | etcd alone | with the agent | must reach |"
    );
    println!("|---|---|---|---|");
    println!("| latency of a write, median and 99 % | {alone} | {beside} | as alone |");
    println!(
        "| the agent, the first full not counted | | {percent:.1} % of a core, {peak_mib} MiB | 5 %, 64 MiB |"
    );
    drop(agent);
    std::fs::remove_dir_all(&dir).context("cannot clean up")
}

/// Writes at the steady rate; the latencies in words.
fn write() -> Result<String> {
    let numbers = [SEED, 5000, WRITES_PER_S * SECONDS, 770].map(|n| n.to_string());
    let mut loader = Command::new(fixture::loader()?);
    let said = cmd::run(loader.arg(CLIENT).args(numbers).env("LOADER_PER_SECOND", WRITES_PER_S.to_string()))?;
    let mut micros = said.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
    let (median, high) = (micros.next(), micros.next());
    let (median, high) = median.zip(high).with_context(|| format!("the loader said {said}"))?;
    Ok(format!("{:.1} ms, {:.1} ms", median / 1000.0, high / 1000.0))
}

/// The agent as it is run, its vault a folder, when it says that it is healthy.
fn start(rekindle: &Utf8Path, dir: &Utf8Path) -> Result<Agent> {
    let (identity, key, vault) = (dir.join("identity.txt"), dir.join("sign.key"), dir.join("vault"));
    let (secret, recipient) = scenarios::identity()?;
    cache::write(&identity, secret)?;
    let mut init = cmd::command(rekindle.as_str(), ["backup", "init", "--vault", vault.as_str()]);
    init.args(["--signing-key", key.as_str(), "--recipient", &recipient, "--identity", identity.as_str()]);
    cmd::run(&mut init)?;
    let port = ports::free();
    let config = format!(
        "vault: {vault}\ncluster: bench\nsigningKey: {key}\nrecipients: [{recipient}]\netcd: {{endpoints: ['{CLIENT}']}}\n\
         stateDir: {}\nlisten: 127.0.0.1:{port}\n",
        dir.join("state")
    );
    let file = dir.join("agent.yaml");
    cache::write(&file, config)?;
    let log = std::fs::File::create(dir.join("agent.log"))?;
    let mut command = cmd::command(rekindle.as_str(), ["agent", "--config", file.as_str()]);
    let mut agent =
        Agent(command.stdout(Stdio::null()).stderr(log).spawn().context("cannot start the agent")?);
    let url = format!("http://127.0.0.1:{port}/healthz");
    cmd::wait_for("the agent is healthy", Duration::from_secs(120), || {
        ensure!(agent.0.try_wait()?.is_none(), "it has ended");
        cmd::sh("curl", ["-sf", "--max-time", "2", &url]).map(Some)
    })?;
    Ok(agent)
}

/// Processor time of a process so far, in ticks.
fn ticks(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the agent has ended")?;
    // behind the name, which may hold anything: state first, user and system time as 12th and 13th
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
    Ok(fields.take(2).filter_map(|field| field.parse::<f64>().ok()).sum())
}
