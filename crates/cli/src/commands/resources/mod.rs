//! `rekindle resources`: objects through the API. What is done stands in `crates/resources`; here it is asked for, shown
//! and consented to.

mod args;
mod backup;
mod restore;
mod tables;
mod vault;

pub(crate) use args::Resources;

use crate::args::Kubeconfig;
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use args::ResourcesVerb;
use camino::Utf8Path;
use rekindle_resources::Error;
use rekindle_resources::folder::Folder;
use rekindle_resources::index::ClusterFacts;
use rekindle_vault::Identities;
use rekindle_world::cluster::{Cluster, ClusterOptions};
use std::sync::Arc;

pub(crate) fn run(args: Resources, output: &Output) -> Result<Exit, Failure> {
    let runtime = connect::runtime()?;
    match args.verb {
        ResourcesVerb::Backup(args) => runtime.block_on(backup::run(args, output)),
        ResourcesVerb::List(args) => runtime.block_on(backup::list(&args, output)),
        ResourcesVerb::Diff(args) => runtime.block_on(restore::diff(&args, output)),
        ResourcesVerb::Restore(args) => runtime.block_on(restore::run(&args, output)),
        ResourcesVerb::Resume(args) => runtime.block_on(restore::resume(&args, output)),
        ResourcesVerb::Undo(args) => runtime.block_on(restore::undo(&args, output)),
    }
}

/// The cluster, and who it is.
async fn cluster(options: &ClusterOptions) -> Result<(Cluster, ClusterFacts), Failure> {
    let cluster = Cluster::connect(options).await.map_err(|error| {
        Failure::new("no cluster to work with").because(error).hint("name it with --kubeconfig and --context")
    })?;
    let facts = ClusterFacts::ask(&cluster).await.map_err(|error| {
        Failure::new(format!("{} can't be used", cluster.server()))
            .because(error)
            .hint("does `kubectl version` work with the same kubeconfig and context?")
    })?;
    Ok((cluster, facts))
}

async fn of_flags(api: &Kubeconfig) -> Result<(Cluster, ClusterFacts), Failure> {
    cluster(&api.options()).await
}

fn folder(folder: &Utf8Path, identity: Option<&Utf8Path>, accept_edited: bool) -> Result<Folder, Failure> {
    let identities = identity.map(|path| Identities::read(path.as_std_path())).transpose();
    let identities = identities.doing(|| "the identity can't be used".into())?;
    Folder::open(folder, identities.map(Arc::new), accept_edited).map_err(|error| of_folder(error, folder))
}

/// What a person can do about a folder.
fn of_folder(error: Error, folder: &Utf8Path) -> Failure {
    let line = error.line();
    let failure = Failure::new(format!("{folder} can't be used")).because(error);
    if line.contains("no identity was given") {
        failure.hint("give the identity file with --identity, or leave Secrets out with --exclude secrets")
    } else if line.contains("cut off") || line.contains("no backup") {
        failure.hint("`rekindle resources backup` writes one")
    } else {
        failure
    }
}
