//! `rekindle agent`: the change stream followed, spooled and put into the vault, with a full every interval.
//!
//! ```text
//! etcd ──▶ rekindle_agent::follow ──▶ spool/*.seg ──▶ ship.rs ──▶ vault/segment
//!   │                                       held/*.seg ──▶ merge.rs ──▶ vault/segment, one an hour
//!   └───── fulls.rs (the code of `backup run`) ─────────────────▶ vault/full
//! ```
//! `state.rs` remembers where the stream stands; `metrics.rs`, `serve.rs` and `tell.rs` say what could be lost now.

mod config;
mod fulls;
mod merge;
mod metrics;
mod quiet;
mod serve;
mod ship;
mod state;
mod tell;

pub(crate) use config::AgentConfig;

use crate::args::Agent as Args;
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use config::Settings;
use metrics::Tally;
use rekindle_agent::{FollowConfig, Health, follow};
use rekindle_vault::{Vault, Writer};
use state::State;
use std::os::unix::fs::DirBuilderExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OnceCell, watch};

/// A segment is closed when it has this many bytes, however young it is.
const SEGMENT_BYTES: u64 = 16 << 20;
/// So long what is still in the spool may take into the vault at the end; what does not make it stays for the next start.
const FAREWELL: Duration = Duration::from_secs(20);

/// What the parts of the agent share.
struct Agent {
    settings: Settings,
    state: Mutex<State>,
    tally: Mutex<Tally>,
    health: watch::Receiver<Health>,
    vault: OnceCell<(Vault, Writer)>,
    output: Output,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let runtime = connect::runtime()?;
    runtime.block_on(async {
        let settings = Settings::read(&args.config).await?;
        if args.check_config {
            settings.store().doing(|| format!("the vault {} can't be opened", settings.vault))?;
            output.say(&format!("{} is good", args.config));
            return Ok(Exit::Ok);
        }
        serve(settings, output).await
    })
}

async fn serve(settings: Settings, output: &Output) -> Result<Exit, Failure> {
    let doing = || "cannot listen to signals".to_owned();
    let mut terminate = signal(SignalKind::terminate()).doing(doing)?;
    let mut interrupt = signal(SignalKind::interrupt()).doing(doing)?;
    let dir = settings.state_dir.clone();
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.doing(|| format!("cannot make {dir}"))?;
    let listener = TcpListener::bind(settings.listen).await;
    let listener = listener.doing(|| format!("cannot listen on {}", settings.listen))?;
    let state = tokio::select! {
        state = State::begin(&settings, output) => state?,
        _ = terminate.recv() => return Ok(Exit::Ok),
        _ = interrupt.recv() => return Ok(Exit::Ok),
    };
    let follows = FollowConfig {
        endpoints: settings.endpoints.clone(),
        root: "/".into(),
        spool: settings.spool(),
        timeline: state.timeline_id()?,
        cluster_id: state.identity.etcd_cluster_id.map(|id| id.0),
        from_revision: state.next_revision(),
        writer: settings.writer.to_string(),
        segment_bytes: SEGMENT_BYTES,
        segment_age: settings.segment_age,
        spool_bytes_max: settings.spool_max_bytes,
        prove_every: settings.prove_every,
    };
    let (publish, health) = watch::channel(Health::default());
    let (state, tally) = (Mutex::new(state), Mutex::default());
    let output = Output { format: output.format, live: false };
    let agent = Agent { settings, state, tally, health, vault: OnceCell::new(), output };
    let agent = std::sync::Arc::new(agent);
    let (end, ended) = watch::channel(false);
    let shipping = tokio::spawn(ship::run(agent.clone(), ended.clone()));
    let fulls = tokio::spawn(fulls::run(agent.clone()));
    let merging = tokio::spawn(merge::run(agent.clone()));
    let quiet = tokio::spawn(quiet::run(agent.clone()));
    let served = tokio::spawn(serve::run(listener, agent.clone()));
    let telling = tokio::spawn(tell::run(agent.clone()));
    agent.say(&format!(
        "following into {}, metrics on http://{}/metrics",
        agent.settings.vault, agent.settings.listen
    ));
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
    };
    let followed = follow(follows, publish, stop).await;
    // the stream is on the disk to its end: what is left is to store it
    fulls.abort();
    merging.abort();
    quiet.abort();
    end.send_replace(true);
    if tokio::time::timeout(FAREWELL, shipping).await.is_err() {
        agent.say("the vault takes too long: what is not stored stays in the spool for the next start");
    }
    served.abort();
    telling.abort();
    followed.doing(|| "the change stream can't be followed".into())?;
    Ok(Exit::Ok)
}

impl Agent {
    fn say(&self, line: &str) {
        self.output.say(line);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known, on the disk first.
    fn remember(&self, change: impl FnOnce(&mut State)) -> Result<(), Failure> {
        let mut state = self.state();
        let mut next = state.clone();
        change(&mut next);
        next.write(&self.settings.state_dir)?;
        *state = next;
        Ok(())
    }

    /// The vault, as soon as it can be reached.
    async fn vault(&self) -> Result<&(Vault, Writer), Failure> {
        let reach = || async {
            let (settings, doing) = (&self.settings, || format!("cannot reach {}", self.settings.vault));
            let store = settings.store().doing(doing)?;
            let vault = Vault::new(&store, settings.cluster.clone(), &settings.signers).doing(doing)?;
            let writer = vault.writer(settings.writer.clone(), settings.key()?, settings.recipients.clone());
            let writer = writer.await.doing(doing)?;
            Ok((vault, writer))
        };
        self.vault.get_or_try_init(reach).await
    }

    /// A failure of what is tried again: counted, and said once.
    fn failed(&self, failure: &Failure) {
        let mut text = failure.to_string();
        let mut next = std::error::Error::source(failure);
        while let Some(cause) = next {
            text.push_str(&format!(": {cause}"));
            next = cause.source();
        }
        let mut tally = self.tally();
        tally.errors += 1;
        let known = tally.is_failing && tally.last_error.as_ref() == Some(&text);
        if !known {
            self.say(&format!("error: {text}"));
        }
        (tally.is_failing, tally.last_error) = (true, Some(text));
    }

    /// Something was stored.
    fn succeeded(&self) {
        if std::mem::take(&mut self.tally().is_failing) {
            self.say("the vault takes backups again");
        }
    }
}
