//! `cargo xtask bench`: speed as ratios against the stock tool on the same files, in one run, never a timed test.

mod agent;
mod drain;
mod fixture;
mod measure;
mod resources;
mod rows;
mod rto;

use anyhow::{Context, Result};
use camino::Utf8PathBuf;
use testbed::set::Kind;

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these rows (restore, bump, three, verify, replay, agent, resources, drain, rto-one, rto-three)
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// Runs of each command; the median counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Revisions in the fixture; 740000 make 1.0 GB
    #[arg(long, default_value_t = 740_000)]
    revisions: u32,
    /// Revisions added to the cluster of the larger RTO rows; 740000 make 1.0 GB, 0 leaves these rows out
    #[arg(long, default_value_t = 740_000)]
    rto_revisions: u32,
    /// Measure this binary instead of building the static one
    #[arg(long, value_name = "PATH")]
    binary: Option<Utf8PathBuf>,
}

/// Rows that need no snapshot.
const WITHOUT_SNAPSHOT: [&str; 5] = ["agent", "resources", "drain", "rto-one", "rto-three"];

pub(crate) fn run(args: &Args) -> Result<()> {
    crate::setup_task::to_test()?;
    testbed::components::build(&["etcd-3.6".into()])?;
    let binary = match &args.binary {
        Some(path) => path.canonicalize_utf8().with_context(|| format!("no binary at {path}"))?,
        None => crate::dist_task::build()?,
    };
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|row| row == name);
    if args.only.is_empty() || args.only.iter().any(|row| !WITHOUT_SNAPSHOT.contains(&row.as_str())) {
        let fixture = fixture::snapshot(args.revisions)?;
        rows::run(&binary, &fixture, args.runs, &args.only)?;
    }
    if wanted("agent") {
        agent::run(&binary)?;
    }
    if wanted("resources") {
        resources::run(&binary)?;
    }
    if wanted("drain") {
        drain::run(&binary)?;
    }
    let kinds = [("rto-one", Kind::Kubeadm1), ("rto-three", Kind::Kubeadm3)];
    let kinds: Vec<Kind> = kinds.into_iter().filter(|(name, _)| wanted(name)).map(|(_, kind)| kind).collect();
    if !kinds.is_empty() {
        rto::run(&binary, &kinds, args.rto_revisions, args.runs)?;
    }
    Ok(())
}
