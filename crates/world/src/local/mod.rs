//! This machine as a [`Host`]: every request of the seam, answered by the file that owns its subject.
//!
//! `durable` is the only one that syncs and renames; `certificates`, `files`, `processes`, `frozen`, `systemd`, `cri` and `data`
//! say in their first lines what they read or change. Blocking work runs on threads for it.

mod certificates;
mod claim;
mod command;
mod cri;
mod data;
pub(crate) mod durable;
pub(crate) mod files;
mod frozen;
mod identity;
pub(crate) mod paths;
mod processes;
mod systemd;
mod wal_facts;

use crate::fault::{Fault, Outcome};
use crate::host::{Host, HostError, Progress, Reply, Request};
use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use command::blocking;
pub(crate) use identity::now_ms;
use paths::Root;
use rekindle_model::{HostId, HostPath, Seen};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// This machine, or a file system mounted on it.
pub struct LocalHost {
    id: HostId,
    root: Root,
    /// Whether the clock is synchronised, once it was asked.
    clock: OnceCell<Seen<bool>>,
    claim: Arc<claim::Claim>,
}

impl LocalHost {
    /// A host with this id whose `/` is the folder `root` of this machine. With another root than `/` only files
    /// answer; units, processes and containers are unavailable.
    pub fn new(id: HostId, root: impl Into<Utf8PathBuf>) -> Self {
        Self { id, root: Root::new(root), clock: OnceCell::new(), claim: Arc::default() }
    }

    fn path(&self, path: &HostPath) -> Outcome<Utf8PathBuf> {
        self.root.resolve(path)
    }

    fn path_if(&self, path: Option<&HostPath>) -> Outcome<Option<Utf8PathBuf>> {
        path.map(|p| self.root.resolve(p)).transpose()
    }

    fn running(&self, what: &str) -> Outcome<()> {
        if self.root.is_running_machine() {
            return Ok(());
        }
        Err(Fault::unavailable(format!("{what}: {} is not the running machine's root", self.root.path())))
    }

    async fn answer(&self, request: Request) -> Outcome<Reply> {
        match request {
            Request::Identity => identity::identity(&self.root, &self.clock).await.map(Reply::Identity),
            Request::Claim { run } => {
                let (claim, path) = (self.claim.clone(), self.path(&claim::PATH.into())?);
                done(move || claim.take(&path, &run)).await
            }
            Request::Stat { .. }
            | Request::Read { .. }
            | Request::List { .. }
            | Request::Disk { .. }
            | Request::Write { .. }
            | Request::Rename { .. }
            | Request::MakeDir { .. }
            | Request::RemoveOwnTree { .. } => self.files(request).await,
            Request::Processes { .. } | Request::KillProcess { .. } | Request::SaveOpenFile { .. } => {
                self.running("processes")?;
                self.processes(request).await
            }
            Request::Unit { .. } | Request::UnitAction { .. } | Request::Journal { .. } => {
                self.running("systemd units")?;
                units(request).await
            }
            Request::Containers => {
                self.running("containers")?;
                cri::containers(&self.root).await.map(Reply::Containers)
            }
            Request::StopPod { sandbox_id } => {
                self.running("containers")?;
                cri::stop_pod(&self.root, &sandbox_id).await.map(|()| Reply::Done)
            }
            Request::RemovePods => {
                self.running("containers")?;
                cri::remove_pods(&self.root).await.map(|()| Reply::Done)
            }
            Request::InspectEtcdData { .. }
            | Request::ReplayStore { .. }
            | Request::InspectSnapshot { .. }
            | Request::WriteMember { .. } => self.data(request).await,
            Request::EtcdLive { endpoint } => {
                let live = crate::etcd_client::live(&endpoint, self.root.path()).await;
                Ok(Reply::EtcdLive(Box::new(live)))
            }
            Request::Etcd { endpoint, call } => {
                crate::etcd_client::call(&endpoint, &call, self.root.path()).await
            }
            Request::Api(request) => crate::api::api(&request, self.root.path()).await.map(Reply::Http),
            Request::HttpGet { url, timeout_ms } => {
                crate::api::http_get(&url, timeout_ms).await.map(Reply::Http)
            }
            Request::ServesPeers { endpoint } => {
                crate::api::serves_peers(&endpoint, self.root.path()).await.map(Reply::Serves)
            }
            Request::Certificates { .. }
            | Request::RequestCertificates { .. }
            | Request::SignCertificates { .. }
            | Request::StageCertificates { .. } => {
                let root = self.root.clone();
                blocking(move || certificates::answer(&root, request)).await
            }
        }
    }

