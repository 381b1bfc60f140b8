//! From flags to a world: the local host, and the remote ones over OpenSSH.

use crate::args::Hosts;
use crate::failure::{Doing, Failure};
use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::HostId;
use rekindle_world::local::LocalHost;
use rekindle_world::ssh::{SshHost, SshOptions};
use rekindle_world::{Host, World};
use std::sync::Arc;

/// The async runtime: everything that waits runs on it.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().doing(|| "cannot start".into())
}

/// This machine, under another root folder where asked.
pub(crate) fn local(root: Utf8PathBuf) -> Arc<dyn Host> {
    Arc::new(LocalHost::new(HostId::local(), root))
}

/// The hosts the flags name; without any, this machine.
pub(crate) async fn world(hosts: &Hosts) -> Result<World, Failure> {
    let ids: Vec<HostId> = hosts.hosts.iter().map(|h| HostId(h.clone())).collect();
    world_of(&ids, &hosts.ssh.options(), hosts.root.clone()).await
}

/// The hosts of these ids, connected in parallel. One that can't be reached stays in the world and answers so.
pub(crate) async fn world_of(
    ids: &[HostId],
    options: &SshOptions,
    root: Utf8PathBuf,
) -> Result<World, Failure> {
    let here = local(root);
    if ids.is_empty() || ids.iter().all(HostId::is_local) {
        return Ok(World { local: here.clone(), hosts: vec![here] });
    }
    let connecting: Vec<_> = ids
        .iter()
        .map(|id| {
            let (id, options) = (id.clone(), options.clone());
            tokio::spawn(async move { SshHost::connect_or_unreachable(id, options).await })
        })
        .collect();
    let mut hosts = Vec::with_capacity(connecting.len());
    for host in connecting {
        hosts.push(host.await.doing(|| "a connection was cut short".into())?);
    }
    Ok(World { local: here, hosts })
}

/// Gives a finished file its name, and never another file's.
pub(crate) fn rename_new(from: &Utf8Path, to: &Utf8Path) -> Result<(), Failure> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, from.as_std_path(), CWD, to.as_std_path(), RenameFlags::NOREPLACE)
        .doing(|| format!("cannot rename {from} to {to}"))?;
    let parent = to.parent().filter(|p| !p.as_str().is_empty()).unwrap_or(Utf8Path::new("."));
    std::fs::File::open(parent).and_then(|dir| dir.sync_all()).doing(|| format!("cannot sync {parent}"))
}
