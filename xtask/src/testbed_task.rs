//! `cargo xtask testbed`: build the components, make clusters, and let a person play with one.

use anyhow::Result;
use clap::Subcommand;
use testbed::{cmd, components};

/// Arguments of `cargo xtask testbed`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build components that are not in the cache yet
    Build {
        /// Only these (etcd-3.5, etcd-3.6, etcd-3.7, kubernetes, containerd); default: all
        names: Vec<String>,
    },
}

/// Runs the action.
pub(crate) fn run(args: Args) -> Result<()> {
    match args.action {
        Action::Build { names } => build(&names),
    }
}

#[allow(clippy::print_stdout)] // the paths are this command's answer
fn build(names: &[String]) -> Result<()> {
    components::build(names)?;
    for (name, dir, built) in components::list()? {
        println!("{name}\t{}\t{dir}", if built { "built" } else { "not built" });
    }
    cmd::note("components are there");
    Ok(())
}
