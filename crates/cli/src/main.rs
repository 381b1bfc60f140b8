//! The `rekindle` command line: arguments -> a request -> a call -> rendering -> an exit code.
//!
//! Start with [`args`] (what can be asked), then [`commands`] (one file a verb); [`render`] holds what people read.

mod args;
mod commands;
mod connect;
mod consent;
mod exit;
mod failure;
mod operator_command;
mod output;
mod progress;
mod render;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => return exit::from_usage(&error),
    };
    let output = output::Output::new(&args.common, args.log_format());
    match commands::run(args, &output) {
        Ok(exit) => exit.into(),
        Err(error) => output.fail(&error).into(),
    }
}
