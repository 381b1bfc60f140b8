//! 50 of 1,000 nodes drained, beside `kubectl drain` of 50 others of the same cluster; and what looking at such a cluster
//! costs. Nodes are simulated; budgets, controllers and scheduler are the real ones. Once pods start and end at once, so that
//! both tools wait for this machine's processors alone, and once they take the seconds that they take with a kubelet.

use super::measure::{Cost, once};
use anyhow::{Context, Result, ensure};
use camino::Utf8Path;
use std::process::Command;
use std::time::Duration;
use testbed::fleet::{Fleet, node_name};
use testbed::plane::{Pace, Plane};
use testbed::{cache, cmd, components};

/// 20,000 pods, half of them under budgets of which each loses about ten pods and may lack two at a time.
const FLEET: Fleet = Fleet { nodes: 1000, deployments: 100, replicas: 200, guarded: 50, min_available: 198 };

/// Nodes drained with each tool.
const DRAINED: usize = 50;

/// Runs both tools at both paces and prints them as a table.
#[allow(clippy::print_stdout)] // the table is this task's answer
pub(super) fn run(rekindle: &Utf8Path) -> Result<()> {
    components::build(&["kubernetes".into(), "kwok".into()])?;
    let (nodes, pods) = (FLEET.nodes, FLEET.pods());
    println!("| {nodes} nodes, {pods} pods | kubectl | rekindle | ratio | must reach |");
    println!("|---|---|---|---|---|");
    for (pace, what) in [(Pace::Kubelet, "1 to 5 s"), (Pace::AtOnce, "no time")] {
        beside(rekindle, pace, what)?;
    }
    Ok(())
}

/// One cluster, on which each tool drains nodes of its own.
#[allow(clippy::print_stdout)] // a part of the table
fn beside(rekindle: &Utf8Path, pace: Pace, what: &str) -> Result<()> {
    let dir = cache::root()?.join("bench/drain");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let plane = filled(&dir, pace)?;
    let state = dir.join("state");
    let ours = |args: &[&str]| {
        let mut command = cmd::command(rekindle.as_str(), ["node"]);
        command.args(args).args(["--kubeconfig", plane.kubeconfig().as_str()]);
        command.args(["--state-dir", state.as_str()]);
        command
    };
    let names = |first: usize| (first..first + DRAINED).map(node_name).collect::<Vec<_>>();
    let (theirs, own) = (names(0), names(DRAINED));
    let mut drain = vec!["drain"];
    drain.extend(own.iter().map(String::as_str));
    cmd::wait_for("every node to report", Duration::from_secs(600), || {
        cmd::run(&mut ours(&["list", "-o", "short"])).map(Some)
    })?;
    let list = once(&mut ours(&["list"]))?;
    let look = once(ours(&drain).arg("--dry-run"))?;
    let mut kubectl = plane.kubectl_command()?;
    let stock = drained(&plane, "kubectl drain", kubectl.arg("drain").args(&theirs), &theirs)?;
    let rekindle = drained(&plane, "rekindle node drain", ours(&drain).arg("--yes"), &own)?;
    let ratio = rekindle.cost.time.as_secs_f64() / stock.cost.time.as_secs_f64();
    println!(
        "| drain of {DRAINED} nodes, pods start and end in {what} | {} | {} | {ratio:.2} | 0.5 |",
        stock.told(),
        rekindle.told()
    );
    println!("| `node list` | | {} | | |", told(list));
    println!("| `node drain --dry-run` of {DRAINED} nodes | | {} | | |", told(look));
    drop(plane);
    std::fs::remove_dir_all(&dir).context("cannot clean up")
}

/// A plane in a folder of its own, from the etcd of one that was filled once: to make 20,000 pods takes many minutes.
fn filled(dir: &Utf8Path, pace: Pace) -> Result<Plane> {
    let kept = cache::root()?.join("bench/fleet");
    if !kept.join("etcd").exists() {
        let (nodes, pods) = (FLEET.nodes, FLEET.pods());
        cmd::note(&format!("making {nodes} nodes and {pods} pods"));
        std::fs::create_dir_all(dir)?;
        drop(FLEET.start(dir, Pace::AtOnce)?);
        std::fs::create_dir_all(&kept)?;
        std::fs::rename(dir.join("etcd"), kept.join("etcd"))?;
        std::fs::remove_dir_all(dir)?;
    }
    std::fs::create_dir_all(dir)?;
    cmd::sh("cp", ["-a", kept.join("etcd").as_str(), dir.as_str()])?;
    FLEET.start(dir, pace)
}

/// What a drain took.
struct Drained {
    cost: Cost,
    pods: usize,
    /// Fewest healthy pods that any guarded Deployment had meanwhile.
    fewest: usize,
}

impl Drained {
    fn told(&self) -> String {
        let per_pod_ms = self.cost.time.as_millis() / self.pods.max(1) as u128;
        let (fewest, must) = (self.fewest, FLEET.min_available);
        format!(
            "{}, {} pods, {per_pod_ms} ms each, never below {fewest} of {must}",
            told(self.cost),
            self.pods
        )
    }
}

fn told(cost: Cost) -> String {
    format!("{:.1} s, {} MiB", cost.time.as_secs_f64(), cost.peak_mib)
}

/// Drains nodes with a tool while all guarded pods are watched; afterwards every node is empty, and no budget was broken.
fn drained(plane: &Plane, what: &str, command: &mut Command, nodes: &[String]) -> Result<Drained> {
    FLEET.wait_settled(plane)?;
    let watch = FLEET.watch(plane)?;
    let pods = watch.on(nodes);
    cmd::note(&format!("{what} of {} nodes with {pods} pods", nodes.len()));
    let cost = once(command)?;
    let (fewest, left) = watch.end(plane, nodes)?;
    ensure!(left == 0, "{what} left {left} pods on the nodes");
    ensure!(fewest >= FLEET.min_available, "{what} broke a budget: {fewest} of {}", FLEET.min_available);
    Ok(Drained { cost, pods, fewest })
}
