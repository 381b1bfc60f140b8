//! What the agent is told while it runs: SIGTERM and SIGINT end it, SIGHUP makes it read its configuration again.

use super::Agent;
use super::config::Config;
use crate::failure::{Doing, Failure};
use crate::output::{Level, Output};
use camino::Utf8PathBuf;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Why the agent does not go on as it is.
pub(super) enum End {
    /// It is to end.
    Stop,
    /// It is to begin anew, with this configuration.
    Again(Box<Config>),
}

/// The signals it listens to.
pub(super) struct Signals {
    config: Utf8PathBuf,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// `config`: the file to be read again.
    pub(super) fn listen(config: Utf8PathBuf) -> Result<Self, Failure> {
        let listen = |kind| signal(kind).doing(|| "cannot listen to signals".into());
        Ok(Self {
            config,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits until the agent is to end, or to begin anew. What a running `agent` can take over it does meanwhile, and a
    /// file that is not good changes nothing.
    pub(super) async fn end(&mut self, agent: Option<&Agent>, output: &Output) -> End {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return End::Stop,
                _ = self.interrupt.recv() => return End::Stop,
                _ = self.hangup.recv() => {}
            }
            let read =
                Config::read(&self.config).await.and_then(|config| config.check_vault().map(|()| config));
            if let Some(agent) = agent {
                agent.tally().reload_failed = read.is_err();
            }
            match (read, agent) {
                (Ok(config), Some(agent)) if config.settings == agent.settings => {
                    agent.take_over(config.live).await;
                    output.say(&format!("{} is taken over; the stream goes on", self.config));
                }
                (Ok(config), _) => {
                    output.say(&format!("{} is taken over: the agent begins anew", self.config));
                    return End::Again(Box::new(config));
                }
                (Err(failure), _) => {
                    let told = format!("{} is refused, the old one goes on: {}", self.config, failure.line());
                    output.log(Level::Error, &told, &[("file", self.config.as_str().into())]);
                }
            }
        }
    }
}
