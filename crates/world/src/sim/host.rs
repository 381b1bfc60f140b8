//! A host of the simulated world: files are real and under a folder of its own, everything else is simulated.

use super::faults::{Fate, Faults};
use super::state::State;
use crate::fault::{Fault, Outcome};
use crate::host::{Host, HostError, HostErrorKind, Progress, Reply, Request};
use crate::local::LocalHost;
use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::host::DiskFacts;
use rekindle_model::{HostId, HostPath};
use std::sync::{Arc, Mutex, PoisonError};

/// One host.
pub(super) struct SimHost {
    id: HostId,
    root: Utf8PathBuf,
    files: LocalHost,
    state: Arc<Mutex<State>>,
    faults: Arc<Faults>,
}

impl SimHost {
    pub(super) fn new(id: HostId, root: Utf8PathBuf, state: Arc<Mutex<State>>, faults: Arc<Faults>) -> Self {
        Self { files: LocalHost::new(id.clone(), root.clone()), id, root, state, faults }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> Outcome<T>) -> Result<T, HostError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut state).map_err(|fault| fault.on(&self.id))
    }

    async fn fate(&self) -> Result<Fate, HostError> {
        self.faults.meet(&self.id).await.map_err(|fault| fault.on(&self.id))
    }

    /// What was done is done, but the caller does not hear of it.
    fn told<T>(&self, fate: Fate, result: Result<T, HostError>) -> Result<T, HostError> {
        let lost = Fault { kind: HostErrorKind::Unreachable, what: "connection lost".into() };
        if fate == Fate::AnswerLost { Err(lost.on(&self.id)) } else { result }
    }

    fn room(&self) -> Result<(), HostError> {
        if self.faults.is_full(&self.id) {
            return Err(Fault::refused("no space left on device").on(&self.id));
        }
        Ok(())
    }

    async fn answer(&self, request: Request) -> Result<Reply, HostError> {
        match request {
            Request::Disk { .. } if self.faults.is_full(&self.id) => {
                let full = DiskFacts {
                    free_bytes: 0,
                    total_bytes: 1 << 30,
                    free_inodes: Some(9),
                    read_only: false,
                    device: 1,
                };
                Ok(Reply::Disk(full))
            }
            Request::Write { .. } | Request::WriteMember { .. } | Request::ReplayStore { .. } => {
                self.room()?;
                self.file(request).await
            }
            Request::Unit { name } => self.with(|s| s.unit(&self.id, &name).map(Reply::Unit)),
            Request::UnitAction { name, action } => {
                self.with(|s| s.unit_action(&self.id, &name, action)).map(|()| Reply::Done)
            }
            Request::Containers => self.with(|s| s.containers(&self.id).map(Reply::Containers)),
            Request::StopPod { sandbox_id } => {
                self.with(|s| s.stop_pod(&self.id, &sandbox_id)).map(|()| Reply::Done)
            }
            Request::RemovePods => self.with(|s| s.remove_pods(&self.id)).map(|()| Reply::Done),
            Request::EtcdLive { .. } => self.with(|s| Ok(Reply::EtcdLive(Box::new(s.etcd_live(&self.id))))),
            Request::Etcd { endpoint, call } => self.with(|s| {
                let at = s.host_at(&self.id, &endpoint.url);
                s.etcd_call(&at, &self.root, call)
            }),
            Request::Api(request) => self.with(|s| s.api(&self.id, &request).map(Reply::Http)),
            Request::HttpGet { url, .. } => self.with(|s| s.http_get(&self.id, &url).map(Reply::Http)),
            Request::ServesPeers { .. } => self.with(|s| Ok(Reply::Serves(s.etcd_serves_peers(&self.id)))),
            Request::Processes { .. } => Ok(Reply::Processes(Vec::new())),
            Request::Journal { .. } => Ok(Reply::Lines(Vec::new())),
            other => self.file(other).await,
        }
    }

    /// A request about files; kubelet sees what became of its manifests.
    async fn file(&self, request: Request) -> Result<Reply, HostError> {
        let changes = matches!(request, Request::Write { .. } | Request::Rename { .. });
        let reply = self.files.call(request).await?;
        if changes {
            self.with(|s| s.settle(&self.id))?;
        }
        Ok(reply)
    }
}

#[async_trait]
impl Host for SimHost {
    fn id(&self) -> &HostId {
        &self.id
    }

    async fn call(&self, request: Request) -> Result<Reply, HostError> {
        if let Request::Claim { .. } = request {
            return self.files.call(request).await; // changes nothing: not a point to die at
        }
        let fate = self.fate().await?;
        let result = self.answer(request).await;
        self.told(fate, result)
    }

    async fn put_file(&self, from: &Utf8Path, to: &HostPath, progress: Progress) -> Result<(), HostError> {
        let fate = self.fate().await?;
        self.room()?;
        let result = self.files.put_file(from, to, progress).await;
        self.told(fate, result)
    }

    async fn get_file(&self, from: &HostPath, to: &Utf8Path, progress: Progress) -> Result<(), HostError> {
        let fate = self.fate().await?;
        let result = self.files.get_file(from, to, progress).await;
        self.told(fate, result)
    }
}
