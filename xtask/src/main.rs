//! The project's tasks: `cargo xtask TASK`. Each task is a file beside this one with its arguments and a `run`;
//! this file only dispatches.

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
    /// Build real components and run real clusters on this machine
    Testbed(testbed_task::Args),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().task {
        Task::Testbed(args) => testbed_task::run(args),
    }
}
