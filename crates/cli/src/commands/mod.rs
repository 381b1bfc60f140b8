//! One file a verb. Each takes its arguments, calls the libraries, renders, and says the exit code.

mod agent;
mod api;
mod apply;
pub(crate) mod backup;
pub(crate) mod certs;
mod check;
pub(crate) mod drill;
pub(crate) mod from;
mod managed;
mod misc;
pub(crate) mod node;
mod plan;
mod recover;
pub(crate) mod reset;
pub(crate) mod resources;
pub(crate) mod runbook;
mod runs;
mod snapshot;
pub(crate) mod unstick;

use crate::args::{Args, Verb};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;

/// Runs the verb.
pub(crate) fn run(args: Args, output: &Output) -> Result<Exit, Failure> {
    match args.verb {
        Verb::Check(args) => check::run(&args, output),
        Verb::Plan(args) => plan::run(&args, output),
        Verb::Apply(args) => apply::run(&args, output),
        Verb::Recover(args) => recover::run(&args, output),
        Verb::Runs(args) => runs::run(&args, output),
        Verb::Snapshot(args) => snapshot::run(args, output),
        Verb::Backup(args) => backup::run(args, output),
        Verb::Node(args) => node::run(args, output),
        Verb::Unstick(args) => unstick::run(&args, output),
        Verb::Drill(args) => drill::run(args, output),
        Verb::Runbook(args) => runbook::run(&args, output),
        Verb::Agent(args) => agent::run(&args, output),
        Verb::Certs(args) => certs::run(&args, output),
        Verb::Reset(args) => reset::run(&args, output),
        Verb::Resources(args) => resources::run(args, output),
        Verb::Completion { shell } => misc::completion(shell, output),
        Verb::Man => misc::man(output),
        Verb::Schema { kind } => misc::schema(kind, output),
        Verb::Serve => misc::serve(),
    }
}
