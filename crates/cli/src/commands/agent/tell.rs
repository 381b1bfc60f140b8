//! The log: what changed of the stream, one line each.

use super::Agent;
use crate::output::Level;
use rekindle_agent::{Health, Rpo};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What lasts no longer than this is no line in the log: a switch to another member, a busy second.
const SETTLE: Duration = Duration::from_secs(5);

/// Runs until it is dropped.
pub(super) async fn run(agent: Arc<Agent>) {
    let mut health = agent.health.clone();
    let mut teller = Teller::default();
    while health.changed().await.is_ok() {
        let lines = teller.lines(&health.borrow_and_update());
        lines.iter().for_each(|line| agent.output.log(line.level, &line.message, &line.fields));
    }
}

/// A line of the log.
struct Line {
    level: Level,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

fn info(message: impl Into<String>) -> Line {
    Line { level: Level::Info, message: message.into(), fields: Vec::new() }
}

fn error(message: impl Into<String>) -> Line {
    Line { level: Level::Error, ..info(message) }
}

impl Line {
    fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }
}

#[derive(Default)]
struct Teller {
    following: Option<String>,
    gaps: usize,
    was_full: bool,
    unknown_since: Option<Instant>,
    unknown_told: bool,
    diverged: Vec<String>,
}

impl Teller {
    fn lines(&mut self, health: &Health) -> Vec<Line> {
        let mut lines = Vec::new();
        if let Some(url) = health.following.as_ref().filter(|url| self.following.as_ref() != Some(url)) {
            lines.push(info(format!("following {url}")).with("endpoint", url.as_str()));
            self.following = Some(url.clone());
        }
        for gap in health.gaps.iter().skip(self.gaps) {
            let line = error(format!(
                "revisions {} to {} were compacted before they were received ({:?}): a full is taken now",
                gap.first, gap.last, gap.cause
            ));
            lines.push(line.with("firstRevision", gap.first).with("lastRevision", gap.last));
        }
        self.gaps = health.gaps.len();
        if health.spool_full != self.was_full {
            self.was_full = health.spool_full;
            lines.push(if self.was_full {
                error("the spool is full: nothing is received until the vault takes what waits")
            } else {
                info("the spool has room again")
            });
        }
        lines.extend(self.divergence(health));
        lines.extend(self.rpo(health));
        lines
    }

    fn divergence(&mut self, health: &Health) -> Option<Line> {
        let compared = health.compared.as_ref()?;
        if compared.diverged == self.diverged {
            return None;
        }
        self.diverged.clone_from(&compared.diverged);
        let revision = compared.revision;
        let line = if compared.diverged.is_empty() {
            info(format!("all members hold the same data again, as of revision {revision}"))
        } else {
            let members = compared.diverged.join(", ");
            error(format!("members hold other data than the rest, as of revision {revision}: {members}"))
        };
        Some(line.with("revision", revision).with("endpoints", compared.diverged.clone()))
    }

    fn rpo(&mut self, health: &Health) -> Vec<Line> {
        match &health.rpo {
            Rpo::Known { .. } => {
                self.unknown_since = None;
                let revision = health.durable_revision;
                let again = info(format!("all is durable here again, up to revision {revision}"));
                let told = std::mem::take(&mut self.unknown_told);
                told.then(|| again.with("revision", revision)).into_iter().collect()
            }
            Rpo::Unknown { why, .. } => {
                let since = *self.unknown_since.get_or_insert_with(Instant::now);
                if since.elapsed() <= SETTLE || std::mem::replace(&mut self.unknown_told, true) {
                    return Vec::new();
                }
                let unknown = error(format!("what would be lost is not known: {why}"));
                [unknown].into_iter().chain(refusals(health)).collect()
            }
        }
    }
}

fn refusals(health: &Health) -> impl Iterator<Item = Line> {
    health.members.iter().filter_map(|member| {
        let why = member.state.as_ref().err()?;
        Some(info(format!("{} is not followed: {why}", member.url)).with("endpoint", member.url.as_str()))
    })
}
