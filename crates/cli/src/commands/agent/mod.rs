//! `rekindle agent`: the change stream followed, spooled and put into the vault, with fulls on a schedule.
//!
//! ```text
//! etcd ──▶ rekindle_agent::follow ──▶ spool/*.seg ──▶ ship.rs ──▶ vault/segment
//!   │                                       held/*.seg ──▶ merge.rs ──▶ vault/segment, one an hour
//!   └───── fulls.rs (the code of `backup run`) ─────────────────▶ vault/full
//! ```
//! `state.rs` remembers where the stream stands; `metrics.rs`, `serve.rs` and `tell.rs` say what could be lost now;
//! `drill.rs` and `verify.rs` prove the vault, `runbook.rs` keeps the runbook current; `signals.rs` takes over a changed configuration; of several agents `lease.rs` lets one write, and `standby.rs` the
//! others wait.

mod config;
mod drill;
mod fulls;
mod lease;
mod merge;
mod metrics;
mod quiet;
mod runbook;
mod schedule;
mod serve;
mod ship;
mod signals;
mod standby;
mod state;
mod tell;
mod verify;

pub(crate) use config::AgentConfig;
pub(super) use config::{DrillDefaults, NodesConfig};

use crate::args::Agent as Args;
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::{Level, Output};
use config::{Config, Live, Settings};
use lease::Lease;
use metrics::Tally;
use rekindle_agent::{FollowConfig, Health, follow};
use rekindle_vault::{Vault, Writer};
use signals::{End, Signals};
use state::State;
use std::os::unix::fs::DirBuilderExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A segment is closed when it has this many bytes, however young it is.
const SEGMENT_BYTES: u64 = 16 << 20;
/// So long what is still in the spool may take into the vault at the end; what does not make it stays for the next start.
const FAREWELL: Duration = Duration::from_secs(20);

/// What the parts of the agent share.
struct Agent {
    settings: Settings,
    live: Mutex<Arc<Live>>,
    state: Mutex<State>,
    tally: Mutex<Tally>,
    health: watch::Receiver<Health>,
    vault: tokio::sync::Mutex<Option<Arc<(Vault, Writer)>>>,
    output: Output,
    /// When it began, milliseconds since the Unix epoch.
    begun_ms: i64,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let runtime = connect::runtime()?;
    let output = Output { live: false, ..*output };
    runtime.block_on(async {
        let mut config = Config::read(&args.config).await?;
        if args.check_config {
            config.check_vault()?;
            output.say(&format!("{} is good", args.config));
            return Ok(Exit::Ok);
        }
        let mut signals = Signals::listen(args.config.clone())?;
        loop {
            match serve(config, &mut signals, output).await? {
                End::Stop => return Ok(Exit::Ok),
                End::Again(changed) => config = *changed,
            }
        }
    })
}

/// Runs with one configuration, until another is to be taken, or the end.
async fn serve(config: Config, signals: &mut Signals, output: Output) -> Result<End, Failure> {
    let settings = &config.settings;
    let dir = &settings.state_dir;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.doing(|| format!("cannot make {dir}"))?;
    let listener = TcpListener::bind(settings.listen).await;
    let listener = Arc::new(listener.doing(|| format!("cannot listen on {}", settings.listen))?);
    let (mut lease, end) = standby::wait(&config, &listener, signals, &output).await?;
    if let Some(end) = end {
        return Ok(end);
    }
    let end = follow_and_store(config, listener, lease.as_mut(), signals, output).await;
    if let Some(lease) = &mut lease {
        lease.release().await;
    }
    end
}

/// From where the stream stands until told otherwise.
async fn follow_and_store(
    config: Config,
    listener: Arc<TcpListener>,
    lease: Option<&mut Lease>,
    signals: &mut Signals,
    output: Output,
) -> Result<End, Failure> {
    let state = tokio::select! {
        state = State::begin(&config.settings, &config.live, lease.is_some(), &output) => state?,
        end = signals.end(None, &output) => return Ok(end),
    };
    let Config { settings, live } = config;
    let (publish, health) = watch::channel(Health::default());
    let agent = Arc::new(Agent {
        settings,
        live: Mutex::new(Arc::new(live)),
        state: Mutex::new(state),
        tally: Mutex::default(),
        health,
        vault: tokio::sync::Mutex::default(),
        output,
        begun_ms: jiff::Timestamp::now().as_millisecond(),
    });
    let served = tokio::spawn(serve::run(listener, agent.clone()));
    let end = write(&agent, publish, lease, signals).await;
    served.abort();
    // its port is free when it has ended
    let _ = served.await;
    end
}

