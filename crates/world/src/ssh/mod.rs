//! A machine reached over the user's own OpenSSH (configuration, jump hosts and agent included), as a [`Host`].
//!
//! `bootstrap` makes the channel: the program sends itself and is started there as `serve`; [`serve()`] is that far
//! end, `channel` the near one; `frame` is what they say to each other (drawn in `docs/formats/ssh-frames.md`), `wire`
//! what both share, `transfer` how a file crosses.

mod bootstrap;
mod channel;
mod frame;
mod serve;
#[cfg(test)]
mod tests;
mod transfer;
mod wire;

use crate::Progress;
use crate::fault::{Fault, Outcome};
use crate::host::{Host, HostError, HostErrorKind, Reply, Request};
use async_trait::async_trait;
use bootstrap::Session;
use camino::{Utf8Path, Utf8PathBuf};
use channel::Channel;
use rekindle_model::{HostId, HostPath, RunId};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

pub use serve::serve;

/// How long a host that could not be reached is taken for unreachable without trying again: a reading asks a host
/// dozens of things, and each attempt may take as long as a login.
const TRY_AGAIN: Duration = Duration::from_secs(15);

/// How hosts are reached.
#[derive(Clone, Debug, Default)]
pub struct SshOptions {
    /// Configuration file for ssh (`-F`); none = the user's.
    pub config: Option<Utf8PathBuf>,
    /// Program to send instead of this one, for hosts of another architecture.
    pub helper: Option<Utf8PathBuf>,
    /// Whether to become root there with `sudo -n`.
    pub sudo: bool,
}

/// A host behind an `ssh` session. A session that broke is opened anew by the next request.
pub struct SshHost {
    id: HostId,
    options: SshOptions,
    state: Mutex<State>,
    /// The run this host is claimed for: a new session claims it again.
    claimed: Mutex<Option<RunId>>,
}

enum State {
    Open(Arc<Channel>),
    Failed(Fault, Instant),
}

impl SshHost {
    /// Connects to a host.
    ///
    /// # Errors
    /// `Unreachable`, with the last words of ssh; `Refused` when the program can't run there.
    pub async fn connect(id: HostId, options: SshOptions) -> Result<Self, HostError> {
        let host = Self::attempt(id, options).await;
        let failed = match &*host.state.lock().await {
            State::Open(_) => None,
            State::Failed(fault, _) => Some(fault.clone().on(&host.id)),
        };
        failed.map_or(Ok(host), Err)
    }

    /// Connects to a host; one that can't be reached answers every request with the reason why, and is tried again
    /// by requests that come later.
    pub async fn connect_or_unreachable(id: HostId, options: SshOptions) -> Arc<dyn Host> {
        Arc::new(Self::attempt(id, options).await)
    }

    async fn attempt(id: HostId, options: SshOptions) -> Self {
        let state = Mutex::new(State::of(connect(&id, &options).await.map(Arc::new)));
        Self { id, options, state, claimed: Mutex::default() }
    }

    /// The open channel, or a new one.
    async fn channel(&self) -> Outcome<Arc<Channel>> {
        let mut state = self.state.lock().await;
        match &*state {
            State::Open(channel) if channel.ended().is_none() => return Ok(channel.clone()),
            State::Failed(fault, when) if when.elapsed() < TRY_AGAIN => return Err(fault.clone()),
            State::Open(_) | State::Failed(..) => {}
        }
        let opened = self.open_again().await;
        *state = State::of(opened.clone());
        opened
    }

    async fn open_again(&self) -> Outcome<Arc<Channel>> {
        let channel = connect(&self.id, &self.options).await.map(Arc::new)?;
        if let Some(run) = self.claimed.lock().await.clone() {
            channel.call(&Request::Claim { run }).await?;
        }
        Ok(channel)
    }

    async fn asked(&self, request: &Request) -> Outcome<Reply> {
        let reply = self.channel().await?.call(request).await?;
        if let Request::Claim { run } = request {
            *self.claimed.lock().await = Some(run.clone());
        }
        Ok(reply)
    }
}

impl State {
    fn of(opened: Outcome<Arc<Channel>>) -> Self {
        match opened {
            Ok(channel) => Self::Open(channel),
            Err(fault) => Self::Failed(fault, Instant::now()),
        }
    }
}

async fn connect(id: &HostId, options: &SshOptions) -> Outcome<Channel> {
    bootstrap::check_destination(id)?;
    let Session { mut child, stdin, stdout, mut stderr } = bootstrap::open(id, options).await?;
    let why_ended = move |ended: std::io::Result<()>| async move {
        let garbled = ended.err().filter(|e| e.kind() == std::io::ErrorKind::InvalidData);
        if let Some(garbled) = garbled {
            return format!("the channel is garbled: {garbled}");
        }
        let status = tokio::time::timeout(Duration::from_secs(2), child.wait()).await;
        bootstrap::ended(status.ok().and_then(Result::ok), &mut stderr).await
    };
    Ok(Channel::new(stdout, stdin, why_ended))
}

#[async_trait]
impl Host for SshHost {
    fn id(&self) -> &HostId {
        &self.id
    }

    async fn call(&self, request: Request) -> Result<Reply, HostError> {
        self.asked(&request).await.map_err(|fault| fault.on(&self.id))
    }

    async fn put_file(&self, from: &Utf8Path, to: &HostPath, progress: Progress) -> Result<(), HostError> {
        let put = async { self.channel().await?.put(from, to, &progress).await };
        put.await.map_err(|fault| crossing(fault, &format!("send {from} to {to}")).on(&self.id))
    }

    async fn get_file(&self, from: &HostPath, to: &Utf8Path, progress: Progress) -> Result<(), HostError> {
        let get = async { self.channel().await?.get(from, to, &progress).await };
        get.await.map_err(|fault| crossing(fault, &format!("fetch {from} to {to}")).on(&self.id))
    }
}

/// Says which file it was about.
fn crossing(fault: Fault, what: &str) -> Fault {
    match fault.kind {
        HostErrorKind::Unreachable => fault,
        _ => Fault { what: format!("{what}: {}", fault.what), ..fault },
    }
}
