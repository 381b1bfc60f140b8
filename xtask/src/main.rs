//! The project's tasks: `cargo xtask TASK`. Each task is a file beside this one with its arguments and a `run`;
//! this file only dispatches.

mod bench;
mod demo_task;
mod dist_task;
mod setup_task;
mod test_task;
mod testbed_task;

use clap::{Parser, Subcommand};

/// The project's tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building and testing need besides Rust and Go
    Setup,
    /// Run every test: pure, against real processes, on real clusters
    Test(test_task::Args),
    /// Measure speed as ratios against the stock tools
    Bench(bench::Args),
    /// Make a cluster, destroy its etcd, recover it, show the report
    Demo,
    /// Build the one static binary
    Dist,
    /// Build real components and run real clusters on this machine
    Testbed(testbed_task::Args),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().task {
        Task::Setup => setup_task::run(),
        Task::Test(args) => test_task::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Demo => demo_task::run(),
        Task::Dist => dist_task::run(),
        Task::Testbed(args) => testbed_task::run(args),
    }
}