/// Follows and stores, until told otherwise.
async fn write(
    agent: &Arc<Agent>,
    publish: watch::Sender<Health>,
    lease: Option<&mut Lease>,
    signals: &mut Signals,
) -> Result<End, Failure> {
    if lease.is_some() {
        // what an earlier turn left: the stream goes on where the vault's newest writer stood
        if let Err(failure) = ship::all(agent).await {
            agent.failed(&failure);
        }
    }
    let follows = agent.follows()?;
    let (closing, ended) = watch::channel(false);
    let shipping = tokio::spawn(ship::run(agent.clone(), ended));
    let helpers = [
        tokio::spawn(fulls::run(agent.clone())),
        tokio::spawn(merge::run(agent.clone())),
        tokio::spawn(quiet::run(agent.clone())),
        tokio::spawn(verify::run(agent.clone())),
        tokio::spawn(drill::run(agent.clone())),
        tokio::spawn(runbook::run(agent.clone())),
        tokio::spawn(tell::run(agent.clone())),
    ];
    let Settings { vault, listen, .. } = &agent.settings;
    agent.say(&format!("following into {vault}, metrics on http://{listen}/metrics"));
    let mut end = End::Stop;
    let stop = async {
        let lost = async {
            match lease {
                Some(lease) => {
                    lease.keep(&agent.output, || agent.health.borrow().following.is_some()).await;
                }
                None => std::future::pending().await,
            }
        };
        end = tokio::select! {
            end = signals.end(Some(&**agent), &agent.output) => end,
            () = lost => End::Again(Box::new(agent.config())),
        };
    };
    let followed = follow(follows, publish, stop).await;
    // the stream is on the disk to its end: what is left is to store it
    helpers.iter().for_each(tokio::task::JoinHandle::abort);
    closing.send_replace(true);
    if tokio::time::timeout(FAREWELL, shipping).await.is_err() {
        agent.say("the vault takes too long: what is not stored stays in the spool for the next start");
    }
    followed.doing(|| "the change stream can't be followed".into())?;
    Ok(end)
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

    /// What may change while the stream goes on, as it is now.
    fn live(&self) -> Arc<Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn config(&self) -> Config {
        Config { settings: self.settings.clone(), live: (*self.live()).clone() }
    }

    fn follows(&self) -> Result<FollowConfig, Failure> {
        let (settings, state) = (&self.settings, self.state());
        Ok(FollowConfig {
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
        })
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
    async fn vault(&self) -> Result<Arc<(Vault, Writer)>, Failure> {
        let mut reached = self.vault.lock().await;
        if let Some(reached) = &*reached {
            return Ok(reached.clone());
        }
        let (settings, live) = (&self.settings, self.live());
        let doing = || format!("cannot reach {}", settings.vault);
        let store = live.store(&settings.vault).doing(doing)?;
        let vault = Vault::new(&store, settings.cluster.clone(), &live.signers).doing(doing)?;
        let writer = vault.writer(settings.writer.clone(), live.key()?, live.recipients.clone());
        let writer = writer.await.doing(doing)?;
        Ok(reached.insert(Arc::new((vault, writer))).clone())
    }

    /// Goes on with other credentials, keys and schedules; what is under way ends with the old ones.
    async fn take_over(&self, live: Live) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
        *self.vault.lock().await = None;
    }

    /// A failure of what is tried again: counted, and said once.
    fn failed(&self, failure: &Failure) {
        let text = failure.line();
        let mut tally = self.tally();
        tally.errors += 1;
        let known = tally.is_failing && tally.last_error.as_ref() == Some(&text);
        if !known {
            self.output.log(Level::Error, &text, &[("vault", self.settings.vault.as_str().into())]);
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
