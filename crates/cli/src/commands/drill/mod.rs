//! `rekindle drill`: a backup restored where it can harm nothing, booted, compared object by object, measured, reported.
//!
//! ```text
//! vault or snapshot ──▶ run.rs: fetch, verify, restore (as `snapshot restore` does) ──▶ scratch folder
//!                          keys.rs: PKI and settings of the newest bundle                  │
//!                          programs.rs: etcd and kube-apiserver                            ▼
//! report.rs ◀── judge ◀── sandbox.rs ◀── what was seen ◀── inside/: boot, compare, check (no network but loopback)
//!    └──▶ render.rs: Markdown, HTML          history.rs: earlier reports and their trend
//! ```
//! With `--scenario` (scenario.rs, and node_lost.rs through the API) a cluster that is there for it is broken and recovered
//! instead: runs of the ordinary kind, and the same report.
//!
//! A drill in the sandbox is no journaled run: it changes nothing that anybody needs. Its folder goes with it; what a
//! killed one leaves, the next one removes.

mod args;
mod history;
mod inside;
mod keys;
mod node_lost;
mod programs;
mod render;
mod report;
mod run;
mod sandbox;
mod scenario;

pub(crate) use args::Drill;
pub(crate) use history::DrillHistory;
pub(crate) use report::DrillReport;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use args::DrillVerb;

/// Name of the only member.
const MEMBER: &str = "drill";
const BOOTS: &str = "an API server boots on it and is ready";

pub(crate) fn run(args: Drill, output: &Output) -> Result<Exit, Failure> {
    match args.verb {
        DrillVerb::Run(args) => match args.live.scenario {
            Some(scenario) => scenario::run(*args, scenario, output),
            None => run::run(*args, output),
        },
        DrillVerb::History(args) => history::run(&args, output),
        DrillVerb::Inside => inside::run(output),
    }
}