    async fn files(&self, request: Request) -> Outcome<Reply> {
        match request {
            Request::Stat { path } => {
                let path = self.path(&path)?;
                blocking(move || files::stat(&path).map(Reply::Stat)).await
            }
            Request::Read { path, max_bytes, tail } => {
                let path = self.path(&path)?;
                blocking(move || files::read(&path, max_bytes, tail).map(Reply::Bytes)).await
            }
            Request::List { path } => {
                let path = self.path(&path)?;
                blocking(move || files::list(&path).map(Reply::Names)).await
            }
            Request::Disk { path } => {
                let path = self.path(&path)?;
                blocking(move || files::disk(&path).map(Reply::Disk)).await
            }
            Request::Write { path, via, content, mode } => {
                let (path, via) = (self.path(&path)?, self.path(&via)?);
                done(move || durable::write(&path, &via, &content, mode)).await
            }
            Request::Rename { from, to } => {
                let (from, to) = (self.path(&from)?, self.path(&to)?);
                done(move || durable::rename_new(&from, &to)).await
            }
            Request::MakeDir { path, mode } => {
                let path = self.path(&path)?;
                done(move || durable::make_dirs(&path, mode)).await
            }
            Request::RemoveOwnTree { path } => {
                let path = self.path(&path)?;
                done(move || durable::remove_own_tree(&path)).await
            }
            other => Err(not_mine(&other)),
        }
    }

    async fn processes(&self, request: Request) -> Outcome<Reply> {
        match request {
            Request::Processes { names } => {
                blocking(move || processes::find(&names).map(Reply::Processes)).await
            }
            Request::KillProcess { pid, start_ticks } => {
                done(move || processes::kill(pid, start_ticks)).await
            }
            Request::SaveOpenFile { pid, start_ticks, fd, to } => {
                let to = self.path(&to)?;
                blocking(move || frozen::save(pid, start_ticks, fd, &to).map(Reply::Saved)).await
            }
            other => Err(not_mine(&other)),
        }
    }

    async fn data(&self, request: Request) -> Outcome<Reply> {
        match request {
            Request::InspectEtcdData { data_dir, wal_dir, deep } => {
                let (data_dir, wal_dir) = (self.path(&data_dir)?, self.path_if(wal_dir.as_ref())?);
                blocking(move || data::inspect(&data_dir, wal_dir.as_deref(), deep)).await
            }
            Request::ReplayStore { data_dir, wal_dir, to } => {
                let (data_dir, wal_dir) = (self.path(&data_dir)?, self.path_if(wal_dir.as_ref())?);
                let to = self.path(&to)?;
                blocking(move || data::replay(&data_dir, wal_dir.as_deref(), &to)).await
            }
            Request::InspectSnapshot { path, has_trailer } => {
                let path = self.path(&path)?;
                blocking(move || data::inspect_snapshot(&path, has_trailer)).await
            }
            Request::WriteMember { db, members, name, token, staging, wal_staging } => {
                let (db, staging) = (self.path(&db)?, self.path(&staging)?);
                let wal_staging = self.path_if(wal_staging.as_ref())?;
                let member = data::Member { db, members, name, token, staging, wal_staging };
                done(move || data::write_member(&member)).await
            }
            other => Err(not_mine(&other)),
        }
    }
}

async fn units(request: Request) -> Outcome<Reply> {
    match request {
        Request::Unit { name } => systemd::unit(&name).await.map(Reply::Unit),
        Request::UnitAction { name, action } => systemd::action(&name, action).await.map(|()| Reply::Done),
        Request::Journal { unit, lines } => systemd::journal(&unit, lines).await.map(Reply::Lines),
        other => Err(not_mine(&other)),
    }
}

async fn done(work: impl FnOnce() -> Outcome<()> + Send + 'static) -> Outcome<Reply> {
    blocking(work).await.map(|()| Reply::Done)
}

fn not_mine(request: &Request) -> Fault {
    Fault::failed(format!("{request:?} was handed to the wrong part of the host"))
}

#[async_trait]
impl Host for LocalHost {
    fn id(&self) -> &HostId {
        &self.id
    }

    async fn call(&self, request: Request) -> Result<Reply, HostError> {
        self.answer(request).await.map_err(|fault| fault.on(&self.id))
    }

    async fn put_file(&self, from: &Utf8Path, to: &HostPath, progress: Progress) -> Result<(), HostError> {
        let (from, to) = (from.to_owned(), self.path(to).map_err(|f| f.on(&self.id))?);
        blocking(move || files::copy(&from, &to, &progress)).await.map_err(|f| f.on(&self.id))
    }

    async fn get_file(&self, from: &HostPath, to: &Utf8Path, progress: Progress) -> Result<(), HostError> {
        let (from, to) = (self.path(from).map_err(|f| f.on(&self.id))?, to.to_owned());
        blocking(move || files::copy(&from, &to, &progress)).await.map_err(|f| f.on(&self.id))
    }
}
